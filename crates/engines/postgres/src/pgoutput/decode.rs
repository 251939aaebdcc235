//! From bytes to messages.

use bytes::Bytes;
use godwit_model::{Result, Value};

use super::message::{Message, Old, Relation, RelationColumn, Xid};
use super::reader::{Reader, undecodable};

/// `streaming`: the message stands between StreamStart and StreamStop, where most kinds begin with a transaction's
/// number.
pub(crate) fn decode(message: Bytes, streaming: bool) -> Result<Message> {
    let mut reader = Reader::new(message);
    let kind = reader.u8()?;
    let decoded = match kind {
        b'B' => begin(&mut reader),
        b'C' => commit(&mut reader),
        b'O' => origin(&mut reader),
        b'S' => stream_start(&mut reader),
        b'E' => Ok(Message::StreamStop),
        b'c' => stream_commit(&mut reader),
        b'A' => Ok(Message::StreamAbort { transaction: Xid(reader.u32()?), part: Xid(reader.u32()?) }),
        b'R' | b'Y' | b'I' | b'U' | b'D' | b'T' | b'M' => {
            let part = if streaming { Some(Xid(reader.u32()?)) } else { None };
            of_a_part(kind, part, &mut reader)
        }
        _ => Err(undecodable("a message of an unknown kind")),
    }?;
    reader.end()?;
    Ok(decoded)
}

/// Which table a row is of, and its first values as far as the bytes go: of a message that is not here in full.
pub(crate) fn glance(head: Bytes, streaming: bool) -> Option<(u32, Vec<Value>)> {
    let mut reader = Reader::new(head);
    let kind = reader.u8().ok()?;
    if streaming {
        reader.u32().ok()?;
    }
    let relation = matches!(kind, b'I' | b'U' | b'D').then(|| reader.u32().ok()).flatten()?;
    let _image = reader.u8().ok()?;
    let count = reader.u16().unwrap_or(0);
    let values = (0..count).map_while(|_| value(&mut reader).ok());
    Some((relation, values.collect()))
}

fn of_a_part(kind: u8, part: Option<Xid>, reader: &mut Reader) -> Result<Message> {
    match kind {
        b'R' => relation(part, reader),
        b'Y' => Ok(Message::Type { oid: reader.u32()?, schema: reader.text()?, name: reader.text()? }),
        b'I' => insert(part, reader),
        b'U' => update(part, reader),
        b'D' => delete(part, reader),
        b'T' => truncate(part, reader),
        _ => logical(part, reader),
    }
}

fn begin(reader: &mut Reader) -> Result<Message> {
    let commit = reader.lsn()?;
    let (_time, transaction) = (reader.i64()?, Xid(reader.u32()?));
    Ok(Message::Begin { transaction, commit })
}

fn commit(reader: &mut Reader) -> Result<Message> {
    let (_flags, _commit) = (reader.u8()?, reader.lsn()?);
    Ok(Message::Commit { end: reader.lsn()?, time: reader.i64()? })
}

fn origin(reader: &mut Reader) -> Result<Message> {
    let _commit_there = reader.lsn()?;
    Ok(Message::Origin { name: reader.text()? })
}

fn stream_start(reader: &mut Reader) -> Result<Message> {
    let transaction = Xid(reader.u32()?);
    let _is_first = reader.u8()?;
    Ok(Message::StreamStart { transaction })
}

fn stream_commit(reader: &mut Reader) -> Result<Message> {
    let transaction = Xid(reader.u32()?);
    let _flags = reader.u8()?;
    Ok(Message::StreamCommit { transaction, commit: reader.lsn()?, end: reader.lsn()?, time: reader.i64()? })
}

fn relation(part: Option<Xid>, reader: &mut Reader) -> Result<Message> {
    let (oid, schema, name, identity) = (reader.u32()?, reader.text()?, reader.text()?, reader.u8()?);
    let count = usize::from(reader.u16()?);
    let mut columns = Vec::with_capacity(count.min(reader.at_most(10)));
    for _ in 0..count {
        let key = reader.u8()? & 1 == 1;
        columns.push(RelationColumn { key, name: reader.text()?, type_oid: reader.u32()?, type_modifier: reader.i32()? });
    }
    // The server leaves the name of its own catalog out.
    let schema = if schema.is_empty() { "pg_catalog".to_owned() } else { schema };
    Ok(Message::Relation(Relation { part, oid, schema, name, identity, columns }))
}

