//! Two stores in memory, users who write, and a task between them.

use std::sync::Arc;

use async_trait::async_trait;
use godwit_model::{LogId, Result, TableName, Task, Value};
use godwit_pipeline::{CHUNK_BYTES, Described, Job, Life, Running, Storage, this_process};
use godwit_store::{ChangeLog, MemoryLog, Spool, SpoolLimits};
use godwit_testkit::faults::{self, FaultPlan};
use godwit_testkit::memory::{self, MemoryStore, SourceOptions, TableSpec, Transaction, View};
use godwit_testkit::recorder::Recorder;
use godwit_testkit::task::task;
use std::sync::Mutex;

/// A change log that outlives the process that writes it.
pub struct MemoryStorage {
    log: Mutex<MemoryLog>,
    folder: tempfile::TempDir,
}

impl MemoryStorage {
    pub fn new() -> Self {
        MemoryStorage { log: Mutex::new(new_log()), folder: tempfile::tempdir().unwrap() }
    }

    /// What was not durable is gone.
    pub fn crash(&self) {
        self.log.lock().unwrap().crash();
    }
}

#[async_trait]
impl Storage for MemoryStorage {
    async fn log(&self) -> Result<Arc<dyn ChangeLog>> {
        let log = self.log.lock().unwrap();
        // as opening a file log does: what follows the last whole transaction is cut off
        log.crash();
        Ok(Arc::new(log.clone()))
    }

    async fn spool(&self) -> Result<Spool> {
        Spool::open(self.folder.path(), SpoolLimits::default()).await
    }

    async fn wipe(&self) -> Result<()> {
        *self.log.lock().unwrap() = new_log();
        Ok(())
    }
}

fn new_log() -> MemoryLog {
    MemoryLog::new(LogId((u128::from(fastrand::u64(..)) << 64) | u128::from(fastrand::u64(..))), u64::MAX)
}

pub struct World {
    pub first: MemoryStore,
    pub second: MemoryStore,
    pub task: Task,
    pub options: SourceOptions,
    pub chunk_bytes: u64,
    pub faults: Arc<FaultPlan>,
    pub storage: Arc<MemoryStorage>,
    pub recorder: Arc<Recorder>,
}

pub fn accounts() -> TableSpec {
    TableSpec::new("shop", "account").column("id", "int").column("amount", "int").large("note", "text").key(&["id"]).index("account_amount")
}

pub fn purses() -> TableSpec {
    TableSpec::new("shop", "purse")
        .column("name", "text")
        .column("amount", "int")
        .column("tag", "int")
        .key(&["name"])
        .unique("purse_tag", &["tag"])
}

/// A second unique value and a large column: what the log does not tell in full meets what stands in the way.
pub fn badges() -> TableSpec {
    let spec = TableSpec::new("shop", "badge").column("id", "int").column("tag", "int").large("note", "text");
    spec.key(&["id"]).unique("badge_tag", &["tag"])
}

pub fn events() -> TableSpec {
    TableSpec::new("shop", "event").column("what", "text").column("number", "int")
}

impl World {
    pub fn new(seed: u64) -> Self {
        let (first, second) = (MemoryStore::new("first", seed), MemoryStore::new("second", seed));
        World {
            first,
            second,
            task: task("shop"),
            options: SourceOptions::default(),
            chunk_bytes: CHUNK_BYTES,
            faults: Arc::new(FaultPlan::new(seed)),
            storage: Arc::new(MemoryStorage::new()),
            recorder: Arc::new(Recorder::default()),
        }
    }

    pub fn job(&self) -> Job {
        Job {
            task: Arc::new(self.task.clone()),
            source: faults::source(memory::source_with(&self.first, &self.task.name, self.options), &self.faults),
            target: faults::target(memory::target(&self.second), &self.faults),
            storage: self.storage.clone(),
            observer: self.recorder.clone(),
            holder: this_process(),
            described: Described::default(),
            // in one test process every earlier holder was dropped before
            life: |_| Life::Gone,
            chunk_bytes: self.chunk_bytes,
        }
    }

    pub fn start(&self) -> Running {
        self.job().start()
    }

    /// Both stores hold the same rows in every table of the first.
    pub fn assert_equal(&self, context: &str) {
        let (here, there) = (self.first.view(), self.second.view());
        for spec in [accounts(), purses(), badges(), events()] {
            let mut columns = here.columns(&spec.name);
            columns.sort_unstable();
            let of = |view: &View| {
                let there = view.columns(&spec.name);
                assert_eq!(there.len(), columns.len(), "{context}: {} has {there:?} instead of {columns:?}", spec.name);
                let places: Vec<usize> = columns.iter().map(|name| there.iter().position(|other| other == name).unwrap()).collect();
                let row = |row: Vec<Value>| format!("{:?}", places.iter().map(|place| &row[*place]).collect::<Vec<_>>());
                let mut rows: Vec<String> = view.rows(&spec.name).into_iter().map(row).collect();
                rows.sort_unstable();
                rows
            };
            if here.has_table(&spec.name) || there.has_table(&spec.name) {
                assert_eq!(of(&here), of(&there), "{context}: {} by {columns:?}", spec.name);
            }
            assert_eq!(here.structure(&spec.name), there.structure(&spec.name), "{context}: what {} is found by", spec.name);
        }
    }
}

