//! Prometheus' text format.

use std::fmt::{Display, Write};

/// What is written at `/metrics`.
#[derive(Debug, Default)]
pub struct Text(pub String);

impl Text {
    /// Begins a metric: what it says, and of which type it is. `help` has no line ends.
    pub fn metric(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String can't fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One sample of the metric; `labels` as `a="b",c="d"`, or nothing.
    pub fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    /// A metric that is one number.
    pub fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.metric(name, kind, help);
        self.sample(name, "", value);
    }
}

/// A label's value, with what must be escaped in it.
pub fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
