//! The server's text forms, written: array literals for set-based statements, lines of text COPY, and parsed: lines of
//! text COPY.
//!
//! A value travels as the text its type's output function gives under the settings that every session of ours fixes.
//! Nothing here interprets that text; quoting it so that the server reads the very same bytes again is all there is.
//! NULL and the empty string stay two things in every form.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use godwit_model::{Error, Result, Value, codes};
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

/// A parameter of type text, already encoded; None is NULL.
#[derive(Debug)]
pub(crate) struct TextParameter(pub(crate) Option<BytesMut>);

impl ToSql for TextParameter {
    fn to_sql(&self, _type: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let Some(text) = &self.0 else { return Ok(IsNull::Yes) };
        out.put_slice(text);
        Ok(IsNull::No)
    }

    fn accepts(_type: &Type) -> bool {
        true
    }

    fn encode_format(&self, _type: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// The text of a value; None is NULL. `Absent` and `Unsent` have none: whoever builds a write leaves them out.
pub(crate) fn text_of(value: &Value) -> Result<Option<Cow<'_, [u8]>>> {
    match value {
        Value::Null => Ok(None),
        Value::Native(text) | Value::Text(text) => Ok(Some(Cow::Borrowed(text))),
        Value::Int(number) => Ok(Some(Cow::Owned(number.to_string().into_bytes()))),
        Value::Float(number) => Ok(Some(Cow::Owned(float_text(*number).into_bytes()))),
        Value::Bytes(bytes) => Ok(Some(Cow::Owned(hex(bytes).into_bytes()))),
        Value::Absent | Value::Unsent => Err(Error::internal("a value that the source did not send was about to be written")),
    }
}

fn float_text(number: f64) -> String {
    if number.is_nan() {
        "NaN".to_owned()
    } else if number.is_infinite() {
        if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
    } else {
        format!("{number:?}")
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 + bytes.len() * 2);
    text.push_str("\\x");
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes everything");
    }
    text
}

/// An array literal (`{"a",NULL,""}`) of these values, as the type's input function reads it.
pub(crate) fn array_literal<'a>(values: impl Iterator<Item = &'a Value> + Clone) -> Result<BytesMut> {
    // the values' bytes, quotes and commas; growing would copy them again and again
    let size = values.clone().map(|value| value.weight() - std::mem::size_of::<Value>() + 4).sum::<usize>();
    let mut out = BytesMut::with_capacity(size + 2);
    out.put_u8(b'{');
    for (index, value) in values.enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        push_element(&mut out, value)?;
    }
    out.put_u8(b'}');
    Ok(out)
}

fn push_element(out: &mut BytesMut, value: &Value) -> Result<()> {
    let Some(text) = text_of(value)? else {
        out.put_slice(b"NULL");
        return Ok(());
    };
    out.put_u8(b'"');
    let mut rest = &text[..];
    while let Some(place) = memchr::memchr2(b'"', b'\\', rest) {
        out.put_slice(&rest[..place]);
        out.put_u8(b'\\');
        out.put_u8(rest[place]);
        rest = &rest[place + 1..];
    }
    out.put_slice(rest);
    out.put_u8(b'"');
    Ok(())
}

/// Appends one row as a line of text COPY.
pub(crate) fn push_copy_line(out: &mut BytesMut, row: &[Value]) -> Result<()> {
    for (index, value) in row.iter().enumerate() {
        if index > 0 {
            out.put_u8(b'\t');
        }
        match text_of(value)? {
            None => out.put_slice(b"\\N"),
            Some(text) => push_copy_escaped(out, &text),
        }
    }
    out.put_u8(b'\n');
    Ok(())
}

fn push_copy_escaped(out: &mut BytesMut, text: &[u8]) {
    let mut rest = text;
    while let Some(place) = rest.iter().position(|byte| matches!(byte, b'\\' | b'\n' | b'\r' | b'\t')) {
        out.put_slice(&rest[..place]);
        out.put_u8(b'\\');
        out.put_u8(match rest[place] {
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            other => other,
        });
        rest = &rest[place + 1..];
    }
    out.put_slice(rest);
}

/// Reads one line of text COPY, without its line end.
pub(crate) fn parse_copy_line(line: &[u8]) -> Result<Vec<Value>> {
    line.split(|byte| *byte == b'\t').map(parse_copy_field).collect()
}

fn parse_copy_field(field: &[u8]) -> Result<Value> {
    if field == b"\\N" {
        return Ok(Value::Null);
    }
    if memchr::memchr(b'\\', field).is_none() {
        return Ok(Value::Native(Bytes::copy_from_slice(field)));
    }
    let mut text = Vec::with_capacity(field.len());
    let mut bytes = field.iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'\\' {
            text.push(*byte);
            continue;
        }
        text.push(match bytes.next() {
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'v') => 11,
            Some(other) => *other,
            None => return Err(Error::new(&codes::SERVER_REFUSED, "the server sent a COPY line that ends in a backslash")),
        });
    }
    Ok(Value::Native(Bytes::from(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn null_and_empty_stay_apart_in_an_array() {
        let values = [Value::Null, Value::text(""), Value::text("NULL"), Value::text("a\"b\\c,{}")];
        let literal = array_literal(values.iter()).unwrap();
        assert_eq!(&literal[..], br#"{NULL,"","NULL","a\"b\\c,{}"}"#);
    }

    #[test]
    fn what_was_not_sent_is_never_written() {
        assert!(array_literal([Value::Unsent].iter()).is_err());
        assert!(push_copy_line(&mut BytesMut::new(), &[Value::Absent]).is_err());
    }

    proptest! {
        #[test]
        fn a_copy_line_comes_back_as_it_was(texts in proptest::collection::vec(proptest::option::of(".{0,20}"), 1..6)) {
            let row: Vec<Value> =
                texts.iter().map(|text| text.as_ref().map_or(Value::Null, |text| Value::Native(Bytes::from(text.clone())))).collect();
            let mut line = BytesMut::new();
            push_copy_line(&mut line, &row).unwrap();
            let end = line.len() - 1;
            prop_assert_eq!(parse_copy_line(&line[..end]).unwrap(), row);
        }
    }
}
