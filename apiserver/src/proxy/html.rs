//! The links of a page.
//!
//! Only the values of attributes that hold a URL are touched; every other byte stays. What looks like a tag inside of a
//! comment, a script or a style is none.

/// Which attributes of which elements hold a URL.
const ATTRIBUTES: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Elements whose content is text, whatever it looks like.
const TEXT: [&str; 8] = ["script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes"];

/// The page with every URL replaced by what `url` says.
pub(super) fn rewrite(page: &[u8], url: impl Fn(&str) -> String) -> Vec<u8> {
    let mut out = Vec::with_capacity(page.len() + page.len() / 16);
    let mut rest = page;
    while let Some(at) = rest.iter().position(|byte| *byte == b'<') {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let length = if rest.starts_with(b"<!--") {
            find(rest, b"-->").map_or(rest.len(), |end| end + 3)
        } else if rest.get(1).is_some_and(u8::is_ascii_alphabetic) {
            let (name, length) = tag(rest, &url, &mut out);
            rest = &rest[length..];
            if TEXT.contains(&name.as_str()) {
                find_ignoring_case(rest, format!("</{name}").as_bytes()).unwrap_or(rest.len())
            } else {
                0
            }
        } else {
            1
        };
        out.extend_from_slice(&rest[..length]);
        rest = &rest[length..];
    }
    out.extend_from_slice(rest);
    out
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

fn find_ignoring_case(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window.eq_ignore_ascii_case(what))
}

/// How many bytes come before one of which `end` is true.
fn until(text: &[u8], end: impl Fn(u8) -> bool) -> usize {
    text.iter().position(|byte| end(*byte)).unwrap_or(text.len())
}

/// Copies a tag with its URLs replaced; its name, and how long it was.
fn tag(text: &[u8], url: &impl Fn(&str) -> String, out: &mut Vec<u8>) -> (String, usize) {
    let is_end = |byte: u8| byte.is_ascii_whitespace() || byte == b'/' || byte == b'>';
    let mut at = 1 + until(&text[1..], is_end);
    let name = String::from_utf8_lossy(&text[1..at]).to_ascii_lowercase();
    let wanted = ATTRIBUTES.iter().find(|(element, _)| *element == name).map_or(&[][..], |(_, names)| names);
    let mut copied = 0;
    loop {
        at += until(&text[at..], |byte| !byte.is_ascii_whitespace() && byte != b'/');
        match text.get(at) {
            None => break,
            Some(b'>') => {
                at += 1;
                break;
            }
            Some(_) => {}
        }
        // An attribute may begin with "=", but not end there.
        let length = 1 + until(&text[at + 1..], |byte| is_end(byte) || byte == b'=');
        let attribute = String::from_utf8_lossy(&text[at..at + length]).to_ascii_lowercase();
        at += length;
        let equals = at + until(&text[at..], |byte| !byte.is_ascii_whitespace());
        if text.get(equals) != Some(&b'=') {
            continue;
        }
        at = equals + 1;
        at += until(&text[at..], |byte| !byte.is_ascii_whitespace());
        let start = at;
        let (value, end) = match text.get(at) {
            Some(quote @ (b'"' | b'\'')) => {
                let length = until(&text[at + 1..], |byte| byte == *quote);
                (&text[at + 1..at + 1 + length], (at + length + 2).min(text.len()))
            }
            _ => {
                let length = until(&text[at..], |byte| byte.is_ascii_whitespace() || byte == b'>');
                (&text[at..at + length], at + length)
            }
        };
        at = end;
        if let (true, Ok(value)) = (wanted.contains(&attribute.as_str()), std::str::from_utf8(value)) {
            let before = value.replace("&amp;", "&");
            let after = url(&before);
            if after != before {
                out.extend_from_slice(&text[copied..start]);
                let escaped = after.replace('&', "&amp;").replace('"', "&#34;").replace('<', "&lt;");
                out.push(b'"');
                out.extend_from_slice(escaped.as_bytes());
                out.push(b'"');
                copied = end;
            }
        }
    }
    out.extend_from_slice(&text[copied..at]);
    (name, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(page: &str) -> String {
        let url = |url: &str| if url.starts_with('/') { format!("/P{url}") } else { url.to_owned() };
        String::from_utf8(rewrite(page.as_bytes(), url)).unwrap()
    }

    #[test]
    fn only_urls_of_attributes_change() {
        for (page, expected) in [
            (r#"<a href="/x">y</a>"#, r#"<a href="/P/x">y</a>"#),
            ("<A class=b HREF = '/x?a=1&amp;b'>", r#"<A class=b HREF = "/P/x?a=1&amp;b">"#),
            ("<img src=/i.png alt=/x><br/>", r#"<img src="/P/i.png" alt=/x><br/>"#),
            (r#"<a href="x">/x</a>"#, r#"<a href="x">/x</a>"#),
            (r#"<p href="/x">"#, r#"<p href="/x">"#),
            (r#"<!-- <a href="/x"> --><a href="/y">"#, r#"<!-- <a href="/x"> --><a href="/P/y">"#),
            (
                r#"<script src="/s">"<a href='/x'>"</SCRIPT><a href="/y">"#,
                r#"<script src="/P/s">"<a href='/x'>"</SCRIPT><a href="/P/y">"#,
            ),
            ("a < b > c", "a < b > c"),
            ("<a href=\"/x", "<a href=\"/P/x\""),
            ("<a href=", "<a href="),
            ("<a", "<a"),
            ("<", "<"),
            ("<a =href='/x' href>", "<a =href='/x' href>"),
        ] {
            assert_eq!(rewritten(page), expected, "{page}");
        }
    }
}
