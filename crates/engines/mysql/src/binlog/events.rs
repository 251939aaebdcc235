//! Which event is which.
//!
//! Types are those of the log's format version 4, with MariaDB's own from 160 on. An event that is not known is an error,
//! unless its header says that a replica may ignore it.

use std::borrow::Cow;

use godwit_model::Result;

use super::decompress::decompress;
use super::reader::{Reader, little_endian};
use super::rows::{RowsEvent, RowsForm, RowsKind};
use super::table_map::TableMap;
use super::undecodable;
use crate::gtid::Gtid;

/// Whoever does not know the event may ignore it.
const IGNORABLE: u16 = 0x80;

/// What stands before every event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Seconds since 1970.
    pub(crate) time: u32,
    pub(crate) kind: u8,
    /// That wrote it first.
    pub(crate) server: u32,
    /// Where the event ends in its file; 0 for one that is in no file.
    pub(crate) end: u64,
    pub(crate) flags: u16,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event<'a> {
    FormatDescription,
    /// Of the file that comes next; sent at the beginning too.
    Rotate,
    Heartbeat,
    Gtid(GtidEvent),
    /// At the beginning of a file: where the log stood, all ids of each domain and server, the last one of a domain last.
    GtidList(Vec<Gtid>),
    Query(Query<'a>),
    Xid,
    XaPrepare,
    TableMap(TableMap<'a>),
    Rows(RowsEvent<'a>),
    /// Says nothing of rows by itself.
    Silent,
    /// The server says that changes are missing in its log.
    Incident,
}

/// The beginning of a transaction, or of something that is one by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GtidEvent {
    pub(crate) gtid: Gtid,
    /// One statement that ends itself; no COMMIT follows.
    pub(crate) standalone: bool,
    /// An XA transaction that is prepared here, and committed elsewhere.
    pub(crate) prepared: bool,
}

/// A statement as text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Query<'a> {
    /// The default database; empty: none.
    pub(crate) database: &'a [u8],
    pub(crate) sql: Cow<'a, [u8]>,
    pub(crate) sql_mode: u64,
    /// The collation's number of the client's character set.
    pub(crate) client: u16,
}

/// `body`: what stands behind the header, without the checksum.
pub(crate) fn decode(header: Header, body: &[u8]) -> Result<Event<'_>> {
    let rows = |kind, form| RowsEvent::parse(kind, form, body).map(Event::Rows);
    Ok(match header.kind {
        2 => Event::Query(query(body, false)?),
        165 => Event::Query(query(body, true)?),
        4 => Event::Rotate,
        15 => Event::FormatDescription,
        16 => Event::Xid,
        19 => Event::TableMap(TableMap::parse(body)?),
        26 => Event::Incident,
        27 => Event::Heartbeat,
        38 => Event::XaPrepare,
        162 => Event::Gtid(gtid(header, body)?),
        163 => Event::GtidList(gtid_list(body)?),
        23 => rows(RowsKind::Insert, RowsForm::V1)?,
        24 => rows(RowsKind::Update, RowsForm::V1)?,
        25 => rows(RowsKind::Delete, RowsForm::V1)?,
        30 => rows(RowsKind::Insert, RowsForm::V2)?,
        31 => rows(RowsKind::Update, RowsForm::V2)?,
        32 => rows(RowsKind::Delete, RowsForm::V2)?,
        166 => rows(RowsKind::Insert, RowsForm::V1Compressed)?,
        167 => rows(RowsKind::Update, RowsForm::V1Compressed)?,
        168 => rows(RowsKind::Delete, RowsForm::V1Compressed)?,
        169 => rows(RowsKind::Insert, RowsForm::V2Compressed)?,
        170 => rows(RowsKind::Update, RowsForm::V2Compressed)?,
        171 => rows(RowsKind::Delete, RowsForm::V2Compressed)?,
        // what gives a statement that follows its meaning: a number, a random seed, a variable, a file's blocks
        5 | 13 | 14 | 9 | 17 => Event::Silent,
        // the text of LOAD DATA INFILE: a statement
        18 => Event::Query(load_query(body)?),
        // the server stops; annotation, checkpoint, beginning of encryption (what follows is sent in clear)
        3 | 160 | 161 | 164 => Event::Silent,
        _ if header.flags & IGNORABLE != 0 => Event::Silent,
        other => return Err(undecodable(format!("the source's log holds an event of type {other}, which is not known to this version"))),
    })
}

const STANDALONE: u8 = 1;
const COMMIT_ID: u8 = 2;
const PREPARED_XA: u8 = 64;
const COMPLETED_XA: u8 = 128;

fn gtid(header: Header, body: &[u8]) -> Result<GtidEvent> {
    let mut reader = Reader::new(body);
    let sequence = reader.number(8)?;
    let domain = reader.u32()?;
    let flags = reader.u8()?;
    let has = |flag| flags & flag != 0;
    Ok(GtidEvent { gtid: Gtid { domain, server: header.server, sequence }, standalone: has(STANDALONE), prepared: has(PREPARED_XA) })
}

