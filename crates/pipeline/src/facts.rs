//! What a task must remember in its target, and the stored form of each fact.
//!
//! Facts are ledger entries: small, named, written under the lease in the same transaction as what they speak of. The
//! stored forms are versioned JSON, apart from the types they describe.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use godwit_model::{
    Appearance, ChangeBatch, Chunk, Column, Entry, Error, Key, LayoutId, LogId, Marker, Position, Result, SchemaItem, Stage, Table,
    TableName, UniqueKey, Value, codes,
};
use godwit_store::{Record, decode, encode};
use serde_json::{Value as Json, json};

const VERSION: u64 = 1;

/// The ledger of one task, read at start and kept in step with what this process writes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    entries: BTreeMap<String, Bytes>,
}

/// Where the task's life in the source's log begins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Start {
    pub position: Position,
    pub log: LogId,
}

/// How one table is cut.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    /// Raised when a table is planned anew; marks of other generations mean nothing.
    pub generation: u64,
    pub chunks: Vec<Chunk>,
}

/// The target was altered for the sake of one transaction, whose changes may still use older layouts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ahead {
    /// Of the checkpoint that the transaction follows.
    pub position: Option<Position>,
    /// Columns that such a change does not have, each with what rows of its time hold in it.
    pub fills: Vec<(String, Value)>,
    /// Columns that such a change has under another name, old and new.
    pub renamed: Vec<(String, String)>,
}

impl Facts {
    pub fn from_entries(entries: Vec<Entry>) -> Self {
        Facts { entries: entries.into_iter().map(|entry| (entry.key, entry.value)).collect() }
    }

    pub fn apply(&mut self, entries: &[Entry]) {
        for entry in entries {
            if entry.value.is_empty() {
                self.entries.remove(&entry.key);
            } else {
                self.entries.insert(entry.key.clone(), entry.value.clone());
            }
        }
    }

    pub fn is_done(&self, what: &str) -> bool {
        self.entries.contains_key(what)
    }

    /// Entries that take back all but what was made at the target: the task begins anew over a target that stays.
    pub fn begin_anew(&self) -> Vec<Entry> {
        let kept = |key: &str| matches!(key, "existing" | "indexed" | "objects") || key.starts_with("step/");
        let gone = self.entries.keys().filter(|key| !kept(key)).map(|key| removal(key));
        gone.chain([done_entry("inexact"), done_entry("resync")]).collect()
    }

    /// Entries that take back a load that is not whole: its place in the log, and what was copied. The tables stay described
    /// as they are.
    pub fn begin_again(&self, over_old_rows: bool) -> Vec<Entry> {
        let of_load = |key: &str| {
            let parts = ["plan/", "chunk/", "ahead/", "loose/", "sweep/"];
            matches!(key, "start" | "p1" | "passed" | "reread" | "inexact") || parts.iter().any(|part| key.starts_with(part))
        };
        let gone = self.entries.keys().filter(|key| of_load(key)).map(|key| removal(key));
        let old = ["inexact", "resync"].into_iter().filter(|_| over_old_rows).map(done_entry);
        gone.chain(old).chain([done_entry("again")]).collect()
    }

    pub fn start(&self) -> Result<Option<Start>> {
        self.json("start", |json| {
            let log = u128::from_str_radix(json.get("log")?.as_str()?, 16).ok()?;
            Some(Start { position: Position::from(json.get("position")?.as_str()?.to_owned()), log: LogId(log) })
        })
    }

    /// As they were described, each as it was altered since.
    pub fn tables(&self) -> Result<Option<Vec<Table>>> {
        let Some(mut tables) =
            self.json("tables", |json| json.get("tables")?.as_array()?.iter().map(table_from_json).collect::<Option<Vec<_>>>())?
        else {
            return Ok(None);
        };
        for table in &mut tables {
            if let Some(altered) = self.json(&table_key(&table.name), |json| table_from_json(json.get("table")?))? {
                *table = altered;
            }
        }
        Ok(Some(tables))
    }

