//! Connection tracking entries, through ctnetlink.
//!
//! A UDP "connection" keeps its endpoint for as long as packets flow, also when the endpoint is gone: such
//! entries must be deleted. TCP ends by itself.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::Ipv4Addr;

use crate::nft::{Attributes, Socket, attributes};
use crate::proxy::model::{Endpoint, Frontend};

const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tuple {
    protocol: u8,
    source: Endpoint,
    destination: Endpoint,
}

/// Deletes the UDP entries to these frontends that lead elsewhere than to the endpoints given with them.
/// Returns how many.
pub(crate) fn delete_stale(
    socket: &mut Socket,
    frontends: &[(Frontend, Vec<Endpoint>)],
) -> io::Result<usize> {
    if frontends.is_empty() {
        return Ok(0);
    }
    let mut wanted: HashMap<(Option<Ipv4Addr>, u16), HashSet<Endpoint>> = HashMap::new();
    for (frontend, endpoints) in frontends {
        wanted.entry((frontend.address, frontend.port)).or_default().extend(endpoints);
    }
    let is_stale = |original: &Tuple, reply: &Tuple| {
        let to = original.destination;
        let endpoints = wanted.get(&(Some(to.address), to.port)).or_else(|| wanted.get(&(None, to.port)));
        original.protocol == libc::IPPROTO_UDP as u8
            && endpoints.is_some_and(|endpoints| !endpoints.contains(&reply.source))
    };
    let mut stale: Vec<Vec<u8>> = Vec::new();
    socket.dump(
        GET,
        libc::AF_INET as u8,
        |_| {},
        |kind, payload| {
            if kind != NEW {
                return;
            }
            let part = |wanted| attributes(payload).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
            let (Some(original), Some(reply)) = (part(TUPLE_ORIGINAL), part(TUPLE_REPLY)) else { return };
            if let (Some(from), Some(back)) = (tuple(original), tuple(reply))
                && is_stale(&from, &back)
            {
                let mut request = Vec::new();
                let mut writer = Attributes(&mut request);
                writer.nest(TUPLE_ORIGINAL, |nest| nest.0.extend_from_slice(original));
                for kind in [ID, ZONE] {
                    if let Some(value) = part(kind) {
                        writer.bytes(kind, value);
                    }
                }
                stale.push(request);
            }
        },
    )?;
    for request in &stale {
        let sent =
            socket.request(DELETE, libc::AF_INET as u8, |message| message.0.extend_from_slice(request));
        match sent {
            // It has ended by itself.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            other => other?,
        }
    }
    Ok(stale.len())
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let part = |bytes: &'_ [u8], wanted| {
        attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, v)| v.to_vec())
    };
    let (ip, proto) = (part(bytes, 1)?, part(bytes, 2)?);
    let address = |kind| part(&ip, kind)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets));
    let port = |kind| part(&proto, kind)?.first_chunk::<2>().map(|port| u16::from_be_bytes(*port));
    Some(Tuple {
        protocol: *part(&proto, 1)?.first()?,
        source: Endpoint { address: address(1)?, port: port(2)? },
        destination: Endpoint { address: address(2)?, port: port(3)? },
    })
}
