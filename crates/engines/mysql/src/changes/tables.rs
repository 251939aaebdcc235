//! The selected tables: how the log's rows become theirs.
//!
//! Columns have their names and types from the description that the task stored; MariaDB's log has none by default. So the log's
//! own word on a table (how many columns, of which types, and their names where they are logged) must agree with it, column
//! by column, before one value is read. Columns that the store computes are in the log and not in the layout; behind the
//! table's own may stand hidden ones.

use std::collections::HashMap;
use std::sync::Arc;

use godwit_model::{ChangeBatch, Error, Layout, LayoutColumn, LayoutId, Result, Table, TableName, Value, codes};

use super::agree;
use super::sight::Sight;
use crate::binlog::{Image, LoggedTable, LoggedType, RowsEvent, RowsKind, kind};
use crate::statement::UNKNOWN;
use crate::types::Kind;
use crate::values::Codec;

pub(super) struct Tables {
    by_name: HashMap<TableName, Arc<Streamed>>,
    folds_case: bool,
}

/// A selected table.
pub(super) struct Streamed {
    pub(super) layout: Arc<Layout>,
    columns: Vec<Column>,
    /// Places of the key's columns in the layout; None: rows are told by all of it.
    key: Option<Vec<usize>>,
    /// How many columns may follow those of the table.
    hidden: usize,
}

struct Column {
    name: String,
    kind: Kind,
    codec: Codec,
    /// Where it stands in the layout; None: the store computes it.
    place: Option<usize>,
}

impl Tables {
    pub(super) fn new(tables: &[Arc<Table>], sight: &Sight) -> Result<Self> {
        let mut all = Tables { by_name: HashMap::new(), folds_case: sight.folds_case };
        for (number, table) in tables.iter().enumerate() {
            let id = LayoutId(u32::try_from(number + 1).map_err(|_| Error::internal("more tables than numbers"))?);
            let hidden = sight.hidden.get(&table.name).copied().unwrap_or(0);
            let streamed = Streamed::new(id, table, hidden).map_err(|error| error.at_least_at(|| format!("table {}", table.name)))?;
            all.by_name.insert(all.folded(&table.name), Arc::new(streamed));
        }
        Ok(all)
    }

    fn folded(&self, name: &TableName) -> TableName {
        if self.folds_case { TableName::new(name.schema.to_lowercase(), name.name.to_lowercase()) } else { name.clone() }
    }

    pub(super) fn get(&self, name: &TableName) -> Option<&Arc<Streamed>> {
        self.by_name.get(&self.folded(name))
    }

    pub(super) fn in_database(&self, database: &str) -> Option<&TableName> {
        let same = |there: &str| if self.folds_case { there.to_lowercase() == database.to_lowercase() } else { there == database };
        self.by_name.values().map(|streamed| &streamed.layout.table).find(|table| same(&table.schema))
    }

    /// Whether a name that holds characters which are not known may be a selected table's, or its database's (then `name` is
    /// None). It is none that is all ASCII.
    pub(super) fn may_be(&self, database: &str, name: Option<&str>) -> bool {
        if !database.contains(UNKNOWN) && !name.is_some_and(|name| name.contains(UNKNOWN)) {
            return false;
        }
        let fits = |logged: &str, own: &str| match logged.contains(UNKNOWN) {
            true => !own.is_ascii(),
            false => logged.to_lowercase() == own.to_lowercase(),
        };
        let is_it = |table: &TableName| fits(database, &table.schema) && name.is_none_or(|name| fits(name, &table.name));
        self.by_name.values().any(|streamed| is_it(&streamed.layout.table))
    }
}

impl Streamed {
    fn new(id: LayoutId, table: &Table, hidden: usize) -> Result<Self> {
        let mut columns = Vec::new();
        let mut stated = Vec::new();
        // a key that the store computes is not in the layout
        let key = table.key.as_ref().filter(|key| key.columns.iter().all(|index| !table.columns[*index].generated));
        for (index, column) in table.columns.iter().enumerate() {
            let place = (!column.generated).then_some(stated.len());
            columns.push(Column {
                name: column.name.clone(),
                kind: Kind::parse(&column.type_name)?,
                codec: Codec::of(&column.type_name)?,
                place,
            });
            if place.is_some() {
                let is_key = key.is_some_and(|key| key.columns.contains(&index));
                stated.push(LayoutColumn { name: column.name.clone(), type_name: column.type_name.clone(), key: is_key });
            }
        }
        let places = key.map(|key| key.columns.iter().filter_map(|index| columns[*index].place).collect());
        let layout = Layout { id, table: table.name.clone(), columns: stated, full_old_images: places.is_none() };
        Ok(Streamed { layout: Arc::new(layout), columns, key: places, hidden })
    }

    /// Refuses a table map that is not this table's.
    pub(super) fn must_agree(&self, map: &LoggedTable) -> Result<()> {
        match self.disagreement(map) {
            None => Ok(()),
            Some(what) => Err(self.stopped(format!("the source's log has the table with another structure than the task knows: {what}"))),
        }
    }

