//! Fields that say something by being empty.
//!
//! Go has a pointer where a field that was given without content is not the same as one that was not given. Where the
//! typed struct has none, a kind says so ([`Kind::GIVEN`](crate::object::Kind::GIVEN)), and decoding tells the two
//! apart. All these contents are invalid, so nothing of it is ever stored.

/// A field by the names that lead to it (`spec.selector`), and how it is told that it was given without content.
pub type Given = (&'static str, Way);

/// How decoding tells that a field was given without content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// An empty list or map stays.
    Kept,
    /// An empty text becomes [`EMPTY`].
    Marked,
    /// A struct without content holds an empty map under this name.
    Holds(&'static str),
}

/// Stands for a text that was given and is empty.
pub const EMPTY: &str = "\0";
