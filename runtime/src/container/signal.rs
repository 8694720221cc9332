//! Names and numbers of signals.

use cri::Signal;

/// The signal that asks a container to end: the pod's word, the image's, SIGTERM.
pub(super) fn stop_signal(wanted: Signal, image: Option<&str>) -> i32 {
    let wanted = match wanted {
        Signal::RuntimeDefault => None,
        signal => number(signal.as_str_name()),
    };
    wanted.or_else(|| image.and_then(number)).unwrap_or(libc::SIGTERM)
}

/// CRI's word for a signal number.
pub(super) fn name(number: i32) -> Signal {
    (1..=65)
        .filter_map(|value| Signal::try_from(value).ok())
        .find(|signal| self::number(signal.as_str_name()) == Some(number))
        .unwrap_or(Signal::RuntimeDefault)
}

/// The number behind `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3` or CRI's `SIGRTMINPLUS3`.
fn number(text: &str) -> Option<i32> {
    let text = text.trim().to_ascii_uppercase();
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = text.strip_prefix("SIG").unwrap_or(&text);
    let real_time = |name: &str, base: i32, sign: i32, words: [&str; 2]| {
        let rest = name.strip_prefix(if sign > 0 { "RTMIN" } else { "RTMAX" })?;
        let offset = match rest {
            "" => 0,
            rest => words.iter().find_map(|word| rest.strip_prefix(word))?.parse::<i32>().ok()?,
        };
        Some(base + sign * offset)
    };
    let found = real_time(name, libc::SIGRTMIN(), 1, ["+", "PLUS"])
        .or_else(|| real_time(name, libc::SIGRTMAX(), -1, ["-", "MINUS"]))
        .or_else(|| format!("SIG{name}").parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32))
        .or(match name {
            "CLD" => Some(libc::SIGCHLD),
            "IOT" => Some(libc::SIGABRT),
            "POLL" => Some(libc::SIGIO),
            _ => None,
        })?;
    (1..=64).contains(&found).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_found_in_every_notation() {
        for (text, expected) in [
            ("SIGTERM", Some(15)),
            ("quit", Some(3)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(libc::SIGRTMIN() + 3)),
            ("SIGRTMINPLUS3", Some(libc::SIGRTMIN() + 3)),
            ("SIGRTMAXMINUS1", Some(63)),
            ("SIGRTMAX", Some(64)),
            ("0", None),
            ("65", None),
            ("NOPE", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
        for value in 1..=65 {
            let signal = Signal::try_from(value).unwrap();
            assert!(number(signal.as_str_name()).is_some(), "{}", signal.as_str_name());
        }
        assert_eq!(name(15), Signal::Sigterm);
    }

    #[test]
    fn the_pods_signal_wins_over_the_images() {
        assert_eq!(stop_signal(Signal::Sigusr1, Some("SIGQUIT")), libc::SIGUSR1);
        assert_eq!(stop_signal(Signal::RuntimeDefault, Some("SIGQUIT")), libc::SIGQUIT);
        assert_eq!(stop_signal(Signal::RuntimeDefault, Some("rubbish")), libc::SIGTERM);
        assert_eq!(stop_signal(Signal::RuntimeDefault, None), libc::SIGTERM);
    }
}
