//! After everything has come to rest: nothing is written any more, and the final look.

use std::time::Duration;

use super::World;

/// I9: but for leases and the heartbeats of nodes, nothing is written.
pub(crate) async fn quiet(world: &World, duration: Duration) {
    // What was noticed in the last moment may still be written.
    world.clock.wait(Duration::from_secs(150)).await;
    world.log.with(|state| state.quiet = true);
    world.clock.wait(duration).await;
    world.log.with(|state| {
        state.quiet = false;
        if let Some(first) = state.noise.first() {
            let text = format!("{} writes although nothing is to be done, first {first}", state.noise.len());
            state.report("I9", text);
        }
    });
}

/// What is looked at once, at the end.
pub(crate) fn final_checks(world: &World) {
    world.log.with(|state| {
        if let Some(key) = state.uids.values().find(|key| !state.live.contains_key(*key)) {
            let text = format!("{key} is indexed but not there");
            state.report("I1", text);
        }
    });
}
