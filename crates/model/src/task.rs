//! A checked task: what the task file asks for, in types. The file's form lives in the `task` crate.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::name::{TableName, glob_literal, glob_matches, glob_split};
use crate::position::Position;

/// Identity of a task: names its state, slot, publication and checkpoint. Lower-case letters, digits and `_`, 1 to 40
/// long, beginning with a letter (so that `godwit_<name>` is a name in every store).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TaskName(String);

impl TaskName {
    pub fn parse(text: &str) -> Option<Self> {
        let good = text.len() <= 40
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        good.then(|| TaskName(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Migrate,
    Synchronize,
}

/// Text that must not be shown. Prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// One store as the task names it. All references (`${env:}`, files, commands) are resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointConfig {
    /// The URL's scheme; the registry of engines knows it.
    pub engine: String,
    /// Empty for file engines.
    pub host: String,
    pub port: Option<u16>,
    pub user: Option<String>,
    pub password: Option<Secret>,
    /// Database name; for file engines the path.
    pub database: String,
    pub tls: Tls,
    /// Query parameters of the URL that are none of the above; the engine refuses those it does not know.
    pub options: Vec<(String, String)>,
}

impl EndpointConfig {
    /// For messages: the URL without password and options.
    pub fn display(&self) -> String {
        match (&self.user, self.host.is_empty()) {
            (_, true) => format!("{}://{}", self.engine, self.database),
            (user, false) => {
                let user = user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
                let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
                format!("{}://{user}{}{port}/{}", self.engine, self.host, self.database)
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Default)]
pub struct Tls {
    pub mode: TlsMode,
    pub ca: Option<PathBuf>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TlsMode {
    Disable,
    /// Encrypted if the server can; no certificate is checked.
    #[default]
    Prefer,
    /// Encrypted or refused; no certificate is checked (unless a CA is named, as libpq does).
    Require,
    VerifyCa,
    VerifyFull,
}

/// Whether Godwit may write its markers to the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    Marker,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteCount(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetEnd {
    Stop,
    Release,
}

/// How far the source's own log may grow because of this task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBudget {
    pub size: Option<ByteCount>,
    pub then: BudgetEnd,
}

/// What happens, once, to a selected target table that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    Refuse,
    Append,
    Truncate,
    Replace,
}

/// Which tables: `schema.table`, each part a glob (a literal dot, star or backslash has a backslash before it). No `tables` means all that the engine calls a user's.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Selection {
    pub tables: Vec<String>,
    pub except: Vec<String>,
}

impl Selection {
    pub fn selects(&self, table: &TableName) -> bool {
        let matches = |pattern: &String| match glob_split(pattern) {
            Some((schema, name)) => glob_matches(schema, &table.schema) && glob_matches(name, &table.name),
            None => glob_matches(pattern, &table.to_string()),
        };
        (self.tables.is_empty() || self.tables.iter().any(matches)) && !self.except.iter().any(matches)
    }

    /// The schema and the name that each pattern of `tables` gives word for word; None: it may be any.
    pub fn named(&self) -> Vec<(Option<String>, Option<String>)> {
        let parts =
            |pattern: &String| glob_split(pattern).map_or((None, None), |(schema, name)| (glob_literal(schema), glob_literal(name)));
        self.tables.iter().map(parts).collect()
    }
}

/// One rule of `map`; the last rule that matches a table decides its name, rules with columns add up.
#[derive(Clone, Debug, PartialEq)]
pub struct MapRule {
    /// `schema.table`, each part a name or with one `*`; a literal dot, star or backslash has a backslash before it.
    pub from: TableName,
    /// None keeps the names.
    pub to: Option<TableName>,
    pub columns: Vec<(String, ColumnRule)>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ColumnRule {
    Rename(String),
    LeaveOut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phases {
    pub schema: bool,
    pub load: bool,
    pub changes: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Create {
    All,
    Tables,
    None,
    File(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// Objects belong to the role that connects to the target.
    Current,
    /// Owners as at the source, where the role is there.
    Keep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grants {
    List,
    Keep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DdlPolicy {
    Carry,
    Ignore,
    Stop,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SchemaPolicy {
    pub create: Create,
    pub owners: Owners,
    pub grants: Grants,
    pub changes: DdlPolicy,
}

/// Every limit has a default; see `godwit explain limits`.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// All queues and batches together.
    pub memory: ByteCount,
    pub source_connections: usize,
    pub target_connections: usize,
    pub change_log: ByteCount,
    /// The oldest snapshot Godwit holds open on a source.
    pub snapshot_age: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    pub name: TaskName,
    pub mode: Mode,
    pub source: EndpointConfig,
    pub target: EndpointConfig,
    pub writes: Writes,
    pub log_budget: LogBudget,
    pub existing: Existing,
    pub select: Selection,
    pub map: Vec<MapRule>,
    pub phases: Phases,
    /// Where changes begin in a task that does not load, as a person wrote it. None: at P0, made when the task begins.
    pub from: Option<Position>,
    pub schema: SchemaPolicy,
    pub limits: Limits,
    pub verify_at_finish: bool,
}
