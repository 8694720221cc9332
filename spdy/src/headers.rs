//! Headers, their block format, and its compression.
//!
//! All header blocks of one direction are one zlib stream, so a block can only be read after all before it. What is
//! sent is stored without being made smaller: headers are few and short here, and a compressor would need more memory
//! than all of them together.

use flate2::{Decompress, FlushDecompress, Status};

use crate::{Malformed, dictionary};

/// The most that a block may hold once it is decompressed.
pub const MOST_BYTES: usize = 64 * 1024;
/// The most pairs in a block. The protocol has no use for more here.
const MOST_PAIRS: usize = 256;

/// Names and values in their order. Names are in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with one more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.push((name.to_ascii_lowercase(), value.into()));
        self
    }

    /// The first value of a name, of whatever case.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, values) = self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        // Several values of one name are separated by NUL.
        values.split('\0').next()
    }

    /// The block, not compressed.
    pub(crate) fn to_block(&self) -> Vec<u8> {
        let mut block = Vec::new();
        let mut field = |bytes: &[u8]| {
            block.extend((bytes.len() as u32).to_be_bytes());
            block.extend(bytes);
        };
        for (name, value) in &self.0 {
            field(name.as_bytes());
            field(value.as_bytes());
        }
        let mut whole = (self.0.len() as u32).to_be_bytes().to_vec();
        whole.append(&mut block);
        whole
    }

    /// Reads a block.
    pub(crate) fn of_block(mut block: &[u8]) -> Result<Self, Malformed> {
        let number = |block: &mut &[u8]| -> Result<usize, Malformed> {
            let (bytes, rest) =
                block.split_first_chunk::<4>().ok_or(Malformed::Headers("the block is cut"))?;
            *block = rest;
            Ok(u32::from_be_bytes(*bytes) as usize)
        };
        let text = |block: &mut &[u8]| -> Result<String, Malformed> {
            let length = number(block)?;
            let (bytes, rest) =
                block.split_at_checked(length).ok_or(Malformed::Headers("the block is cut"))?;
            *block = rest;
            let text = std::str::from_utf8(bytes).map_err(|_| Malformed::Headers("not UTF-8"))?;
            Ok(text.to_owned())
        };
        let pairs = number(&mut block)?;
        if pairs > MOST_PAIRS {
            return Err(Malformed::Headers("too many"));
        }
        let mut headers = Vec::with_capacity(pairs);
        for _ in 0..pairs {
            let name = text(&mut block)?;
            if name.is_empty() || name.bytes().any(|byte| byte.is_ascii_uppercase()) {
                return Err(Malformed::Headers("a name that is empty or not in lower case"));
            }
            if headers.iter().any(|(known, _)| *known == name) {
                return Err(Malformed::Headers("a name twice"));
            }
            headers.push((name, text(&mut block)?));
        }
        if block.is_empty() { Ok(Self(headers)) } else { Err(Malformed::Headers("more than their number")) }
    }
}

/// The sending side of the zlib stream.
#[derive(Debug, Default)]
pub(crate) struct Compressor {
    begun: bool,
}

impl Compressor {
    /// The block as the next part of the stream.
    pub(crate) fn compress(&mut self, block: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(block.len() + 16);
        if !self.begun {
            self.begun = true;
            // Deflate with a window of 32 KiB, and a dictionary.
            out.extend([0x78, 0x20]);
            out.extend(dictionary::ID);
        }
        for part in block.chunks(usize::from(u16::MAX)) {
            let length = part.len() as u16;
            out.push(0);
            out.extend(length.to_le_bytes());
            out.extend((!length).to_le_bytes());
            out.extend(part);
        }
        // An empty block is how zlib says "so far". Go's reader looks for the next block otherwise, and never gets over
        // not finding one.
        out.extend([0, 0, 0, 0xff, 0xff]);
        out
    }
}

/// The receiving side of the zlib stream.
pub(crate) struct Decompressor {
    /// Nothing before the first block, which says whether there is a dictionary.
    inflate: Option<Decompress>,
}

impl Decompressor {
    pub(crate) fn new() -> Self {
        Self { inflate: None }
    }

    /// The block in the next part of the stream.
    pub(crate) fn decompress(&mut self, mut part: &[u8]) -> Result<Vec<u8>, Malformed> {
        let inflate = match &mut self.inflate {
            Some(inflate) => inflate,
            None => {
                let (inflate, rest) = begin(part)?;
                part = rest;
                self.inflate.insert(inflate)
            }
        };
        // One byte more than is allowed, so that too much is seen.
        let mut out = Vec::with_capacity(MOST_BYTES + 1);
        let mut fed = 0;
        loop {
            let (read, written) = (inflate.total_in(), out.len());
            let status = inflate
                .decompress_vec(&part[fed..], &mut out, FlushDecompress::Sync)
                .map_err(|_| Malformed::Compression)?;
            fed += usize::try_from(inflate.total_in() - read).map_err(|_| Malformed::Compression)?;
            if out.len() > MOST_BYTES {
                return Err(Malformed::HeadersTooLarge(MOST_BYTES));
            }
            match status {
                // The stream goes on as long as the connection.
                Status::StreamEnd => return Err(Malformed::Compression),
                _ if fed == part.len() && out.len() == written => return Ok(out),
                _ if fed == part.len() && out.len() < out.capacity() => return Ok(out),
                Status::BufError => return Err(Malformed::Compression),
                Status::Ok => {}
            }
        }
    }
}

