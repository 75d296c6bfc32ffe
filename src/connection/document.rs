//! Careful reading of small documents that a peer wrote.
//!
//! Values are read by name and type, cut to a stated length, and left out when they are anything else: a broken
//! element ends the reading of its document, and what stood before it is kept.
//!
//! **Invariant:** at most [`ELEMENTS_MAX`] elements of a document are looked at. Only types whose reading is
//! bounds-checked throughout are converted (no code with scope, no regular expression).
//!
//! Source: BSON specification 1.1.

use bson::raw::{RawArray, RawBson, RawBsonRef, RawDocument, RawElement};
use bson::spec::ElementType;

/// Elements looked at in one document. A hello has about 15, its reply about 30; the longest list of interest is
/// that of a `killCursors`.
pub(super) const ELEMENTS_MAX: usize = 256;

/// The elements of `document` by name, up to the first broken one.
pub(super) fn elements(
    document: &RawDocument,
) -> impl Iterator<Item = (&str, RawElement<'_>)> + '_ {
    document
        .iter_elements()
        .take(ELEMENTS_MAX)
        .map_while(Result::ok)
        .map(|element| (element.key().as_str(), element))
}

/// The elements of `array` in order, up to the first broken one.
pub(super) fn items(array: &RawArray) -> impl Iterator<Item = RawElement<'_>> + '_ {
    array
        .iter_elements()
        .take(ELEMENTS_MAX)
        .map_while(Result::ok)
}

/// The first element of `document` that is called `name`.
pub(super) fn find<'a>(document: &'a RawDocument, name: &str) -> Option<RawElement<'a>> {
    elements(document)
        .find(|(key, _)| *key == name)
        .map(|(_, element)| element)
}

/// A string of at most `len_max` bytes, invalid UTF-8 replaced; `None` for any other type.
pub(super) fn text(element: &RawElement<'_>, len_max: usize) -> Option<String> {
    if element.element_type() != ElementType::String {
        return None;
    }
    if let Ok(value) = element.value() {
        let valid = value.as_str()?;
        return Some(cut(valid, len_max).to_owned());
    }
    let Ok(RawBson::String(mut lossy)) = element.value_utf8_lossy() else {
        return None;
    };
    lossy.truncate(lossy.floor_char_boundary(len_max));
    lossy.shrink_to_fit();
    Some(lossy)
}

/// `text` without what goes beyond `len_max` bytes, cut between characters.
pub(super) fn cut(text: &str, len_max: usize) -> &str {
    text.get(..text.floor_char_boundary(len_max))
        .unwrap_or_default()
}

/// An integer of either width.
pub(super) fn integer(element: &RawElement<'_>) -> Option<i64> {
    let value = element.value().ok()?;
    value.as_i64().or_else(|| value.as_i32().map(i64::from))
}

/// Whether the element is the boolean `true`.
pub(super) fn is_true(element: &RawElement<'_>) -> bool {
    matches!(element.value(), Ok(RawBsonRef::Boolean(true)))
}

/// An embedded document.
pub(super) fn embedded<'a>(element: &RawElement<'a>) -> Option<&'a RawDocument> {
    element.value().ok()?.as_document()
}

/// An array.
pub(super) fn array<'a>(element: &RawElement<'a>) -> Option<&'a RawArray> {
    element.value().ok()?.as_array()
}

/// The bytes of a binary value.
pub(super) fn binary<'a>(element: &RawElement<'a>) -> Option<&'a [u8]> {
    Some(element.value().ok()?.as_binary()?.bytes)
}

#[cfg(test)]
mod tests {
    use bson::raw::RawDocumentBuf;
    use bson::rawdoc;

    use super::*;

    /// A document whose only element `name` is a string of these bytes.
    fn with_string(name: &str, bytes: &[u8]) -> RawDocumentBuf {
        let mut raw = vec![0; 4];
        raw.push(2);
        raw.extend_from_slice(name.as_bytes());
        raw.push(0);
        raw.extend_from_slice(&i32::try_from(bytes.len() + 1).unwrap().to_le_bytes());
        raw.extend_from_slice(bytes);
        raw.extend_from_slice(&[0, 0]);
        let len = i32::try_from(raw.len()).unwrap();
        raw[..4].copy_from_slice(&len.to_le_bytes());
        RawDocumentBuf::from_bytes(raw).unwrap()
    }

    #[test]
    fn text_is_cut_between_characters_and_repaired() {
        let document = rawdoc! { "a": "grün", "b": 7 };
        let read = |len_max| text(&find(&document, "a").unwrap(), len_max);
        assert_eq!(read(10).as_deref(), Some("grün"));
        assert_eq!(read(3).as_deref(), Some("gr"));
        assert_eq!(text(&find(&document, "b").unwrap(), 10), None);

        let broken = with_string("a", b"ok\xff\xfe");
        assert_eq!(
            text(&find(&broken, "a").unwrap(), 5).as_deref(),
            Some("ok\u{fffd}")
        );
    }

    #[test]
    fn a_broken_element_ends_the_reading_of_its_document() {
        let mut bytes = rawdoc! { "a": 1, "b": "text", "c": 2 }.into_bytes();
        let at = bytes
            .windows(4)
            .position(|window| window == b"text")
            .unwrap();
        bytes[at - 4..at].copy_from_slice(&i32::MAX.to_le_bytes());
        let document = RawDocumentBuf::from_bytes(bytes).unwrap();
        let names: Vec<_> = elements(&document).map(|(name, _)| name).collect();
        assert_eq!(names, ["a"]);
    }
}
