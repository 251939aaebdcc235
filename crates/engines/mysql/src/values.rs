//! A column's values between their forms: what a SELECT answers, what the binary log holds, what SQL says.
//!
//! Both ways in give the same value for the same row, and what is written from a value is read as that value again.
//! Whatever would not be exact is refused where it is seen: text that its character set does not know, a fraction that the
//! target would round, spaces that it would cut.

use std::borrow::Cow;
use std::io::Write as _;

use bytes::Bytes;
use godwit_model::{Error, Result, Value, codes};

use crate::binlog::LoggedType;
use crate::charset::Charset;
use crate::hex;
use crate::logged::{self, Logged};
use crate::types::Kind;

/// Longer text than this is not looked up in an index: no key of InnoDB takes it.
const LONGEST_KEY: usize = 3072;

/// One column's.
#[derive(Clone, Debug)]
pub(crate) struct Codec {
    kind: Kind,
    form: Form,
}

/// What its values are to us, beside the server's type.
#[derive(Clone, Debug, PartialEq)]
enum Form {
    Number,
    Float {
        single: bool,
    },
    Decimal {
        scale: usize,
    },
    /// Digits of a second's fraction.
    Time {
        fraction: usize,
    },
    Text {
        charset: Charset,
        fixed: bool,
        longest: Option<usize>,
    },
    Bytes {
        fixed: usize,
    },
    /// The members of an enum (from index 1 on), or of a set (from the lowest bit on).
    Enum(Vec<Bytes>),
    Set(Vec<Bytes>),
    /// The server's text; always ASCII.
    Printed,
}

#[expect(clippy::wrong_self_convention, reason = "from what a value comes, by what the column is")]
impl Codec {
    /// `TYPE_UNSUPPORTED` for what cannot be carried exactly.
    pub(crate) fn of(type_name: &str) -> Result<Self> {
        let kind = Kind::parse(type_name)?;
        refuse_compressed(&kind, type_name)?;
        let form = match &kind {
            Kind::Int { .. } | Kind::Year | Kind::Bit { .. } => Form::Number,
            Kind::Float => Form::Float { single: true },
            Kind::Double => Form::Float { single: false },
            Kind::Decimal { scale, .. } => Form::Decimal { scale: usize::from(*scale) },
            Kind::Date => Form::Time { fraction: 0 },
            Kind::Time { fraction } | Kind::DateTime { fraction } | Kind::Timestamp { fraction } => {
                refuse_old_times(*fraction, type_name)?;
                Form::Time { fraction: usize::from(*fraction) }
            }
            Kind::Text { charset, fixed, .. } => {
                Form::Text { charset: Charset::named(charset)?, fixed: *fixed, longest: varchar_length(type_name) }
            }
            Kind::Bytes { fixed } => Form::Bytes { fixed: usize::from(*fixed) },
            Kind::Geometry => Form::Bytes { fixed: 0 },
            Kind::Enum { members, .. } => Form::Enum(shared(members)),
            Kind::Set { members, .. } => Form::Set(shared(members)),
            Kind::Uuid | Kind::Inet4 | Kind::Inet6 => Form::Printed,
            Kind::Json => {
                return Err(Error::new(&codes::TYPE_UNSUPPORTED, "columns of the type `json` cannot be followed exactly yet")
                    .remedy("leave the column out"));
            }
        };
        Ok(Codec { kind, form })
    }

    /// The expression that a SELECT asks for.
    pub(crate) fn selected(&self, quoted_column: &str) -> String {
        match &self.form {
            // a FLOAT alone is printed with six digits, FLOAT(M,D) and DOUBLE(M,D) with D decimals
            Form::Float { .. } => format!("CAST({quoted_column} AS DOUBLE)"),
            // numbers do not depend on character sets
            Form::Enum(_) | Form::Set(_) => unsigned(quoted_column),
            Form::Number if matches!(self.kind, Kind::Bit { .. }) => unsigned(quoted_column),
            // the server's conversion would put a question mark for what it does not know
            Form::Text { charset, .. } if *charset != Charset::Utf8mb4 => binary(quoted_column),
            _ => quoted_column.to_owned(),
        }
    }

