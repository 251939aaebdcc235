//! Users who alter tables while others write: columns come, go, get other names and other types, and what tables refuse
//! comes and goes.
//!
//! Columns of theirs begin with `x`, and with `y` when they were renamed; no such name is given twice. Those that begin
//! with `w` come again under the same name. What a statement that failed with its server has done is asked of the catalog.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use fastrand::Rng;

use crate::pair::Pair;
use crate::store::{Row, Session, Store};

/// Before the next alteration, at most.
const PAUSE: Duration = Duration::from_millis(300);
const RECONNECT: Duration = Duration::from_millis(50);
/// Turns of the user between two waits for the target, at most: a slow machine must not have more to catch up with.
const MOST_TURNS: u32 = 8;
/// Columns of the users' own in one table, at most.
const MOST_EXTRA: usize = 6;

/// One table; the rows of the bank's are the bank's, but for the columns that came.
struct Altered {
    name: &'static str,
    key: &'static str,
    owned: bool,
}

const TABLES: [Altered; 6] = [
    Altered { name: "shelf", key: "id", owned: true },
    Altered { name: "rack", key: "id", owned: true },
    Altered { name: "accounts_a", key: "balance", owned: false },
    Altered { name: "accounts_b", key: "balance", owned: false },
    Altered { name: "accounts_c", key: "balance", owned: false },
    Altered { name: "journal", key: "id", owned: false },
];

/// Beside the bank: one with what refuses rows, and one whose parts have their columns in different orders.
const DDL: [&str; 9] = [
    "CREATE TYPE mood AS ENUM ('sad', 'glad')",
    "CREATE TABLE shelf (id INTEGER PRIMARY KEY, v TEXT NOT NULL CONSTRAINT short CHECK (length(v) < 9), n INTEGER UNIQUE, feels mood)",
    "INSERT INTO shelf SELECT i, 'v' || i, i, 'sad' FROM generate_series(1, 200) i",
    "CREATE TABLE rack (id INTEGER, v TEXT, n INTEGER, PRIMARY KEY (id)) PARTITION BY RANGE (id)",
    "CREATE TABLE rack_low PARTITION OF rack FOR VALUES FROM (MINVALUE) TO (100)",
    "CREATE TABLE rack_high (n INTEGER, gone TEXT, id INTEGER NOT NULL, v TEXT, PRIMARY KEY (id))",
    "ALTER TABLE rack_high DROP COLUMN gone",
    "ALTER TABLE rack ATTACH PARTITION rack_high FOR VALUES FROM (100) TO (1000)",
    "INSERT INTO rack SELECT i, 'v' || i, i FROM generate_series(1, 200) i",
];

pub struct Alterations {
    stop: Arc<AtomicBool>,
    turns: Arc<AtomicU32>,
    may_rename: Arc<AtomicBool>,
    made: Arc<AtomicU32>,
    user: Option<JoinHandle<()>>,
}

impl Alterations {
    /// Makes the tables that are not the bank's, and begins.
    pub fn begin(pair: &Pair, seed: u64) -> Alterations {
        pair.source.run(&DDL);
        let [stop, may_rename] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let [turns, made] = [(); 2].map(|()| Arc::new(AtomicU32::new(0)));
        let mut user = User {
            store: pair.source.clone(),
            random: Rng::with_seed(seed),
            number: 0,
            may_rename: may_rename.clone(),
            made: made.clone(),
        };
        let told = (stop.clone(), turns.clone());
        let user = std::thread::spawn(move || user.work(&told.0, &told.1));
        Alterations { stop, turns, may_rename, made, user: Some(user) }
    }

    /// Before the tables are whole at the target a rename stops the task.
    pub fn may_rename(&self) {
        self.may_rename.store(true, Ordering::SeqCst);
    }

    /// Whether users leave the tables as they are for a while; else they have a few turns.
    pub fn calm(&self, calm: bool) {
        self.turns.store(if calm { 0 } else { MOST_TURNS }, Ordering::SeqCst);
    }

    /// Statements that altered something.
    pub fn made(&self) -> u32 {
        self.made.load(Ordering::SeqCst)
    }

    pub fn end(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(user) = self.user.take() {
            user.join().unwrap();
        }
    }
}

impl Drop for Alterations {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.user.take().map(JoinHandle::join);
    }
}

