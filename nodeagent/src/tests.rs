//! The agent as a whole: a real API server, a runtime in memory, virtual time.

mod ends;
mod starts;