    fn disagreement(&self, map: &LoggedTable) -> Option<String> {
        let (own, hidden) = map.columns.split_at_checked(self.columns.len()).unwrap_or((&map.columns, &[]));
        let is_hash = |column: &LoggedType| column.kind == kind::LONGLONG;
        if own.len() < self.columns.len() || hidden.len() > self.hidden || !hidden.iter().all(is_hash) {
            return Some(format!("{} columns instead of {}", map.columns.len(), self.columns.len()));
        }
        let mut pairs = self.columns.iter().zip(own);
        if let Some((column, _)) = pairs.find(|(column, logged)| !agree::types_agree(&column.kind, **logged)) {
            return Some(format!("column `{}` has another type", column.name));
        }
        let names: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
        let kinds: Vec<&Kind> = self.columns.iter().map(|column| &column.kind).collect();
        agree::disagreement(&names, &kinds, &map.columns, &map.metadata)
    }

    pub(super) fn stopped(&self, what: impl Into<String>) -> Error {
        ddl_stopped(&self.layout.table, what)
    }

    /// Adds an event's rows to the batch.
    pub(super) fn take(&self, rows: &RowsEvent<'_>, logged: &[LoggedType], batch: &mut ChangeBatch) -> Result<()> {
        let value = |index: usize, raw: &[u8]| self.value(index, logged, raw);
        let added = rows.each(logged, value, |first, second| match (rows.kind, second) {
            (RowsKind::Insert, _) => self.insert(self.cut(first), batch),
            (RowsKind::Update, Some(second)) => self.update(self.cut(first), self.cut(second), batch),
            (RowsKind::Update, None) => Err(Error::internal("an update of one image")),
            (RowsKind::Delete, _) => self.delete(self.cut(first), batch),
        });
        added.map_err(|error| error.at_least_at(|| format!("table {}", self.layout.table)))
    }

    /// Of the columns that are in the layout.
    fn value(&self, index: usize, logged: &[LoggedType], raw: &[u8]) -> Result<Value> {
        let Some(column) = self.columns.get(index).filter(|column| column.place.is_some()) else { return Ok(Value::Absent) };
        let mut rest = raw;
        let value = column.codec.from_log(logged[index], &mut rest)?;
        if !rest.is_empty() {
            return Err(Error::new(&codes::LOG_UNDECODABLE, format!("a value of column `{}` is longer than its type allows", column.name)));
        }
        Ok(value)
    }

    /// The layout's columns of an image.
    fn cut(&self, mut image: Image) -> Image {
        if self.layout.columns.len() < image.len() {
            let mut index = 0;
            image.retain(|_| {
                index += 1;
                self.columns.get(index - 1).is_some_and(|column| column.place.is_some())
            });
        }
        image
    }

    /// What an inserted row's image leaves out is what the column's default gave. Which default that was the log does not say,
    /// and another table's may be another.
    fn insert(&self, new: Image, batch: &mut ChangeBatch) -> Result<()> {
        if let Some(place) = new.iter().position(|value| !value.is_known()) {
            let column = self.layout.columns.get(place).map_or("", |column| column.name.as_str());
            return Err(silent(format!("the log has an inserted row and does not say what column `{column}` holds")));
        }
        batch.push_insert(self.layout.id, new);
        Ok(())
    }

    /// What the image after an update leaves out is as it was before: that image may have it.
    fn update(&self, old: Image, new: Image, batch: &mut ChangeBatch) -> Result<()> {
        self.must_tell_key(&old)?;
        let was = |index: usize| old[index].clone();
        let new: Image =
            new.into_iter().enumerate().map(|(index, value)| if value == Value::Absent { was(index) } else { value }).collect();
        let old = match &self.key {
            None => Some(old),
            Some(key) if key.iter().all(|place| old[*place].same(&new[*place])) => None,
            Some(key) => Some(only(old, key)),
        };
        batch.push_update(self.layout.id, old, self.key.is_none(), new);
        Ok(())
    }

    fn delete(&self, old: Image, batch: &mut ChangeBatch) -> Result<()> {
        self.must_tell_key(&old)?;
        let old = match &self.key {
            None => old,
            Some(key) => only(old, key),
        };
        batch.push_delete(self.layout.id, old, self.key.is_none());
        Ok(())
    }

    /// An image that does not tell which row it is of: the key is not the one that the log identifies rows by, or a table
    /// without a key is logged without its large values.
    fn must_tell_key(&self, image: &Image) -> Result<()> {
        let is_told = match &self.key {
            None => image.iter().all(Value::is_known),
            Some(key) => key.iter().all(|place| image[*place].is_known()),
        };
        if is_told {
            return Ok(());
        }
        Err(silent("the log has a change of a row and does not say of which: its image lacks a column that identifies it"))
    }
}

/// An image that lacks what must be in it.
fn silent(what: impl Into<String>) -> Error {
    Error::new(&codes::OUT_OF_SIGHT, what)
        .remedy("set binlog_row_image to FULL at the source, end the sessions that began before; then run with --resync")
}

fn only(mut image: Image, places: &[usize]) -> Image {
    for (place, value) in image.iter_mut().enumerate() {
        if !places.contains(&place) {
            *value = Value::Absent;
        }
    }
    image
}

pub(super) fn ddl_stopped(table: &TableName, what: impl Into<String>) -> Error {
    Error::new(&codes::DDL_STOPPED, what)
        .at(format!("table {table}"))
        .remedy("start the task anew with `run --resync`")
        .effect("everything before the schema change was taken over, nothing after it")
}