fn insert(part: Option<Xid>, reader: &mut Reader) -> Result<Message> {
    let relation = reader.u32()?;
    match reader.u8()? {
        b'N' => Ok(Message::Insert { part, relation, new: tuple(reader)? }),
        _ => Err(undecodable("an insert without a row")),
    }
}

fn update(part: Option<Xid>, reader: &mut Reader) -> Result<Message> {
    let relation = reader.u32()?;
    let mut marker = reader.u8()?;
    let old = match marker {
        b'K' => Old::Key(tuple(reader)?),
        b'O' => Old::Full(tuple(reader)?),
        _ => Old::None,
    };
    if old != Old::None {
        marker = reader.u8()?;
    }
    match marker {
        b'N' => Ok(Message::Update { part, relation, old, new: tuple(reader)? }),
        _ => Err(undecodable("an update without a new row")),
    }
}

fn delete(part: Option<Xid>, reader: &mut Reader) -> Result<Message> {
    let relation = reader.u32()?;
    let old = match reader.u8()? {
        b'K' => Old::Key(tuple(reader)?),
        b'O' => Old::Full(tuple(reader)?),
        _ => return Err(undecodable("a delete without an old row")),
    };
    Ok(Message::Delete { part, relation, old })
}

fn truncate(part: Option<Xid>, reader: &mut Reader) -> Result<Message> {
    let count = reader.u32()? as usize;
    let _options = reader.u8()?;
    let mut relations = Vec::with_capacity(count.min(reader.at_most(4)));
    for _ in 0..count {
        relations.push(reader.u32()?);
    }
    Ok(Message::Truncate { part, relations })
}

fn logical(part: Option<Xid>, reader: &mut Reader) -> Result<Message> {
    let transactional = reader.u8()? & 1 == 1;
    let _place = reader.lsn()?;
    let prefix = reader.text()?;
    let length = reader.u32()? as usize;
    Ok(Message::Logical { part, transactional, prefix, content: reader.bytes(length)? })
}

fn tuple(reader: &mut Reader) -> Result<Vec<Value>> {
    let count = usize::from(reader.u16()?);
    let mut tuple = Vec::with_capacity(count.min(reader.at_most(1)));
    for _ in 0..count {
        tuple.push(value(reader)?);
    }
    Ok(tuple)
}

fn value(reader: &mut Reader) -> Result<Value> {
    match reader.u8()? {
        b'n' => Ok(Value::Null),
        b'u' => Ok(Value::Unsent),
        b't' => {
            let length = reader.u32()? as usize;
            Ok(Value::Native(reader.bytes(length)?))
        }
        // Binary is never asked for.
        _ => Err(undecodable("a value of an unknown form")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_update_with_every_kind_of_value_is_read() {
        let bytes = b"U\0\0\0\x07K\0\x02t\0\0\0\x01anN\0\x03t\0\0\0\x00un";
        let expected = Message::Update {
            part: None,
            relation: 7,
            old: Old::Key(vec![Value::Native(Bytes::from_static(b"a")), Value::Null]),
            new: vec![Value::Native(Bytes::new()), Value::Unsent, Value::Null],
        };
        assert_eq!(decode(Bytes::from_static(bytes), false).unwrap(), expected);
    }

    #[test]
    fn the_part_is_read_in_a_streamed_block_only() {
        let streamed = Bytes::from_static(b"T\0\0\0\x09\0\0\0\x01\0\0\0\0\x07");
        let message = decode(streamed, true).unwrap();
        assert_eq!(message, Message::Truncate { part: Some(Xid(9)), relations: vec![7] });
    }

    #[test]
    fn a_glance_tells_the_table_and_the_values_that_are_there() {
        let head = Bytes::from_static(b"I\0\0\0\x07N\0\x02t\0\0\0\x011t\0\xff\0\0aaaa");
        assert_eq!(glance(head.clone(), false), Some((7, vec![Value::Native(Bytes::from_static(b"1"))])));
        assert_eq!(glance(head.slice(..5), false), None);
        assert_eq!(glance(Bytes::from_static(b"C\0\0\0\x07N"), false), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_refused(
            kind in prop::sample::select(b"BCORYIUDTMSEcAbPKrp\0".to_vec()),
            rest in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(b'N'), Just(b'K'), Just(b't'), Just(b'n'), any::<u8>()], 0..60),
            streaming: bool,
        ) {
            let bytes: Vec<u8> = std::iter::once(kind).chain(rest).collect();
            if let Err(error) = decode(Bytes::from(bytes), streaming) {
                prop_assert!(error.is(&godwit_model::codes::LOG_UNDECODABLE));
            }
        }
    }
}