    /// Steps that wait for rows, as they were described together with the tables.
    pub fn steps(&self) -> Result<Vec<SchemaItem>> {
        Ok(self.json("steps", |json| json.get("steps")?.as_array()?.iter().map(step_from_json).collect())?.unwrap_or_default())
    }

    /// Whether target tables held rows before the task, and keep them.
    pub fn is_beside_strangers(&self) -> Result<bool> {
        Ok(self.json("existing", |json| json.get("with_rows")?.as_bool())?.unwrap_or(false))
    }

    /// Target tables that were there before the task and keep their owner's structure. None: not decided yet.
    pub fn existing(&self) -> Result<Option<HashSet<TableName>>> {
        self.json("existing", |json| {
            let tables = json.get("tables")?.as_array()?.iter();
            tables.map(|table| Some(TableName::new(table.get(0)?.as_str()?, table.get(1)?.as_str()?))).collect()
        })
    }

    /// Objects of the target's tables that came there by the task, once all are made: table and name.
    pub fn objects(&self) -> Result<Option<HashSet<(TableName, String)>>> {
        self.json("objects", |json| {
            let text = |object: &Json, at: usize| object.get(at)?.as_str().map(str::to_owned);
            let objects = json.get("objects")?.as_array()?.iter();
            objects.map(|object| Some((TableName::new(text(object, 0)?, text(object, 1)?), text(object, 2)?))).collect()
        })
    }

    pub fn plan(&self, table: &TableName) -> Result<Option<Plan>> {
        self.json(&plan_key(table), |json| {
            let chunks = json
                .get("chunks")?
                .as_array()?
                .iter()
                .map(|chunk| Some(Chunk { spec: chunk.get(0)?.as_str()?.to_owned(), estimated_rows: chunk.get(1)?.as_u64()? }));
            Some(Plan { generation: json.get("generation")?.as_u64()?, chunks: chunks.collect::<Option<_>>()? })
        })
    }

    /// Whether a copy was begun.
    pub fn has_plans(&self) -> bool {
        self.entries.keys().any(|key| key.starts_with("plan/"))
    }

    /// Whether every chunk of the table is there.
    pub fn is_copied(&self, table: &TableName) -> Result<bool> {
        match self.plan(table)? {
            Some(plan) => Ok(self.missing(table, &plan)?.is_empty()),
            None => Ok(false),
        }
    }

    /// Chunks that are not copied yet.
    pub fn missing(&self, table: &TableName, plan: &Plan) -> Result<Vec<usize>> {
        let mut missing = Vec::new();
        for number in 0..plan.chunks.len() {
            if self.chunk_rows(table, plan.generation, number)?.is_none() {
                missing.push(number);
            }
        }
        Ok(missing)
    }

    /// Rows of a chunk that is done.
    pub fn chunk_rows(&self, table: &TableName, generation: u64, number: usize) -> Result<Option<u64>> {
        self.json(&chunk_key(table, generation, number), |json| json.get("rows")?.as_u64())
    }

    /// How the table looked last: with what columns its changes came, and the source's own stamp.
    pub fn look(&self, table: &TableName) -> Result<Option<Appearance>> {
        self.json(&look_key(table), |json| {
            let columns = json.get("columns")?.as_array()?.iter();
            let columns = columns.map(|column| Some((column.get(0)?.as_str()?.to_owned(), column.get(1)?.as_str()?.to_owned())));
            Some(Appearance {
                columns: columns.collect::<Option<_>>()?,
                in_parts: json.get("in_parts")?.as_bool()?,
                stamp: json.get("stamp")?.as_str()?.to_owned(),
            })
        })
    }

    /// What was altered before the transaction that follows a checkpoint.
    pub fn ahead(&self, table: &TableName) -> Result<Option<Ahead>> {
        self.entries.get(&ahead_key(table)).map(ahead_from).transpose()
    }

    /// Whether rows of this table may differ in a way the log does not tell: it is compared and read again behind P1.
    pub fn is_to_be_swept(&self, table: &TableName) -> bool {
        self.is_done("resync") || self.is_done(&sweep_key(table))
    }

    /// Whether the table was altered by the catalog during the load, so that layouts up to P1 may be older than it is.
    pub fn is_loose(&self, table: &TableName) -> bool {
        self.is_done(&loose_key(table))
    }

