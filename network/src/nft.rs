//! nf_tables over netlink: the part of it that Skiff's rulesets use, without the `nft` program.
//!
//! - [`Batch`] collects changes of one table; it is pure and turns into bytes.
//! - [`Socket`] hands a batch to the kernel, which takes all of it or nothing.
//! - [`Expr`] and [`Element`] are what rules and sets are made of. Registers are the kernel's 32-bit ones, so
//!   that a concatenated key is simply loaded into neighbouring registers.

mod batch;
mod expr;
mod message;
mod socket;
mod watch;

pub use batch::{Batch, Chain, Element, Hook, Set};
pub use expr::{AddressType, Ct, Expr, Meta, Reg, Reject, Verdict};
pub use socket::{CommitError, Socket};
pub use watch::Watch;

pub(crate) use message::{Attributes, attributes};

/// The families that a table can belong to; Skiff's are for IPv4.
pub(crate) const FAMILY_IPV4: u8 = libc::NFPROTO_IPV4 as u8;
