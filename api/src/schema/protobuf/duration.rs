//! Durations in Go's notation, which JSON has, and in nanoseconds, which protobuf has.

use std::fmt::Write as _;

const SECOND: u64 = 1_000_000_000;

/// Writes nanoseconds as Go does: `1h0m1.5s`, `20ms`.
pub(super) fn text(nanos: i64) -> String {
    let mut out = String::new();
    if nanos < 0 {
        out.push('-');
    }
    let n = nanos.unsigned_abs();
    let (unit, size) = match n {
        0 => return "0s".to_owned(),
        1..1_000 => ("ns", 1),
        1_000..1_000_000 => ("µs", 1_000),
        1_000_000..SECOND => ("ms", 1_000_000),
        _ => {
            let (minutes, rest) = (n / (60 * SECOND), n % (60 * SECOND));
            // Writing to a string cannot fail.
            if minutes >= 60 {
                let _ = write!(out, "{}h", minutes / 60);
            }
            if minutes > 0 {
                let _ = write!(out, "{}m", minutes % 60);
            }
            decimal(&mut out, rest, SECOND);
            out.push('s');
            return out;
        }
    };
    decimal(&mut out, n, size);
    out.push_str(unit);
    out
}

/// `n / unit` without zeros at the end.
fn decimal(out: &mut String, n: u64, unit: u64) {
    let _ = write!(out, "{}", n / unit);
    if !n.is_multiple_of(unit) {
        let digits = unit.ilog10() as usize;
        let fraction = format!("{:0digits$}", n % unit);
        let _ = write!(out, ".{}", fraction.trim_end_matches('0'));
    }
}

/// Reads Go's notation; `None` for what is none or too long.
pub(in crate::schema) fn nanos(text: &str) -> Option<i64> {
    super::super::time::check_duration(text).ok()?;
    let mut rest = text.trim_start_matches(['+', '-']);
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0i128;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            _ => 3_600_000_000_000,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse::<i64>().ok()?.into() };
        total += whole * unit;
        // Digits beyond the 18th are far below a nanosecond.
        let fraction = &fraction[..fraction.len().min(18)];
        if !fraction.is_empty() {
            let scale = 10i128.pow(u32::try_from(fraction.len()).ok()?);
            total += i128::from(fraction.parse::<i64>().ok()?) * unit / scale;
        }
        rest = after;
    }
    i64::try_from(if text.starts_with('-') { -total } else { total }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_and_read_as_go_does() {
        for (n, written) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (20_000_000, "20ms"),
            (30_000_000_000, "30s"),
            (90_000_000_000, "1m30s"),
            (3_601_500_000_000, "1h0m1.5s"),
            (-1_000_000_001, "-1.000000001s"),
        ] {
            assert_eq!((text(n).as_str(), nanos(written)), (written, Some(n)));
        }
        assert_eq!(nanos("1.5h"), Some(5_400_000_000_000));
        assert_eq!((nanos("x"), nanos("9999999999h"), nanos(".s")), (None, None, None));
    }
}
