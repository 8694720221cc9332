//! What fuzz targets have in common: a parser with inputs that lead into it, and a way to make others of those.
//!
//! Each crate that reads what others write has a module `fuzz` with its targets, so that they reach what is private
//! there. Its tests run them shortly ([`hold`]); the folder `fuzz` and `ctl`'s example run them for long.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::Random;

/// One parser.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub name: &'static str,
    /// Must neither panic nor hang, nor take memory or time out of proportion to its input.
    pub run: fn(&[u8]),
    /// Inputs that are (nearly) right, of which others are made.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// No input becomes longer.
const MOST: usize = 64 * 1024;
/// So many inputs are enough for a test.
const INPUTS: u64 = 300;

/// What parsers look for.
const WORDS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b",",
    b":",
    b"\\",
    b"\\u",
    b"null",
    b"-",
    b"0",
    b"9999999999999999999",
    b"1e999",
    b"\0",
    b"\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xf0\x9f",
    b"\xef\xbb\xbf",
    b"%",
    b"..",
    b"/",
    b"=",
    b"&a ",
    b"*a",
    b"<<: ",
    b"\n  ",
    b"- ",
    b"$patch",
    b"f:",
    b"k:{",
    b"~1",
    b"k8s\0",
    b"\xd9\xd9\xf7",
    b"\xc1",
];

/// Seeds that are text.
pub fn texts(seeds: &[&str]) -> Vec<Vec<u8>> {
    seeds.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Runs each target with its seeds and with some hundred inputs near to them, the same ones each time. Panics with the
/// input that a target does not stand.
pub fn hold(targets: &[Target]) {
    for target in targets {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        let made = (0..INPUTS).map(|number| mutate(&seeds, &Random::seeded(number)));
        for data in seeds.iter().cloned().chain(made) {
            let held = catch_unwind(AssertUnwindSafe(|| (target.run)(&data)));
            assert!(held.is_ok(), "{} with {}", target.name, data.escape_ascii());
        }
    }
}

/// One of the seeds, changed in some places.
pub fn mutate(seeds: &[Vec<u8>], random: &Random) -> Vec<u8> {
    let below = |bound: usize| random.below(bound as u64) as usize;
    let mut data = seeds.get(below(seeds.len())).cloned().unwrap_or_default();
    if below(20) == 0 {
        data = vec![0; below(200)];
        random.fill(&mut data);
    }
    for _ in 0..below(8) {
        let at = below(data.len() + 1);
        let length = below(1 + below(64.min(data.len() - at + 1)));
        match below(8) {
            0 if at < data.len() => data[at] ^= 1 << below(8),
            1 if at < data.len() => data[at] = random.u64() as u8,
            2 => drop(data.drain(at..at + length)),
            3 => data.truncate(at),
            // A part again, or many times: how nesting becomes deep.
            4 => {
                let part = data[at..at + length].repeat(1 + below(1 + below(2000)));
                data.splice(at..at, part);
            }
            5 => drop(data.splice(at..at, WORDS[below(WORDS.len())].repeat(1 + below(1 + below(500))))),
            6 => {
                let other = &seeds[below(seeds.len())];
                let from = below(other.len() + 1);
                data.splice(at.., other[from..].iter().copied());
            }
            _ => drop(data.splice(at..at, WORDS[below(WORDS.len())].iter().copied())),
        }
        data.truncate(MOST);
    }
    data
}
