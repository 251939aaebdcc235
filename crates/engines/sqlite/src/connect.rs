//! Where a database file is, and how Godwit's own connections to it are set up.
//!
//! Our connections keep foreign keys off (rows arrive in the source's order and were checked there) and never change
//! the journal mode of a file that somebody else made.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use godwit_model::{EndpointConfig, Error, Result, codes};
use rusqlite::{Connection, OpenFlags};

use crate::error::Told;

/// How long one of our writes to a *source* waits for a lock before it gives up and is tried again.
pub(crate) const SOURCE_LOCK_WAIT: Duration = Duration::from_millis(200);
/// How long our reads, and writes to a target, wait for a lock.
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(10);
/// Prepared statements kept per connection: one per kind of write and table that is busy at the moment.
const STATEMENTS: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Reads only; refuses to write.
    Read,
    /// Markers, trims and capture tables in a user's file.
    WriteSource,
    WriteTarget,
    /// As above, and makes the file where it is missing.
    CreateTarget,
}

/// One database file.
#[derive(Clone, Debug)]
pub(crate) struct Location {
    path: PathBuf,
    label: String,
}

impl Location {
    pub(crate) fn new(endpoint: &EndpointConfig) -> Result<Self> {
        let label = endpoint.display();
        if let Some((name, _)) = endpoint.options.first() {
            return Err(Error::new(&codes::TASK_UNKNOWN_KEY, format!("a SQLite endpoint has no option `{name}`"))
                .at(label)
                .remedy("leave it out"));
        }
        if endpoint.database.is_empty() || endpoint.database == ":memory:" || !endpoint.host.is_empty() {
            return Err(Error::new(&codes::TASK_UNSUPPORTED, "a SQLite endpoint is a file that other processes can open")
                .at(label)
                .remedy("write sqlite:///path/to/file.db"));
        }
        Ok(Location { path: PathBuf::from(&endpoint.database), label })
    }

    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Device and inode, so that a file reached by two names is known; the path for a file that is not there yet.
    pub(crate) fn identity(&self) -> String {
        match std::fs::metadata(&self.path) {
            Ok(meta) => format!("sqlite file {}:{}", meta.dev(), meta.ino()),
            Err(_) => format!("sqlite path {}", self.absolute().display()),
        }
    }

    fn absolute(&self) -> PathBuf {
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match (std::fs::canonicalize(parent), self.path.file_name()) {
            (Ok(folder), Some(name)) => folder.join(name),
            _ => self.path.clone(),
        }
    }

    /// Opens a connection. Blocks: for a session's thread.
    pub(crate) fn open(&self, purpose: Purpose) -> Result<Connection> {
        let fresh = purpose == Purpose::CreateTarget && !self.exists();
        let connection = Connection::open_with_flags(&self.path, flags(purpose)).told().map_err(|error| error.at(&self.label))?;
        #[cfg(test)]
        let connection = crate::growth::count(connection, &self.path);
        self.prepare(&connection, purpose).map_err(|error| error.at_least_at(|| self.label.clone()))?;
        if fresh {
            connection.pragma_update(None, "journal_mode", "WAL").told()?;
        }
        Ok(connection)
    }

    fn prepare(&self, connection: &Connection, purpose: Purpose) -> Result<()> {
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        let wait = if purpose == Purpose::WriteSource { SOURCE_LOCK_WAIT } else { LOCK_WAIT };
        connection.busy_timeout(wait).told()?;
        connection.pragma_update(None, "foreign_keys", false).told()?;
        match purpose {
            Purpose::Read => connection.pragma_update(None, "query_only", true).told()?,
            // Markers and trims need not survive a crash (they are written again), and a checkpoint, which may take
            // long, is left to the users' connections: so our writes stay short.
            Purpose::WriteSource => {
                connection.pragma_update(None, "synchronous", "NORMAL").told()?;
                connection.pragma_update(None, "wal_autocheckpoint", 0).told()?;
            }
            Purpose::WriteTarget | Purpose::CreateTarget => connection.pragma_update(None, "synchronous", "FULL").told()?,
        }
        // The first statement that reads the file: says here whether it is a database at all.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).told()
    }
}

fn flags(purpose: Purpose) -> OpenFlags {
    let base = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    match purpose {
        // A WAL file is read through a shared-memory file beside it, which a read-only connection could not make.
        Purpose::Read | Purpose::WriteSource | Purpose::WriteTarget => base,
        Purpose::CreateTarget => base | OpenFlags::SQLITE_OPEN_CREATE,
    }
}