/// What all money together must be.
pub fn total(view: &View) -> i64 {
    let sum = |spec: &TableSpec| -> i64 {
        view.rows(&spec.name).iter().map(|row| if let Value::Int(amount) = row[1] { amount } else { panic!("an amount is a number") }).sum()
    };
    sum(&accounts()) + sum(&purses())
}

/// A new row; columns that came later hold a value of their own or none.
fn put(tx: &mut Transaction, table: &TableName, mut row: Vec<Value>) -> Result<()> {
    let spec = tx.spec(table)?;
    for column in &spec.columns[row.len()..] {
        row.push(match (column.name.as_str(), column.type_name.as_str()) {
            ("x0", _) => Value::Null,
            (_, "text") => text("put"),
            _ => int(7),
        });
    }
    tx.insert(table, row)
}

pub fn int(number: i64) -> Value {
    Value::Int(number)
}

pub fn text(text: &str) -> Value {
    Value::text(text)
}

/// One random transaction of the users. Moves money, never makes any.
pub struct Users {
    pub random: fastrand::Rng,
    pub keyless: bool,
    /// Whether there is a table whose unique values wander from key to key.
    pub badges: bool,
    next: i64,
}

const KEYS: i64 = 8;

impl Users {
    pub fn new(seed: u64, keyless: bool) -> Self {
        Users { random: fastrand::Rng::with_seed(seed), keyless, badges: false, next: 1000 }
    }

    pub fn settle_in(&mut self, store: &MemoryStore) {
        store
            .transaction(|tx| {
                for id in 0..KEYS / 2 {
                    tx.insert(&accounts().name, vec![int(id), int(100), text(&format!("note {id}"))])?;
                    tx.insert(&purses().name, vec![text(&format!("p{id}")), int(100), int(id)])?;
                    if self.keyless {
                        tx.insert(&events().name, vec![text("begin"), int(id % 2)])?;
                    }
                }
                Ok(())
            })
            .unwrap();
    }

    /// A schema change of a table that rows are changed in all the time. Another transaction may be in its way.
    pub fn alter(&mut self, store: &MemoryStore) {
        let table = if self.random.bool() { accounts().name } else { purses().name };
        let known = store.view().columns(&table);
        let extra: Vec<&String> = known.iter().filter(|name| name.starts_with('x')).collect();
        self.next += 1;
        let some = (!extra.is_empty()).then(|| extra[self.random.usize(0..extra.len())].clone());
        let name = format!("x{}", self.random.u8(0..3));
        let done = match (self.random.u8(0..7), some) {
            (0..=2, _) if !known.contains(&name) => {
                let value = [Value::Null, int(self.next)][self.random.usize(0..2)].clone();
                store.add_column(&table, &name, "int", &value)
            }
            (3, Some(name)) => store.drop_column(&table, &name),
            (4, Some(name)) => self.compute(store, &table, &name),
            (5, Some(_)) => store.rewrite(&table),
            (6, Some(old)) if !known.contains(&name) => store.rename_column(&table, &old, &name),
            _ => Ok(()),
        };
        assert!(done.as_ref().err().is_none_or(godwit_model::Error::is_transient), "{done:?}");
    }

    /// Another type, and values that no log tells.
    fn compute(&mut self, store: &MemoryStore, table: &TableName, name: &str) -> Result<()> {
        let mut spec = store.spec(table);
        let index = spec.index_of(name).unwrap();
        let to_text = spec.columns[index].type_name == "int";
        spec.columns[index].type_name = if to_text { "text" } else { "int" }.to_owned();
        let mut number = self.next;
        store.alter_unseen(spec, |row| {
            number += 1;
            let mut row = row.clone();
            row[index] = if to_text { text(&format!("t{number}")) } else { int(number) };
            row
        })
    }

    pub fn step(&mut self, store: &MemoryStore) {
        let several = self.random.usize(1..5);
        let roll_back = self.random.u8(0..8) == 0;
        let done = store.transaction(|tx| {
            for _ in 0..several {
                self.change(tx)?;
            }
            match roll_back {
                true => Err(godwit_model::Error::internal("rolled back on purpose")),
                false => Ok(()),
            }
        });
        assert!(done.is_ok() != roll_back, "{done:?}");
    }

    fn change(&mut self, tx: &mut Transaction) -> Result<()> {
        match self.random.u8(0..10) {
            7 if self.keyless => self.event(tx),
            2..=7 if self.badges => self.badge(tx),
            0..=3 => self.account(tx),
            4..=6 => self.purse(tx),
            8 => {
                tx.savepoint()?;
                self.account(tx)?;
                tx.roll_back_to_savepoint()
            }
            _ => self.transfer(tx),
        }
    }

