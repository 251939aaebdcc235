//! Row events, cut into values.
//!
//! An event says which columns its images hold: all (FULL), all but large ones that did not change (NOBLOB), or what identifies
//! the row and what changed (MINIMAL). A column that is not in an image is not NULL: the image is silent about it. How
//! many bytes a value has follows from the table map alone, so that one column that is not understood never shifts the next.

use std::borrow::Cow;

use godwit_model::{Result, Value};

use super::column::{LoggedType, decimal_length, kind, length_width};
use super::decompress::decompress;
use super::reader::{Reader, count_bits, has_bit, little_endian};
use super::undecodable;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowsKind {
    Insert,
    Update,
    Delete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowsForm {
    V1,
    V2,
    V1Compressed,
    V2Compressed,
}

/// Rows of one table. Most are of tables that nobody asks for: they are not looked into.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RowsEvent<'a> {
    pub(crate) table_id: u64,
    pub(crate) kind: RowsKind,
    form: RowsForm,
    rest: Reader<'a>,
}

/// What an event holds behind its head.
struct Rows<'a> {
    /// Columns that are in an insert's only image, in the image before an update or delete.
    first: &'a [u8],
    /// In the image after an update.
    second: &'a [u8],
    data: Cow<'a, [u8]>,
}

/// One image of a row: which column is where.
pub(crate) type Image = Vec<Value>;

impl<'a> RowsEvent<'a> {
    pub(super) fn parse(kind: RowsKind, form: RowsForm, body: &'a [u8]) -> Result<Self> {
        let mut rest = Reader::new(body);
        let table_id = rest.number(6)?;
        rest.skip(2)?;
        Ok(RowsEvent { table_id, kind, form, rest })
    }

    fn open(&self, width: usize) -> Result<Rows<'a>> {
        let mut reader = self.rest;
        if matches!(self.form, RowsForm::V2 | RowsForm::V2Compressed) {
            // its length counts itself
            let extra = usize::from(reader.u16()?);
            reader.skip(extra.saturating_sub(2))?;
        }
        if reader.packed()? != width {
            return Err(undecodable("the source's log holds rows whose width is not that of their table"));
        }
        let first = reader.bytes(width.div_ceil(8))?;
        let second = if self.kind == RowsKind::Update { reader.bytes(width.div_ceil(8))? } else { &[] };
        if count_bits(first, width) == 0 {
            // of such rows nothing is written, not even how many there are
            return Err(undecodable("the source's log holds rows of which it tells no column")
                .remedy("set binlog_row_image to FULL at the source, for all its sessions; then run with --resync"));
        }
        let data = match self.form {
            RowsForm::V1 | RowsForm::V2 => Cow::Borrowed(reader.rest()),
            RowsForm::V1Compressed | RowsForm::V2Compressed => Cow::Owned(decompress(reader.rest())?),
        };
        Ok(Rows { first, second, data })
    }

    /// Every row in order: `row` gets one image, or two for an update (before, after). An image is made by `value` for each
    /// column that is in it; the others are `Absent`.
    pub(crate) fn each(
        &self,
        columns: &[LoggedType],
        value: impl Fn(usize, &[u8]) -> Result<Value>,
        mut row: impl FnMut(Image, Option<Image>) -> Result<()>,
    ) -> Result<()> {
        let rows = self.open(columns.len())?;
        let mut reader = Reader::new(&rows.data);
        while !reader.is_empty() {
            let first = image(&mut reader, rows.first, columns, &value)?;
            let second = match self.kind {
                RowsKind::Update => Some(image(&mut reader, rows.second, columns, &value)?),
                RowsKind::Insert | RowsKind::Delete => None,
            };
            row(first, second)?;
        }
        Ok(())
    }
}

fn image(reader: &mut Reader<'_>, present: &[u8], columns: &[LoggedType], value: impl Fn(usize, &[u8]) -> Result<Value>) -> Result<Image> {
    // one bit for each column that is there, not for each of the table
    let nulls = reader.bytes(count_bits(present, columns.len()).div_ceil(8))?;
    let mut image = vec![Value::Absent; columns.len()];
    let mut place = 0;
    for (index, column) in columns.iter().enumerate() {
        if !has_bit(present, index) {
            continue;
        }
        image[index] = match has_bit(nulls, place) {
            true => Value::Null,
            false => value(index, raw_value(*column, reader)?)?,
        };
        place += 1;
    }
    Ok(image)
}

/// The bytes of one value that is not NULL, with the length that stands before them.
fn raw_value<'a>(column: LoggedType, reader: &mut Reader<'a>) -> Result<&'a [u8]> {
    let length = match length_of(column)? {
        Length::Fixed(length) => length,
        Length::Prefixed(width) => {
            let mut ahead = *reader;
            let length = usize::try_from(little_endian(ahead.bytes(width)?)).unwrap_or(usize::MAX);
            length.saturating_add(width)
        }
    };
    reader.bytes(length)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Fixed(usize),
    /// A length of so many bytes stands before it.
    Prefixed(usize),
}

