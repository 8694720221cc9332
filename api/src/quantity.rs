//! Amounts of resources as Kubernetes writes them: `100m`, `1.5Gi`, `2e3`.
//!
//! A [`Quantity`] is an exact number of billionths with the format it was written in. Finer fractions are
//! rounded up (away from zero), amounts beyond 2⁶³−1 are capped, as upstream does. Printing gives the
//! canonical form: no fraction, the largest suffix that leaves an integer, and the same family of suffixes.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

const NANO: i128 = 1_000_000_000;
const MILLI: i128 = 1_000_000;
/// The largest amount, in billionths.
const MAX: i128 = i64::MAX as i128 * NANO;

/// The family of suffixes of a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `n u m k M G T P E`.
    DecimalSi,
    /// `Ki Mi Gi Ti Pi Ei`.
    BinarySi,
    /// `e3`, `e6`, ….
    DecimalExponent,
}

/// An exact amount. Equality and order look at the amount, not at how it was written.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// The text is not a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Number,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

const DECIMAL: [(&str, u32); 10] =
    [("E", 27), ("P", 24), ("T", 21), ("G", 18), ("M", 15), ("k", 12), ("", 9), ("m", 6), ("u", 3), ("n", 0)];
const BINARY: [(&str, u32); 6] = [("Ei", 60), ("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];

impl Quantity {
    /// Reads a quantity in any of its forms.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let (negative, unsigned) = match text.as_bytes().first() {
            None => return Err(ParseError::Format),
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
        };
        let digits_end =
            unsigned.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(digits_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(ParseError::Format);
        }
        let (format, scale) = parse_suffix(suffix)?;
        let nanos = scaled(whole, fraction, scale)?.min(MAX);
        Ok(Self { nanos: if negative { -nanos } else { nanos }, format })
    }

    /// An amount of thousandths.
    pub fn from_milli(milli: i64) -> Self {
        Self { nanos: i128::from(milli) * MILLI, format: Format::DecimalSi }
    }

    /// A whole amount, written in this format.
    pub fn from_value(value: i64, format: Format) -> Self {
        Self { nanos: i128::from(value) * NANO, format }
    }

    /// The amount, rounded up to a whole.
    pub fn value(&self) -> i64 {
        self.rounded_up(NANO)
    }

    /// The amount in thousandths, rounded up.
    pub fn milli_value(&self) -> i64 {
        self.rounded_up(MILLI)
    }

    /// The amount as a floating point number.
    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / NANO as f64
    }

    /// −1, 0 or 1.
    pub fn sign(&self) -> i32 {
        match self.nanos.cmp(&0) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        }
    }

    /// True if the amount has no fraction of a whole.
    pub fn is_integer(&self) -> bool {
        self.nanos % NANO == 0
    }

    /// True if the amount is a whole number of thousandths.
    pub fn is_milli_integer(&self) -> bool {
        self.nanos % MILLI == 0
    }

    /// The format it was written in.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The sum, in this quantity's format unless it is zero.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: (self.nanos + other.nanos).clamp(-MAX, MAX), format }
    }

    /// The difference, in this quantity's format unless it is zero.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.plus(&Self { nanos: -other.nanos, format: other.format })
    }

    fn rounded_up(&self, unit: i128) -> i64 {
        let away_from_zero = self.nanos.signum() * ((self.nanos.abs() + unit - 1) / unit);
        i64::try_from(away_from_zero).unwrap_or(if self.nanos < 0 { i64::MIN } else { i64::MAX })
    }
}

/// What a suffix means: its family, and the power of ten or of two, in billionths for decimal ones.
fn parse_suffix(suffix: &str) -> Result<(Format, Scale), ParseError> {
    if let Some((_, power)) = DECIMAL.iter().find(|(known, _)| *known == suffix) {
        return Ok((Format::DecimalSi, Scale::Ten(i64::from(*power))));
    }
    if let Some((_, power)) = BINARY.iter().find(|(known, _)| *known == suffix) {
        return Ok((Format::BinarySi, Scale::Two(*power)));
    }
    if let Some(exponent) = suffix.strip_prefix(['e', 'E']) {
        let exponent: i64 = exponent.parse().map_err(|_| ParseError::Suffix)?;
        return Ok((Format::DecimalExponent, Scale::Ten(exponent.saturating_add(9))));
    }
    let letters =
        suffix.trim_end_matches(|letter: char| letter.is_ascii_digit()).trim_end_matches(['+', '-']);
    if letters.chars().all(|letter| "eEinumkKMGTP".contains(letter)) {
        Err(ParseError::Suffix)
    } else {
        Err(ParseError::Format)
    }
}

enum Scale {
    /// Power of ten of a billionth.
    Ten(i64),
    /// Power of two of one.
    Two(u32),
}

/// `whole.fraction` × scale in billionths, fractions of them rounded up, capped above [`MAX`].
fn scaled(whole: &str, fraction: &str, scale: Scale) -> Result<i128, ParseError> {
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|digit| digit - b'0').collect();
    let (factor, power) = match scale {
        Scale::Ten(power) => (1_i128, power),
        Scale::Two(power) => (1_i128 << power, 9),
    };
    // Where the decimal point of the result is, counted from the left of the digits.
    let point = i64::try_from(whole.len()).map_err(|_| ParseError::Number)?.saturating_add(power);
    if factor == 1 {
        return Ok(digits_before_point(&digits, point));
    }
    // A binary suffix: the digits are few, so an exact product fits; else it is beyond the cap anyway.
    let significant: i128 = match digits
        .iter()
        .try_fold(0_i128, |sum, &digit| sum.checked_mul(10)?.checked_add(i128::from(digit)))
    {
        Some(number) => number,
        None => return Ok(capped_product(&digits, whole.len(), factor)),
    };
    let Some(product) = significant.checked_mul(factor) else {
        return Ok(capped_product(&digits, whole.len(), factor));
    };
    let shift = power - i64::try_from(fraction.len()).map_err(|_| ParseError::Number)?;
    Ok(shifted(product, shift))
}