    /// Entries that say that every table's layouts are compared from here on.
    pub fn none_loose(&self) -> Vec<Entry> {
        self.entries.keys().filter(|key| key.starts_with("loose/")).map(|key| removal(key)).collect()
    }

    /// Whether anything is to be swept.
    pub fn has_sweeps(&self) -> bool {
        self.is_done("resync") || self.entries.keys().any(|key| key.starts_with("sweep/"))
    }

    /// Entries that say that nothing is to be swept any more.
    pub fn all_swept(&self) -> Vec<Entry> {
        self.entries.keys().filter(|key| *key == "resync" || key.starts_with("sweep/")).map(|key| removal(key)).collect()
    }

    pub fn marker(&self) -> Result<Option<Marker>> {
        self.json("p1", |json| Some(Marker(json.get("marker")?.as_str()?.to_owned())))
    }

    /// Bytes of the re-read list, in the change log's own codec.
    pub fn reread(&self) -> Option<&Bytes> {
        self.entries.get("reread")
    }

    fn json<T>(&self, key: &str, read: impl Fn(&Json) -> Option<T>) -> Result<Option<T>> {
        let Some(bytes) = self.entries.get(key) else { return Ok(None) };
        let parsed: Option<Json> = serde_json::from_slice(bytes).ok();
        let version = parsed.as_ref().and_then(|json| json.get("v")).and_then(Json::as_u64);
        if version.is_some_and(|version| version > VERSION) {
            return Err(Error::new(&codes::STATE_VERSION, format!("the entry `{key}` was written by a newer version of godwit"))
                .at("the task's ledger in the target")
                .remedy("go on with that version"));
        }
        match parsed.as_ref().and_then(read) {
            Some(fact) => Ok(Some(fact)),
            None => Err(Error::new(&codes::STATE_LOST, format!("the entry `{key}` cannot be read"))
                .at("the task's ledger in the target")
                .remedy("start anew with `run --resync`, or give up with `clean`")),
        }
    }
}

pub(crate) fn start_entry(start: &Start) -> Entry {
    entry("start", json!({"v": VERSION, "position": start.position.to_string(), "log": format!("{:x}", start.log.0)}))
}

pub(crate) fn tables_entry(tables: &[impl AsRef<Table>]) -> Entry {
    list_entry("tables", tables.iter().map(|table| table_to_json(table.as_ref())))
}

pub(crate) fn steps_entry(items: &[&SchemaItem]) -> Entry {
    list_entry("steps", items.iter().map(|item| step_to_json(item)))
}

/// Of thousands, written one by one: as one tree they would take several times their text.
fn list_entry(key: &str, list: impl Iterator<Item = Json>) -> Entry {
    let mut text = format!("{{\"v\":{VERSION},\"{key}\":[");
    for (place, one) in list.enumerate() {
        if place > 0 {
            text.push(',');
        }
        text.push_str(&one.to_string());
    }
    text.push_str("]}");
    Entry { key: key.to_owned(), value: Bytes::from(text) }
}

/// `with_rows`: rows were there that are not the source's, and stay.
pub(crate) fn existing_entry(tables: &[TableName], with_rows: bool) -> Entry {
    let tables: Vec<Json> = tables.iter().map(|table| json!([table.schema, table.name])).collect();
    entry("existing", json!({"v": VERSION, "tables": tables, "with_rows": with_rows}))
}

pub(crate) fn objects_entry(objects: &HashSet<(TableName, String)>) -> Entry {
    let mut objects: Vec<_> = objects.iter().collect();
    objects.sort();
    let objects: Vec<Json> = objects.into_iter().map(|(table, what)| json!([table.schema, table.name, what])).collect();
    entry("objects", json!({"v": VERSION, "objects": objects}))
}

pub(crate) fn plan_entry(table: &TableName, plan: &Plan) -> Entry {
    let chunks: Vec<Json> = plan.chunks.iter().map(|chunk| json!([chunk.spec, chunk.estimated_rows])).collect();
    entry(&plan_key(table), json!({"v": VERSION, "generation": plan.generation, "chunks": chunks}))
}

