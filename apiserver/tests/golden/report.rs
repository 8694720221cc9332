//! How far the answers agree, as they are and after what is explained is taken off.

use std::collections::BTreeMap;
use std::fmt;

use crate::compare::{Level, differences, levels};
use crate::explained::Explained;
use crate::questions::Answered;

/// The counts, and what nothing explains.
#[derive(Debug, Default)]
pub(crate) struct Report {
    levels: [Counts; 4],
    used: BTreeMap<String, usize>,
    pub(crate) faults: Vec<String>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    equal: usize,
    explained: usize,
}

impl Report {
    /// Compares one answer.
    pub(crate) fn add(&mut self, expected: &Answered, got: &Answered, explained: &Explained) {
        let mut unexplained = Vec::new();
        for difference in differences(expected, got) {
            match explained.of(&expected.id, &difference) {
                None => unexplained.push(difference),
                Some(rows) => {
                    for row in rows {
                        *self.used.entry(explained.because(row).to_owned()).or_default() += 1;
                    }
                }
            }
        }
        for (level, equal) in levels(expected, got) {
            let counts = &mut self.levels[level as usize];
            counts.all += 1;
            counts.equal += usize::from(equal);
            counts.explained += usize::from(!equal && unexplained.is_empty());
        }
        self.faults
            .extend(unexplained.iter().map(|difference| format!("{}\n   {difference:?}", expected.id)));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (level, counts) in [Level::Code, Level::Why, Level::Text, Level::Body].iter().zip(&self.levels) {
            let share = |part: usize| 100 * part * 10 / counts.all.max(1);
            let (raw, all) = (share(counts.equal), share(counts.equal + counts.explained));
            let Counts { all: asked, equal, explained } = counts;
            let name = format!("{level:?}").to_lowercase();
            let (raw, all) = (format!("{}.{} %", raw / 10, raw % 10), format!("{}.{} %", all / 10, all % 10));
            writeln!(f, "{name}: {equal} of {asked} equal ({raw}), {explained} more explained ({all})")?;
        }
        for (because, times) in &self.used {
            writeln!(f, "{times:5} × {because}")?;
        }
        Ok(())
    }
}
