//! Brings the kernel's tables to what is wanted, by differences.

use std::io;

use crate::config::Overlay;
use crate::links::{self, Vxlan};
use crate::names::{self, Names};
use crate::netlink::{Netns, Socket};
use crate::peers::{self, Entries, Local, Wanted};
use crate::{ipam, routes, sysctl};

/// What the tables hold of ours.
#[derive(Debug, Default)]
pub(crate) struct Applier {
    /// None until it was read from the kernel, and after an error.
    there: Option<Entries>,
}

/// The VXLAN device to have, if any node needs it.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) settings: Overlay,
    pub(crate) mtu: u32,
}

impl Applier {
    /// Makes the changes. After an error the next call starts from what the kernel says.
    pub(crate) fn apply(
        &mut self,
        socket: &mut Socket,
        netns: &Netns,
        names: &Names,
        device: &Device,
        local: &Local,
        wanted: &Wanted,
    ) -> io::Result<()> {
        let overlay = if wanted.overlay.is_empty() {
            None
        } else {
            Some(ensure_device(socket, netns, names, device, local)?)
        };
        let there = match self.there.take() {
            Some(there) => there,
            None => observe(socket, names)?,
        };
        let entries = peers::entries(local, wanted, overlay, names.metric);
        let changes = peers::changes(&there, &entries);
        for neighbour in &changes.add.neighbours {
            routes::add_neighbour(socket, neighbour)?;
        }
        for route in &changes.add.routes {
            routes::add(socket, route)?;
        }
        for route in &changes.remove.routes {
            routes::remove(socket, route)?;
        }
        for neighbour in &changes.remove.neighbours {
            routes::remove_neighbour(socket, neighbour)?;
        }
        if overlay.is_none() && links::by_name(socket, &names.overlay)?.is_some() {
            links::delete(socket, &names.overlay)?;
        }
        self.there = Some(entries);
        Ok(())
    }
}

/// Removes the routes and the device of a network.
pub(crate) fn remove(socket: &mut Socket, names: &Names) -> io::Result<()> {
    for route in observe(socket, names)?.routes {
        routes::remove(socket, &route)?;
    }
    links::delete(socket, &names.overlay)
}

fn observe(socket: &mut Socket, names: &Names) -> io::Result<Entries> {
    let mine = |route: &routes::Route| route.metric == names.metric;
    let routes = routes::ours(socket)?.into_iter().filter(mine).collect();
    let neighbours = match links::by_name(socket, &names.overlay)? {
        Some(device) => routes::neighbours(socket, device.index)?.into_iter().collect(),
        None => Default::default(),
    };
    Ok(Entries { routes, neighbours })
}

fn ensure_device(
    socket: &mut Socket,
    netns: &Netns,
    names: &Names,
    device: &Device,
    local: &Local,
) -> io::Result<u32> {
    let vxlan = Vxlan { vni: device.settings.vni, port: device.settings.port, local: local.node_ip };
    let mac = names::overlay_mac(local.node_ip);
    let (link, made) = links::ensure_vxlan(socket, &names.overlay, mac, device.mtu, vxlan)?;
    if made {
        netns.run(|| sysctl::overlay(&names.overlay))?;
    }
    // What is masqueraded on its way into the overlay gets an address that is answered through the overlay.
    let gateway = ipam::gateway(local.pod_cidr);
    links::add_address(socket, link.index, gateway, 32)?;
    for old in links::addresses(socket)? {
        if old.index == link.index && old.address != gateway {
            links::remove_address(socket, old.index, old.address, old.prefix)?;
        }
    }
    Ok(link.index)
}