    fn account(&mut self, tx: &mut Transaction) -> Result<()> {
        let table = accounts().name;
        let (id, other) = (self.random.i64(0..KEYS), self.random.i64(0..KEYS));
        let there = tx.get(&table, &[int(id)])?;
        self.next += 1;
        match (there, self.random.u8(0..5)) {
            (None, _) => put(tx, &table, vec![int(id), int(0), text(&format!("new {}", self.next))]),
            (Some(row), 0) => {
                tx.delete(&table, &[int(id)])?;
                self.give(tx, &row[1])
            }
            (Some(_), 1) if tx.get(&table, &[int(other)])?.is_none() => tx.update(&table, &[int(id)], &[("id", int(other))]),
            (Some(_), 2) => tx.update(&table, &[int(id)], &[("note", text(&format!("changed {}", self.next)))]),
            (Some(row), 3) => {
                tx.delete(&table, &[int(id)])?;
                tx.insert(&table, row)
            }
            (Some(row), _) => tx.update(&table, &[int(id)], &[("amount", row[1].clone())]),
        }
    }

    fn purse(&mut self, tx: &mut Transaction) -> Result<()> {
        let table = purses().name;
        let name = text(&format!("p{}", self.random.i64(0..KEYS)));
        self.next += 1;
        match (tx.get(&table, std::slice::from_ref(&name))?, self.random.u8(0..4)) {
            (None, _) => put(tx, &table, vec![name, int(0), int(self.next)]),
            (Some(row), 0) => {
                tx.delete(&table, &[name])?;
                self.give(tx, &row[1])
            }
            (Some(row), 1) => {
                // the same unique value under another key
                let other = text(&format!("p{}", self.random.i64(0..KEYS)));
                tx.delete(&table, &[name])?;
                match tx.get(&table, std::slice::from_ref(&other))? {
                    None => put(tx, &table, vec![other, row[1].clone(), row[2].clone()]),
                    Some(_) => self.give(tx, &row[1]),
                }
            }
            (Some(_), _) => tx.update(&table, &[name], &[("tag", int(self.next))]),
        }
    }

    fn badge(&mut self, tx: &mut Transaction) -> Result<()> {
        let table = badges().name;
        let (id, other) = (self.random.i64(0..KEYS), self.random.i64(0..KEYS));
        self.next += 1;
        let (there, there_too) = (tx.get(&table, &[int(id)])?, tx.get(&table, &[int(other)])?);
        match (there, there_too, self.random.u8(0..6)) {
            (None, _, _) => tx.insert(&table, vec![int(id), int(self.next), text(&format!("badge {}", self.next))]),
            (Some(row), None, 0) => {
                tx.delete(&table, &[int(id)])?;
                tx.insert(&table, vec![int(other), row[1].clone(), text(&format!("badge {}", self.next))])
            }
            (Some(_), None, 1) => tx.update(&table, &[int(id)], &[("id", int(other))]),
            (Some(row), Some(_), 0..=3) if id != other => {
                tx.update(&table, &[int(id)], &[("tag", int(self.next))])?;
                tx.update(&table, &[int(other)], &[("tag", row[1].clone())])
            }
            (Some(_), _, 4) => tx.delete(&table, &[int(id)]),
            (Some(_), _, _) => tx.update(&table, &[int(id)], &[("note", text(&format!("changed {}", self.next)))]),
        }
    }

    fn event(&mut self, tx: &mut Transaction) -> Result<()> {
        let table = events().name;
        let row = vec![text("happened"), int(self.random.i64(0..3))];
        let there = self.random.u8(0..3);
        match there {
            0 => tx.delete_whole(&table, &row).or(Ok(())),
            1 => {
                let new = vec![text("happened"), int(self.random.i64(0..3))];
                tx.update_whole(&table, &row, new).or(Ok(()))
            }
            _ => tx.insert(&table, row),
        }
    }

    /// Adds to the bank's own account, which is never deleted.
    fn give(&mut self, tx: &mut Transaction, amount: &Value) -> Result<()> {
        let table = accounts().name;
        let Value::Int(amount) = amount else { panic!("an amount is a number") };
        match tx.get(&table, &[int(99)])? {
            None => put(tx, &table, vec![int(99), int(*amount), text("bank")]),
            Some(row) => {
                let Value::Int(before) = row[1] else { panic!("an amount is a number") };
                tx.update(&table, &[int(99)], &[("amount", int(before + amount))])
            }
        }
    }

    fn transfer(&mut self, tx: &mut Transaction) -> Result<()> {
        let table = accounts().name;
        let (from, to) = (self.random.i64(0..KEYS), self.random.i64(0..KEYS));
        let (Some(a), Some(b)) = (tx.get(&table, &[int(from)])?, tx.get(&table, &[int(to)])?) else { return Ok(()) };
        if from == to {
            return Ok(());
        }
        let (Value::Int(a), Value::Int(b)) = (&a[1], &b[1]) else { panic!("an amount is a number") };
        tx.update(&table, &[int(from)], &[("amount", int(a - 7))])?;
        tx.update(&table, &[int(to)], &[("amount", int(b + 7))])
    }
}
