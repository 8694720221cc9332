//! The nodes of a segment go out under the machine's address.

use std::io;

use crate::addr::Cidr;
use crate::names;
use crate::nft::{Batch, Chain, CommitError, Expr, Hook, Meta, Reg, Socket};

const CHAIN: &str = "postrouting";
const POST_ROUTING: u32 = 4;
const SNAT_PRIORITY: i32 = 100;

/// Makes the table of this name anew.
pub(super) fn ensure(table: &str, segment: Cidr) -> io::Result<()> {
    let mut batch = Batch::new(table);
    // Deleting what isn't there would be an error.
    batch.add_table();
    batch.delete_table();
    batch.add_table();
    let hook = Hook { kind: "nat", number: POST_ROUTING, priority: SNAT_PRIORITY };
    batch.add_chain(&Chain { name: CHAIN.into(), hook: Some(hook) });
    batch.add_rule(CHAIN, &rule(segment));
    Socket::open()?.commit(batch).map_err(failed)
}

/// Removes the table. It may be gone already.
pub(super) fn remove(table: &str) -> io::Result<()> {
    let mut batch = Batch::new(table);
    batch.delete_table();
    match Socket::open()?.commit(batch) {
        Err(error) if error.source.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result.map_err(failed),
    }
}

fn rule(segment: Cidr) -> Vec<Expr> {
    let mut rule = vec![Expr::SourceAddress(Reg(0))];
    rule.extend(Expr::network(Reg(0), Reg(0), segment, true));
    rule.push(Expr::DestinationAddress(Reg(0)));
    rule.extend(Expr::network(Reg(0), Reg(0), segment, false));
    // The machine's own pods know the nodes, and see them under their addresses. The comparison ends with the
    // prefix that all bridges of pods have.
    rule.push(Expr::Meta { key: Meta::OutputInterface, to: Reg(0) });
    rule.push(Expr::NotEqual { from: Reg(0), value: names::POD_BRIDGE_PREFIX.into() });
    rule.push(Expr::Masquerade);
    rule
}

fn failed(error: CommitError) -> io::Error {
    io::Error::new(error.source.kind(), error.to_string())
}
