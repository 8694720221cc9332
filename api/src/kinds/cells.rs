//! The columns and cells that the tables of several kinds share.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::Container,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use serde_json::Value;

use super::check::text;

/// How long ago an object was made.
pub(crate) fn age(meta: &ObjectMeta, now: Timestamp) -> Value {
    since(meta.creation_timestamp.as_ref(), now).into()
}

/// How long ago something was.
pub(crate) fn since(time: Option<&Time>, now: Timestamp) -> String {
    match time {
        Some(time) => human_duration(now.as_second() - time.0.as_second()),
        None => "<unknown>".to_owned(),
    }
}

/// Seconds in the short form that people read: `45s`, `3m20s`, `5h`, `2d3h`, `1y20d`.
pub(crate) fn human_duration(seconds: i64) -> String {
    let two = |large: i64, a: &str, small: i64, b: &str| {
        if small == 0 { format!("{large}{a}") } else { format!("{large}{a}{small}{b}") }
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    match seconds {
        s if s < -1 => "<invalid>".to_owned(),
        s if s < 0 => "0s".to_owned(),
        s if s < 120 => format!("{s}s"),
        s if minutes < 10 => two(minutes, "m", s % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => two(days, "d", hours % 24, "h"),
        _ if hours < 24 * 365 * 2 => format!("{days}d"),
        _ if hours < 24 * 365 * 8 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// The text, or `<none>`.
pub(crate) fn or_none(value: &str) -> Value {
    if value.is_empty() { "<none>".into() } else { value.into() }
}

/// The text, or `<unknown>`.
pub(crate) fn or_unknown(value: &str) -> Value {
    if value.is_empty() { "<unknown>".into() } else { value.into() }
}

/// Labels as `a=b,c=d`, or `<none>`.
pub(crate) fn labels(labels: Option<&BTreeMap<String, String>>) -> Value {
    let pairs: Vec<String> = labels.into_iter().flatten().map(|(k, v)| format!("{k}={v}")).collect();
    or_none(&pairs.join(","))
}

/// The names of containers, and their images.
pub(crate) fn containers(containers: &[Container]) -> [Value; 2] {
    let names: Vec<&str> = containers.iter().map(|c| c.name.as_str()).collect();
    let images: Vec<&str> = containers.iter().map(|c| text(&c.image)).collect();
    [names.join(",").into(), images.join(",").into()]
}

/// Up to three texts in a row, and how many more there are.
pub(crate) fn first_three(items: &[String]) -> String {
    first_of(&items[..items.len().min(3)], items.len())
}

/// The first texts in a row, and how many more there are of so many.
pub(crate) fn first_of(first: &[String], count: usize) -> String {
    match count.saturating_sub(first.len()) {
        0 => first.join(","),
        more => format!("{} + {more} more...", first.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_as_long_as_they_need_to_be() {
        let (m, h, d) = (60, 3600, 86400);
        for (seconds, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (2 * m, "2m"),
            (3 * m + 20, "3m20s"),
            (10 * m, "10m"),
            (179 * m, "179m"),
            (3 * h, "3h"),
            (7 * h + 5 * m, "7h5m"),
            (8 * h + 5 * m, "8h"),
            (47 * h, "47h"),
            (2 * d, "2d"),
            (2 * d + 3 * h, "2d3h"),
            (8 * d + 3 * h, "8d"),
            (729 * d, "729d"),
            (730 * d, "2y"),
            (731 * d, "2y1d"),
            (9 * 365 * d, "9y"),
        ] {
            assert_eq!(human_duration(seconds), text);
        }
    }
}
