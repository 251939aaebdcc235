//! A chunk's text: a range of a table's key whose bounds SQLite itself found and compares.
//!
//! `key1:LOW:HIGH`: rows with LOW < key <= HIGH; an empty bound is open, so the first and last chunks also cover rows
//! that come later. A bound is the key's values, each a letter for its storage class and its digits, joined by commas.

use bytes::Bytes;
use godwit_model::{Error, Result, Row, Value};

const PREFIX: &str = "key1:";

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct KeyRange {
    pub(crate) above: Option<Row>,
    pub(crate) up_to: Option<Row>,
}

impl KeyRange {
    pub(crate) fn text(&self) -> String {
        let bound = |row: &Option<Row>| row.as_ref().map(|row| row.iter().map(write).collect::<Vec<_>>().join(",")).unwrap_or_default();
        format!("{PREFIX}{}:{}", bound(&self.above), bound(&self.up_to))
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        let unknown = || Error::internal("a chunk was planned by another version");
        let (above, up_to) = text.strip_prefix(PREFIX).and_then(|bounds| bounds.split_once(':')).ok_or_else(unknown)?;
        let bound = |text: &str| -> Option<Option<Row>> {
            if text.is_empty() {
                return Some(None);
            }
            text.split(',').map(read).collect::<Option<Row>>().map(Some)
        };
        Ok(KeyRange { above: bound(above).ok_or_else(unknown)?, up_to: bound(up_to).ok_or_else(unknown)? })
    }
}

fn write(value: &Value) -> String {
    match value {
        Value::Int(number) => format!("i{number}"),
        Value::Float(number) => format!("f{:016x}", number.to_bits()),
        Value::Text(bytes) | Value::Native(bytes) => format!("t{}", hex(bytes)),
        Value::Bytes(bytes) => format!("b{}", hex(bytes)),
        Value::Null | Value::Absent | Value::Unsent => "n".into(),
    }
}

fn read(text: &str) -> Option<Value> {
    let (kind, rest) = text.split_at_checked(1)?;
    Some(match kind {
        "i" => Value::Int(rest.parse().ok()?),
        "f" => Value::Float(f64::from_bits(u64::from_str_radix(rest, 16).ok()?)),
        "t" => {
            let bytes = unhex(rest)?;
            if std::str::from_utf8(&bytes).is_ok() { Value::Text(bytes) } else { Value::Native(bytes) }
        }
        "b" => Value::Bytes(unhex(rest)?),
        "n" => Value::Null,
        _ => return None,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Bytes> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect::<Option<Vec<u8>>>().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_it_was_written() {
        let row = vec![Value::Int(-5), Value::Float(0.5), Value::text("a:b,c"), Value::text(""), Value::Bytes(Bytes::from_static(b"\0"))];
        for range in [KeyRange::default(), KeyRange { above: Some(row.clone()), up_to: None }, KeyRange { above: None, up_to: Some(row) }] {
            assert_eq!(KeyRange::parse(&range.text()).unwrap(), range);
        }
        assert_eq!(KeyRange { above: None, up_to: Some(vec![Value::Int(7)]) }.text(), "key1::i7");
    }

    #[test]
    fn a_text_that_is_none_is_refused() {
        for text in ["", "key2::", "key1:", "key1:z:", "key1:i:", "key1:t0:", "key1:tü:"] {
            assert!(KeyRange::parse(text).is_err(), "{text}");
        }
    }
}
