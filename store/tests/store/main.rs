//! What a store promises, as its users see it.

mod contract;
mod disk;
mod model;
mod suite;
