//! The parsers of Skiff under arbitrary bytes.

pub mod mutate;
pub mod targets;

/// Runs the target of this name.
pub fn run(name: &str, data: &[u8]) {
    let target = targets::TARGETS.iter().find(|target| target.name == name);
    (target.expect("a target of this name").run)(data);
}
