//! The parsers of Skiff under arbitrary bytes.

/// Runs the target of this name.
pub fn run(name: &str, data: &[u8]) {
    let target = ctl::fuzz::targets().find(|target| target.name == name);
    (target.expect("a target of this name").run)(data);
}
