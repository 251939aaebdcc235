//! Bytes as records. Total: any bytes give a record or `LOG_DAMAGED`, never a panic, and never more memory than a
//! small multiple of the bytes given.
//!
//! Text and bytes of values are slices of the given buffer. Positions and names are copied, because they outlive it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use godwit_model::{
    Change, ChangeBatch, ChangeOperation, Error, Layout, LayoutColumn, LayoutId, Marker, Micros, OldImage, Position, Result, TableName,
    Value, codes,
};

use crate::encode::tag;
use crate::record::Record;

/// Room reserved before anything was read of a list; longer lists grow as they prove to be there.
const FIRST_CAPACITY: usize = 1024;

/// Reads one record that fills `bytes` exactly.
pub fn decode(bytes: &Bytes) -> Result<Record> {
    let mut input = Input { bytes, at: 0 };
    let record = read_record(&mut input)?;
    if input.at != bytes.len() {
        return Err(damaged("a record is followed by bytes that do not belong to it"));
    }
    Ok(record)
}

pub(crate) fn damaged(what: &str) -> Error {
    Error::new(&codes::LOG_DAMAGED, what)
        .remedy("restore the state folder, or remove it and run again with --resync")
        .effect("nothing was changed")
}

fn read_record(input: &mut Input<'_>) -> Result<Record> {
    Ok(match input.byte()? {
        tag::LAYOUT | tag::LAYOUT_AGAIN => Record::Layout(Arc::new(read_layout(input)?)),
        tag::BEGIN => Record::Begin,
        tag::CHANGES => Record::Changes(read_batch(input)?),
        tag::MARKER => Record::Marker(Marker(input.string()?)),
        tag::SCHEMA => Record::Schema { table: read_table(input)?, what: input.string()? },
        tag::COMMIT => read_commit(input)?,
        tag::ABORT => Record::Abort,
        tag::PROGRESS => Record::Progress { position: read_position(input)? },
        _ => return Err(damaged("a record has an unknown kind")),
    })
}

fn read_commit(input: &mut Input<'_>) -> Result<Record> {
    let position = read_position(input)?;
    let time = Micros(input.signed()?);
    let origin = if input.flag()? { Some(input.string()?) } else { None };
    Ok(Record::Commit { position, time, origin })
}

fn read_position(input: &mut Input<'_>) -> Result<Position> {
    let range = input.sized()?;
    Ok(Position(Bytes::copy_from_slice(&input.bytes[range])))
}

fn read_table(input: &mut Input<'_>) -> Result<TableName> {
    Ok(TableName { schema: input.string()?, name: input.string()? })
}

fn read_layout(input: &mut Input<'_>) -> Result<Layout> {
    let id = input.layout_id()?;
    let table = read_table(input)?;
    let full_old_images = input.flag()?;
    let count = input.count()?;
    let mut columns = Vec::with_capacity(count.min(FIRST_CAPACITY));
    for _ in 0..count {
        columns.push(LayoutColumn { name: input.string()?, type_name: input.string()?, key: input.flag()? });
    }
    Ok(Layout { id, table, columns, full_old_images })
}

fn read_batch(input: &mut Input<'_>) -> Result<ChangeBatch> {
    let count = input.count()?;
    let mut values = Vec::with_capacity(count.min(FIRST_CAPACITY));
    for _ in 0..count {
        values.push(read_value(input)?);
    }
    let count = input.count()?;
    let mut changes = Vec::with_capacity(count.min(FIRST_CAPACITY));
    let mut cursor = 0;
    for _ in 0..count {
        changes.push(read_change(input, values.len(), &mut cursor)?);
    }
    Ok(ChangeBatch { values, changes })
}