/// Every column of every altered table is the same on both sides, by definition and by row.
#[track_caller]
pub fn assert_equal(pair: &Pair) {
    for table in TABLES {
        pair.assert_same(&columns_of(table.name));
        let columns = pair.source.rows(&columns_of(table.name));
        let names: Vec<&str> = columns.iter().map(|row| row[0].as_deref().unwrap()).collect();
        pair.assert_same(&format!("SELECT {} FROM {}", names.join(", "), table.name));
    }
}

fn columns_of(table: &str) -> String {
    format!(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
         WHERE attrelid = to_regclass('public.{table}') AND attnum > 0 AND NOT attisdropped ORDER BY attname"
    )
}

struct User {
    store: Arc<dyn Store>,
    random: Rng,
    /// Of the alteration: part of the names it gives.
    number: u32,
    may_rename: Arc<AtomicBool>,
    made: Arc<AtomicU32>,
}

impl User {
    fn work(&mut self, stop: &AtomicBool, turns: &AtomicU32) {
        let mut session: Option<Box<dyn Session>> = None;
        while !stop.load(Ordering::SeqCst) {
            std::thread::sleep(PAUSE.mul_f64(self.random.f64()));
            if turns.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
                continue;
            }
            let done = match &mut session {
                Some(session) => self.turn(&mut **session),
                None => self.store.connect().map(|connected| session = Some(connected)),
            };
            if done.is_err() {
                session = None;
                std::thread::sleep(RECONNECT);
            }
        }
    }

    /// Alterations and rows, each on its own or all in one transaction.
    fn turn(&mut self, session: &mut dyn Session) -> Result<(), String> {
        let table = &TABLES[self.random.usize(0..TABLES.len())];
        let mut statements = Vec::new();
        let mut extra = self.extra(session, table)?;
        for _ in 0..self.random.usize(1..=3) {
            statements.push(self.row(table, &extra));
            statements.push(self.alteration(table, &mut extra));
        }
        statements.push(self.row(table, &extra));
        if self.random.u8(0..3) == 0 && !statements.iter().any(|statement| statement.starts_with("VACUUM")) {
            statements.insert(0, "BEGIN".to_owned());
            statements.push(if self.random.u8(0..4) == 0 { "ROLLBACK" } else { "COMMIT" }.to_owned());
            return self.execute(session, &statements);
        }
        statements.into_iter().try_for_each(|statement| self.execute(session, &[statement]))
    }

    /// What rows do not allow, and a deadlock with the bank, is nothing that ends the user's session.
    fn execute(&self, session: &mut dyn Session, statements: &[String]) -> Result<(), String> {
        match session.execute(statements) {
            Ok(_) => {
                let altered = statements.iter().filter(|statement| statement.starts_with("ALTER")).count();
                self.made.fetch_add(u32::try_from(altered).unwrap(), Ordering::SeqCst);
                Ok(())
            }
            Err(_) => session.rows("SELECT 1").map(drop),
        }
    }

    /// Name and type of the columns that came.
    fn extra(&self, session: &mut dyn Session, table: &Altered) -> Result<Vec<(String, String)>, String> {
        let pair = |row: Row| (row[0].clone().unwrap(), row[1].clone().unwrap());
        let came = |(name, _): &(String, String)| name.strip_prefix(['w', 'x', 'y']).is_some_and(|number| number.parse::<u32>().is_ok());
        Ok(session.rows(&columns_of(table.name))?.into_iter().map(pair).filter(came).collect())
    }

    fn alteration(&mut self, table: &Altered, extra: &mut Vec<(String, String)>) -> String {
        self.number += 1;
        let (name, number) = (table.name, self.number);
        let chosen = (!extra.is_empty()).then(|| self.random.usize(0..extra.len()));
        let may_rename = self.may_rename.load(Ordering::SeqCst);
        match (self.random.u8(0..16), chosen) {
            (0..=2, Some(index)) => format!("ALTER TABLE {name} DROP COLUMN {}", extra.swap_remove(index).0),
            (3..=4, Some(index)) => {
                let (column, kind) = &mut extra[index];
                let (other, turned) = match kind.as_str() {
                    "integer" => ("bigint", column.clone()),
                    "bigint" | "double precision" => ("text", format!("'n' || {column}")),
                    "character varying(40)" => ("character varying(90)", column.clone()),
                    "character varying(90)" => ("text", column.clone()),
                    _ => ("integer", format!("length({column})")),
                };
                kind.replace_range(.., other);
                format!("ALTER TABLE {name} ALTER COLUMN {column} DROP DEFAULT, ALTER COLUMN {column} TYPE {other} USING {turned}")
            }
            (5..=7, Some(index)) if may_rename && extra[index].0.starts_with('x') => {
                let old = std::mem::replace(&mut extra[index].0, format!("y{number}"));
                format!("ALTER TABLE {name} RENAME COLUMN {old} TO y{number}")
            }
            (8, _) => format!("VACUUM FULL {name}"),
            (9..=10, _) if table.name == "shelf" => self.loosened(),
            (9..=10, _) if table.name == "rack" => {
                let first = number * 10 + 1000;
                format!("CREATE TABLE rack_{number} PARTITION OF rack FOR VALUES FROM ({first}) TO ({})", first + 10)
            }
            (9, Some(index)) => format!("CREATE INDEX {name}_{number} ON {name} ({})", extra[index].0),
            _ if extra.len() >= MOST_EXTRA => format!("ALTER TABLE {name} DROP COLUMN {}", extra.swap_remove(0).0),
            (11, _) => self.added(table, extra, "double precision", "DEFAULT random()"),
            (12, _) => self.added(table, extra, "character varying(40)", &format!("NOT NULL DEFAULT 'x{number}'")),
            (13, _) => self.added(table, extra, "text", ""),
            _ => self.added(table, extra, "integer", &format!("DEFAULT {number}")),
        }
    }

    fn added(&mut self, table: &Altered, extra: &mut Vec<(String, String)>, kind: &str, rest: &str) -> String {
        let again = format!("w{}", self.random.u32(0..3));
        let is_new = self.random.bool() || extra.iter().any(|(there, _)| *there == again);
        let column = if is_new { format!("x{}", self.number) } else { again };
        let sql = format!("ALTER TABLE {} ADD COLUMN {column} {kind} {rest}", table.name);
        extra.push((column, kind.to_owned()));
        sql
    }

    /// What refuses rows goes, and comes back where rows allow it.
    fn loosened(&mut self) -> String {
        let number = self.number;
        match self.random.u8(0..9) {
            0 => "ALTER TABLE shelf ALTER COLUMN v DROP NOT NULL".to_owned(),
            1 => "ALTER TABLE shelf ALTER COLUMN v SET NOT NULL".to_owned(),
            2 => "ALTER TABLE shelf DROP CONSTRAINT IF EXISTS short".to_owned(),
            3 => "ALTER TABLE shelf DROP CONSTRAINT IF EXISTS shelf_n_key".to_owned(),
            4 => "ALTER TABLE shelf ADD COLUMN twice INTEGER GENERATED ALWAYS AS (id * 2) STORED".to_owned(),
            5 => "ALTER TABLE shelf DROP COLUMN IF EXISTS twice".to_owned(),
            6 => "TRUNCATE shelf".to_owned(),
            _ => format!("ALTER TYPE mood ADD VALUE 'mood {number}'"),
        }
    }

    fn row(&mut self, table: &Altered, extra: &[(String, String)]) -> String {
        let (name, key, number) = (table.name, table.key, self.number);
        let id = self.random.u32(1..200);
        let place = (!extra.is_empty()).then(|| self.random.usize(0..extra.len()));
        match (self.random.u8(0..7), place) {
            (0, _) if table.name == "shelf" => "UPDATE shelf SET feels = enum_last(NULL::mood) WHERE id % 3 = 1".to_owned(),
            (1, _) if table.owned => {
                format!("INSERT INTO {name} (id, v, n) VALUES ({}, 'n{number}', {})", number * 10 + 1000, number + 1000)
            }
            (2, _) if table.owned => format!("DELETE FROM {name} WHERE id = {id}"),
            (3, _) if table.owned => format!("UPDATE {name} SET v = repeat('u', {}) WHERE id % 7 = {}", id % 20, id % 7),
            (4, _) if table.owned => format!("UPDATE {name} SET v = NULL, n = {} WHERE id = {id}", id % 50),
            (5, _) if table.owned => format!("UPDATE {name} SET id = {} WHERE id = {id}", number * 10 + 1001),
            (_, Some(place)) => {
                let (column, kind) = &extra[place];
                let value = if kind.starts_with("character") || kind == "text" { format!("'{column}'") } else { number.to_string() };
                format!("UPDATE {name} SET {column} = {value} WHERE {key} % 5 = {}", id % 5)
            }
            _ => format!("UPDATE {name} SET {key} = {key} WHERE {key} % 5 = {}", id % 5),
        }
    }
}
