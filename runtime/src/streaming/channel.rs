//! The `channel.k8s.io` protocols: the first byte of a message names its stream.

use bytes::Bytes;
use serde_json::json;

/// Version of the protocol. Version 5 adds the end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    V4,
    V5,
}

pub(super) const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    Stdin(Bytes),
    StdinEnd,
    Resize {
        width: u16,
        height: u16,
    },
    /// Nothing that concerns us.
    Other,
}

impl Protocol {
    /// The newest of the offered ones.
    pub(super) fn choose<'a>(offered: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut chosen = None;
        for name in offered {
            if name == Self::V5.name() {
                return Some(Self::V5);
            }
            if name == Self::V4.name() {
                chosen = Some(Self::V4);
            }
        }
        chosen
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V4 => "v4.channel.k8s.io",
            Self::V5 => "v5.channel.k8s.io",
        }
    }

    /// Reads a message of a client.
    pub(crate) fn read(self, message: Bytes) -> Input {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Size {
            width: u16,
            height: u16,
        }
        match (message.first(), self) {
            (Some(&STDIN), _) => Input::Stdin(message.slice(1..)),
            (Some(&CLOSE), Self::V5) if message.get(1) == Some(&STDIN) => Input::StdinEnd,
            (Some(&RESIZE), _) => match serde_json::from_slice(&message[1..]) {
                Ok(Size { width, height }) => Input::Resize { width, height },
                Err(_) => Input::Other,
            },
            _ => Input::Other,
        }
    }
}

/// A message for a client.
pub(super) fn message(channel: u8, payload: &[u8]) -> Bytes {
    let mut message = Vec::with_capacity(1 + payload.len());
    message.push(channel);
    message.extend_from_slice(payload);
    message.into()
}

/// How a process ended, as `metav1.Status`.
pub(super) fn status(code: i32) -> Vec<u8> {
    let status = match code {
        0 => json!({ "metadata": {}, "status": "Success" }),
        code => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("command terminated with non-zero exit code: command terminated with exit code {code}"),
            "reason": "NonZeroExitCode",
            "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
        }),
    };
    status.to_string().into_bytes()
}

/// Why a process could not be run, as `metav1.Status`.
pub(super) fn failure(why: &str) -> Vec<u8> {
    let message = format!("error executing command in container: {why}");
    json!({
        "metadata": {}, "status": "Failure", "message": format!("Internal error occurred: {message}"),
        "reason": "InternalError", "details": { "causes": [{ "message": message }] }, "code": 500,
    })
    .to_string()
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_message_is_read_as_something() {
        assert_eq!(Protocol::V5.read(Bytes::new()), Input::Other);
        let payloads: [&[u8]; 7] = [
            b"",
            b"\0",
            b"\xff",
            b"{",
            b"{\"Width\":70000,\"Height\":1}",
            b"{\"Width\":-1}",
            &[b'['; 10_000],
        ];
        for first in 0..=u8::MAX {
            for payload in payloads {
                for protocol in [Protocol::V4, Protocol::V5] {
                    let input = protocol.read(message(first, payload));
                    assert_eq!(matches!(input, Input::Stdin(_)), first == STDIN);
                    assert!(!matches!(input, Input::Resize { .. }), "{first} {payload:?}");
                }
            }
        }
    }

    #[test]
    fn the_newest_offered_version_is_chosen() {
        for (offered, expected) in [
            (vec!["v4.channel.k8s.io", "v5.channel.k8s.io"], Some(Protocol::V5)),
            (vec!["v4.channel.k8s.io"], Some(Protocol::V4)),
            (vec!["base64.channel.k8s.io"], None),
            (vec![], None),
        ] {
            assert_eq!(Protocol::choose(offered.iter().copied()), expected, "{offered:?}");
        }
    }

    #[test]
    fn messages_are_read_by_their_first_byte() {
        let read = |protocol: Protocol, message: &'static [u8]| protocol.read(Bytes::from_static(message));
        assert_eq!(read(Protocol::V4, b"\0hi"), Input::Stdin(Bytes::from_static(b"hi")));
        assert_eq!(read(Protocol::V5, &[255, 0]), Input::StdinEnd);
        assert_eq!(read(Protocol::V4, &[255, 0]), Input::Other);
        assert_eq!(
            read(Protocol::V4, b"\x04{\"Width\":80,\"Height\":24}"),
            Input::Resize { width: 80, height: 24 }
        );
        assert_eq!(read(Protocol::V4, b"\x04x"), Input::Other);
        assert_eq!(read(Protocol::V4, b""), Input::Other);
    }
}
