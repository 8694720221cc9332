//! Points in time as Go reads and writes them, with Go's messages.

use jiff::{Timestamp, civil::DateTime, tz::Offset};

use crate::field::quote;

const LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
const MICRO_LAYOUT: &str = "2006-01-02T15:04:05.000000Z07:00";

/// Reads a time of which microseconds count. Only what is said of a malformed one differs.
pub(super) fn parse_micro(text: &str) -> Result<Timestamp, String> {
    parse(text).map_err(|error| error.replacen(&quote(LAYOUT), &quote(MICRO_LAYOUT), 1))
}

/// Reads RFC 3339 as strictly as Go does.
pub(super) fn parse(text: &str) -> Result<Timestamp, String> {
    let bad = |rest: &str, element: &str| {
        format!(
            "parsing time {} as {}: cannot parse {} as {}",
            quote(text),
            quote(LAYOUT),
            quote(rest),
            quote(element)
        )
    };
    let out_of_range = |what: &str| format!("parsing time {}: {what} out of range", quote(text));
    let mut rest = text;
    let mut numbers = [0i16; 6];
    let elements =
        [("", "2006", 4), ("-", "01", 2), ("-", "02", 2), ("T", "15", 2), (":", "04", 2), (":", "05", 2)];
    for (number, (before, element, digits)) in numbers.iter_mut().zip(elements) {
        rest = rest.strip_prefix(before).ok_or_else(|| bad(rest, before))?;
        let value = rest.get(..digits).filter(|v| v.bytes().all(|b| b.is_ascii_digit()));
        let value = value.ok_or_else(|| bad(rest, element))?;
        *number = value.parse().map_err(|_| bad(rest, element))?;
        rest = &rest[digits..];
        let limits = match element {
            "01" => Some((1, 12, "month")),
            "15" => Some((0, 23, "hour")),
            "04" => Some((0, 59, "minute")),
            "05" => Some((0, 59, "second")),
            _ => None,
        };
        if let Some((lo, hi, what)) = limits
            && !(lo..=hi).contains(number)
        {
            return Err(out_of_range(what));
        }
    }
    let mut nanos = 0i32;
    if let Some(fraction) = rest.strip_prefix(['.', ',']) {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 {
            let nine: String = fraction[..digits].chars().chain("000000000".chars()).take(9).collect();
            nanos = nine.parse().unwrap_or(0);
            rest = &fraction[digits..];
        }
    }
    let mut offset = 0i32;
    if let Some(after) = rest.strip_prefix('Z') {
        rest = after;
    } else {
        let zone = rest.get(..6).filter(|z| {
            let b = z.as_bytes();
            matches!(b[0], b'+' | b'-') && b[3] == b':' && [1, 2, 4, 5].iter().all(|i| b[*i].is_ascii_digit())
        });
        let zone = zone.ok_or_else(|| bad(rest, "Z07:00"))?;
        let (hours, minutes): (i32, i32) = (zone[1..3].parse().unwrap_or(0), zone[4..6].parse().unwrap_or(0));
        if hours > 24 {
            return Err(out_of_range("time zone offset hour"));
        }
        if minutes >= 60 {
            return Err(out_of_range("time zone offset minute"));
        }
        offset = (hours * 60 + minutes) * 60 * if zone.starts_with('-') { -1 } else { 1 };
        rest = &rest[6..];
    }
    if !rest.is_empty() {
        return Err(format!("parsing time {}: extra text: {}", quote(text), quote(rest)));
    }
    let [year, month, day, hour, minute, second] = numbers;
    let small = |n: i16| i8::try_from(n).unwrap_or(i8::MAX);
    let date =
        DateTime::new(year, small(month), small(day), small(hour), small(minute), small(second), nanos)
            .map_err(|_| out_of_range("day"))?;
    let offset = Offset::from_seconds(offset).map_err(|_| out_of_range("time zone offset hour"))?;
    offset.to_timestamp(date).map_err(|_| out_of_range("year"))
}

/// Writes a time to the second.
pub(super) fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Writes a time to the microsecond.
pub(super) fn micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// True for the time that Go calls zero and writes as null.
pub(super) fn is_zero(time: Timestamp) -> bool {
    time.as_nanosecond() == -62_135_596_800_000_000_000
}

/// The nanoseconds of a duration as Go writes them; upstream's words for what is none.
pub fn duration(text: &str) -> Result<i64, String> {
    check_duration(text)?;
    super::protobuf::nanos(text).ok_or_else(|| format!("time: invalid duration {}", quote(text)))
}

/// Whether a text is a duration as Go writes them: `1h15m30.918s`.
pub(super) fn check_duration(text: &str) -> Result<(), String> {
    let rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return Ok(());
    }
    let invalid = || format!("time: invalid duration {}", quote(text));
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut rest = rest;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        if !number.bytes().any(|b| b.is_ascii_digit()) || number.matches('.').count() > 1 {
            return Err(invalid());
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        match unit {
            "ns" | "us" | "µs" | "μs" | "ms" | "s" | "m" | "h" => {}
            "" => return Err(format!("time: missing unit in duration {}", quote(text))),
            unit => return Err(format!("time: unknown unit {} in duration {}", quote(unit), quote(text))),
        }
        rest = after;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_reads_them() {
        for (text, written) in [
            ("2024-02-29T12:00:00Z", "2024-02-29T12:00:00Z"),
            ("2024-02-29T12:00:00.123456789Z", "2024-02-29T12:00:00Z"),
            ("2024-02-29T14:30:00+02:30", "2024-02-29T12:00:00Z"),
        ] {
            assert_eq!(parse(text).map(seconds), Ok(written.to_owned()));
        }
        assert_eq!(parse("2024-02-29T12:00:00.1Z").map(micros).as_deref(), Ok("2024-02-29T12:00:00.100000Z"));
        let layout = r#"as "2006-01-02T15:04:05Z07:00""#;
        for (text, message) in [
            ("", format!(r#"parsing time "" {layout}: cannot parse "" as "2006""#)),
            (
                "yesterday",
                format!(r#"parsing time "yesterday" {layout}: cannot parse "yesterday" as "2006""#),
            ),
            ("2024-01-01", format!(r#"parsing time "2024-01-01" {layout}: cannot parse "" as "T""#)),
            ("2024-13-01T00:00:00Z", r#"parsing time "2024-13-01T00:00:00Z": month out of range"#.to_owned()),
            ("2023-02-29T00:00:00Z", r#"parsing time "2023-02-29T00:00:00Z": day out of range"#.to_owned()),
            ("2024-01-01T00:00:00Zx", r#"parsing time "2024-01-01T00:00:00Zx": extra text: "x""#.to_owned()),
        ] {
            assert_eq!(parse(text), Err(message));
        }
        let micro = r#"parsing time "" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "" as "2006""#;
        assert_eq!(parse_micro(""), Err(micro.to_owned()));
    }

    #[test]
    fn durations_are_checked_as_go_does() {
        assert_eq!(check_duration("1h15m30.918s"), Ok(()));
        assert_eq!(check_duration("1"), Err(r#"time: missing unit in duration "1""#.to_owned()));
        assert_eq!(check_duration("x"), Err(r#"time: invalid duration "x""#.to_owned()));
        assert_eq!((duration("1.5s"), duration("-2ms")), (Ok(1_500_000_000), Ok(-2_000_000)));
        assert_eq!(duration("9999999h"), Err(r#"time: invalid duration "9999999h""#.to_owned()));
    }
}
