//! Command lines with what they print, as text that is read like documentation and run like a test.
//!
//! ```text
//! # A comment.
//! $ kubectl get deployments
//! NAME    READY   UP-TO-DATE   AVAILABLE   AGE
//! hello   3/3     3            3           {age}
//!
//! $ kubectl get deployment nothing
//! ! Error from server (NotFound): deployments.apps "nothing" not found
//! => 1
//! ```
//!
//! - A step begins with `$` and a line for a shell; lines with `>` before the output continue it.
//! - Then comes the whole output: first stdout, then stderr behind `!`. Blank lines don't count, nor how wide the gap
//!   between two columns is. `...` stands for any number of lines.
//! - `=> N` is the exit code, if it is not 0.
//! - In an output `{age}`, `{n}`, `{word}` and `{*}` stand for what differs from run to run (see [`Class`]), and `$NAME`
//!   for a variable of the environment.
//! - `[a b]` before a command or a line of output keeps it to the clients that have one of these tags.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::cluster::text;

/// No step takes longer, in seconds; one that does is ended with code 124.
const LONGEST: &str = "60";

/// A step that takes longer is told of.
const SLOW: Duration = Duration::from_secs(3);

/// A command line and what it is to print.
#[derive(Debug, Default)]
struct Step {
    line: usize,
    command: String,
    expected: Vec<String>,
    code: i32,
}

/// The steps of a text that are for a client with these tags.
fn parse(text: &str, all_tags: &[&str], tags: &[&str]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut skipped = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with("# ") || line == "#" {
            continue;
        }
        if let Some(command) = line.strip_prefix("$ ") {
            let (mine, command) = tagged(command, all_tags, tags);
            skipped = !mine;
            if mine {
                steps.push(Step { line: number + 1, command: command.to_owned(), ..Step::default() });
            }
            continue;
        }
        let Some(step) = steps.last_mut().filter(|_| !skipped) else { continue };
        let (mine, line) = tagged(line, all_tags, tags);
        if !mine {
            continue;
        }
        if let Some(more) = line.strip_prefix("> ").filter(|_| step.expected.is_empty()) {
            step.command.push('\n');
            step.command.push_str(more);
        } else if let Some(code) = line.strip_prefix("=> ") {
            step.code = code.trim().parse().expect("an exit code after =>");
        } else {
            step.expected.push(line.to_owned());
        }
    }
    steps
}

/// Whether a line is for a client with these tags, and the line without its brackets.
fn tagged<'a>(line: &'a str, all_tags: &[&str], tags: &[&str]) -> (bool, &'a str) {
    let Some((inside, rest)) = line.strip_prefix('[').and_then(|line| line.split_once(']')) else {
        return (true, line);
    };
    if !inside.split(' ').all(|word| all_tags.contains(&word)) {
        return (true, line);
    }
    let mine = inside.split(' ').any(|word| tags.contains(&word));
    (mine, rest.strip_prefix(' ').unwrap_or(rest))
}

/// What may stand in the place of a name in braces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// `{age}`: 5s, 3m20s, 4d
    Age,
    /// `{n}`: digits
    Number,
    /// `{word}`: anything without a space
    Word,
    /// `{*}`: anything
    Anything,
}

impl Class {
    fn holds(self, c: char) -> bool {
        match self {
            Self::Age => c.is_ascii_digit() || "smhdy".contains(c),
            Self::Number => c.is_ascii_digit(),
            Self::Word => !c.is_whitespace(),
            Self::Anything => true,
        }
    }

    /// The class whose name a text begins with, and what follows it.
    fn at_start(text: &str) -> Option<(Self, &str)> {
        [("{age}", Self::Age), ("{n}", Self::Number), ("{word}", Self::Word), ("{*}", Self::Anything)]
            .into_iter()
            .find_map(|(name, class)| Some((class, text.strip_prefix(name)?)))
    }
}

/// Whether a line is what a pattern says.
fn line_matches(pattern: &str, line: &str) -> bool {
    if let Some((class, rest)) = Class::at_start(pattern) {
        let least = usize::from(class != Class::Anything);
        let ends = line.char_indices().map(|(at, _)| at).chain([line.len()]).skip(least);
        let possible = ends.take_while(|end| line[..*end].chars().all(|c| class.holds(c)));
        return possible.into_iter().any(|end| line_matches(rest, &line[end..]));
    }
    match (pattern.chars().next(), line.chars().next()) {
        (None, None) => true,
        (Some(a), Some(b)) if a == b => line_matches(&pattern[a.len_utf8()..], &line[b.len_utf8()..]),
        _ => false,
    }
}

/// Whether lines are what patterns say.
fn matches(patterns: &[String], lines: &[String]) -> bool {
    match (patterns.split_first(), lines.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "..." => {
            (0..=lines.len()).any(|skipped| matches(rest, &lines[skipped..]))
        }
        (Some((pattern, patterns)), Some((line, lines))) => {
            line_matches(pattern, line) && matches(patterns, lines)
        }
        _ => false,
    }
}