    /// A cell of the text protocol; None: NULL.
    pub(crate) fn from_select(&self, bytes: Option<&[u8]>) -> Result<Value> {
        let Some(bytes) = bytes else { return Ok(Value::Null) };
        match &self.form {
            Form::Number => parsed::<i64>(bytes).map(Value::Int).or_else(|_| parsed(bytes).map(unsigned_value)),
            Form::Float { .. } => parsed(bytes).map(Value::Float),
            Form::Decimal { .. } => Ok(Value::Native(Bytes::copy_from_slice(without_zerofill(bytes)))),
            Form::Time { .. } => Ok(Value::Native(Bytes::copy_from_slice(bytes))),
            Form::Text { charset, fixed, .. } => text_value(*charset, *fixed, bytes)
                .ok_or_else(|| not_text().remedy("mend the row, change the column to a binary type, or leave it out")),
            Form::Bytes { .. } => Ok(Value::Bytes(Bytes::copy_from_slice(bytes))),
            Form::Enum(members) => parsed(bytes).map(|index| enum_value(members, index)),
            Form::Set(members) => parsed(bytes).map(|bits| set_value(members, bits)),
            Form::Printed => Ok(Value::Text(Bytes::copy_from_slice(bytes))),
        }
    }

    /// One value of a row image, off the front of `raw`. NULLs are not in `raw`: the caller knows them.
    pub(crate) fn from_log(&self, logged: LoggedType, raw: &mut &[u8]) -> Result<Value> {
        Ok(match (&self.form, logged::read(&self.kind, logged, raw)?) {
            (Form::Number, Logged::Signed(number)) => Value::Int(number),
            (Form::Number, Logged::Unsigned(number)) => unsigned_value(number),
            (Form::Float { .. }, Logged::Float(number)) => Value::Float(number),
            (Form::Decimal { .. } | Form::Time { .. }, Logged::Own(text)) => Value::Native(Bytes::from(text)),
            (Form::Text { charset, fixed, .. }, Logged::Bytes(bytes)) => text_value(*charset, *fixed, bytes).ok_or_else(not_text)?,
            (Form::Bytes { fixed }, Logged::Bytes(bytes)) => Value::Bytes(padded(bytes, *fixed)?),
            (Form::Enum(members), Logged::Unsigned(index)) => enum_value(members, index),
            (Form::Set(members), Logged::Unsigned(bits)) => set_value(members, bits),
            (Form::Printed, Logged::Printed(text)) => Value::text(text),
            _ => return Err(Error::internal("a column's log form is not that of its type")),
        })
    }

    /// SQL text for INSERT and UPDATE, for a session with `NO_BACKSLASH_ESCAPES` and `utf8mb4`. Refuses what the server
    /// would change without a word.
    pub(crate) fn literal(&self, value: &Value, out: &mut Vec<u8>) -> Result<()> {
        match (&self.form, value) {
            (Form::Text { fixed, longest, .. }, Value::Text(text)) => refuse_cut_spaces(text, *fixed, *longest)?,
            (Form::Bytes { fixed }, Value::Bytes(bytes)) if *fixed > 0 && bytes.len() != *fixed => {
                return Err(refused("a value is not as long as its binary column, which would be filled up"));
            }
            (Form::Enum(members), Value::Text(_) | Value::Int(_)) if member_index(members, value)? == 0 => {
                return Err(refused(
                    "an enum's error value (index 0, an empty text that is no member) cannot be written under strict rules",
                )
                .remedy("set the row at the source to a member or to NULL, or leave the column out"));
            }
            _ => {}
        }
        self.push(value, out)
    }

    /// A condition that is true for exactly this value, byte by byte, and never NULL. The servers call 0.0 and -0.0 the
    /// same (MariaDB stores no -0.0), and so does this. Where the column has an index, it can be used.
    pub(crate) fn equals(&self, quoted_column: &str, value: &Value, out: &mut Vec<u8>) -> Result<()> {
        if *value == Value::Null {
            return push(out, format_args!("{quoted_column} IS NULL"));
        }
        match (&self.form, value) {
            (Form::Text { charset, .. }, Value::Text(text)) => self.equals_text(quoted_column, *charset, text, out),
            _ => {
                push(out, format_args!("{} <=> ", self.compared(quoted_column, value)))?;
                self.push(value, out)
            }
        }
    }