impl std::fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decompressor").field("begun", &self.inflate.is_some()).finish()
    }
}

/// Reads the head of the zlib stream.
fn begin(part: &[u8]) -> Result<(Decompress, &[u8]), Malformed> {
    let ([method, flags], rest) = part.split_first_chunk::<2>().ok_or(Malformed::Compression)?;
    let is_deflate = method & 0x0f == 8 && method >> 4 <= 7;
    if !is_deflate || !u16::from_be_bytes([*method, *flags]).is_multiple_of(31) {
        return Err(Malformed::Compression);
    }
    let mut inflate = Decompress::new(false);
    if flags & 0x20 == 0 {
        return Ok((inflate, rest));
    }
    let (id, rest) = rest.split_first_chunk::<4>().ok_or(Malformed::Compression)?;
    if *id != dictionary::ID {
        return Err(Malformed::Compression);
    }
    // A dictionary is what the stream is taken to have begun with: as if it had come as a stored block.
    let stored = Compressor { begun: true }.compress(&dictionary::bytes());
    let mut before = Vec::with_capacity(stored.len());
    inflate
        .decompress_vec(&stored, &mut before, FlushDecompress::Sync)
        .map_err(|_| Malformed::Compression)?;
    Ok((inflate, rest))
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    /// What a peer sends that compresses: with the dictionary in its window, or without.
    fn deflated(blocks: &[&[u8]], with_dictionary: bool) -> Vec<Vec<u8>> {
        let mut deflate = Compress::new(Compression::best(), false);
        let mut head = vec![0x78, if with_dictionary { 0xbb } else { 0x9c }];
        if with_dictionary {
            head.extend(dictionary::ID);
            let mut dropped = Vec::with_capacity(4096);
            deflate.compress_vec(&dictionary::bytes(), &mut dropped, FlushCompress::Sync).unwrap();
        }
        let mut out = Vec::new();
        for block in blocks {
            let mut part = Vec::with_capacity(4096 + block.len());
            deflate.compress_vec(block, &mut part, FlushCompress::Sync).unwrap();
            head.append(&mut part);
            out.push(std::mem::take(&mut head));
        }
        out
    }

    #[test]
    fn blocks_of_one_stream_are_read_one_after_the_other() {
        let first = Headers::new().with("streamType", "data").with("content-type", "text/html").to_block();
        let second = Headers::new().with("streamType", "error").with("port", "80").to_block();
        for with_dictionary in [true, false] {
            let parts = deflated(&[&first, &second, &first], with_dictionary);
            assert!(!with_dictionary || parts[0].len() < first.len(), "the dictionary is used");
            let mut inflate = Decompressor::new();
            for (part, block) in parts.iter().zip([&first, &second, &first]) {
                assert_eq!(inflate.decompress(part).unwrap(), *block);
            }
        }
        let (mut deflate, mut inflate) = (Compressor::default(), Decompressor::new());
        for block in [&first, &second, &vec![7; 60_000]] {
            let part = deflate.compress(block);
            assert!(part.ends_with(&[0, 0, 0, 0xff, 0xff]), "Go needs to be told that a part is whole");
            assert_eq!(inflate.decompress(&part).unwrap(), *block);
        }
    }

    #[test]
    fn a_small_part_that_unfolds_to_much_is_refused() {
        let bomb = deflated(&[&vec![0; 1 << 20]], true);
        assert_eq!(
            Decompressor::new().decompress(&bomb[0]),
            Err(Malformed::HeadersTooLarge(MOST_BYTES)),
            "{} bytes",
            bomb[0].len()
        );
    }

    #[test]
    fn what_is_no_zlib_stream_is_refused() {
        for part in [
            &b""[..],
            b"\x78",
            b"\x79\x00abc",
            b"\x78\x20abc",
            b"\x78\x20\0\0\0\0abc",
            b"\x78\x9c\x07\xff\xff\xff",
            // A last block: the stream would end here.
            b"\x78\x9c\x01\x00\x00\xff\xff",
        ] {
            assert_eq!(Decompressor::new().decompress(part), Err(Malformed::Compression), "{part:?}");
        }
    }

    #[test]
    fn blocks_that_are_no_pairs_are_refused() {
        let block = |pairs: u32, fields: &[&[u8]]| {
            let mut block = pairs.to_be_bytes().to_vec();
            for field in fields {
                block.extend((field.len() as u32).to_be_bytes());
                block.extend(*field);
            }
            block
        };
        for (block, why) in [
            (Vec::new(), "the block is cut"),
            (block(1, &[b"a"]), "the block is cut"),
            (block(u32::MAX, &[]), "too many"),
            ([block(1, &[]), vec![0xff; 4]].concat(), "the block is cut"),
            (block(1, &[b"", b"x"]), "a name that is empty or not in lower case"),
            (block(1, &[b"A", b"x"]), "a name that is empty or not in lower case"),
            (block(2, &[b"a", b"x", b"a", b"y"]), "a name twice"),
            (block(1, &[b"a", b"\xff"]), "not UTF-8"),
            (block(1, &[b"a", b"x", b"y"]), "more than their number"),
        ] {
            assert_eq!(Headers::of_block(&block), Err(Malformed::Headers(why)), "{block:?}");
        }
        let read = Headers::of_block(&block(2, &[b"a", b"x\0y", b"b", b""])).unwrap();
        assert_eq!((read.get("A"), read.get("b"), read.get("c")), (Some("x"), Some(""), None));
    }
}