fn read_value(input: &mut Input<'_>) -> Result<Value> {
    let head = input.byte()?;
    let (kind, length) = (head & 7, head >> 3);
    if kind >= tag::TEXT {
        let length = if length == tag::LONG { input.length()? } else { length.into() };
        let bytes = input.bytes.slice(input.take(length)?);
        return Ok(match kind {
            tag::TEXT => Value::Text(bytes),
            tag::BYTES => Value::Bytes(bytes),
            _ => Value::Native(bytes),
        });
    }
    if length != 0 {
        return Err(damaged("a value has an unknown kind"));
    }
    Ok(match kind {
        tag::NULL => Value::Null,
        tag::ABSENT => Value::Absent,
        tag::UNSENT => Value::Unsent,
        tag::INT => Value::Int(input.signed()?),
        _ => Value::Float(f64::from_bits(input.fixed()?)),
    })
}

fn read_change(input: &mut Input<'_>, width: usize, cursor: &mut usize) -> Result<Change> {
    let head = input.byte()?;
    let operation = match head & 3 {
        0 => ChangeOperation::Insert,
        1 => ChangeOperation::Update,
        2 => ChangeOperation::Delete,
        _ => ChangeOperation::Truncate,
    };
    let layout = input.layout_id()?;
    let old = match head >> 2 {
        0 => OldImage::SameKey,
        1 => OldImage::Key(read_range(input, width, cursor)?),
        2 => OldImage::Full(read_range(input, width, cursor)?),
        _ => return Err(damaged("a change has an unknown kind of image")),
    };
    let new = read_range(input, width, cursor)?;
    Ok(Change { layout, operation, old, new })
}

fn read_range(input: &mut Input<'_>, width: usize, cursor: &mut usize) -> Result<Range<usize>> {
    let length = usize::try_from(input.varint()?).map_err(|_| outside())?;
    if length == 0 {
        return Ok(0..0);
    }
    let start = (*cursor as i64).checked_add(input.signed()?).and_then(|start| usize::try_from(start).ok()).ok_or_else(outside)?;
    let end = start.checked_add(length).filter(|end| *end <= width).ok_or_else(outside)?;
    *cursor = end;
    Ok(start..end)
}

fn outside() -> Error {
    damaged("a change names values that its batch does not have")
}

struct Input<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl Input<'_> {
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn byte(&mut self) -> Result<u8> {
        let byte = *self.bytes.get(self.at).ok_or_else(ends_early)?;
        self.at += 1;
        Ok(byte)
    }

    fn flag(&mut self) -> Result<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(damaged("a flag is neither set nor unset")),
        }
    }

    fn take(&mut self, length: usize) -> Result<Range<usize>> {
        if length > self.left() {
            return Err(ends_early());
        }
        let range = self.at..self.at + length;
        self.at = range.end;
        Ok(range)
    }

    fn fixed(&mut self) -> Result<u64> {
        let range = self.take(8)?;
        Ok(u64::from_le_bytes(self.bytes[range].try_into().expect("eight bytes were taken")))
    }

    fn varint(&mut self) -> Result<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            number |= part << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(damaged("a number does not fit 64 bits"))
    }

    fn signed(&mut self) -> Result<i64> {
        let number = self.varint()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// A length in bytes that is not beyond the input.
    fn length(&mut self) -> Result<usize> {
        let length = self.varint()?;
        usize::try_from(length).ok().filter(|length| *length <= self.left()).ok_or_else(ends_early)
    }

    /// A number of things of at least one byte each.
    fn count(&mut self) -> Result<usize> {
        self.length()
    }

    fn sized(&mut self) -> Result<Range<usize>> {
        let length = self.length()?;
        self.take(length)
    }

    fn string(&mut self) -> Result<String> {
        let range = self.sized()?;
        std::str::from_utf8(&self.bytes[range]).map(str::to_owned).map_err(|_| damaged("a name is not valid UTF-8"))
    }

    fn layout_id(&mut self) -> Result<LayoutId> {
        u32::try_from(self.varint()?).map(LayoutId).map_err(|_| damaged("a layout's number is too large"))
    }
}

fn ends_early() -> Error {
    damaged("a record ends before it is complete")
}
