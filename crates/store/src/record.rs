//! What the change log holds.
//!
//! A transaction is `Begin`, any number of `Changes`, `Marker` and `Schema`, then `Commit` or `Abort`; nothing else
//! comes between, except `Layout`, which may stand anywhere before the first change that uses it. `Progress` stands
//! between transactions. The log checks this order when records are appended, because recovery relies on it.

use std::fmt;
use std::sync::Arc;

use godwit_model::{ChangeBatch, Error, Layout, Marker, Micros, Position, Result, TableName};

#[derive(Clone, PartialEq)]
pub enum Record {
    /// From here on this id means this layout. May be said again at any time.
    Layout(Arc<Layout>),
    Begin,
    Changes(ChangeBatch),
    Marker(Marker),
    /// A schema change of a selected table, in words for a person.
    Schema {
        table: TableName,
        what: String,
    },
    Commit {
        position: Position,
        time: Micros,
        /// Who wrote the transaction, where it was a replicator.
        origin: Option<String>,
    },
    /// The transaction begun last is void: capture lost its source in the middle of it and will begin it anew.
    /// Whoever reads drops what came since `Begin`.
    Abort,
    /// Nothing of interest lies between the last record and this position.
    Progress {
        position: Position,
    },
}

impl Record {
    /// The position that may be acknowledged to the source once this record is durable.
    pub fn position(&self) -> Option<&Position> {
        match self {
            Record::Commit { position, .. } | Record::Progress { position } => Some(position),
            _ => None,
        }
    }
}

/// Shows shapes and places, never a row's values.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Record::Layout(layout) => write!(f, "Layout({} {})", layout.id.0, layout.table),
            Record::Begin => f.write_str("Begin"),
            Record::Changes(batch) => write!(f, "Changes({} changes, {} values)", batch.len(), batch.values.len()),
            Record::Marker(marker) => write!(f, "Marker({})", marker.0),
            Record::Schema { table, .. } => write!(f, "Schema({table})"),
            Record::Commit { position, .. } => write!(f, "Commit({position})"),
            Record::Abort => f.write_str("Abort"),
            Record::Progress { position } => write!(f, "Progress({position})"),
        }
    }
}

/// Whether the records so far leave a transaction open; refuses what cannot follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TransactionOrder {
    pub(crate) open: bool,
}

impl TransactionOrder {
    /// The state after `record`.
    pub(crate) fn after(self, record: &Record) -> Result<Self> {
        let (wanted, open) = match record {
            Record::Layout(_) => return Ok(self),
            Record::Begin => (false, true),
            Record::Progress { .. } => (false, false),
            Record::Changes(_) | Record::Marker(_) | Record::Schema { .. } => (true, true),
            Record::Commit { .. } | Record::Abort => (true, false),
        };
        if wanted == self.open {
            return Ok(TransactionOrder { open });
        }
        let state = if self.open { "inside" } else { "outside" };
        Err(Error::internal(format!("{record:?} cannot be logged {state} a transaction")))
    }
}
