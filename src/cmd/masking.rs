//! Masking of what a caller says, before anything is recorded.

use std::collections::BTreeMap;

use crate::checkpoint::mask::{MASK, Masker};
use crate::render::text::plain;

/// The text without credentials.
pub(super) fn said(masker: &Masker, text: &str) -> String {
    let masked = masker.mask(text);
    // Colours and the like inside a credential must not hide it: people would see it without them.
    let seen = plain(&masked, true);
    if seen == masked {
        return masked;
    }
    let masked_seen = masker.mask(&seen);
    if masked_seen == seen { masked } else { masked_seen }
}

/// A name and its value, taken together: often only the name tells that a value is a credential.
pub(super) fn said_pair(masker: &Masker, name: &str, value: &str) -> (String, String) {
    let pair = said(masker, &format!("{name}={value}"));
    match pair.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (pair, MASK.to_owned()),
    }
}

/// Such pairs; of two by the same name the last counts.
pub(super) fn said_pairs(masker: &Masker, pairs: &[(String, String)]) -> BTreeMap<String, String> {
    let mut said = BTreeMap::new();
    said.extend(pairs.iter().map(|(name, value)| said_pair(masker, name, value)));
    said
}
