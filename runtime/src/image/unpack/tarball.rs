//! A reader of tar archives (ustar, GNU and PAX): strict in what it takes for a header, bounded in memory, and
//! content with an archive that ends without padding or trailer, as some tools write.
//!
//! The `tar` crate splits PAX records at line ends, which breaks binary attribute values such as file
//! capabilities, and keeps names of any length in memory.

use std::io::{self, Read};

/// Names and attributes of one entry may take so many bytes.
const EXTENSION_LIMIT: u64 = 1 << 20;
const BLOCK: usize = 512;
const XATTR: &[u8] = b"SCHILY.xattr.";

/// What an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    CharDevice,
    BlockDevice,
    Fifo,
    /// Something of another system; to be passed over.
    Other,
}

/// The header of an entry with its extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) path: Vec<u8>,
    /// Target of a link.
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Bytes of data.
    pub(crate) size: u64,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
    /// Major and minor number.
    pub(crate) device: (u64, u64),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// An archive that is being read. As a [`Read`] it gives the data of the current entry.
#[derive(Debug)]
pub(crate) struct Tarball<R> {
    input: R,
    /// Data of the current entry not yet read.
    left: u64,
    padding: u64,
}

impl<R: Read> Read for Tarball<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if length == 0 {
            return Ok(0);
        }
        let read = self.input.read(&mut buffer[..length])?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends within a file"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

impl<R: Read> Tarball<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, left: 0, padding: 0 }
    }

    /// What follows the archive.
    pub(crate) fn into_inner(self) -> R {
        self.input
    }

    /// Goes to the next entry, over what was not read of this one. `None` at the end.
    pub(crate) fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let (mut extensions, mut extended) = (Extensions::default(), 0);
        loop {
            self.skip()?;
            let Some(header) = self.block()? else { return Ok(None) };
            let size = number(&header[124..136])?;
            // Any number of extensions may come before one entry: together they are bounded.
            if matches!(header[156], b'x' | b'L' | b'K') {
                extended = size.saturating_add(extended);
            }
            if extended > EXTENSION_LIMIT {
                return Err(invalid("names and attributes of a file take too much"));
            }
            match header[156] {
                b'x' => extensions.pax(&self.extension(size)?)?,
                b'L' => extensions.path = Some(until_zero(&self.extension(size)?).to_vec()),
                b'K' => extensions.link = Some(until_zero(&self.extension(size)?).to_vec()),
                // Defaults for all entries: nothing that matters to a layer.
                b'g' => self.set_data(size)?,
                b'S' => return Err(invalid("sparse files are not supported")),
                _ => {
                    let entry = extensions.entry(&header, size)?;
                    self.set_data(entry.size)?;
                    return Ok(Some(entry));
                }
            }
        }
    }

    fn set_data(&mut self, size: u64) -> io::Result<()> {
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        size.checked_add(self.padding).map(|_| ()).ok_or_else(|| invalid("an impossible size"))
    }

    fn skip(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink())?;
        // Padding may be missing at the very end.
        let padding = std::mem::take(&mut self.padding);
        io::copy(&mut (&mut self.input).take(padding), &mut io::sink())?;
        Ok(())
    }

    /// The next header; `None` at the end, with or without a trailer.
    fn block(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends in a header"));
                }
                Ok(read) => filled += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if block.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let sum = |block: &[u8]| block.iter().map(|&byte| u64::from(byte)).sum::<u64>();
        let actual = sum(&block[..148]) + 8 * u64::from(b' ') + sum(&block[156..]);
        if number(&block[148..156])? != actual {
            return Err(invalid("not a tar archive, or a damaged one"));
        }
        Ok(Some(block))
    }

    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        self.set_data(size)?;
        let mut data = Vec::new();
        self.read_to_end(&mut data)?;
        Ok(data)
    }
}