    /// What of a column is compared. A set with its 64th bit counts as a negative number, and would differ from its value.
    fn compared<'a>(&self, quoted_column: &'a str, value: &Value) -> Cow<'a, str> {
        match (&self.form, value) {
            (Form::Set(members), _) if members.len() > 63 => Cow::Owned(unsigned(quoted_column)),
            _ if matches!(self.kind, Kind::Geometry) => Cow::Owned(binary(quoted_column)),
            _ => Cow::Borrowed(quoted_column),
        }
    }

    /// The collation finds candidates by an index, and calls more the same than is; their bytes decide.
    fn equals_text(&self, quoted_column: &str, charset: Charset, text: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let Some(encoded) = charset.encode(utf8(text)?) else { return push(out, format_args!("FALSE")) };
        let indexed = text.len() <= LONGEST_KEY;
        if indexed {
            push(out, format_args!("({quoted_column} <=> "))?;
            push_quoted(text, out);
            push(out, format_args!(" AND "))?;
        }
        push(out, format_args!("{} <=> ", binary(quoted_column)))?;
        if *encoded == *text {
            out.extend_from_slice(b"_binary");
            push_quoted(text, out);
        } else {
            hex::push_literal(&encoded, out);
        }
        if indexed {
            out.push(b')');
        }
        Ok(())
    }

    /// A value of this column's form; anything else is refused, so that the server has nothing to convert.
    fn push(&self, value: &Value, out: &mut Vec<u8>) -> Result<()> {
        match (&self.form, value) {
            (_, Value::Absent | Value::Unsent) => Err(Error::internal("a value that the source did not send was about to be written")),
            (_, Value::Null) => push(out, format_args!("NULL")),
            (Form::Number | Form::Decimal { .. }, Value::Int(number)) => push(out, format_args!("{number}")),
            (Form::Number, Value::Native(digits)) => push_number(digits, 0, out),
            (Form::Decimal { scale }, Value::Native(digits)) => push_number(digits, *scale, out),
            (Form::Float { single }, Value::Float(number)) => push_float(*number, *single, out),
            (Form::Time { fraction }, Value::Native(text)) => push_time(text, *fraction, out),
            (Form::Text { .. } | Form::Printed, Value::Text(text)) => {
                push_quoted(utf8(text)?.as_bytes(), out);
                Ok(())
            }
            (Form::Bytes { .. }, Value::Bytes(bytes)) => {
                hex::push_literal(bytes, out);
                Ok(())
            }
            (Form::Enum(members), value) => push(out, format_args!("{}", member_index(members, value)?)),
            (Form::Set(members), value) => push(out, format_args!("{}", member_bits(members, value)?)),
            _ => Err(refused("a value is of another kind than its column")),
        }
    }
}

fn unsigned(quoted_column: &str) -> String {
    format!("CAST({quoted_column} AS UNSIGNED)")
}

fn binary(quoted_column: &str) -> String {
    format!("CAST({quoted_column} AS BINARY)")
}

fn shared(members: &[String]) -> Vec<Bytes> {
    members.iter().map(|member| Bytes::copy_from_slice(member.as_bytes())).collect()
}

/// MariaDB logs such columns as they are stored: deflated.
fn refuse_compressed(kind: &Kind, type_name: &str) -> Result<()> {
    if matches!(kind, Kind::Text { .. } | Kind::Bytes { .. }) && type_name.contains("COMPRESSED") {
        return Err(Error::new(&codes::TYPE_UNSUPPORTED, "columns that are COMPRESSED cannot be followed yet")
            .remedy("change the column (`ALTER TABLE ... MODIFY`) to the same type without COMPRESSED, or leave it out"));
    }
    Ok(())
}