/// A line with every gap between columns of the same width.
fn even(line: &str) -> String {
    let mut even = String::new();
    let mut gap = 0;
    for c in line.trim_end().replace('\t', "  ").chars() {
        gap = if c == ' ' { gap + 1 } else { 0 };
        if gap <= 2 {
            even.push(c);
        }
    }
    even
}

fn lines(text: &str, prefix: &str) -> Vec<String> {
    text.lines().filter(|line| !line.trim().is_empty()).map(|line| even(&format!("{prefix}{line}"))).collect()
}

/// Who runs transcripts: the tags that lines can be kept to, and the environment of the shell.
#[derive(Debug)]
pub struct Reader<'a> {
    /// Every tag that there is.
    pub all_tags: &'a [&'a str],
    /// Those of this client.
    pub tags: &'a [&'a str],
    /// Variables of the shell, which also stand in outputs.
    pub variables: BTreeMap<String, String>,
    /// Shell functions that the steps may call.
    pub prelude: &'a str,
}

impl Reader<'_> {
    /// Runs the steps of a transcript in a directory. What went otherwise than written, in words, for every such step.
    pub fn run(&self, name: &str, text: &str, directory: &Path) -> Vec<String> {
        let steps = parse(text, self.all_tags, self.tags);
        steps.iter().filter_map(|step| self.step(name, step, directory)).collect()
    }

    fn step(&self, name: &str, step: &Step, directory: &Path) -> Option<String> {
        let started = Instant::now();
        let output = Command::new("timeout")
            .args(["-k", "1", LONGEST, "bash", "-c", &format!("{}\n{}", self.prelude, step.command)])
            .envs(&self.variables)
            .current_dir(directory)
            .stdin(Stdio::null())
            .output()
            .expect("a shell");
        if started.elapsed() > SLOW {
            println!("{name}.txt:{} took {:.1} s", step.line, started.elapsed().as_secs_f32());
        }
        let mut seen = lines(&text(&output.stdout), "");
        seen.extend(lines(&text(&output.stderr), "! "));
        let expected: Vec<String> = step.expected.iter().map(|line| even(&self.filled(line))).collect();
        let code = output.status.code().unwrap_or(-1);
        if matches(&expected, &seen) && code == step.code {
            return None;
        }
        let told = |lines: &[String], known: &dyn Fn(&str) -> bool| -> String {
            lines.iter().map(|line| format!("  {} {line}\n", if known(line) { ' ' } else { '*' })).collect()
        };
        let was_seen =
            |pattern: &str| pattern == "..." || seen.iter().any(|line| line_matches(pattern, line));
        let was_expected = |line: &str| expected.iter().any(|pattern| line_matches(pattern, line));
        Some(format!(
            "{name}.txt:{}: $ {}\nexpected ({}):\n{}printed ({code}):\n{}",
            step.line,
            step.command,
            step.code,
            told(&expected, &was_seen),
            told(&seen, &was_expected)
        ))
    }

    /// A line with the variables in it replaced by their values.
    fn filled(&self, line: &str) -> String {
        let mut filled = line.to_owned();
        for (name, value) in self.variables.iter().rev() {
            filled = filled.replace(&format!("${name}"), value);
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_what_differs_from_run_to_run() {
        for (pattern, line, expected) in [
            ("hello", "hello", true),
            ("hello", "hello2", false),
            ("hello-{word}", "hello-5d7f-x", true),
            ("hello-{word}", "hello-", false),
            ("a  {age}", "a  3m20s", true),
            ("a  {age}", "a  soon", false),
            ("{n}/{n}  {*}", "3/3  ", true),
            ("a {*} z", "a b c z", true),
            ("a {*} z", "a b c", false),
        ] {
            assert_eq!(line_matches(pattern, line), expected, "{pattern} {line}");
        }
        let lines = |text: &str| lines(text, "");
        assert!(matches(&lines("a\n...\nz"), &lines("a\nb\n\nc\nz")));
        assert!(matches(&lines("a\n...\nz"), &lines("a\nz")));
        assert!(!matches(&lines("a\n...\nz"), &lines("a\nb")));
        assert_eq!(even("NAME    READY\tAGE  "), even("NAME  READY   AGE"));
    }

    #[test]
    fn a_transcript_is_read_step_by_step() {
        let text = "# note\n$ a b\none\n! two\n=> 3\n\n$ [old] c\nno\n$ [new old] d\n> e\n[old] no\n[x] yes\n[new] yes\n";
        let steps = parse(text, &["old", "new"], &["new"]);
        let told: Vec<_> =
            steps.iter().map(|step| (step.line, &*step.command, &*step.expected, step.code)).collect();
        let (first, second) = (["one", "! two"], ["[x] yes", "yes"]);
        let owned = |lines: [&str; 2]| lines.map(str::to_owned);
        assert_eq!(told, [(2, "a b", &owned(first)[..], 3), (9, "d\ne", &owned(second)[..], 0)]);
    }
}