/// What precedes a header and overrides it.
#[derive(Debug, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Extensions {
    /// Records of the form `LENGTH KEY=VALUE\n`, where the value may hold anything.
    fn pax(&mut self, mut data: &[u8]) -> io::Result<()> {
        let malformed = || invalid("a malformed extended header");
        while !data.is_empty() && data[0] != 0 {
            let space = data.iter().position(|&byte| byte == b' ').ok_or_else(malformed)?;
            let length: usize =
                text(&data[..space]).and_then(|text| text.parse().ok()).ok_or_else(malformed)?;
            let record = data.get(space + 1..length).ok_or_else(malformed)?;
            data = &data[length..];
            let record = record.strip_suffix(b"\n").ok_or_else(malformed)?;
            let equals = record.iter().position(|&byte| byte == b'=').ok_or_else(malformed)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            let integer = || text(value).and_then(|text| text.parse::<u64>().ok()).ok_or_else(malformed);
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(integer()?),
                b"uid" => self.uid = Some(integer()?),
                b"gid" => self.gid = Some(integer()?),
                b"mtime" => self.mtime = Some(text(value).and_then(pax_time).ok_or_else(malformed)?),
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err(invalid("sparse files are not supported"));
                }
                _ => {
                    if let Some(name) = key.strip_prefix(XATTR) {
                        self.xattrs.push((name.to_vec(), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }

    fn entry(self, header: &[u8; BLOCK], size: u64) -> io::Result<Entry> {
        let name = until_zero(&header[..100]);
        let path = match self.path {
            Some(path) => path,
            // GNU keeps other things where POSIX has the beginning of a long name.
            None if &header[257..263] == b"ustar\0" && header[345] != 0 => {
                [until_zero(&header[345..500]), name].join(&b'/')
            }
            None => name.to_vec(),
        };
        let kind = match header[156] {
            // Before POSIX a directory was a file whose name ends in a slash.
            0 | b'0' | b'7' if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            _ => Kind::Other,
        };
        let size = match kind {
            Kind::File | Kind::Other => self.size.unwrap_or(size),
            // Some writers give a link the size of its target; no data follows.
            _ => 0,
        };
        let id = |extended: Option<u64>, field: &[u8]| {
            let id = extended.map_or_else(|| number(field), Ok)?;
            u32::try_from(id).map_err(|_| invalid("an impossible owner"))
        };
        let device = match kind {
            Kind::CharDevice | Kind::BlockDevice => (number(&header[329..337])?, number(&header[337..345])?),
            _ => (0, 0),
        };
        Ok(Entry {
            kind,
            path,
            link: self.link.unwrap_or_else(|| until_zero(&header[157..257]).to_vec()),
            // Only the permission bits: old writers put the type there too.
            mode: u32::try_from(number(&header[100..108])? & 0o7777).unwrap_or_default(),
            uid: id(self.uid, &header[108..116])?,
            gid: id(self.gid, &header[116..124])?,
            size,
            mtime: self.mtime.unwrap_or((i64::try_from(number(&header[136..148])?).unwrap_or(0), 0)),
            device,
            xattrs: self.xattrs,
        })
    }
}

/// Octal digits, or, when the first bit is set, a big-endian binary number. Below zero is taken as zero.
fn number(field: &[u8]) -> io::Result<u64> {
    match field {
        [0xff, ..] => Ok(0),
        [first, rest @ ..] if first & 0x80 != 0 => rest
            .iter()
            .try_fold(u64::from(first & 0x7f), |value, &byte| {
                value.checked_mul(256).and_then(|v| v.checked_add(u64::from(byte)))
            })
            .ok_or_else(|| invalid("an impossible number in a header")),
        _ => {
            let digits =
                text(until_zero(field)).map(str::trim).ok_or_else(|| invalid("a malformed number"))?;
            if digits.is_empty() {
                return Ok(0);
            }
            u64::from_str_radix(digits, 8)
                .map_err(|_| invalid("not a tar archive: a malformed number in a header"))
        }
    }
}

/// `1700000000.123`.
fn pax_time(text: &str) -> Option<(i64, u32)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanoseconds = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some((seconds.parse().ok()?, nanoseconds))
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use tar::{EntryType, Header};

    use super::*;

    #[test]
    fn extensions_of_one_entry_are_bounded_together() {
        let mut archive = tar::Builder::new(Vec::new());
        let value = vec![b'v'; 300 << 10];
        let rest = " SCHILY.xattr.a=".len() + value.len() + 1;
        let record = [format!("{} SCHILY.xattr.a=", rest + 6).as_bytes(), &value, b"\n"].concat();
        for _ in 0..4 {
            let mut header = Header::new_ustar();
            header.set_entry_type(EntryType::XHeader);
            header.set_size(record.len() as u64);
            header.set_cksum();
            archive.append(&header, record.as_slice()).unwrap();
        }
        let bytes = archive.into_inner().unwrap();
        let error = Tarball::new(bytes.as_slice()).next_entry().unwrap_err();
        assert_eq!(error.to_string(), "names and attributes of a file take too much");
        // Up to the limit they are taken; here no entry follows.
        let three = &bytes[..3 * (BLOCK + record.len().next_multiple_of(BLOCK))];
        assert_eq!(Tarball::new(three).next_entry().unwrap(), None);
    }
}