/// Fractions in the format before that of MySQL 5.6: the log does not say how long they are. Where a type's text comes
/// without the catalog's comment, rows in the log are refused.
fn refuse_old_times(fraction: u8, type_name: &str) -> Result<()> {
    if fraction > 0 && type_name.contains("mariadb-5.3") {
        return Err(Error::new(&codes::TYPE_UNSUPPORTED, "a time with a fraction is stored in the format of MariaDB 5.3")
            .remedy("with mysql56_temporal_format=ON, rewrite the table: ALTER TABLE ... FORCE"));
    }
    Ok(())
}

/// Characters that a VARCHAR takes.
fn varchar_length(type_name: &str) -> Option<usize> {
    let rest = type_name.get(..8).filter(|name| name.eq_ignore_ascii_case("varchar(")).and_then(|_| type_name.get(8..))?;
    rest.split(')').next()?.trim().parse().ok()
}

fn parsed<T: std::str::FromStr>(bytes: &[u8]) -> Result<T> {
    let number = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Error::new(&codes::SERVER_REFUSED, "the server sent a number that is none"))
}

fn unsigned_value(number: u64) -> Value {
    match i64::try_from(number) {
        Ok(number) => Value::Int(number),
        Err(_) => Value::Native(Bytes::from(number.to_string())),
    }
}

/// ZEROFILL is how a column is shown, no part of its value.
fn without_zerofill(digits: &[u8]) -> &[u8] {
    let mut rest = digits;
    while let [b'0', next, ..] = rest
        && next.is_ascii_digit()
    {
        rest = &rest[1..];
    }
    rest
}

fn text_value(charset: Charset, fixed: bool, bytes: &[u8]) -> Option<Value> {
    let text = charset.decode(bytes)?;
    // a CHAR's trailing spaces are filling, whether they were sent or not
    let length = if fixed { text.trim_end_matches(' ').len() } else { text.len() };
    Some(Value::Text(Bytes::copy_from_slice(text.as_bytes().get(..length)?)))
}

fn not_text() -> Error {
    Error::new(&codes::LOG_UNDECODABLE, "a column holds bytes that are no text of its character set")
}

fn padded(bytes: &[u8], fixed: usize) -> Result<Bytes> {
    if fixed == 0 || bytes.len() == fixed {
        return Ok(Bytes::copy_from_slice(bytes));
    }
    if bytes.len() > fixed {
        return Err(Error::new(&codes::LOG_UNDECODABLE, "a row in the log has a value that is longer than its column"));
    }
    let mut all = bytes.to_vec();
    all.resize(fixed, 0);
    Ok(Bytes::from(all))
}

/// The member's name, and empty for index 0, the server's mark of a wrong value. Where that name would not lead back (an
/// enum that has an empty member, or one name twice), the index itself.
fn enum_value(members: &[Bytes], index: u64) -> Value {
    let place = usize::try_from(index).ok().and_then(|index| index.checked_sub(1));
    let name = match place {
        None => Bytes::new(),
        Some(place) => match members.get(place) {
            Some(name) => name.clone(),
            None => return unsigned_value(index),
        },
    };
    if index_of(members, &name) == Some(index) { Value::Text(name) } else { unsigned_value(index) }
}

fn index_of(members: &[Bytes], name: &[u8]) -> Option<u64> {
    let index = members.iter().zip(1..).find(|(member, _)| **member == name).map(|(_, index)| index);
    index.or(if name.is_empty() { Some(0) } else { None })
}

fn set_value(members: &[Bytes], bits: u64) -> Value {
    let chosen = members.iter().zip(0..u64::BITS).filter(|(_, place)| bits >> place & 1 == 1);
    let names = chosen.map(|(name, _)| &name[..]).collect::<Vec<_>>().join(&b',');
    if bits_of(members, &names) == Some(bits) { Value::Text(Bytes::from(names)) } else { unsigned_value(bits) }
}

fn bits_of(members: &[Bytes], names: &[u8]) -> Option<u64> {
    if names.is_empty() {
        return Some(0);
    }
    let mut bits = 0;
    for name in names.split(|byte| *byte == b',') {
        let place = members.iter().position(|member| **member == *name)?;
        bits |= 1_u64.checked_shl(u32::try_from(place).ok()?)?;
    }
    Some(bits)
}