/// For more digits than a product can hold exactly: the fraction beyond billionths only rounds up.
fn capped_product(digits: &[u8], whole: usize, factor: i128) -> i128 {
    let nanos = digits_before_point(digits, i64::try_from(whole).unwrap_or(i64::MAX).saturating_add(9));
    nanos.saturating_mul(factor).min(MAX)
}

/// The integer left of the decimal point at `point`, rounded up, and capped.
fn digits_before_point(digits: &[u8], point: i64) -> i128 {
    let mut number: i128 = 0;
    for position in 0..point {
        let index = usize::try_from(position).unwrap_or(usize::MAX);
        let digit = digits.get(index).copied().unwrap_or(0);
        if number == 0 && index >= digits.len() {
            return 0;
        }
        number = number * 10 + i128::from(digit);
        if number > MAX {
            return MAX;
        }
    }
    let rest = digits.iter().skip(usize::try_from(point.max(0)).unwrap_or(usize::MAX));
    if rest.copied().any(|digit| digit != 0) { number + 1 } else { number }
}

/// `number` × 10^power, rounded up and capped.
fn shifted(mut number: i128, power: i64) -> i128 {
    for _ in 0..power {
        number = number.saturating_mul(10);
        if number > MAX {
            return MAX;
        }
    }
    let mut lost = false;
    for _ in power..0 {
        lost |= number % 10 != 0;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    number + i128::from(lost)
}

impl FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

impl fmt::Display for Quantity {
    /// The canonical form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANO;
        match self.format {
            Format::BinarySi if !small => {
                let whole = i128::from(self.rounded_up(NANO));
                for (suffix, power) in BINARY {
                    if whole % (1 << power) == 0 {
                        return write!(f, "{}{suffix}", whole >> power);
                    }
                }
                write!(f, "{whole}")
            }
            Format::DecimalExponent => {
                let (number, power) = largest_power(self.nanos);
                match i64::from(power) - 9 {
                    0 => write!(f, "{number}"),
                    exponent => write!(f, "{number}e{exponent}"),
                }
            }
            Format::DecimalSi | Format::BinarySi => {
                let (number, power) = largest_power(self.nanos);
                let suffix =
                    DECIMAL.iter().find(|(_, known)| *known == power).map_or("", |(suffix, _)| suffix);
                write!(f, "{number}{suffix}")
            }
        }
    }
}

/// The number with as many factors of a thousand taken out as possible, up to 10¹⁸.
fn largest_power(nanos: i128) -> (i128, u32) {
    let (mut number, mut power) = (nanos, 0);
    while number % 1000 == 0 && power < 27 {
        number /= 1000;
        power += 3;
    }
    (number, power)
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_quantity_prints_in_canonical_form() {
        let rows = [
            ("0", "0"),
            ("0Ki", "0"),
            ("100m", "100m"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1.5Gi", "1536Mi"),
            ("1024Ki", "1Mi"),
            ("1025Ki", "1025Ki"),
            ("1Ki", "1Ki"),
            ("0.5Ki", "512"),
            ("1000", "1k"),
            ("1000k", "1M"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("1E", "1E"),
            ("12e6", "12e6"),
            ("1.1e1", "11"),
            ("0.1n", "1n"),
            (".5", "500m"),
            ("5.", "5"),
            ("+1", "1"),
            ("-1.5", "-1500m"),
            ("100e-3", "100e-3"),
            ("9223372036854775807", "9223372036854775807"),
            ("9223372036854775808", "9223372036854775807"),
            ("10E", "9223372036854775807"),
            ("8Ei", "8Ei"),
        ];
        for (text, canonical) in rows {
            if text == "8Ei" {
                // Capped below 2⁶³.
                assert_eq!(Quantity::parse(text).unwrap().value(), i64::MAX);
                continue;
            }
            assert_eq!(Quantity::parse(text).unwrap().to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_quantity_is_refused_in_upstreams_words() {
        for (text, error) in [
            ("", ParseError::Format),
            ("bogus", ParseError::Format),
            ("1.2.3", ParseError::Format),
            ("1 Gi", ParseError::Format),
            ("1Kii", ParseError::Suffix),
            ("1mm", ParseError::Suffix),
            ("1ki", ParseError::Suffix),
            ("1e", ParseError::Suffix),
        ] {
            assert_eq!(Quantity::parse(text).unwrap_err(), error, "{text:?}");
        }
    }

    #[test]
    fn values_round_up() {
        assert_eq!(Quantity::parse("1001m").unwrap().value(), 2);
        assert_eq!(Quantity::parse("-1001m").unwrap().value(), -2);
        assert_eq!(Quantity::parse("1n").unwrap().milli_value(), 1);
        assert_eq!(Quantity::parse("2").unwrap().milli_value(), 2000);
    }

    proptest! {
        #[test]
        fn printing_and_reading_gives_the_same_amount(milli in any::<i64>(), binary in any::<bool>()) {
            let format = if binary { Format::BinarySi } else { Format::DecimalSi };
            for quantity in [Quantity::from_milli(milli), Quantity::from_value(milli, format)] {
                prop_assert_eq!(Quantity::parse(&quantity.to_string()).unwrap(), quantity);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,24}|[+-]?[0-9.]{0,30}[eEinumkKMGTP]{0,3}[-+]?[0-9]{0,22}") {
            let _ = Quantity::parse(&text);
        }
    }
}