fn length_of(column: LoggedType) -> Result<Length> {
    let meta = usize::from(column.meta);
    let with_fraction = |whole: usize| Length::Fixed(whole + meta.div_ceil(2));
    let up_to = |bytes: u16| Length::Prefixed(length_width(bytes));
    Ok(match column.kind {
        kind::TINY | kind::YEAR => Length::Fixed(1),
        kind::SHORT => Length::Fixed(2),
        kind::INT24 | kind::DATE | kind::NEWDATE | kind::TIME => Length::Fixed(3),
        kind::LONG | kind::TIMESTAMP => Length::Fixed(4),
        kind::LONGLONG | kind::DATETIME => Length::Fixed(8),
        kind::FLOAT | kind::DOUBLE => Length::Fixed(meta),
        kind::TIMESTAMP2 => with_fraction(4),
        kind::DATETIME2 => with_fraction(5),
        kind::TIME2 => with_fraction(3),
        kind::NEWDECIMAL => {
            let (precision, scale) = (meta & 0xFF, meta >> 8);
            let whole = precision.checked_sub(scale).ok_or_else(|| undecodable("the source's log holds a decimal that cannot be"))?;
            Length::Fixed(decimal_length(whole) + decimal_length(scale))
        }
        kind::VARCHAR | kind::VARCHAR_COMPRESSED | kind::VAR_STRING => up_to(column.meta),
        kind::BIT => Length::Fixed((meta >> 8) + usize::from(meta & 0xFF != 0)),
        kind::ENUM | kind::SET | kind::STRING => match column.of_string() {
            (kind::ENUM | kind::SET, bytes) => Length::Fixed(bytes.into()),
            (_, longest) => up_to(longest),
        },
        kind::BLOB_COMPRESSED | kind::VECTOR | kind::JSON | kind::TINY_BLOB..=kind::BLOB | kind::GEOMETRY if (1..=4).contains(&meta) => {
            Length::Prefixed(meta)
        }
        _ => return Err(undecodable("the source's log holds a column whose values have no length that is known")),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COLUMNS: [LoggedType; 3] =
        [LoggedType { kind: kind::LONG, meta: 0 }, LoggedType { kind: kind::VARCHAR, meta: 20 }, LoggedType { kind: kind::LONG, meta: 0 }];

    fn rows(event: &RowsEvent<'_>) -> Vec<(Image, Option<Image>)> {
        let mut rows = Vec::new();
        let value = |_: usize, raw: &[u8]| Ok(Value::Bytes(raw.to_vec().into()));
        event
            .each(&COLUMNS, value, |first, second| {
                rows.push((first, second));
                Ok(())
            })
            .unwrap();
        rows
    }

    fn bytes(raw: &[u8]) -> Value {
        Value::Bytes(raw.to_vec().into())
    }

    #[test]
    fn an_absent_column_is_not_null() {
        // before: the first column; after: the second, which is NULL, and the third
        let body = [9, 0, 0, 0, 0, 0, 1, 0, 3, 0b001, 0b110, 0, 5, 0, 0, 0, 0b01, 6, 0, 0, 0];
        let event = RowsEvent::parse(RowsKind::Update, RowsForm::V1, &body).unwrap();
        let before = vec![bytes(&[5, 0, 0, 0]), Value::Absent, Value::Absent];
        let after = vec![Value::Absent, Value::Null, bytes(&[6, 0, 0, 0])];
        assert_eq!(rows(&event), [(before, Some(after))]);
    }

    #[test]
    fn several_rows_lie_behind_each_other() {
        let body = [9, 0, 0, 0, 0, 0, 1, 0, 2, 0, 3, 0b011, 0, 1, 0, 0, 0, 1, b'a', 0b10, 2, 0, 0, 0];
        let event = RowsEvent::parse(RowsKind::Insert, RowsForm::V2, &body).unwrap();
        let row = |number, text: Value| (vec![bytes(&[number, 0, 0, 0]), text, Value::Absent], None);
        assert_eq!(rows(&event), [row(1, bytes(&[1, b'a'])), row(2, Value::Null)]);
    }

    #[test]
    fn lengths_follow_from_the_type() {
        let length = |kind, meta| length_of(LoggedType { kind, meta }).unwrap();
        assert_eq!(length(kind::NEWDECIMAL, 10 | 2 << 8), Length::Fixed(5));
        assert_eq!(length(kind::NEWDECIMAL, 65 | 30 << 8), Length::Fixed(30));
        assert_eq!(length(kind::DATETIME2, 6), Length::Fixed(8));
        assert_eq!(length(kind::BIT, 1 << 8 | 1), Length::Fixed(2));
        assert_eq!(length(kind::STRING, 0x01F7), Length::Fixed(1));
        assert_eq!(length(kind::STRING, 0x28FE), Length::Prefixed(1));
        // char(100) of utf8mb4: 400 bytes
        assert_eq!(length(kind::STRING, 0x90EE), Length::Prefixed(2));
    }

    proptest! {
        #[test]
        fn any_bytes_are_rows_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60), kind in 1u8..=255, meta in any::<u16>()) {
            let columns = [LoggedType { kind, meta }; 3];
            for form in [RowsForm::V1, RowsForm::V2Compressed] {
                if let Ok(event) = RowsEvent::parse(RowsKind::Update, form, &bytes) {
                    let _ = event.each(&columns, |_, _| Ok(Value::Null), |_, _| Ok(()));
                }
            }
        }
    }
}
