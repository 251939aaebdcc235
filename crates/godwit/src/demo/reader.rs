//! One who reads the target all the time and never may see half a transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use godwit_model::{Error, Result};
use rusqlite::Connection;

use super::folder::Folder;
use super::{failed, shop};

/// As often as a page of a busy shop would be shown.
const PAUSE: Duration = Duration::from_millis(20);

/// No transaction of the shop changes either sum: money moves between clients, goods between the stock and the orders.
const SUMS: &str = "SELECT (SELECT sum(balance) FROM clients),
    (SELECT sum(stock) FROM products) + (SELECT sum(quantity) FROM order_lines)";

/// What the reader saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub reads: u64,
    broken: u64,
    failed: u64,
}

impl Seen {
    pub fn doubt(&self) -> Option<String> {
        if self.broken + self.failed > 0 {
            return Some(format!(
                "of {} reads of the target {} saw half a transaction and {} failed",
                self.reads, self.broken, self.failed
            ));
        }
        (self.reads == 0).then(|| "the reader of the target read nothing".to_owned())
    }
}

/// Dropping it lets the thread end and waits for it.
pub struct Reader {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Seen>>,
}

impl Reader {
    /// What must stay is what the source says.
    pub fn begin(folder: &Folder) -> Result<Reader> {
        let expected = shop::open(&folder.source())?.query_row(&SUMS.replace("clients", "customers"), [], sums).map_err(failed)?;
        let connection = shop::open(&folder.target())?;
        let stop = Arc::new(AtomicBool::new(false));
        let of_thread = stop.clone();
        let thread = std::thread::Builder::new().name("reader".to_owned()).spawn(move || read(&connection, expected, &of_thread));
        let thread = thread.map_err(|cause| Error::internal("no thread for the reader").caused_by(cause))?;
        Ok(Reader { stop, thread: Some(thread) })
    }

    pub fn end(mut self) -> Result<Seen> {
        self.join().unwrap_or_else(|| Err(Error::internal("the reader has ended")))
    }

    fn join(&mut self) -> Option<Result<Seen>> {
        self.stop.store(true, Ordering::Relaxed);
        Some(self.thread.take()?.join().map_err(|_| Error::internal("the reader of the demo died")))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // whoever drops it does not ask what it saw
        let _ = self.join();
    }
}

fn sums(row: &rusqlite::Row<'_>) -> rusqlite::Result<(i64, i64)> {
    Ok((row.get(0)?, row.get(1)?))
}

fn read(connection: &Connection, expected: (i64, i64), stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    while !stop.load(Ordering::Relaxed) {
        seen.reads += 1;
        match connection.query_row(SUMS, [], sums) {
            Ok(found) => seen.broken += u64::from(found != expected),
            Err(cause) => {
                tracing::warn!(%cause, "the target could not be read");
                seen.failed += 1;
            }
        }
        std::thread::sleep(PAUSE);
    }
    seen
}
