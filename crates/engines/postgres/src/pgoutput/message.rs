//! What the messages say. The values of a row are native text, null or unsent.

use bytes::Bytes;
use godwit_model::Value;

use crate::position::Lsn;

/// A transaction or sub-transaction, as the stream numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Xid(pub(crate) u32);

/// Microseconds since 2000-01-01 00:00 UTC.
pub(crate) type ServerMicros = i64;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message {
    Begin {
        transaction: Xid,
        commit: Lsn,
    },
    Commit {
        end: Lsn,
        time: ServerMicros,
    },
    Origin {
        name: String,
    },
    Relation(Relation),
    /// The name of a type that is not built in.
    Type {
        oid: u32,
        schema: String,
        name: String,
    },
    Insert {
        part: Option<Xid>,
        relation: u32,
        new: Vec<Value>,
    },
    Update {
        part: Option<Xid>,
        relation: u32,
        old: Old,
        new: Vec<Value>,
    },
    Delete {
        part: Option<Xid>,
        relation: u32,
        old: Old,
    },
    Truncate {
        part: Option<Xid>,
        relations: Vec<u32>,
    },
    Logical {
        part: Option<Xid>,
        transactional: bool,
        prefix: String,
        content: Bytes,
    },
    StreamStart {
        transaction: Xid,
    },
    StreamStop,
    StreamCommit {
        transaction: Xid,
        commit: Lsn,
        end: Lsn,
        time: ServerMicros,
    },
    StreamAbort {
        transaction: Xid,
        part: Xid,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Relation {
    /// In a streamed transaction: the sub-transaction, or the whole one, that speaks of it first.
    pub(crate) part: Option<Xid>,
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) name: String,
    /// `d`, `n`, `f` or `i` of pg_class.relreplident.
    pub(crate) identity: u8,
    pub(crate) columns: Vec<RelationColumn>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RelationColumn {
    pub(crate) key: bool,
    pub(crate) name: String,
    pub(crate) type_oid: u32,
    pub(crate) type_modifier: i32,
}

/// The old tuple of an update or delete.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Old {
    None,
    /// Only the columns of the replica identity are filled.
    Key(Vec<Value>),
    Full(Vec<Value>),
}
