//! The form of the task file: what a person may write, field by field.
//!
//! These types are the single truth about keys, types and defaults: the JSON Schema, the check of a file and the help of
//! `godwit explain` are all derived from them, so a doc comment here is a text that users read. Nothing is resolved here;
//! `assemble` turns the form into a task. Keys that do not exist yet are absent, see `later`.

use std::collections::BTreeMap;

use godwit_model::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::measure::{Age, Size};

/// Fields may be added to a form; none changes its meaning.
pub const FORM_VERSION: u32 = 1;

/// A Godwit task: one job between two stores.
///
/// Needed are only `name`, `mode`, `source` and `target`. Inside any text `${env:NAME}` stands for an environment
/// variable and `${file:/path}` for the content of a file; `$${` is a literal `${`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Godwit task file, form 1")]
pub struct TaskForm {
    /// Identity of the task: it names the state folder, the slot, the publication and the checkpoint. Lower-case letters,
    /// digits and `_`, beginning with a letter, at most 40 long. Two tasks on one server need two names.
    pub name: String,
    /// What kind of job this is.
    pub mode: ModeForm,
    /// The store the data comes from: a URL alone, or a mapping with more settings.
    pub source: SourceForm,
    /// The store the data goes to: a URL alone, or a mapping with more settings.
    pub target: TargetForm,
    /// Which tables. Default: every table of a user's.
    #[serde(default)]
    pub select: SelectForm,
    /// How names change on the way, as a list of rules. The last rule that matches a table and has `to` decides its name;
    /// the columns of all matching rules add up. Default: names are kept.
    #[serde(default)]
    pub map: Vec<MapRuleForm>,
    /// The parts of the job that are done. A part alone is allowed, for example `[schema]` or `[schema, load]`.
    /// Default: all three.
    #[serde(default = "all_phases")]
    pub phases: Vec<PhaseForm>,
    /// Where changes begin in a task that does not load (`phases: [changes]`): `now`, or a position of the source that the
    /// rows at the target are as of, written as the source writes it (PostgreSQL: `0/16B3748`). Before a position is
    /// named, what captures changes must be there and keep its log from there (PostgreSQL: the publication and the slot
    /// `godwit_NAME`). From there on the target is held to be equal: a change that finds no row stops the task.
    pub from: Option<String>,
    /// How the target's structure is made and kept.
    #[serde(default)]
    pub schema: SchemaForm,
    /// What happens to a value that the target does not take.
    #[serde(default)]
    pub values: ValuesForm,
    /// How much Godwit may use.
    #[serde(default)]
    pub limits: LimitsForm,
    /// When both sides are compared.
    #[serde(default)]
    pub verify: VerifyForm,
}

#[derive(Clone, Copy, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum ModeForm {
    /// Schema, full load, incremental; ended by `godwit finish`.
    Migrate,
    /// Initial load, then changes for ever.
    Synchronize,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SourceForm {
    Url(SecretText),
    Fields(Box<SourceFields>),
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TargetForm {
    Url(SecretText),
    Fields(Box<TargetFields>),
}

/// Text that may hold a password.
#[derive(Deserialize, JsonSchema)]
#[serde(from = "String")]
#[schemars(with = "String", inline)]
pub struct SecretText(pub Secret);

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        SecretText(Secret::new(text))
    }
}