/// Of a GTID event: the XA transaction that is prepared or ended there, by its format and name. None: it is no such event.
pub(crate) fn xa(body: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut reader = Reader::new(body);
    reader.skip(12)?;
    let flags = reader.u8()?;
    if flags & (PREPARED_XA | COMPLETED_XA) == 0 {
        return Ok(None);
    }
    if flags & COMMIT_ID != 0 {
        reader.skip(8)?;
    }
    let mut lengths = reader;
    lengths.skip(4)?;
    let name = usize::from(lengths.u8()?) + usize::from(lengths.u8()?);
    reader.bytes(6 + name).map(|xa| Some(xa.to_vec()))
}

/// The four highest bits of the count are flags.
const LIST_COUNT: u32 = (1 << 28) - 1;

fn gtid_list(body: &[u8]) -> Result<Vec<Gtid>> {
    let mut reader = Reader::new(body);
    let mut list = Vec::new();
    for _ in 0..reader.u32()? & LIST_COUNT {
        list.push(Gtid { domain: reader.u32()?, server: reader.u32()?, sequence: reader.number(8)? });
    }
    Ok(list)
}

/// Thread, seconds, the database's length, error, length of the status variables.
fn query(body: &[u8], is_compressed: bool) -> Result<Query<'_>> {
    let mut reader = Reader::new(body);
    reader.skip(8)?;
    let database = usize::from(reader.u8()?);
    reader.skip(2)?;
    let variables = usize::from(reader.u16()?);
    query_of(reader, database, variables, is_compressed)
}

/// The same, and four numbers of the file's.
fn load_query(body: &[u8]) -> Result<Query<'_>> {
    let mut reader = Reader::new(body);
    reader.skip(8)?;
    let database = usize::from(reader.u8()?);
    reader.skip(2)?;
    let variables = usize::from(reader.u16()?);
    reader.skip(13)?;
    query_of(reader, database, variables, false)
}

fn query_of(mut reader: Reader<'_>, database: usize, variables: usize, is_compressed: bool) -> Result<Query<'_>> {
    let variables = reader.bytes(variables)?;
    let database = reader.bytes(database)?;
    reader.skip(1)?;
    let sql = if is_compressed { Cow::Owned(decompress(reader.rest())?) } else { Cow::Borrowed(reader.rest()) };
    let mut query = Query { database, sql, sql_mode: 0, client: 0 };
    status_variables(variables, &mut query)?;
    Ok(query)
}

/// Up to the first that is not known: those that matter come early.
fn status_variables(variables: &[u8], query: &mut Query<'_>) -> Result<()> {
    let mut reader = Reader::new(variables);
    while !reader.is_empty() {
        match reader.u8()? {
            0 | 3 => reader.skip(4)?,
            1 => query.sql_mode = little_endian(reader.bytes(8)?),
            4 => {
                query.client = reader.u16()?;
                reader.skip(4)?;
            }
            5 | 6 => {
                let length = reader.u8()?.into();
                reader.skip(length)?;
            }
            _ => break,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use godwit_model::codes;
    use proptest::prelude::*;

    use super::*;

    fn header(kind: u8, flags: u16) -> Header {
        Header { time: 0, kind, server: 7, end: 0, flags }
    }

    #[test]
    fn an_event_that_is_not_known_is_never_skipped() {
        for kind in [0, 1, 22, 33, 34, 36, 39, 40, 42, 172, 255] {
            assert!(decode(header(kind, 0), &[]).unwrap_err().is(&codes::LOG_UNDECODABLE), "{kind}");
            assert_eq!(decode(header(kind, IGNORABLE), &[]).unwrap(), Event::Silent, "{kind}");
        }
        // the flag is for who does not know the event
        assert!(decode(header(23, IGNORABLE), &[]).is_err());
    }

    #[test]
    fn a_gtid_is_taken_apart() {
        let body = [57, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0x0c, 0, 0, 0, 0, 0, 0];
        let Event::Gtid(event) = decode(header(162, 0), &body).unwrap() else { panic!("a GTID") };
        assert_eq!(event.gtid, Gtid { domain: 3, server: 7, sequence: 57 });
        assert!(!event.standalone && !event.prepared);
        assert_eq!(xa(&body).unwrap(), None);
    }

    #[test]
    fn an_xa_transaction_is_named_with_and_without_a_commit_id() {
        let named = [1, 0, 0, 0, 2, 1, b'a', b'b', b'c'];
        let event = |flags: u8, between: &[u8]| [&[9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, flags], between, &named[..]].concat();
        assert_eq!(xa(&event(PREPARED_XA, &[])).unwrap().unwrap(), named);
        assert_eq!(xa(&event(COMPLETED_XA | COMMIT_ID, &[7; 8])).unwrap().unwrap(), named);
        assert!(xa(&event(COMPLETED_XA, &[])[..20]).unwrap_err().is(&codes::LOG_UNDECODABLE));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_event_or_refused(kind in prop_oneof![any::<u8>(), Just(19)], bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(Event::TableMap(map)) = decode(header(kind, 0), &bytes) {
                let _ = map.open();
            }
            let _ = xa(&bytes);
        }
    }
}
