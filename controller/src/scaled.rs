//! Amounts that are given as a number or as a share of another number.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Which way a share that is no whole number goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    Up,
    Down,
}

/// The amount that `value` stands for when 100% is `total`; `None` if it is no number and no percentage.
pub(crate) fn scaled(value: &IntOrString, total: i32, round: Round) -> Option<i32> {
    match value {
        IntOrString::Int(amount) => Some(*amount),
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%')?.parse().ok()?;
            let hundredfold = percent.checked_mul(i64::from(total))?;
            let amount = match round {
                Round::Down => hundredfold.div_euclid(100),
                Round::Up => (hundredfold + 99).div_euclid(100),
            };
            i32::try_from(amount).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_rounded_the_way_that_was_asked_for() {
        for (text, total, up, down) in [
            ("25%", 10, Some(3), Some(2)),
            ("0%", 10, Some(0), Some(0)),
            ("100%", 7, Some(7), Some(7)),
            ("1%", 1, Some(1), Some(0)),
            ("150%", 2, Some(3), Some(3)),
            ("ten", 10, None, None),
            ("5", 10, None, None),
        ] {
            let value = IntOrString::String(text.to_owned());
            assert_eq!(scaled(&value, total, Round::Up), up, "{text} of {total} up");
            assert_eq!(scaled(&value, total, Round::Down), down, "{text} of {total} down");
        }
        assert_eq!(scaled(&IntOrString::Int(3), 10, Round::Up), Some(3));
    }
}