/// Source and target share most of their fields; serde's `flatten` would cost us the refusal of unknown keys.
macro_rules! endpoint_form {
    ($(#[$doc:meta])* $name:ident { $($own:tt)* }) => {
        $(#[$doc])*
        #[derive(Default, Deserialize, JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            /// Where the store is: `postgres://user@host:5432/database`, `sqlite:///absolute/path.db`, or
            /// `sqlite:file.db` relative to the folder of the task file. Special characters are written as `%40`.
            /// Instead of a URL the fields `engine`, `host`, `port`, `user` and `database` can be given.
            pub url: Option<SecretText>,
            /// The kind of store, if there is no `url`: `postgres` or `sqlite`.
            pub engine: Option<String>,
            /// The server's name, its address, or the folder of its Unix socket; if there is no `url`.
            pub host: Option<String>,
            /// The server's port; if there is no `url`. Default: the engine's usual one.
            #[schemars(with = "PortText")]
            pub port: Option<PortText>,
            /// The role to log in as; if there is no `url`.
            pub user: Option<String>,
            /// The password. Better a reference: `${env:NAME}` or `${file:/run/secrets/db1}`. PostgreSQL endpoints without one
            /// use `PGPASSWORD` and `~/.pgpass`, as libpq does.
            pub password: Option<SecretText>,
            /// A program and its arguments whose first line of output is the password. Run without a shell, for at most 10 s.
            pub password_command: Option<Vec<String>>,
            /// The database; for SQLite the path of the file. If there is no `url`.
            pub database: Option<String>,
            /// Encryption of the connection.
            pub tls: Option<TlsForm>,
            $($own)*
        }

        impl $name {
            /// What both sides have; it is taken out.
            pub fn endpoint(&mut self) -> EndpointFields {
                EndpointFields {
                    url: self.url.take().map(|url| url.0),
                    engine: self.engine.take(),
                    host: self.host.take(),
                    port: self.port.take(),
                    user: self.user.take(),
                    password: self.password.take().map(|password| password.0),
                    password_command: self.password_command.take(),
                    database: self.database.take(),
                    tls: self.tls.take(),
                }
            }
        }
    };
}

/// What source and target have in common.
#[derive(Default)]
pub struct EndpointFields {
    pub url: Option<Secret>,
    pub engine: Option<String>,
    pub host: Option<String>,
    pub port: Option<PortText>,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub password_command: Option<Vec<String>>,
    pub database: Option<String>,
    pub tls: Option<TlsForm>,
}

endpoint_form! {
    /// The store the data comes from.
    SourceFields {
        /// Whether Godwit may write its markers to the source.
        pub writes: WritesForm,
        /// How far the source's own log may grow because of this task.
        pub log_budget: LogBudgetForm,
    }
}

endpoint_form! {
    /// The store the data goes to.
    TargetFields {
        /// What happens to a selected target table that is there already. Done once, recorded, never repeated on restart.
        pub existing: ExistingForm,
    }
}

/// A port: a number, or text with a reference such as `${env:PORT}`.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum PortText {
    Number(#[schemars(range(min = 1, max = 65535))] u16),
    Text(String),
}

/// Encryption of the connection.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsForm {
    /// How much is asked of the connection.
    pub mode: TlsModeForm,
    /// The file with the certificates of the authorities that are trusted (PEM). Default: those of the system.
    pub ca: Option<String>,
    /// The file with our own certificate (PEM), for servers that ask for one.
    pub certificate: Option<String>,
    /// The file with our own certificate's private key (PEM).
    pub key: Option<String>,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum TlsModeForm {
    /// No encryption.
    Disable,
    /// Encrypted if the server can; no certificate is checked.
    #[default]
    Prefer,
    /// Encrypted or refused; the certificate is checked only if `ca` is given.
    Require,
    /// Encrypted, the certificate must come from a trusted authority.
    VerifyCa,
    /// As `verify-ca`, and the certificate must be for this host.
    VerifyFull,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum WritesForm {
    /// Tiny marker transactions find a place again in the source's log.
    #[default]
    Marker,
    /// Nothing is ever written to the source. What following changes needs there, an administrator makes; `check`
    /// says what, `check --grants` prints it.
    Never,
}

/// How far the source's own log may grow because of this task.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogBudgetForm {
    /// A size such as `50GiB`; warnings come at 50 and 80 %. Default: no budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// What happens when the budget is used up.
    pub then: BudgetEndForm,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum BudgetEndForm {
    /// The task stops and calls a person; the position is kept and the log keeps growing.
    #[default]
    Stop,
    /// The source's log is released to protect its disk; the task must then be synchronized again with `--resync`.
    Release,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum ExistingForm {
    /// The task is refused if such a table holds a row.
    #[default]
    Refuse,
    /// Rows are kept; a key that is there already stops the task.
    Append,
    /// Such a table is emptied; refused if other tables reference it.
    Truncate,
    /// Such a table is dropped and created anew.
    Replace,
}

/// Which tables: `schema.table`, where `*` stands for any run of characters. A name with a dot or a star in it is put in
/// double quotes inside the text: `'public."odd.name"'`; a quote inside quotes is doubled.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SelectForm {
    /// The tables that are wanted, such as `public.*` or `billing.invoice`. For SQLite a name without a dot means
    /// `main.name`. Default: every table of a user's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<String>,
    /// Those of them that are not wanted, such as `public.*_tmp`. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
}

/// One rule of `map`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MapRuleForm {
    /// The source tables it is about: `schema.table`, each part with at most one `*`; quoted as in `select.tables`.
    pub from: String,
    /// The target's `schema.table`; a `*` takes what the `*` of the same part of `from` stood for. Default: the name is kept.
    pub to: Option<String>,
    /// By source column: a new name, `leave_out`, or `{to: newname}` (needed only for a column that is to be named `leave_out`).
    /// Default: columns keep their names.
    #[serde(default)]
    pub columns: BTreeMap<String, ColumnForm>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ColumnForm {
    /// A new name, or `leave_out`.
    Word(String),
    Fields(ColumnFields),
}

/// What becomes of one column.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ColumnFields {
    /// The column's name at the target.
    pub to: String,
}

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum PhaseForm {
    /// The target's structure is made.
    Schema,
    /// The rows are copied.
    Load,
    /// Changes made meanwhile, and from then on, are replayed.
    Changes,
}

fn all_phases() -> Vec<PhaseForm> {
    vec![PhaseForm::Schema, PhaseForm::Load, PhaseForm::Changes]
}

/// How the target's structure is made and kept.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SchemaForm {
    /// What is created at the target.
    pub create: CreateForm,
    /// Who owns what is created.
    pub owners: OwnersForm,
    /// What becomes of the source's grants.
    pub grants: GrantsForm,
    /// What happens to a schema change that is made at the source while the task runs.
    pub changes: DdlForm,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum CreateForm {
    Word(CreateWord),
    File(CreateFile),
}

impl Default for CreateForm {
    fn default() -> Self {
        CreateForm::Word(CreateWord::All)
    }
}

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum CreateWord {
    /// Every object that can be carried.
    All,
    /// Tables with their constraints and indexes only.
    Tables,
    /// Nothing: the tables are there already.
    None,
}

/// An edited script, such as `godwit plan --sql` writes one.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateFile {
    /// The script; relative to the folder of the task file.
    pub file: String,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum OwnersForm {
    /// The role that connects to the target.
    #[default]
    Current,
    /// The same role as at the source, where it is there.
    Keep,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum GrantsForm {
    /// They are listed and not carried.
    #[default]
    List,
    /// They are carried, where the role is there.
    Keep,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum DdlForm {
    /// Carried to the target at its place: columns that are added, dropped, renamed or get another type. Constraints, defaults
    /// and indexes follow by finish at the latest. What is not understood (a key that changes, names that swap) stops the
    /// task. From and to SQLite files every change of a table stops it.
    #[default]
    Carry,
    /// It is not carried; the task stops only if rows no longer fit.
    Ignore,
    /// The task stops before it.
    Stop,
}

/// What happens to a value that the target does not take.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ValuesForm {
    /// What happens to a value that the target does not take.
    pub on_failure: FailureForm,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum FailureForm {
    /// The task stops and names table, key, column and reason.
    #[default]
    Stop,
}

/// How much Godwit may use.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsForm {
    /// All queues and batches together. At least `16MiB`. Default: `256MiB`.
    pub memory: Size,
    /// How many connections are opened.
    pub connections: ConnectionsForm,
    /// How far the change log in the state folder may grow; beyond that capture pauses. At least `16MiB`. Default: `100GiB`.
    pub change_log: Size,
    /// The oldest snapshot that is held open on the source. At least `1s`. Default: `30min`.
    pub snapshot_age: Age,
}

impl Default for LimitsForm {
    fn default() -> Self {
        LimitsForm {
            memory: Size(256 << 20),
            connections: ConnectionsForm::default(),
            change_log: Size(100 << 30),
            snapshot_age: Age(std::time::Duration::from_secs(30 * 60)),
        }
    }
}

/// How many connections are opened.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionsForm {
    /// Connections to the source that read chunks, besides the two that capture. Default: 4.
    #[schemars(range(min = 1, max = 256))]
    pub source: u16,
    /// Connections to the target that write. Default: 4.
    #[schemars(range(min = 1, max = 256))]
    pub target: u16,
}

impl Default for ConnectionsForm {
    fn default() -> Self {
        ConnectionsForm { source: 4, target: 4 }
    }
}

/// When both sides are compared.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VerifyForm {
    /// When both sides are compared by itself; `godwit verify` does it at any time.
    pub at: VerifyAtForm,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum VerifyAtForm {
    /// `godwit finish` ends with 0 only if nothing differs.
    #[default]
    Finish,
    /// Not by itself.
    Never,
}
