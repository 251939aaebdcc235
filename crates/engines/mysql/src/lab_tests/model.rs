//! What a stream says, read to a marker, and tables that it is replayed on strictly.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use godwit_model::{
    Captured, ChangeOperation, ChangeStream, Layout, LayoutId, Marker, OldImage, Position, Result, Table, TableName, Value,
};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::soon;
use crate::changes::Changes;
use crate::quote;
use crate::values::Codec;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Told {
    pub(super) table: TableName,
    pub(super) operation: ChangeOperation,
    pub(super) old: Option<Vec<Value>>,
    pub(super) new: Vec<Value>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Transaction {
    pub(super) position: Position,
    pub(super) changes: Vec<Told>,
    pub(super) markers: Vec<Marker>,
    pub(super) pieces: usize,
}

/// A stream with its layouts.
pub(super) struct Reader {
    stream: Changes,
    layouts: HashMap<LayoutId, Arc<Layout>>,
    pub(super) idle: Option<Position>,
    /// Whether calls are dropped while pending, again and again.
    pub(super) impatient: bool,
    open: Option<Transaction>,
}

impl Reader {
    pub(super) fn new(stream: Changes) -> Self {
        Reader { stream, layouts: HashMap::new(), idle: None, impatient: false, open: None }
    }

    async fn item(&mut self) -> Result<Captured> {
        while self.impatient {
            let limit = std::time::Duration::from_micros(fastrand::u64(0..300));
            if let Ok(item) = tokio::time::timeout(limit, self.stream.next()).await {
                return item;
            }
        }
        soon(self.stream.next()).await
    }

    pub(super) async fn until_idle(&mut self) -> Position {
        loop {
            if let Captured::Idle { position } = self.item().await.unwrap() {
                return position;
            }
        }
    }

    pub(super) async fn transaction(&mut self) -> Result<Transaction> {
        loop {
            match self.item().await? {
                Captured::Layout(layout) => drop(self.layouts.insert(layout.id, layout)),
                Captured::Begin => {
                    assert!(self.open.is_none(), "one transaction at a time");
                    self.open = Some(Transaction { position: Position::default(), changes: vec![], markers: vec![], pieces: 0 });
                }
                Captured::Changes(batch) => {
                    let open = self.open.as_mut().expect("changes are in a transaction");
                    open.pieces += 1;
                    for change in &batch.changes {
                        let layout = self.layouts.get(&change.layout).expect("a layout comes before its use");
                        let images = batch.images(change);
                        let is_wide = |image: &[Value]| image.is_empty() || image.len() == layout.columns.len();
                        assert!(images.old.is_none_or(is_wide) && is_wide(images.new));
                        assert_eq!(matches!(change.old, OldImage::Full(_)), images.old.is_some() && layout.full_old_images);
                        open.changes.push(Told {
                            table: layout.table.clone(),
                            operation: change.operation.clone(),
                            old: images.old.map(<[Value]>::to_vec),
                            new: images.new.to_vec(),
                        });
                    }
                }
                Captured::Marker(marker) => self.open.as_mut().expect("markers are in a transaction").markers.push(marker),
                Captured::Commit { position, .. } => {
                    let open = self.open.take().expect("a commit ends a transaction");
                    return Ok(Transaction { position, ..open });
                }
                Captured::Idle { position } => {
                    assert!(self.open.is_none(), "nothing comes into a transaction");
                    self.idle = Some(position);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Everything up to and with the transaction of this marker.
    pub(super) async fn until(&mut self, marker: &Marker) -> Result<Vec<Transaction>> {
        let mut all = Vec::new();
        loop {
            let transaction = self.transaction().await?;
            let is_last = transaction.markers.contains(marker);
            all.push(transaction);
            if is_last {
                return Ok(all);
            }
        }
    }
}

/// Rows by key, or counted where a table has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Model {
    keyed: HashMap<TableName, BTreeMap<String, Vec<Value>>>,
    counted: HashMap<TableName, BTreeMap<String, usize>>,
    tables: Vec<Arc<Table>>,
}

impl Model {
    pub(super) fn new(tables: &[Arc<Table>]) -> Self {
        let mut model = Model { tables: tables.to_vec(), ..Model::default() };
        for table in tables {
            match table.key {
                Some(_) => drop(model.keyed.insert(table.name.clone(), BTreeMap::new())),
                None => drop(model.counted.insert(table.name.clone(), BTreeMap::new())),
            }
        }
        model
    }

    /// What a session sees now.
    pub(super) async fn read(conn: &mut Conn, tables: &[Arc<Table>]) -> Self {
        let mut model = Model::new(tables);
        for table in tables {
            let codecs: Vec<Codec> = table.columns.iter().map(|column| Codec::of(&column.type_name).unwrap()).collect();
            let asked = table.columns.iter().zip(&codecs).map(|(column, codec)| codec.selected(&quote::identifier(&column.name)));
            let sql = format!("SELECT {} FROM {}", quote::list(asked), quote::table(&table.name));
            let rows: Vec<mysql_async::Row> = conn.query(sql).await.unwrap();
            for row in rows {
                let values = row.unwrap().into_iter().zip(&codecs).zip(&table.columns).filter(|(_, column)| !column.generated);
                let value = |cell: mysql_async::Value, codec: &Codec| match cell {
                    mysql_async::Value::NULL => codec.from_select(None).unwrap(),
                    mysql_async::Value::Bytes(bytes) => codec.from_select(Some(&bytes)).unwrap(),
                    other => panic!("{other:?}"),
                };
                model.insert(&table.name, values.map(|((cell, codec), _)| value(cell, codec)).collect());
            }
        }
        model
    }

    fn key(&self, table: &TableName, row: &[Value]) -> Option<String> {
        let table = self.tables.iter().find(|there| there.name == *table).unwrap();
        // generated columns are behind the key in these tests
        table.key.as_ref().map(|key| format!("{:?}", key.columns.iter().map(|index| &row[*index]).collect::<Vec<_>>()))
    }

    fn insert(&mut self, table: &TableName, row: Vec<Value>) {
        assert!(row.iter().all(Value::is_known), "{table}: a new row is told in full");
        match self.key(table, &row) {
            Some(key) => {
                let before = self.keyed.get_mut(table).unwrap().insert(key.clone(), row);
                assert!(before.is_none(), "{table}: {key} is there already");
            }
            None => *self.counted.get_mut(table).unwrap().entry(format!("{row:?}")).or_default() += 1,
        }
    }

    fn remove(&mut self, table: &TableName, image: &[Value]) -> Option<Vec<Value>> {
        match self.key(table, image) {
            Some(key) => Some(self.keyed.get_mut(table).unwrap().remove(&key).unwrap_or_else(|| panic!("{table}: {key} is not there"))),
            None => {
                let count = self.counted.get_mut(table).unwrap().get_mut(&format!("{image:?}")).expect("the row is there");
                *count = count.checked_sub(1).expect("the row is there");
                None
            }
        }
    }

    pub(super) fn apply(&mut self, transaction: &Transaction) {
        for told in &transaction.changes {
            match told.operation {
                ChangeOperation::Insert => self.insert(&told.table, told.new.clone()),
                ChangeOperation::Delete => drop(self.remove(&told.table, told.old.as_ref().unwrap())),
                ChangeOperation::Update => {
                    let before = self.remove(&told.table, told.old.as_ref().unwrap_or(&told.new));
                    let merged = |(index, value): (usize, &Value)| match (value, &before) {
                        (Value::Absent, Some(before)) => before[index].clone(),
                        (value, _) => value.clone(),
                    };
                    let row = told.new.iter().enumerate().map(merged).collect();
                    self.insert(&told.table, row);
                }
                ChangeOperation::Truncate => {
                    self.keyed.get_mut(&told.table).map(BTreeMap::clear);
                    self.counted.get_mut(&told.table).map(BTreeMap::clear);
                }
            }
        }
    }

    pub(super) fn is_equal(&self, other: &Model) -> bool {
        let rows = |model: &Model| {
            let counted = model.counted.iter().map(|(table, rows)| {
                (
                    table.clone(),
                    rows.iter().filter(|(_, count)| **count > 0).map(|(row, count)| (row.clone(), *count)).collect::<BTreeMap<_, _>>(),
                )
            });
            counted.collect::<HashMap<_, _>>()
        };
        self.keyed == other.keyed && rows(self) == rows(other)
    }
}