/// The mark of a chunk. The row count is not known before the chunk is written, so the plan's estimate stands here.
pub(crate) fn chunk_entry(table: &TableName, generation: u64, number: usize, rows: u64) -> Entry {
    entry(&chunk_key(table, generation, number), json!({"v": VERSION, "rows": rows}))
}

pub(crate) fn look_entry(table: &TableName, look: &Appearance) -> Entry {
    let fact = json!({"v": VERSION, "columns": look.columns, "in_parts": look.in_parts, "stamp": look.stamp});
    entry(&look_key(table), fact)
}

/// A table as a schema change left it.
pub(crate) fn table_entry(table: &Table) -> Entry {
    entry(&table_key(&table.name), json!({"v": VERSION, "table": table_to_json(table)}))
}

pub(crate) fn loose_entry(table: &TableName) -> Entry {
    done_entry(&loose_key(table))
}

pub(crate) fn sweep_entry(table: &TableName) -> Entry {
    done_entry(&sweep_key(table))
}

/// In the change log's own codec, as fills are values: the position, then name and value of each; then old and new names.
pub(crate) fn ahead_entry(table: &TableName, ahead: &Ahead) -> Entry {
    let position = ahead.position.as_ref().map_or(Value::Null, |position| Value::Bytes(position.0.clone()));
    let fills = ahead.fills.iter().flat_map(|(name, value)| [Value::text(name.as_str()), value.clone()]);
    let mut batch = ChangeBatch::default();
    batch.push_insert(LayoutId(0), [position].into_iter().chain(fills));
    let names = ahead.renamed.iter().flat_map(|(old, new)| [Value::text(old.as_str()), Value::text(new.as_str())]);
    batch.push_insert(LayoutId(0), names);
    let mut bytes = Vec::new();
    encode(&Record::Changes(batch), &mut bytes);
    Entry { key: ahead_key(table), value: Bytes::from(bytes) }
}

pub(crate) fn ahead_removal(table: &TableName) -> Entry {
    removal(&ahead_key(table))
}

fn ahead_from(bytes: &Bytes) -> Result<Ahead> {
    let lost = || Error::new(&codes::STATE_LOST, "what was altered last cannot be read").at("the task's ledger in the target");
    let Record::Changes(batch) = decode(bytes)? else { return Err(lost()) };
    let row = |index: usize| batch.changes.get(index).map(|change| batch.images(change).new);
    let [position, fills @ ..] = row(0).unwrap_or_default() else { return Err(lost()) };
    let position = match position {
        Value::Null => None,
        Value::Bytes(bytes) => Some(Position(bytes.clone())),
        _ => return Err(lost()),
    };
    let fill = |pair: &[Value]| match pair {
        [Value::Text(name), value] => Ok((String::from_utf8_lossy(name).into_owned(), value.clone())),
        _ => Err(lost()),
    };
    let name = |pair: &[Value]| match pair {
        [Value::Text(old), Value::Text(new)] => Ok((String::from_utf8_lossy(old).into_owned(), String::from_utf8_lossy(new).into_owned())),
        _ => Err(lost()),
    };
    // an earlier version writes none
    let renamed = row(1).unwrap_or_default().chunks(2).map(name).collect::<Result<_>>()?;
    Ok(Ahead { position, fills: fills.chunks(2).map(fill).collect::<Result<_>>()?, renamed })
}

pub(crate) fn marker_entry(marker: &Marker) -> Entry {
    entry("p1", json!({"v": VERSION, "marker": marker.0}))
}

/// A fact that is only true or not.
pub(crate) fn done_entry(what: &str) -> Entry {
    entry(what, json!({"v": VERSION}))
}

pub(crate) fn removal(what: &str) -> Entry {
    Entry { key: what.to_owned(), value: Bytes::new() }
}

pub(crate) fn step_key(id: &str) -> String {
    format!("step/{id}")
}

fn plan_key(table: &TableName) -> String {
    format!("plan/{}", distinct(table))
}

