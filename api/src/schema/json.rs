//! A JSON reader that says what Go's says about malformed text.
//!
//! It reads the text once, from left to right, and leaves it to its caller what to build.

use std::borrow::Cow;

use serde_json::{Map, Number, Value};

use crate::field::quote;

/// Lists and objects may be nested this deep; deeper input is refused before it can exhaust a stack.
pub const MAX_DEPTH: usize = 300;
/// The stack on which YAML of that depth can be parsed: the parser takes up to 32 KiB for each level when it is not
/// optimized, which is more than a thread has. What is not needed of it is never touched.
pub const YAML_STACK: usize = 16 << 20;

/// The text is not JSON, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Syntax(pub(super) String);

type Result<T> = std::result::Result<T, Syntax>;

pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
}

/// What a value is, by its first character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Null,
    Boolean,
    Number,
    String,
    List,
    Object,
}

impl Token {
    /// Go's word for it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "bool",
            Self::Number => "number",
            Self::String => "string",
            Self::List => "array",
            Self::Object => "object",
        }
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, depth: 0 }
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    /// The character that is wrong here, or the end that came too soon.
    fn wrong<T>(&self, context: &str) -> Result<T> {
        match self.bytes.get(self.at) {
            Some(_) => self.wrong_within(context),
            None => Err(Syntax("unexpected end of JSON input".to_owned())),
        }
    }

    /// The character that is wrong within a word. Go looks at the end as if a space stood there.
    fn wrong_within<T>(&self, context: &str) -> Result<T> {
        let c = self.bytes.get(self.at).copied().unwrap_or(b' ');
        let shown = match c {
            b'\'' => "'\\''".to_owned(),
            b'"' => "'\"'".to_owned(),
            c => {
                let quoted = quote(&char::from(c).to_string());
                format!("'{}'", &quoted[1..quoted.len() - 1])
            }
        };
        Err(Syntax(format!("invalid character {shown} {context}")))
    }

    /// Looks at the next value without reading it.
    pub(super) fn peek(&mut self) -> Result<Token> {
        self.space();
        Ok(match self.bytes.get(self.at) {
            Some(b'n') => Token::Null,
            Some(b't' | b'f') => Token::Boolean,
            Some(b'-' | b'0'..=b'9') => Token::Number,
            Some(b'"') => Token::String,
            Some(b'[') => Token::List,
            Some(b'{') => Token::Object,
            _ => return self.wrong("looking for beginning of value"),
        })
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn slice(&self, from: usize) -> &'a [u8] {
        &self.bytes[from..self.at]
    }

    /// Nothing but space may follow.
    pub(super) fn end(&mut self) -> Result<()> {
        self.space();
        if self.at == self.bytes.len() { Ok(()) } else { self.wrong("after top-level value") }
    }

    fn enter(&mut self) -> Result<()> {
        self.at += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(Syntax("exceeded max depth".to_owned())) } else { Ok(()) }
    }

    fn leave(&mut self) {
        self.at += 1;
        self.depth -= 1;
    }

    /// Opens a list; true if there is a first item.
    pub(super) fn list(&mut self) -> Result<bool> {
        self.enter()?;
        self.space();
        if self.bytes.get(self.at) == Some(&b']') {
            self.leave();
            return Ok(false);
        }
        Ok(true)
    }

    /// After an item: true if there is another.
    pub(super) fn next_item(&mut self) -> Result<bool> {
        self.space();
        match self.bytes.get(self.at) {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(b']') => {
                self.leave();
                Ok(false)
            }
            _ => self.wrong("after array element"),
        }
    }

    /// Opens an object; its first key, if it has one.
    pub(super) fn object(&mut self) -> Result<Option<Cow<'a, str>>> {
        self.enter()?;
        self.space();
        if self.bytes.get(self.at) == Some(&b'}') {
            self.leave();
            return Ok(None);
        }
        self.key().map(Some)
    }

    /// After a value: the next key, if there is one.
    pub(super) fn next_key(&mut self) -> Result<Option<Cow<'a, str>>> {
        self.space();
        match self.bytes.get(self.at) {
            Some(b',') => {
                self.at += 1;
                self.space();
                self.key().map(Some)
            }
            Some(b'}') => {
                self.leave();
                Ok(None)
            }
            _ => self.wrong("after object key:value pair"),
        }
    }

    fn key(&mut self) -> Result<Cow<'a, str>> {
        if self.bytes.get(self.at) != Some(&b'"') {
            return self.wrong("looking for beginning of object key string");
        }
        let key = self.string()?;
        self.space();
        if self.bytes.get(self.at) != Some(&b':') {
            return self.wrong("after object key");
        }
        self.at += 1;
        Ok(key)
    }

    /// Reads a string. Text that is not UTF-8, and halves of surrogate pairs, become U+FFFD.
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>> {
        self.at += 1;
        let start = self.at;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    let text = String::from_utf8_lossy(&self.bytes[start..self.at]);
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => break,
                Some(0..0x20) | None => return self.wrong("in string literal"),
                Some(_) => self.at += 1,
            }
        }
        let mut out: Vec<u8> = self.bytes[start..self.at].to_vec();
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(match String::from_utf8(out) {
                        Ok(text) => text,
                        Err(bad) => String::from_utf8_lossy(bad.as_bytes()).into_owned(),
                    }));
                }
                Some(b'\\') => self.escape(&mut out)?,
                Some(0..0x20) | None => return self.wrong("in string literal"),
                Some(&c) => {
                    out.push(c);
                    self.at += 1;
                }
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.at += 1;
        let plain = match self.bytes.get(self.at) {
            Some(&c @ (b'"' | b'\\' | b'/')) => c,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                self.at += 1;
                let mut code = self.hex()?;
                if (0xd800..0xdc00).contains(&code) && self.bytes[self.at..].starts_with(b"\\u") {
                    let before = self.at;
                    self.at += 2;
                    let low = self.hex()?;
                    if (0xdc00..0xe000).contains(&low) {
                        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                    } else {
                        self.at = before;
                    }
                }
                let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return self.wrong_within("in string escape code"),
        };
        out.push(plain);
        self.at += 1;
        Ok(())
    }

    fn hex(&mut self) -> Result<u32> {
        let mut code = 0;
        for _ in 0..4 {
            match self.bytes.get(self.at).and_then(|c| char::from(*c).to_digit(16)) {
                Some(digit) => code = code * 16 + digit,
                None => return self.wrong_within("in \\u hexadecimal character escape"),
            }
            self.at += 1;
        }
        Ok(code)
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        self.at - start
    }

    /// Reads a number; its text.
    pub(super) fn number(&mut self) -> Result<&'a str> {
        let start = self.at;
        if self.bytes.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        match self.bytes.get(self.at) {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => {
                self.digits();
            }
            _ => return self.wrong_within("in numeric literal"),
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return self.wrong_within("after decimal point in numeric literal");
            }
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return self.wrong_within("in exponent of numeric literal");
            }
        }
        // Only ASCII was read.
        Ok(std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or_default())
    }

    /// Reads `null`, `true` or `false`; true for `true`.
    pub(super) fn literal(&mut self) -> Result<bool> {
        let word: &[u8] = match self.bytes.get(self.at) {
            Some(b'n') => b"null",
            Some(b't') => b"true",
            _ => b"false",
        };
        for (i, expected) in word.iter().enumerate() {
            if self.bytes.get(self.at) != Some(expected) {
                let (word, expected) = (String::from_utf8_lossy(word), char::from(*expected));
                debug_assert!(i > 0);
                return self.wrong_within(&format!("in literal {word} (expecting '{expected}')"));
            }
            self.at += 1;
        }
        Ok(word == b"true")
    }

    /// Reads any value and forgets it.
    pub(super) fn skip(&mut self) -> Result<()> {
        match self.peek()? {
            Token::Null | Token::Boolean => self.literal().map(drop),
            Token::Number => self.number().map(drop),
            Token::String => self.string().map(drop),
            Token::List => {
                let mut more = self.list()?;
                while more {
                    self.skip()?;
                    more = self.next_item()?;
                }
                Ok(())
            }
            Token::Object => {
                let mut key = self.object()?;
                while key.is_some() {
                    self.skip()?;
                    key = self.next_key()?;
                }
                Ok(())
            }
        }
    }

    /// Reads any value as it is. Of several equal keys the last counts.
    pub(super) fn any(&mut self) -> Result<Value> {
        Ok(match self.peek()? {
            Token::Null => {
                self.literal()?;
                Value::Null
            }
            Token::Boolean => Value::Bool(self.literal()?),
            Token::Number => number(self.number()?),
            Token::String => Value::String(self.string()?.into_owned()),
            Token::List => {
                let mut items = Vec::new();
                let mut more = self.list()?;
                while more {
                    items.push(self.any()?);
                    more = self.next_item()?;
                }
                Value::Array(items)
            }
            Token::Object => {
                let mut map = Map::new();
                let mut key = self.object()?;
                while let Some(name) = key {
                    let value = self.any()?;
                    map.insert(name.into_owned(), value);
                    key = self.next_key()?;
                }
                Value::Object(map)
            }
        })
    }
}

/// A number as Go keeps it in untyped values: whole if it is written so and fits, else floating.
fn number(text: &str) -> Value {
    if !text.contains('.')
        && let Ok(whole) = text.parse::<i64>()
    {
        return Value::from(whole);
    }
    match text.parse::<f64>().ok().and_then(Number::from_f64) {
        Some(number) => Value::Number(number),
        None => Value::Null,
    }
}
