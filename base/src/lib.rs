//! What every asynchronous part of Skiff takes as an argument instead of reading it from the air:
//! the clock ([`Clock`]), randomness ([`Random`]) and the ownership of tasks ([`Tasks`]); the TLS
//! that all of it speaks ([`tls`]); how it counts ([`metrics`]); and what its parsers are tried
//! with ([`fuzz`]).
//!
//! The whole control plane runs in one thread on virtual time from a seed when it is given
//! [`Clock::simulated`] and [`Random::seeded`] inside a paused tokio runtime.

mod clock;
pub mod fuzz;
pub mod metrics;
mod progress;
mod random;
mod tasks;
pub mod tls;

pub use clock::Clock;
pub use progress::Progress;
pub use random::Random;
pub use tasks::{StillRunning, Tasks};