fn chunk_key(table: &TableName, generation: u64, number: usize) -> String {
    format!("chunk/{}/{generation}/{number}", distinct(table))
}

fn look_key(table: &TableName) -> String {
    format!("look/{}", distinct(table))
}

fn table_key(table: &TableName) -> String {
    format!("table/{}", distinct(table))
}

fn ahead_key(table: &TableName) -> String {
    format!("ahead/{}", distinct(table))
}

fn loose_key(table: &TableName) -> String {
    format!("loose/{}", distinct(table))
}

fn sweep_key(table: &TableName) -> String {
    format!("sweep/{}", distinct(table))
}

/// A table's name in which a dot of its own cannot be taken for the one between schema and name.
pub(crate) fn distinct(table: &TableName) -> String {
    let escaped = |name: &str| name.replace('\\', "\\\\").replace('.', "\\.").replace('/', "\\/");
    format!("{}.{}", escaped(&table.schema), escaped(&table.name))
}

fn entry(key: &str, json: Json) -> Entry {
    Entry { key: key.to_owned(), value: Bytes::from(json.to_string()) }
}

fn table_to_json(table: &Table) -> Json {
    let columns: Vec<Json> =
        table.columns.iter().map(|column| json!([column.name, column.type_name, column.nullable, column.generated])).collect();
    let uniques: Vec<Json> = table.uniques.iter().map(|unique| json!([unique.name, unique.columns])).collect();
    json!({
        "schema": table.name.schema, "name": table.name.name, "columns": columns, "uniques": uniques,
        "key": table.key.as_ref().map(|key| &key.columns), "key_is_exact": table.key_is_exact,
        "rows": table.estimated_rows, "bytes": table.estimated_bytes,
    })
}

fn table_from_json(json: &Json) -> Option<Table> {
    let text = |json: &Json| Some(json.as_str()?.to_owned());
    let indices = |json: &Json| json.as_array()?.iter().map(|index| Some(index.as_u64()? as usize)).collect::<Option<Vec<_>>>();
    let columns = json.get("columns")?.as_array()?.iter().map(|column| {
        Some(Column {
            name: text(column.get(0)?)?,
            type_name: text(column.get(1)?)?,
            nullable: column.get(2)?.as_bool()?,
            generated: column.get(3)?.as_bool()?,
        })
    });
    let uniques = json.get("uniques")?.as_array()?.iter();
    Some(Table {
        name: TableName::new(text(json.get("schema")?)?, text(json.get("name")?)?),
        columns: columns.collect::<Option<_>>()?,
        key: match json.get("key")? {
            Json::Null => None,
            key => Some(Key { columns: indices(key)? }),
        },
        uniques: uniques
            .map(|unique| Some(UniqueKey { name: text(unique.get(0)?)?, columns: indices(unique.get(1)?)? }))
            .collect::<Option<_>>()?,
        estimated_rows: json.get("rows")?.as_u64()?,
        estimated_bytes: json.get("bytes")?.as_u64()?,
        key_is_exact: json.get("key_is_exact")?.as_bool()?,
    })
}

const WAITING: [(Stage, &str); 3] = [(Stage::Key, "key"), (Stage::Index, "index"), (Stage::AfterLoad, "after")];

fn step_to_json(item: &SchemaItem) -> Json {
    let stage = WAITING.iter().find(|(stage, _)| *stage == item.stage).map(|(_, word)| *word);
    let table = item.table.as_ref().map(|table| json!([table.schema, table.name]));
    json!([item.id, stage, table, item.sql])
}

