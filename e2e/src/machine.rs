//! A network namespace that plays a machine of its own, for one test.

use std::io;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

/// The machine's address on its only interface besides loopback.
pub const ADDRESS: &str = "192.168.77.1";

/// Moves the calling thread, and the processes and threads that it starts from now on, into a network namespace of their
/// own with one interface. It ends with the last of them.
pub fn isolate() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    for command in [
        "ip link set lo up",
        // With an address of its own: a bridge without one changes it with its ports, and whoever knows it under the old
        // one can't reach it for a while.
        "ip link add lan0 address 02:00:c0:a8:4d:01 type bridge",
        &format!("ip address add {ADDRESS}/24 dev lan0"),
        "ip link set lan0 up",
        "ip route add default via 192.168.77.254 dev lan0",
    ] {
        run(command)?;
    }
    Ok(())
}

/// Runs a command of words without spaces in the calling thread's namespace.
pub(crate) fn run(command: &str) -> io::Result<()> {
    let mut words = command.split(' ');
    let done = Command::new(words.next().unwrap_or_default()).args(words).status()?;
    if done.success() { Ok(()) } else { Err(io::Error::other(format!("`{command}` failed"))) }
}
