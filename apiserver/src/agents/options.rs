//! The options of logs and streams, checked, in the agent's spelling.

use api::field::{FieldError, Path};
use api::status::Status;

use super::escape;
use crate::RequestInfo;
use crate::registry::options::integer;

/// The options of a log.
pub(super) fn of_log(info: &RequestInfo) -> Result<String, Status> {
    let query = &info.query;
    let mut errors = Vec::new();
    let mut out = Vec::new();
    let (tail, limit) = (integer(query, "tailLines")?, integer(query, "limitBytes")?);
    let (seconds, time) = (integer(query, "sinceSeconds")?, query.get("sinceTime"));
    let time = time.filter(|time| *time != "null");
    if let Some(time) = time.filter(|time| time.parse::<jiff::Timestamp>().is_err()) {
        return Err(Status::bad_request(not_a_time(time)));
    }
    if let Some(tail) = tail {
        if tail < 0 {
            errors.push(FieldError::invalid(
                &Path::new("tailLines"),
                tail,
                "must be greater than or equal to 0",
            ));
        }
        out.push(format!("tailLines={tail}"));
    }
    if let Some(limit) = limit {
        if limit < 1 {
            errors.push(FieldError::invalid(&Path::new("limitBytes"), limit, "must be greater than 0"));
        }
        out.push(format!("limitBytes={limit}"));
    }
    match (seconds, time) {
        (Some(_), Some(_)) => {
            let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            errors.push(FieldError::forbidden(&Path::new(""), why));
        }
        (Some(seconds), None) => {
            if seconds < 1 {
                errors.push(FieldError::invalid(
                    &Path::new("sinceSeconds"),
                    seconds,
                    "must be greater than 0",
                ));
            }
            out.push(format!("sinceSeconds={seconds}"));
        }
        (None, Some(time)) => out.push(format!("sinceTime={}", escape(time))),
        (None, None) => {}
    }
    for name in ["follow", "previous", "timestamps"] {
        if query.flag(name) {
            out.push(format!("{name}=true"));
        }
    }
    if let Some(stream) = query.get("stream") {
        if !matches!(stream, "All" | "Stdout" | "Stderr") {
            let known = ["All", "Stderr", "Stdout"];
            errors.push(FieldError::not_supported(&Path::new("stream"), stream, &known));
        }
        if stream != "All" && tail.is_some() {
            let why = "`tailLines` and specific `stream` are mutually exclusive for now";
            errors.push(FieldError::forbidden(&Path::new(""), why));
        }
        out.push(format!("stream={}", escape(stream)));
    }
    if errors.is_empty() {
        Ok(out.join("&"))
    } else {
        Err(Status::invalid("", "PodLogOptions", &info.name, &errors))
    }
}

/// What Go says of a time that is none: which part of the format it was looking for, and where.
fn not_a_time(text: &str) -> String {
    let parts: [(&str, usize); 11] = [
        ("2006", 4),
        ("-", 1),
        ("01", 2),
        ("-", 1),
        ("02", 2),
        ("T", 1),
        ("15", 2),
        (":", 1),
        ("04", 2),
        (":", 1),
        ("05", 2),
    ];
    let (mut rest, mut wanted) = (text, "Z07:00");
    for (part, length) in parts {
        let fits = match rest.get(..length) {
            Some(head) if part.len() == 1 => head == part,
            Some(head) => head.bytes().all(|byte| byte.is_ascii_digit()),
            None => false,
        };
        if !fits {
            wanted = part;
            break;
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    let quoted = api::field::quote;
    let layout = "2006-01-02T15:04:05Z07:00";
    format!(
        "parsing time {} as {}: cannot parse {} as {}",
        quoted(text),
        quoted(layout),
        quoted(rest),
        quoted(wanted)
    )
}

/// Which streams a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

/// The options of exec and attach.
pub(super) fn of_streams(info: &RequestInfo, command: bool) -> Result<(Wanted, String), Status> {
    let query = &info.query;
    let flag = |name| query.flag(name);
    let wanted =
        Wanted { stdin: flag("stdin"), stdout: flag("stdout"), stderr: flag("stderr"), tty: flag("tty") };
    let Wanted { stdin, stdout, stderr, tty } = wanted;
    if !(stdin || stdout || stderr) {
        return Err(Status::bad_request("you must specify at least one of stdin, stdout, stderr"));
    }
    if tty && stderr {
        // What upstream's validation says; a terminal has one output.
        return Err(Status::bad_request("tty and stderr cannot both be true"));
    }
    let flags = [(stdin, "input=1"), (stdout, "output=1"), (stderr, "error=1"), (tty, "tty=1")];
    let mut out: Vec<String> =
        flags.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag.to_owned()).collect();
    if command {
        let words: Vec<String> =
            query.all("command").map(|word| format!("command={}", escape(word))).collect();
        if words.is_empty() {
            return Err(Status::bad_request("you must specify at least one command for the container"));
        }
        out.extend(words);
    }
    Ok((wanted, out.join("&")))
}

/// The ports of a port-forward.
pub(super) fn ports(info: &RequestInfo) -> Result<Vec<i32>, Status> {
    let read = |text: &str| {
        let syntax = || format!("strconv.ParseInt: parsing {}: invalid syntax", api::field::quote(text));
        text.parse::<i32>().map_err(|_| Status::bad_request(syntax()))
    };
    // As other numbers in lists: each value is one, or a list of its own.
    info.query.all("ports").flat_map(|list| list.split(',')).map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_are_none_are_refused_in_gos_words() {
        let layout = "2006-01-02T15:04:05Z07:00";
        for (text, rest, part) in [
            ("x", "x", "2006"),
            ("2026", "", "-"),
            ("2026-1-02T", "1-02T", "01"),
            ("2026-01-02 10:00:00Z", " 10:00:00Z", "T"),
            ("2026-01-02T10:00:00", "", "Z07:00"),
        ] {
            let expected = format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {part:?}");
            assert_eq!(not_a_time(text), expected);
        }
    }
}