fn member_index(members: &[Bytes], value: &Value) -> Result<u64> {
    let index = match value {
        Value::Text(name) => index_of(members, name),
        Value::Int(index) => u64::try_from(*index).ok().filter(|index| usize::try_from(*index).is_ok_and(|index| index <= members.len())),
        _ => None,
    };
    index.ok_or_else(|| refused("a value is not a member of its column's enum"))
}

fn member_bits(members: &[Bytes], value: &Value) -> Result<u64> {
    let bits = match value {
        Value::Text(names) => bits_of(members, names),
        Value::Int(bits) => u64::try_from(*bits).ok(),
        Value::Native(bits) => parsed(bits).ok(),
        _ => None,
    };
    let known = |bits: &u64| bits.checked_shr(u32::try_from(members.len()).unwrap_or(u32::MAX)).unwrap_or(0) == 0;
    bits.filter(known).ok_or_else(|| refused("a value is not made of members of its column's set"))
}

/// CHAR forgets trailing spaces, and a VARCHAR those that it has no room for: both without an error, even under strict rules.
fn refuse_cut_spaces(text: &[u8], fixed: bool, longest: Option<usize>) -> Result<()> {
    if !text.ends_with(b" ") {
        return Ok(());
    }
    let too_long = || longest.is_some_and(|longest| text.iter().filter(|byte| (**byte).cast_signed() >= -64).count() > longest);
    if fixed || too_long() {
        return Err(refused("a text ends in spaces that its column would cut"));
    }
    Ok(())
}

fn refused(what: &str) -> Error {
    Error::new(&codes::VALUE_REFUSED, what)
}

fn utf8(text: &[u8]) -> Result<&str> {
    std::str::from_utf8(text).map_err(|_| refused("a text is not UTF-8"))
}

fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) -> Result<()> {
    out.write_fmt(text).map_err(|_| Error::internal("a buffer that takes nothing"))
}

/// An exact number; the server would round digits behind the point that it has no place for.
fn push_number(digits: &[u8], scale: usize, out: &mut Vec<u8>) -> Result<()> {
    let absolute = digits.strip_prefix(b"-").unwrap_or(digits);
    let (whole, decimals) = match absolute.iter().position(|byte| *byte == b'.') {
        Some(point) => (&absolute[..point], &absolute[point + 1..]),
        None => (absolute, &[][..]),
    };
    if whole.is_empty() || !whole.iter().chain(decimals).all(u8::is_ascii_digit) {
        return Err(refused("a number is none"));
    }
    if decimals.len() > scale {
        return Err(refused("a number has more decimals than its column, which would round it"));
    }
    out.extend_from_slice(digits);
    Ok(())
}

fn push_float(number: f64, single: bool, out: &mut Vec<u8>) -> Result<()> {
    if !number.is_finite() {
        return Err(refused("a number is not finite, which the server does not take"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "whether it truncates is the question")]
    if single && f64::from(number as f32) != number {
        return Err(refused("a number does not fit a FLOAT exactly"));
    }
    push(out, format_args!("{number:e}"))
}

/// The server's own text of a time, between quotes; it would round a fraction that it has no digits for.
fn push_time(text: &[u8], fraction: usize, out: &mut Vec<u8>) -> Result<()> {
    if !text.iter().all(|byte| byte.is_ascii_digit() || b"-: .".contains(byte)) {
        return Err(refused("a time is none"));
    }
    let digits = text.iter().position(|byte| *byte == b'.').map_or(0, |point| text.len() - point - 1);
    if digits > fraction {
        return Err(refused("a time has a longer fraction than its column, which would round it"));
    }
    push_quoted(text, out);
    Ok(())
}

fn push_quoted(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'\'');
    for (index, part) in text.split(|byte| *byte == b'\'').enumerate() {
        if index > 0 {
            out.extend_from_slice(b"''");
        }
        out.extend_from_slice(part);
    }
    out.push(b'\'');
}

#[cfg(test)]
mod tests;
