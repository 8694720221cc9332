//! The keys that seal values, so that neither the store's files nor its backups show them.
//!
//! The file `sealing.key` has one key on each line, 256 bits in base64. The first key seals, every key opens. To take a
//! new key into use, write it above the old ones and restart; what is written from then on is sealed with it, and the
//! old one can go once everything was written anew. Lines that begin with `#` are comments.
//!
//! Every API server on the same store needs the same file: it belongs to the directory of certificates and keys, which
//! they share anyway. With several of them, a new key is first added below the old one everywhere, and moved to the top
//! when all servers know it. Without the file nothing that was sealed can be read again, so it belongs into a backup,
//! but not beside that of the store.
//!
//! A sealed value is `skiff:sealed:1:`, the name of the key, a colon, the nonce, and what AES-256-GCM made of the value.
//! The store's key of the value is authenticated with it: a value that is moved to another place can't be opened there.

use std::fmt;

use base::Random;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest, Sha256};

/// What a sealed value begins with. No JSON does.
const MAGIC: &[u8] = b"skiff:sealed:1:";
/// Letters of a key's name.
const NAME: usize = 8;
const KEY: usize = 32;

/// Seals values with the first of its keys, and opens those of all.
pub struct SealingKeys(Vec<Key>);

struct Key {
    name: String,
    key: LessSafeKey,
}

impl fmt::Debug for SealingKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.name)).finish()
    }
}

impl SealingKeys {
    /// The text of a file with one new key.
    pub(super) fn generate(random: &Random) -> String {
        let mut key = [0; KEY];
        random.fill(&mut key);
        let about = "# What seals Secrets in the store: one key on each line. The first seals, all open.";
        format!("{about}\n{}\n", BASE64.encode(key))
    }

    /// Reads the text of the file.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim).enumerate();
        let keys: Vec<Key> = lines
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .map(|(number, line)| {
                Key::parse(line).ok_or_else(|| format!("line {} is no key of 256 bits in base64", number + 1))
            })
            .collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Err("there is no key in it".to_owned());
        }
        Ok(Self(keys))
    }

    /// What is to be stored of a value at this place.
    pub(crate) fn seal(&self, place: &str, value: &[u8], random: &Random) -> Result<Bytes, String> {
        let key = self.0.first().ok_or("there is no key")?;
        let mut nonce = [0; NONCE_LEN];
        random.fill(&mut nonce);
        let head = MAGIC.len() + NAME + 1 + NONCE_LEN;
        let mut sealed = Vec::with_capacity(head + value.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(MAGIC);
        sealed.extend_from_slice(key.name.as_bytes());
        sealed.push(b':');
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(value);
        let (nonce, place) = (Nonce::assume_unique_for_key(nonce), Aad::from(place.as_bytes()));
        let tag = key.key.seal_in_place_separate_tag(nonce, place, &mut sealed[head..]);
        sealed.extend_from_slice(tag.map_err(|_| "the value is too large to be sealed")?.as_ref());
        Ok(sealed.into())
    }

    /// The value that is stored at this place. One that was written before values were sealed is itself.
    pub(crate) fn open(&self, place: &str, stored: &Bytes) -> Result<Bytes, String> {
        let Some(rest) = stored.strip_prefix(MAGIC) else { return Ok(stored.clone()) };
        let parts = rest.split_at_checked(NAME).and_then(|(name, rest)| {
            let (nonce, sealed) = rest.strip_prefix(b":")?.split_first_chunk::<NONCE_LEN>()?;
            Some((String::from_utf8_lossy(name), *nonce, sealed))
        });
        let (name, nonce, sealed) = parts.ok_or("it is cut short")?;
        let key = self.0.iter().find(|key| key.name == name).ok_or_else(|| {
            format!("it is sealed with the key {name}, which is not in sealing.key; restore that file from a backup")
        })?;
        let mut value = sealed.to_vec();
        let (nonce, place) = (Nonce::assume_unique_for_key(nonce), Aad::from(place.as_bytes()));
        let length = key.key.open_in_place(nonce, place, &mut value).map(|plain| plain.len());
        value.truncate(length.map_err(|_| "it was changed, or comes from another place")?);
        Ok(value.into())
    }
}

impl Key {
    fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64.decode(text).ok()?;
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).ok()?);
        // Follows from the key, so that no two keys have one name.
        let digest = Sha256::new().chain_update(MAGIC).chain_update(&bytes).finalize();
        let name: String = digest.iter().take(NAME / 2).map(|byte| format!("{byte:02x}")).collect();
        Some(Self { name, key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> SealingKeys {
        SealingKeys::parse(text).unwrap()
    }

    #[test]
    fn what_is_sealed_shows_nothing_and_opens_only_at_its_place() {
        let random = Random::seeded(1);
        let keys = keys(&SealingKeys::generate(&random));
        let sealed = keys.seal("/a", b"{\"plain\":1}", &random).unwrap();
        assert!(!sealed.windows(5).any(|part| part == b"plain"));
        assert_ne!(sealed, keys.seal("/a", b"{\"plain\":1}", &random).unwrap());
        assert_eq!(keys.open("/a", &sealed).unwrap(), "{\"plain\":1}");
        assert!(keys.open("/b", &sealed).unwrap_err().contains("another place"));
        for at in 0..sealed.len() {
            let mut changed = sealed.to_vec();
            changed[at] ^= 1;
            // Without its mark it is not sealed, and then it is no JSON either.
            assert!(at < MAGIC.len() || keys.open("/a", &changed.into()).is_err(), "{at}");
            let cut = sealed.slice(..at);
            assert!(at < MAGIC.len() || keys.open("/a", &cut).is_err(), "{at}");
        }
        assert_eq!(keys.open("/a", &Bytes::from("{}")).unwrap(), "{}");
    }

    #[test]
    fn a_new_key_seals_and_the_old_one_still_opens() {
        let random = Random::seeded(1);
        let (old, new) = (SealingKeys::generate(&random), SealingKeys::generate(&random));
        let both = keys(&format!("{new}\n{old}"));
        let sealed = keys(&old).seal("/a", b"x", &random).unwrap();
        assert_eq!(both.open("/a", &sealed).unwrap(), "x");
        let sealed = both.seal("/a", b"x", &random).unwrap();
        assert_eq!(keys(&new).open("/a", &sealed).unwrap(), "x");
        let error = keys(&old).open("/a", &sealed).unwrap_err();
        assert!(error.contains("not in sealing.key"), "{error}");
    }

    #[test]
    fn a_file_without_keys_is_refused() {
        for (text, error) in [
            ("", "there is no key in it"),
            ("# a comment\n\n", "there is no key in it"),
            ("# a comment\nAAAA\n", "line 2 is no key of 256 bits in base64"),
            ("!", "line 1 is no key of 256 bits in base64"),
        ] {
            assert_eq!(SealingKeys::parse(text).unwrap_err(), error, "{text:?}");
        }
    }
}
