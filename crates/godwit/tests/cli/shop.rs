//! A folder with a source, a task, and writers who may be let loose on it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior, params};

use crate::process::{Ended, Godwit, godwit, start};

const ACCOUNTS: i64 = 3000;
const WRITERS: i64 = 2;

pub const TASK: &str = "\
name: shop
mode: migrate
source: sqlite:old.db
target: sqlite:new.db
map:
  - {from: main.account, to: main.purse, columns: {owner: holder, secret: leave_out}}
";

pub struct Shop {
    folder: tempfile::TempDir,
}

impl Shop {
    pub fn new() -> Shop {
        Shop::with_journal("writer INTEGER NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (writer, number)")
    }

    /// Its journal has no key.
    pub fn with_a_table_without_a_key() -> Shop {
        Shop::with_journal("writer INTEGER, number INTEGER")
    }

    fn with_journal(journal: &str) -> Shop {
        let shop = Shop { folder: tempfile::tempdir().unwrap() };
        shop.write("shop.yaml", TASK);
        let mut connection = shop.old();
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        let transaction = connection.transaction().unwrap();
        transaction
            .execute_batch(&format!(
                "CREATE TABLE account (id INTEGER PRIMARY KEY, owner TEXT NOT NULL, secret TEXT, balance INTEGER NOT NULL);
                 CREATE TABLE \"Order\" (code TEXT PRIMARY KEY, account INTEGER REFERENCES account (id), amount REAL) WITHOUT ROWID;
                 CREATE TABLE journal ({journal});
                 CREATE INDEX by_account ON \"Order\" (account);"
            ))
            .unwrap();
        {
            let mut account = transaction.prepare("INSERT INTO account VALUES (?1, ?2, 'classified', 1000)").unwrap();
            for id in 1..=ACCOUNTS {
                account.execute(params![id, format!("ünï {id}")]).unwrap();
            }
            let mut order = transaction.prepare("INSERT INTO \"Order\" VALUES (?1, ?2, ?3)").unwrap();
            for id in 1..=ACCOUNTS {
                order.execute(params![format!("sesame-{id}"), id, id as f64 / 3.0]).unwrap();
            }
        }
        transaction.commit().unwrap();
        shop
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn state(&self) -> PathBuf {
        self.path().join("godwit-state/shop")
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    pub fn old(&self) -> Connection {
        self.open("old.db")
    }

    pub fn new_one(&self) -> Connection {
        self.open("new.db")
    }

    fn open(&self, name: &str) -> Connection {
        let connection = Connection::open(self.path().join(name)).unwrap();
        connection.busy_timeout(Duration::from_secs(20)).unwrap();
        connection
    }

    pub fn godwit(&self, arguments: &[&str]) -> Ended {
        godwit(self.path(), arguments)
    }

    pub fn start(&self, arguments: &[&str]) -> Godwit {
        start(self.path(), arguments)
    }

    /// A run that has said that it is consistent.
    pub fn running(&self) -> Godwit {
        let mut run = self.start(&["run", "shop.yaml"]);
        run.wait_for("consistent:");
        run
    }

    pub fn writers(&self) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let first = self.journalled();
        let threads = (0..WRITERS)
            .map(|writer| {
                let (connection, stop, from) = (self.old(), stop.clone(), first[writer as usize]);
                std::thread::spawn(move || write(connection, writer, from, &stop))
            })
            .collect();
        Writers { stop, threads }
    }

    fn journalled(&self) -> Vec<i64> {
        let connection = self.old();
        let last =
            |writer| connection.query_row("SELECT coalesce(max(number), 0) FROM journal WHERE writer = ?1", [writer], |row| row.get(0));
        (0..WRITERS).map(|writer| last(writer).unwrap()).collect()
    }

    /// Both files hold the same, by SQL that knows nothing of Godwit, and the sum is whole.
    #[track_caller]
    pub fn assert_equal(&self) {
        let connection = self.old();
        connection.execute("ATTACH ?1 AS new", [self.path().join("new.db").to_str().unwrap()]).unwrap();
        let pairs = [
            ("SELECT id, quote(owner), quote(balance) FROM account", "SELECT id, quote(holder), quote(balance) FROM new.purse"),
            (
                "SELECT quote(code), quote(account), quote(amount) FROM main.\"Order\"",
                "SELECT quote(code), quote(account), quote(amount) FROM new.\"Order\"",
            ),
            ("SELECT writer, number FROM main.journal", "SELECT writer, number FROM new.journal"),
        ];
        for (here, there) in pairs {
            for (one, other) in [(here, there), (there, here)] {
                let differing: i64 =
                    connection.query_row(&format!("SELECT count(*) FROM ({one} EXCEPT {other})"), [], |row| row.get(0)).unwrap();
                assert_eq!(differing, 0, "{one} EXCEPT {other}");
            }
        }
        assert_eq!(number(&connection, "SELECT sum(balance) FROM new.purse"), ACCOUNTS * 1000);
    }

    /// What is named `godwit*` in either file.
    pub fn traces(&self) -> i64 {
        let sql = "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'godwit%'";
        number(&self.old(), sql) + number(&self.new_one(), sql)
    }
}

pub fn number(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

pub struct Writers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<i64>>,
}

impl Writers {
    /// Stops them; gives how many transactions they committed, none of them refused.
    pub fn end(mut self) -> i64 {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).map(|thread| thread.join().unwrap()).sum()
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn write(mut connection: Connection, writer: i64, from: i64, stop: &AtomicBool) -> i64 {
    connection.pragma_update(None, "synchronous", "NORMAL").unwrap();
    let mut random = fastrand::Rng::with_seed(writer as u64 + 7);
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let number = from + done + 1;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        let (one, other) = (random.i64(1..=ACCOUNTS), random.i64(1..=ACCOUNTS));
        transaction.execute("UPDATE account SET balance = balance - 5 WHERE id = ?1", [one]).unwrap();
        transaction.execute("UPDATE account SET balance = balance + 5 WHERE id = ?1", [other]).unwrap();
        let code = format!("w{writer}-{}", random.u32(0..500));
        transaction.execute("INSERT OR REPLACE INTO \"Order\" VALUES (?1, ?2, ?3)", params![code, one, number as f64]).unwrap();
        if number % 5 == 0 {
            transaction.execute("DELETE FROM \"Order\" WHERE code = ?1", [format!("w{writer}-{}", random.u32(0..500))]).unwrap();
        }
        if number % 7 == 0 {
            let renamed = format!("w{writer}-{}-{number}", random.u32(0..9));
            transaction.execute("UPDATE \"Order\" SET code = ?2 WHERE code = ?1", [code, renamed]).unwrap();
        }
        transaction.execute("INSERT INTO journal VALUES (?1, ?2)", [writer, number]).unwrap();
        transaction.commit().unwrap();
        done += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    done
}
