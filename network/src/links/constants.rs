//! Attribute types of `linux/if_link.h`, `if_addr.h` and `veth.h` that the libc crate has not as numbers.

pub(crate) const IFLA_INFO_KIND: u16 = 1;
pub(crate) const IFLA_INFO_DATA: u16 = 2;
pub(crate) const IFLA_INFO_SLAVE_KIND: u16 = 4;
pub(crate) const IFLA_INFO_SLAVE_DATA: u16 = 5;

pub(crate) const VETH_INFO_PEER: u16 = 1;

pub(crate) const IFLA_BR_MCAST_SNOOPING: u16 = 23;
/// Hairpin mode of a bridge port.
pub(crate) const IFLA_BRPORT_MODE: u16 = 4;

pub(crate) const IFLA_VXLAN_ID: u16 = 1;
pub(crate) const IFLA_VXLAN_LOCAL: u16 = 4;
pub(crate) const IFLA_VXLAN_LEARNING: u16 = 7;
pub(crate) const IFLA_VXLAN_PORT: u16 = 15;

pub(crate) const IFA_ADDRESS: u16 = 1;
pub(crate) const IFA_LOCAL: u16 = 2;
pub(crate) const IFA_BROADCAST: u16 = 4;
