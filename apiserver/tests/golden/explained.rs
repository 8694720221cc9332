//! Why answers may differ from the recorded ones: `explained.yaml`, read and asked.

use std::fs;

use serde_json::Value;

use crate::compare::{Difference, NOTHING};

/// The list.
#[derive(Debug)]
pub(crate) struct Explained {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    because: String,
    about: Vec<String>,
    what: What,
}

/// What a row explains. In patterns a `*` stands for any text.
#[derive(Debug)]
enum What {
    /// Fields of an object.
    Fields(Vec<Change>),
    /// Words in messages; what is around them must be the same.
    Words(Vec<Change>),
    /// Whole answers: `CODE REASON: MESSAGE`, only the code where something was done.
    Answers(Vec<Change>),
}

#[derive(Debug)]
struct Change {
    at: String,
    was: String,
    is: String,
}

impl Explained {
    /// Reads the list, which must be sound.
    pub(crate) fn read() -> Self {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/explained.yaml");
        let text = fs::read_to_string(file).expect(file);
        let rows: Value = serde_saphyr::from_str(&text).expect("YAML");
        Self { rows: rows.as_array().expect("a list").iter().map(Row::read).collect() }
    }

    /// The number of explanations.
    pub(crate) fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Which rows explain this difference; none if nothing does.
    pub(crate) fn of(&self, id: &str, difference: &Difference) -> Option<Vec<usize>> {
        match difference {
            Difference::Field { at, was, is } => self.row(id, |what| match what {
                What::Fields(changes) => {
                    changes.iter().any(|c| like(&c.at, at) && like(&c.was, was) && like(&c.is, is))
                }
                _ => false,
            }),
            Difference::Answer { was, is } => self.words(id, was, is).or_else(|| {
                self.row(id, |what| match what {
                    What::Answers(changes) => changes.iter().any(|c| like(&c.was, was) && like(&c.is, is)),
                    _ => false,
                })
            }),
        }
    }

    /// Why, in words.
    pub(crate) fn because(&self, row: usize) -> &str {
        &self.rows[row].because
    }

    fn row(&self, id: &str, explains: impl Fn(&What) -> bool) -> Option<Vec<usize>> {
        let found = self.rows.iter().position(|row| row.is_about(id) && explains(&row.what));
        found.map(|row| vec![row])
    }

    /// Puts today's words for those of the recording, as long as that makes the message more like ours.
    fn words(&self, id: &str, was: &str, is: &str) -> Option<Vec<usize>> {
        let rows: Vec<(usize, &Row)> =
            self.rows.iter().enumerate().filter(|(_, row)| row.is_about(id)).collect();
        let (mut now, mut used) = (was.to_owned(), Vec::new());
        loop {
            let before = used.len();
            for (number, row) in &rows {
                let What::Words(changes) = &row.what else { continue };
                for change in changes {
                    let next = reworded(&now, is, change);
                    if next != now {
                        used.push(*number);
                        now = next;
                    }
                }
            }
            // What was reworded in front may let the next words be found.
            if now == is || used.len() == before || used.len() > 100 {
                break;
            }
        }
        (now == is && !used.is_empty()).then_some(used)
    }
}

/// The message with these words replaced wherever the other message has the new ones in their place.
fn reworded(text: &str, is: &str, change: &Change) -> String {
    let mut done = String::new();
    let mut rest = text;
    while let Some(found) = find(&change.was, rest) {
        let (before, length) = found;
        done.push_str(&rest[..before]);
        let old = &rest[before..before + length];
        rest = &rest[before + length..];
        let next =
            is.strip_prefix(&done).and_then(|after| find(&change.is, after)).filter(|(at, _)| *at == 0);
        match next {
            Some((_, length)) => {
                let start = done.len();
                done.push_str(&is[start..start + length]);
            }
            None => done.push_str(old),
        }
    }
    done + rest
}

/// Where a pattern is first found, and the length of the shortest text there that it fits.
fn find(pattern: &str, text: &str) -> Option<(usize, usize)> {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let start = text.find(first)?;
    let mut end = start + first.len();
    for part in parts {
        end += text[end..].find(part)? + part.len();
    }
    Some((start, end - start))
}

/// Whether a text is as the pattern says.
fn like(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}

impl Row {
    fn read(row: &Value) -> Self {
        let because = row["because"].as_str().filter(|text| text.len() > 20);
        let because = because.unwrap_or_else(|| panic!("{row} says nothing")).to_owned();
        let about = match &row["about"] {
            Value::String(one) => vec![one.clone()],
            Value::Array(all) => all.iter().map(text).collect(),
            other => panic!("{because}: about {other}"),
        };
        let changes =
            |key: &str| row[key].as_array().map(|all| all.iter().map(Change::read).collect::<Vec<_>>());
        let what = [
            changes("fields").map(What::Fields),
            changes("words").map(What::Words),
            changes("answers").map(What::Answers),
        ];
        let mut what: Vec<What> = what.into_iter().flatten().collect();
        assert_eq!(what.len(), 1, "{because}: fields, words or answers");
        Self { because, about, what: what.remove(0) }
    }

    fn is_about(&self, id: &str) -> bool {
        self.about.iter().any(|pattern| like(pattern, id))
    }
}

impl Change {
    fn read(change: &Value) -> Self {
        let part = |key: &str| change.get(key).map_or_else(|| NOTHING.to_owned(), text);
        Self { at: part("at"), was: part("was"), is: part("is") }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a text")).to_owned()
}

#[test]
fn patterns_stand_for_any_text_where_they_have_a_star() {
    for (pattern, text, fits) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("*", "", true),
        ("a*c", "abbc", true),
        ("a*c", "abcd", false),
        ("*b*", "abc", true),
        ("a*b*c", "a-b-c", true),
        ("a*b*c", "a-c", false),
    ] {
        assert_eq!(like(pattern, text), fits, "{pattern} {text}");
    }
}

#[test]
fn words_are_replaced_only_where_the_other_message_has_the_new_ones() {
    let change = |was: &str, is: &str| Change { at: String::new(), was: was.to_owned(), is: is.to_owned() };
    for (was, is, change, result) in [
        (
            "no more than 63 characters",
            "no more than 63 bytes",
            change("characters", "bytes"),
            "no more than 63 bytes",
        ),
        (
            "9 characters, 9 characters",
            "9 characters, 9 bytes",
            change("characters", "bytes"),
            "9 characters, 9 bytes",
        ),
        ("value: map[a]{b}: wrong", "value: {b}: wrong", change("map[*]{*}:", "{*}:"), "value: {b}: wrong"),
        (
            "value: map[a]{b}: wrong",
            "value: b: wrong",
            change("map[*]{*}:", "{*}:"),
            "value: map[a]{b}: wrong",
        ),
    ] {
        assert_eq!(reworded(was, is, &change), result);
    }
}