fn step_from_json(json: &Json) -> Option<SchemaItem> {
    let text = |json: &Json| Some(json.as_str()?.to_owned());
    let stage = json.get(1)?.as_str()?;
    Some(SchemaItem {
        id: text(json.get(0)?)?,
        stage: WAITING.iter().find(|(_, word)| *word == stage)?.0,
        table: match json.get(2)? {
            Json::Null => None,
            table => Some(TableName::new(table.get(0)?.as_str()?, table.get(1)?.as_str()?)),
        },
        sql: json.get(3)?.as_array()?.iter().map(text).collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table {
            name: TableName::new("a b", "x\"y"),
            columns: vec![Column { name: "ünï".into(), type_name: "numeric(10,2)".into(), nullable: true, generated: false }],
            key: Some(Key { columns: vec![0] }),
            uniques: vec![UniqueKey { name: "u".into(), columns: vec![] }],
            estimated_rows: 7,
            estimated_bytes: 9,
            key_is_exact: false,
        }
    }

    #[test]
    fn facts_come_back_as_they_were_written() {
        let step = |stage, table: Option<TableName>| SchemaItem { id: "KEY x".into(), stage, table, sql: vec!["a".into(), "b".into()] };
        let steps = [step(Stage::Key, Some(table().name)), step(Stage::Index, Some(table().name)), step(Stage::AfterLoad, None)];
        let plan = Plan { generation: 2, chunks: vec![Chunk { spec: "a:1".into(), estimated_rows: 5 }] };
        let start = Start { position: Position::from("0/16B3748".to_owned()), log: LogId(77) };
        let look = Appearance { columns: vec![("ünï".into(), "numeric(10)".into())], in_parts: true, stamp: "s".into() };
        let position = Some(Position::from("0/1".to_owned()));
        let fills = vec![("more".into(), Value::Native(Bytes::from_static(b"5"))), ("none".into(), Value::Null)];
        let ahead = Ahead { position, fills, renamed: vec![("old".into(), "new".into())] };
        let objects = HashSet::from([(table().name, "INDEX a".to_owned())]);
        let facts = Facts::from_entries(vec![
            start_entry(&start),
            tables_entry(&[std::sync::Arc::new(table())]),
            steps_entry(&steps.iter().collect::<Vec<_>>()),
            plan_entry(&table().name, &plan),
            chunk_entry(&table().name, 2, 0, 41),
            marker_entry(&Marker("m".into())),
            look_entry(&table().name, &look),
            ahead_entry(&table().name, &ahead),
            sweep_entry(&table().name),
            objects_entry(&objects),
        ]);
        assert_eq!(facts.objects().unwrap(), Some(objects));
        assert_eq!(facts.look(&table().name).unwrap(), Some(look));
        assert_eq!(facts.ahead(&table().name).unwrap(), Some(ahead));
        assert!(facts.is_to_be_swept(&table().name));
        assert_eq!(facts.start().unwrap(), Some(start));
        assert_eq!(facts.tables().unwrap(), Some(vec![table()]));
        assert_eq!(facts.steps().unwrap(), steps);
        assert_eq!(facts.plan(&table().name).unwrap(), Some(plan));
        assert_eq!(facts.chunk_rows(&table().name, 2, 0).unwrap(), Some(41));
        assert_eq!(facts.chunk_rows(&table().name, 1, 0).unwrap(), None);
        assert_eq!(facts.marker().unwrap(), Some(Marker("m".into())));
    }

    #[test]
    fn a_table_is_as_it_was_altered_last() {
        let altered = Table { columns: vec![], key: None, uniques: vec![], ..table() };
        let mut facts = Facts::from_entries(vec![tables_entry(&[std::sync::Arc::new(table())])]);
        facts.apply(&[table_entry(&altered)]);
        assert_eq!(facts.tables().unwrap(), Some(vec![altered]));
    }

    #[test]
    fn the_stored_form_of_version_1_stays_readable() {
        let stored = Entry { key: "start".into(), value: Bytes::from_static(br#"{"v":1,"position":"0/1","log":"ff"}"#) };
        let start = Facts::from_entries(vec![stored]).start().unwrap();
        assert_eq!(start, Some(Start { position: Position::from("0/1".to_owned()), log: LogId(255) }));
    }

    #[test]
    fn an_unreadable_or_newer_entry_is_an_error_with_a_code() {
        let facts = |text: &'static str| Facts::from_entries(vec![Entry { key: "start".into(), value: Bytes::from(text) }]);
        assert!(facts("{}").start().unwrap_err().is(&codes::STATE_LOST));
        assert!(facts(r#"{"v":2}"#).start().unwrap_err().is(&codes::STATE_VERSION));
    }
}
