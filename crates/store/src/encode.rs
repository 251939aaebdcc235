//! Records as bytes: tags, varints, lengths. The twin of `decode`; both change only together with the segment's
//! format version.
//!
//! A value begins with one byte: the kind in the low three bits, above them the length (0 to 30, or 31: a varint
//! follows) of what has one. Ranges of a change are written as the distance from the end of the range before.

use std::ops::Range;

use godwit_model::{Change, ChangeBatch, ChangeOperation, Layout, OldImage, TableName, Value};

use crate::record::Record;

pub(crate) mod tag {
    pub(crate) const LAYOUT: u8 = 1;
    pub(crate) const BEGIN: u8 = 2;
    pub(crate) const CHANGES: u8 = 3;
    pub(crate) const MARKER: u8 = 4;
    pub(crate) const SCHEMA: u8 = 5;
    pub(crate) const COMMIT: u8 = 6;
    pub(crate) const PROGRESS: u8 = 7;
    pub(crate) const ABORT: u8 = 8;
    /// A layout said again that is not the newest of its table.
    pub(crate) const LAYOUT_AGAIN: u8 = 9;

    pub(crate) const NULL: u8 = 0;
    pub(crate) const ABSENT: u8 = 1;
    pub(crate) const UNSENT: u8 = 2;
    pub(crate) const INT: u8 = 3;
    pub(crate) const FLOAT: u8 = 4;
    pub(crate) const TEXT: u8 = 5;
    pub(crate) const BYTES: u8 = 6;
    pub(crate) const NATIVE: u8 = 7;

    /// In the place of a length: a varint follows.
    pub(crate) const LONG: u8 = 31;
}

/// Appends the record's bytes.
pub fn encode(record: &Record, out: &mut Vec<u8>) {
    match record {
        Record::Layout(layout) => {
            out.push(tag::LAYOUT);
            put_layout(layout, out);
        }
        Record::Begin => out.push(tag::BEGIN),
        Record::Changes(batch) => {
            out.push(tag::CHANGES);
            put_batch(batch, out);
        }
        Record::Marker(marker) => {
            out.push(tag::MARKER);
            put_bytes(marker.0.as_bytes(), out);
        }
        Record::Schema { table, what } => {
            out.push(tag::SCHEMA);
            put_table(table, out);
            put_bytes(what.as_bytes(), out);
        }
        Record::Commit { position, time, origin } => {
            out.push(tag::COMMIT);
            put_bytes(&position.0, out);
            put_signed(time.0, out);
            match origin {
                None => out.push(0),
                Some(origin) => {
                    out.push(1);
                    put_bytes(origin.as_bytes(), out);
                }
            }
        }
        Record::Abort => out.push(tag::ABORT),
        Record::Progress { position } => {
            out.push(tag::PROGRESS);
            put_bytes(&position.0, out);
        }
    }
}

/// As `encode`, for a layout that is said again though its table has a newer one.
pub(crate) fn encode_again(layout: &Layout, out: &mut Vec<u8>) {
    out.push(tag::LAYOUT_AGAIN);
    put_layout(layout, out);
}

fn put_layout(layout: &Layout, out: &mut Vec<u8>) {
    put_varint(layout.id.0.into(), out);
    put_table(&layout.table, out);
    out.push(layout.full_old_images.into());
    put_varint(layout.columns.len() as u64, out);
    for column in &layout.columns {
        put_bytes(column.name.as_bytes(), out);
        put_bytes(column.type_name.as_bytes(), out);
        out.push(column.key.into());
    }
}

fn put_table(table: &TableName, out: &mut Vec<u8>) {
    put_bytes(table.schema.as_bytes(), out);
    put_bytes(table.name.as_bytes(), out);
}

fn put_batch(batch: &ChangeBatch, out: &mut Vec<u8>) {
    put_varint(batch.values.len() as u64, out);
    for value in &batch.values {
        put_value(value, out);
    }
    put_varint(batch.changes.len() as u64, out);
    let mut cursor = 0;
    for change in &batch.changes {
        put_change(change, &mut cursor, out);
    }
}

fn put_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(tag::NULL),
        Value::Absent => out.push(tag::ABSENT),
        Value::Unsent => out.push(tag::UNSENT),
        Value::Int(number) => {
            out.push(tag::INT);
            put_signed(*number, out);
        }
        Value::Float(number) => {
            out.push(tag::FLOAT);
            out.extend_from_slice(&number.to_bits().to_le_bytes());
        }
        Value::Text(bytes) => put_sized(tag::TEXT, bytes, out),
        Value::Bytes(bytes) => put_sized(tag::BYTES, bytes, out),
        Value::Native(bytes) => put_sized(tag::NATIVE, bytes, out),
    }
}

fn put_sized(kind: u8, bytes: &[u8], out: &mut Vec<u8>) {
    if bytes.len() < tag::LONG.into() {
        out.push(kind | ((bytes.len() as u8) << 3));
    } else {
        out.push(kind | (tag::LONG << 3));
        put_varint(bytes.len() as u64, out);
    }
    out.extend_from_slice(bytes);
}

fn put_change(change: &Change, cursor: &mut usize, out: &mut Vec<u8>) {
    let operation = match change.operation {
        ChangeOperation::Insert => 0,
        ChangeOperation::Update => 1,
        ChangeOperation::Delete => 2,
        ChangeOperation::Truncate => 3,
    };
    let (kind, old) = match &change.old {
        OldImage::SameKey => (0, None),
        OldImage::Key(range) => (1, Some(range)),
        OldImage::Full(range) => (2, Some(range)),
    };
    out.push(operation | (kind << 2));
    put_varint(change.layout.0.into(), out);
    if let Some(range) = old {
        put_range(range, cursor, out);
    }
    put_range(&change.new, cursor, out);
}

/// An empty range says nothing of a place: it is written as no distance, and read as 0..0.
fn put_range(range: &Range<usize>, cursor: &mut usize, out: &mut Vec<u8>) {
    put_varint(range.len() as u64, out);
    if !range.is_empty() {
        put_signed(range.start as i64 - *cursor as i64, out);
        *cursor = range.end;
    }
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_signed(number: i64, out: &mut Vec<u8>) {
    put_varint(((number << 1) ^ (number >> 63)) as u64, out);
}

pub(crate) fn put_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
