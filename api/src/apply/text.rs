//! Takes the text of a JSON object apart without parsing what is in it.

/// The names and values of an object, as they are written; names in their quotes.
pub(super) type Entries<'t> = Vec<(&'t [u8], &'t [u8])>;

/// The entries of an object. None: it is none, or is not JSON; not everything that is not JSON is noticed here.
pub(super) fn entries(text: &[u8]) -> Option<Entries<'_>> {
    let mut entries = Vec::with_capacity(8);
    let mut at = space(text, 0);
    if text.get(at) != Some(&b'{') {
        return None;
    }
    at = space(text, at + 1);
    if text.get(at) == Some(&b'}') {
        return Some(entries);
    }
    loop {
        if text.get(at) != Some(&b'"') {
            return None;
        }
        let end = string(text, at)?;
        let name = &text[at..end];
        at = space(text, end);
        if text.get(at) != Some(&b':') {
            return None;
        }
        at = space(text, at + 1);
        let end = value(text, at)?;
        entries.push((name, &text[at..end]));
        at = space(text, end);
        match text.get(at)? {
            b',' => at = space(text, at + 1),
            b'}' => return Some(entries),
            _ => return None,
        }
    }
}

/// The value of a name. Entries are few, and most are found where they are looked for first.
pub(super) fn find<'t>(entries: &Entries<'t>, name: &[u8]) -> Option<&'t [u8]> {
    entries.iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
}

/// A name without its quotes.
pub(super) fn name(quoted: &[u8]) -> Option<String> {
    serde_json::from_slice(quoted).ok()
}

fn space(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = text.get(at) {
        at += 1;
    }
    at
}

/// Where the string that begins here ends.
fn string(text: &[u8], mut at: usize) -> Option<usize> {
    at += 1;
    loop {
        at += text.get(at..)?.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Where the value that begins here ends.
fn value(text: &[u8], mut at: usize) -> Option<usize> {
    match text.get(at)? {
        b'"' => return string(text, at),
        b'{' | b'[' => {}
        _ => {
            let end = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
            let length = text[at..].iter().position(end)?;
            return (length > 0).then_some(at + length);
        }
    }
    let mut depth = 0;
    loop {
        at += text.get(at..)?.iter().position(|byte| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']'))?;
        match text[at] {
            b'"' => {
                at = string(text, at)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            _ => depth -= 1,
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn objects_are_taken_apart() {
        let text = br#" {"a": 1 ,"b\"}":{"x":"}\\","y":[{}]}, "c" :"\"" , "d":null}"#;
        let found = entries(text).expect("an object");
        let shown: Vec<(String, String)> = found
            .iter()
            .map(|(name, value)| {
                (String::from_utf8_lossy(name).into_owned(), String::from_utf8_lossy(value).into_owned())
            })
            .collect();
        let expect = [
            (r#""a""#, "1"),
            (r#""b\"}""#, r#"{"x":"}\\","y":[{}]}"#),
            (r#""c""#, r#""\"""#),
            (r#""d""#, "null"),
        ];
        assert_eq!(shown, expect.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(name(found[1].0).as_deref(), Some("b\"}"));
        assert_eq!(entries(b"{}").map(|entries| entries.len()), Some(0));
        for bad in
            ["", "[]", "{", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":}", "{\"a\":\"", "{\"a\":{", "{a:1}"]
        {
            assert!(entries(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[{}\\[\\]\":,a1 \\\\]{0,24}") {
            let _ = entries(text.as_bytes());
        }
    }
}
