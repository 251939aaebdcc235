//! Steps from `pg_dump`: the server's own definitions of everything, under their own names.
//!
//! Where a `pg_dump` at least as new as the server is found (`GODWIT_PG_DUMP`, the PATH, the usual folders). `part`
//! chooses the entries that hold as they are when tables are left out or mapped. Entries keep the dump's order, which
//! respects what depends on what.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::process::Stdio;

use godwit_model::{
    EndpointConfig, Error, Grants, NotCarried, Owners, Result, SchemaItem, Stage, TableMapping, TableName, Task, TlsMode, codes,
};
use tokio::process::Command;
use tokio_postgres::Client;

use super::catalog::{self, CatalogTable};
use super::entries::{DumpEntry, split};
use super::part::Part;
use crate::{error, quote};

/// What `pg_dump` makes, and the selected tables that it does not make.
#[derive(Default)]
pub(crate) struct Dumped {
    pub(crate) items: Vec<SchemaItem>,
    pub(crate) leans_on: HashMap<String, Vec<String>>,
    pub(crate) not_carried: Vec<NotCarried>,
    /// Tables that are not as at the source, or that lean on such: our own DDL makes them.
    pub(crate) own: HashSet<u32>,
    /// Functions that are not made, as the catalog's columns name them.
    pub(crate) lost_functions: HashSet<String>,
}

/// Why there are no steps from `pg_dump`.
pub(crate) struct NoProgram {
    /// The source's major version.
    needed: i32,
    /// The newest that was found, which is older.
    found: Option<(PathBuf, i32)>,
}

impl NoProgram {
    pub(crate) fn reason(&self) -> String {
        let found = self.found.as_ref().map(|(program, version)| format!(" ({} is {version})", program.display())).unwrap_or_default();
        format!("no pg_dump {} or newer was found{found}, so only tables are made", self.needed)
    }
}

/// The error where no `pg_dump` as new as the source's server is found.
pub(crate) async fn try_steps(
    client: &Client,
    task: &Task,
    tables: &[CatalogTable],
    mappings: &[TableMapping],
) -> Result<Result<Dumped, NoProgram>> {
    let major: i32 =
        client.query_one("SELECT current_setting('server_version_num')::int4 / 10000", &[]).await.map_err(error::from_server)?.get(0);
    let program = match find_program(major).await {
        Ok(program) => program,
        Err(found) => return Ok(Err(NoProgram { needed: major, found })),
    };
    let excepted: HashMap<u32, TableName> =
        catalog::read_names(client).await?.into_iter().filter(|(_, name)| !task.select.selects(name)).collect();
    let entries = match run(&program, task, &unreadable(client, &excepted).await?, major).await {
        // the text is large, and what follows needs its entries alone
        Ok(text) => split(&text),
        Err(problem) => {
            // pg_dump does not say so in a way to rely on, but a server that went away has ended this session too
            client.batch_execute("").await.map_err(error::from_server)?;
            return Err(problem);
        }
    };
    let places = places(client, tables).await?;
    let mut part = Part::choose(client, task, tables, mappings, excepted, &places.root_oids).await?;
    let chosen = part.sort_out(client, entries).await?;
    let mut dumped = Dumped { leans_on: part.leans_on(&chosen.kept), not_carried: chosen.left, ..Dumped::default() };
    part.forget_graph();
    let (items, left) = staged(chosen.kept, &places);
    dumped.items = items;
    versions(client, &mut dumped.items).await?;
    dumped.items.extend(refreshes(client, &part).await?);
    // behind everything that reads rows
    let forced: Vec<SchemaItem> = dumped.items.iter_mut().filter_map(forced_at_the_end).collect();
    dumped.items.extend(forced);
    dumped.not_carried.extend(left);
    dumped.not_carried.extend(publications(client).await?);
    dumped.lost_functions = part.lost_functions(client).await?;
    dumped.own = part.own;
    Ok(Ok(dumped))
}

/// Tables that are not selected and may not be locked by this role, partitions too: `pg_dump` must keep away from them.
async fn unreadable(client: &Client, excepted: &HashMap<u32, TableName>) -> Result<Vec<String>> {
    let oids: Vec<u32> = excepted.keys().copied().collect();
    let sql = "SELECT DISTINCT n.nspname::text, c.relname::text FROM unnest($1::oid[]) AS root(oid)
        CROSS JOIN LATERAL (SELECT root.oid AS relid UNION SELECT t.relid FROM pg_partition_tree(root.oid) t) p
        JOIN pg_class c ON c.oid = p.relid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE NOT has_schema_privilege(n.oid, 'USAGE') OR NOT has_table_privilege(c.oid, 'SELECT')";
    let rows = client.query(sql, &[&oids]).await.map_err(error::from_server)?;
    Ok(rows.iter().map(|row| quote::table(&TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)))).collect())
}

/// The error is the newest of those that are too old.
async fn find_program(major: i32) -> Result<PathBuf, Option<(PathBuf, i32)>> {
    let named = std::env::var_os("GODWIT_PG_DUMP").filter(|path| !path.is_empty()).map(PathBuf::from);
    let debian = (major..=MOST_MAJOR).map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin/pg_dump")));
    let mut older: Option<(PathBuf, i32)> = None;
    for program in named.into_iter().chain([PathBuf::from("pg_dump")]).chain(debian) {
        match version_of(&program).await {
            Some(version) if version >= major => return Ok(program),
            Some(version) if older.as_ref().is_none_or(|(_, known)| version > *known) => older = Some((program, version)),
            _ => {}
        }
    }
    Err(older)
}

/// How far ahead of the servers we know the usual folders are looked at.
const MOST_MAJOR: i32 = 25;

async fn version_of(program: &std::path::Path) -> Option<i32> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().await.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    // pg_dump (PostgreSQL) 18.1
    let version = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// A setting of that name.
const TRANSACTION_TIMEOUT_SINCE: i32 = 17;

async fn run(program: &std::path::Path, task: &Task, without: &[String], major: i32) -> Result<String> {
    let mut command = Command::new(program);
    command.args(["--schema-only", "--no-publications", "--no-subscriptions", "--no-tablespaces", "--encoding=UTF8"]);
    // verbose, for the objects' numbers
    command.args(["--exclude-schema=godwit", "--lock-wait-timeout=10s", "--verbose"]);
    command.args(without.iter().map(|table| format!("--exclude-table={table}")));
    if task.schema.owners == Owners::Current {
        command.arg("--no-owner");
    }
    if task.schema.grants == Grants::List {
        command.arg("--no-privileges");
    }
    connection(&mut command, &task.source, major);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.map_err(|problem| {
        Error::new(&codes::SERVER_REFUSED, "pg_dump could not be started").at(program.display().to_string()).caused_by(problem)
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        // not the query, which may name every table there is
        let told =
            |line: &&str| ["error:", "hint:", "FATAL:"].iter().any(|word| line.contains(word)) && !line.contains("detail: Query was");
        let said = said.lines().filter(told).collect::<Vec<_>>().join("\n");
        return Err(refused(&said).at(task.source.display()));
    }
    String::from_utf8(output.stdout)
        .map_err(|problem| Error::new(&codes::SERVER_REFUSED, "pg_dump's output is not UTF-8").caused_by(problem))
}

/// `pg_dump` gives no SQLSTATE. It locks each table, which needs the right to read it, and waits behind who locks it.
fn refused(said: &str) -> Error {
    let is_one_of = |words: &[&str]| words.iter().any(|words| said.contains(words));
    let (code, remedy) = match () {
        () if is_one_of(&["permission denied"]) => (&codes::RIGHTS_MISSING, MEND),
        () if is_one_of(&["canceling statement due to"]) => {
            (&codes::BUSY, "a table is locked (pg_locks says by whom): it is tried again, or run again when the lock is gone")
        }
        () if is_one_of(CROWDED) => (&codes::BUSY, "let the server take more connections (max_connections), or close some"),
        () if is_one_of(CUT_OFF) => (&codes::CONNECTION_LOST, "it is tried again, or run again when the server can be reached"),
        () => (&codes::SERVER_REFUSED, MEND),
    };
    Error::new(code, "pg_dump could not read the source's schema").detail(said).remedy(remedy)
}

const MEND: &str = "mend what pg_dump says, or let the task make tables only (schema.create: tables)";
const CROWDED: &[&str] = &["too many clients", "remaining connection slots", "too many connections"];
/// What a server, or the client's own library, says of a connection that could not be made or did not last.
const CUT_OFF: &[&str] = &[
    "terminating connection",
    "the database system is",
    "server closed the connection",
    "could not receive data from server",
    "could not send data to server",
    "SSL connection has been closed",
    "Connection refused",
    "Connection reset",
    "timed out",
    "timeout expired",
];

/// By environment, so that no secret stands in the list of processes.
fn connection(command: &mut Command, endpoint: &EndpointConfig, major: i32) {
    command.env("PGDATABASE", &endpoint.database);
    if !endpoint.host.is_empty() {
        command.env("PGHOST", &endpoint.host);
    }
    if let Some(port) = endpoint.port {
        command.env("PGPORT", port.to_string());
    }
    if let Some(user) = &endpoint.user {
        command.env("PGUSER", user);
    }
    if let Some(password) = &endpoint.password {
        command.env("PGPASSWORD", password.expose());
    }
    let mode = match endpoint.tls.mode {
        TlsMode::Disable => "disable",
        TlsMode::Prefer => "prefer",
        TlsMode::Require => "require",
        TlsMode::VerifyCa => "verify-ca",
        TlsMode::VerifyFull => "verify-full",
    };
    command.env("PGSSLMODE", mode);
    // The password above must not be looked for elsewhere, and statements of ours must not meet a role's timeouts.
    let timeouts = ["statement", "lock", "idle_in_transaction_session", "idle_session"];
    let newer = (major >= TRANSACTION_TIMEOUT_SINCE).then_some("transaction");
    let options: Vec<String> = timeouts.into_iter().chain(newer).map(|name| format!("-c {name}_timeout=0")).collect();
    command.env("PGOPTIONS", options.join(" ")).env_remove("PGSERVICE");
    for (name, path) in [("PGSSLROOTCERT", &endpoint.tls.ca), ("PGSSLCERT", &endpoint.tls.certificate), ("PGSSLKEY", &endpoint.tls.key)] {
        if let Some(path) = path {
            command.env(name, path);
        }
    }
}

/// Where indexes and constraints belong: the selected table, the root for those of a partition.
pub(crate) struct Places {
    roots: HashMap<TableName, TableName>,
    root_oids: HashMap<u32, u32>,
    index_tables: HashMap<TableName, TableName>,
    /// Indexes behind keys, those of partitions included.
    keys: HashSet<TableName>,
}

async fn places(client: &Client, tables: &[CatalogTable]) -> Result<Places> {
    let mut roots: HashMap<TableName, TableName> =
        tables.iter().map(|table| (table.table.name.clone(), table.table.name.clone())).collect();
    let mut root_oids = HashMap::new();
    let sql = "SELECT n.nspname::text, c.relname::text, rn.nspname::text, r.relname::text, c.oid, r.oid
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_class r ON r.oid = pg_partition_root(c.oid) JOIN pg_namespace rn ON rn.oid = r.relnamespace
        WHERE c.relispartition AND c.relkind IN ('r', 'p')";
    for row in client.query(sql, &[]).await.map_err(error::from_server)? {
        root_oids.insert(row.get(4), row.get(5));
        roots.insert(
            TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)),
            TableName::new(row.get::<_, String>(2), row.get::<_, String>(3)),
        );
    }
    let key_oids: Vec<u32> = tables.iter().filter_map(|table| table.key_index.as_ref()).map(|index| index.oid).collect();
    let sql = "SELECT n.nspname::text, ic.relname::text, c.relname::text,
            ic.oid = ANY($1) OR EXISTS (SELECT FROM pg_partition_ancestors(ic.oid) p(oid) WHERE p.oid = ANY($1))
        FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p')";
    let (mut index_tables, mut keys) = (HashMap::new(), HashSet::new());
    for row in client.query(sql, &[&key_oids]).await.map_err(error::from_server)? {
        let (schema, index, table): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
        let name = TableName::new(schema, index);
        if row.get(3) {
            keys.insert(name.clone());
        }
        index_tables.insert(name, TableName::new(schema, table));
    }
    Ok(Places { roots, root_oids, index_tables, keys })
}

impl Places {
    fn root_of_index(&self, schema: &str, index: &str) -> Option<TableName> {
        self.index_tables.get(&TableName::new(schema, index)).and_then(|table| self.roots.get(table)).cloned()
    }

    /// The table an entry builds on, as the whole of its partitions: named by the entry itself or in front of its own name.
    fn table(&self, entry: &DumpEntry) -> Option<TableName> {
        let of_a_table = matches!(
            entry.kind.as_str(),
            "TABLE" | "TABLE ATTACH" | "ROW SECURITY" | "DEFAULT" | "FK CONSTRAINT" | "TRIGGER" | "RULE" | "POLICY"
        );
        let whole = || self.roots.get(&TableName::new(entry.schema.as_str(), entry.name.as_str())).cloned();
        if entry.kind == "SEQUENCE" {
            return self.with_identity(&entry.sql);
        }
        of_a_table.then(|| whole().or_else(|| self.constraint(entry).map(|(table, _)| table))).flatten()
    }

    /// The table of which an identity's sequence is a part; None for a sequence that stands alone.
    fn with_identity(&self, sql: &str) -> Option<TableName> {
        let table = quote::leading_table(sql.strip_prefix("ALTER TABLE ")?)?;
        self.roots.get(&table).cloned()
    }

    /// Entries of constraints are named `table constraint`, and both may hold blanks: the table that is known decides.
    fn constraint<'a>(&self, entry: &'a DumpEntry) -> Option<(TableName, &'a str)> {
        let blanks = entry.name.match_indices(' ').map(|(place, _)| entry.name.split_at(place));
        let mut known = blanks.filter_map(|(table, rest)| {
            let root = self.roots.get(&TableName::new(entry.schema.as_str(), table))?;
            Some((root.clone(), &rest[1..]))
        });
        known.next()
    }
}

/// One statement that takes no lock which others of its kind on the same table take: neither unique (that waits for P1) nor
/// followed by what makes it the table's cluster order or identity.
fn is_plain_index(entry: &DumpEntry) -> bool {
    entry.kind == "INDEX" && entry.sql.starts_with("CREATE INDEX ") && !entry.sql.contains("\nALTER ")
}

/// Gives every entry its stage.
fn staged(entries: Vec<DumpEntry>, places: &Places) -> (Vec<SchemaItem>, Vec<NotCarried>) {
    let (mut before, mut keys, mut after, mut finish) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut left = Vec::new();
    // what the dump makes only behind keys (a view that groups by one) cannot be made before them
    let mut behind_keys = false;
    for entry in entries {
        behind_keys |= matches!(entry.kind.as_str(), "INDEX" | "CONSTRAINT");
        let object = entry.id();
        if is_ours(&entry) || comes_by_itself(&entry) {
            continue;
        }
        match entry.kind.as_str() {
            "INDEX" | "INDEX ATTACH" => {
                let is_key = places.keys.contains(&TableName::new(entry.schema.as_str(), entry.name.as_str()));
                match (is_key, places.root_of_index(&entry.schema, &entry.name)) {
                    (true, Some(table)) => keys.push(item(entry, Stage::Key, Some(table))),
                    (false, Some(table)) => {
                        let stage = if is_plain_index(&entry) { Stage::Index } else { Stage::AfterLoad };
                        after.push(item(entry, stage, Some(table)));
                    }
                    // Of a materialized view.
                    (_, None) => finish.push(item(entry, Stage::AtFinish, None)),
                }
            }
            "CONSTRAINT" | "CHECK CONSTRAINT" => match places.constraint(&entry) {
                Some((table, name)) if places.keys.contains(&TableName::new(entry.schema.as_str(), name)) => {
                    keys.push(item(entry, Stage::Key, Some(table)));
                }
                Some((table, _)) => after.push(item(entry, Stage::AfterLoad, Some(table))),
                None => after.push(item(entry, Stage::AfterLoad, None)),
            },
            _ => match stage_of_kind(&entry.kind) {
                Some(Stage::BeforeLoad) if behind_keys => after.push(item(entry, Stage::AfterLoad, None)),
                Some(stage) => {
                    let table = places.table(&entry);
                    let shelf = match stage {
                        Stage::BeforeLoad => &mut before,
                        Stage::Key | Stage::Index | Stage::AfterLoad => &mut after,
                        Stage::AtFinish => &mut finish,
                    };
                    shelf.push(item(entry, stage, table));
                }
                None => left.push(NotCarried { object, reason: reason_of_kind(&entry.kind).to_owned() }),
            },
        }
    }
    let always: Vec<SchemaItem> = before.iter_mut().filter_map(by_default_until_finish).collect();
    before.extend(keys);
    before.extend(after);
    before.extend(always);
    before.extend(finish);
    (before, left)
}

/// A schema's file has no database beside it: entries are staged by their kind alone, all constraints and unique
/// indexes before the load, since any of them may be a key: what they cover is looked at before the first row moves.
/// Such an index of a partitioned table is valid once those of all its partitions are attached.
pub(crate) fn staged_by_kind(entries: Vec<DumpEntry>) -> Vec<SchemaItem> {
    let is_unique = |entry: &DumpEntry| entry.kind == "CONSTRAINT" || entry.kind == "INDEX" && entry.sql.starts_with("CREATE UNIQUE");
    let unique: Vec<(String, String)> =
        entries.iter().filter(|entry| is_unique(entry)).map(|entry| (entry.schema.clone(), entry.name.clone())).collect();
    let of_unique = |entry: &DumpEntry| {
        // a constraint's entry is named by its table first
        let is_named = |name: &str| name.strip_suffix(entry.name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with(' '));
        unique.iter().any(|(schema, name)| *schema == entry.schema && is_named(name))
    };
    let items = entries.into_iter().filter(|entry| !is_ours(entry) && !comes_by_itself(entry)).map(|entry| {
        let stage = match entry.kind.as_str() {
            "CONSTRAINT" | "INDEX" if is_unique(&entry) => Stage::BeforeLoad,
            "INDEX ATTACH" if of_unique(&entry) => Stage::BeforeLoad,
            "INDEX" | "INDEX ATTACH" | "CHECK CONSTRAINT" => Stage::AfterLoad,
            kind => stage_of_kind(kind).unwrap_or(Stage::AtFinish),
        };
        item(entry, stage, None)
    });
    items.collect()
}

fn reason_of_kind(kind: &str) -> &'static str {
    match kind {
        "USER MAPPING" => "it may hold a password, which would stand in plans and files",
        _ => "this kind of object is not made at a target",
    }
}

fn stage_of_kind(kind: &str) -> Option<Stage> {
    match kind {
        "STATISTICS" => Some(Stage::AfterLoad),
        "FK CONSTRAINT"
        | "TRIGGER"
        | "RULE"
        | "POLICY"
        | "ROW SECURITY"
        | "EVENT TRIGGER"
        | "COMMENT"
        | "ACL"
        | "DEFAULT ACL"
        | "SECURITY LABEL"
        | "MATERIALIZED VIEW DATA" => Some(Stage::AtFinish),
        "PUBLICATION"
        | "PUBLICATION TABLE"
        | "PUBLICATION TABLES IN SCHEMA"
        | "SUBSCRIPTION"
        | "BLOB"
        | "BLOBS"
        | "BLOB METADATA"
        | "USER MAPPING" => None,
        "DATABASE" | "DATABASE PROPERTIES" | "ENCODING" | "STDSTRINGS" | "SEARCHPATH" => None,
        // The dump's own order holds for types, functions, tables, sequences, views and whatever comes new.
        _ => Some(Stage::BeforeLoad),
    }
}

/// The comment of an extension comes with it, and only its owner may write it; statistics are gathered at finish.
fn comes_by_itself(entry: &DumpEntry) -> bool {
    entry.kind == "STATISTICS DATA" || entry.kind == "COMMENT" && (entry.name.starts_with("EXTENSION ") || entry.name == "SCHEMA public")
}

pub(super) fn is_ours(entry: &DumpEntry) -> bool {
    entry.schema == "godwit" || entry.name.starts_with("godwit_") || entry.name == "godwit" && entry.kind == "SCHEMA"
}

fn item(entry: DumpEntry, stage: Stage, table: Option<TableName>) -> SchemaItem {
    let id = entry.id();
    // The schema public is there in every new database.
    let sql = match entry.sql.strip_prefix("CREATE SCHEMA ") {
        Some(rest) => format!("CREATE SCHEMA IF NOT EXISTS {rest}"),
        None => entry.sql,
    };
    // a partitioned table holds no rows, and the dump names no method for it
    let stored = matches!(entry.kind.as_str(), "TABLE" | "MATERIALIZED VIEW") && !sql.contains("\nPARTITION BY ");
    let made_by = entry.access_method.filter(|_| stored);
    // other steps may share the transaction
    let set = |method: &str| format!("SET LOCAL default_table_access_method = {method}");
    let (method, default) = (made_by.as_deref().map(set), made_by.as_ref().map(|_| set("DEFAULT")));
    SchemaItem { id, stage, table, sql: method.into_iter().chain(owned_apart(sql)).chain(default).collect() }
}

/// The statement that gives the object to its owner stands alone, so that it can fall away where the role is missing.
fn owned_apart(sql: String) -> Vec<String> {
    let line = sql.rfind('\n').map_or(0, |at| at + 1);
    if line > 0 && sql[line..].starts_with("ALTER ") && sql[line..].contains(" OWNER TO ") {
        return vec![sql[..line].trim_end().to_owned(), sql[line..].to_owned()];
    }
    vec![sql]
}

/// An identity that is always generated refuses every UPDATE of its column: it is so again at finish. Gives that step.
fn by_default_until_finish(item: &mut SchemaItem) -> Option<SchemaItem> {
    const ALWAYS: &str = " ADD GENERATED ALWAYS AS IDENTITY";
    if !item.id.starts_with("SEQUENCE ") {
        return None;
    }
    let sql = item.sql.first_mut()?;
    let alter = sql.split_once(ALWAYS)?.0.to_owned();
    *sql = sql.replacen(ALWAYS, " ADD GENERATED BY DEFAULT AS IDENTITY", 1);
    let id = format!("IDENTITY {}", item.id);
    Some(SchemaItem { id, stage: Stage::AtFinish, table: item.table.clone(), sql: vec![format!("{alter} SET GENERATED ALWAYS")] })
}

/// Policies that hold for the owner too would hold for us. Gives the step that makes them so.
fn forced_at_the_end(item: &mut SchemaItem) -> Option<SchemaItem> {
    const FORCE: &str = " FORCE ROW LEVEL SECURITY;";
    let name = item.id.strip_prefix("TABLE ")?.to_owned();
    let sql = item.sql.iter_mut().find(|sql| sql.contains(FORCE))?;
    let (before, after) = sql.split_once(FORCE)?;
    let (kept, alter) = before.rsplit_once('\n').filter(|(_, line)| line.starts_with("ALTER TABLE "))?;
    let forced = format!("{alter}{FORCE}");
    *sql = format!("{kept}{after}");
    Some(SchemaItem { id: format!("FORCE ROW SECURITY {name}"), stage: Stage::AtFinish, table: item.table.clone(), sql: vec![forced] })
}

/// `pg_dump` leaves an extension's version open.
async fn versions(client: &Client, items: &mut [SchemaItem]) -> Result<()> {
    let rows = client.query("SELECT extname::text, extversion FROM pg_extension", &[]).await.map_err(error::from_server)?;
    let versions: HashMap<String, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    for item in items {
        let Some(version) = item.id.strip_prefix("EXTENSION ").and_then(|name| versions.get(name)) else { continue };
        for sql in item.sql.iter_mut().filter(|sql| sql.starts_with("CREATE EXTENSION ")) {
            *sql = format!("{} VERSION {};", sql.trim_end_matches(';'), quote::literal(version));
        }
    }
    Ok(())
}

/// Materialized views that hold rows at the source, each after those it reads.
async fn refreshes(client: &Client, part: &Part) -> Result<Vec<SchemaItem>> {
    let sql =
        "SELECT c.oid::regclass::text, n.nspname || '.' || c.relname, c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'm' AND c.relispopulated AND n.nspname NOT IN ('pg_catalog', 'information_schema')
          AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')
        ORDER BY c.oid";
    let rows = client.query(sql, &[]).await.map_err(error::from_server)?;
    let refresh = |row: &tokio_postgres::Row| SchemaItem {
        id: format!("REFRESH {}", row.get::<_, &str>(1)),
        stage: Stage::AtFinish,
        table: None,
        sql: vec![format!("REFRESH MATERIALIZED VIEW {}", row.get::<_, &str>(0))],
    };
    Ok(rows.iter().filter(|row| part.makes(row.get(2))).map(refresh).collect())
}

async fn publications(client: &Client) -> Result<Vec<NotCarried>> {
    let rows = client.query("SELECT pubname::text FROM pg_publication WHERE pubname NOT LIKE 'godwit%' ORDER BY 1", &[]).await;
    let left = |row: &tokio_postgres::Row| NotCarried {
        object: format!("PUBLICATION {}", row.get::<_, &str>(0)),
        reason: "who replicates from the target is decided there".to_owned(),
    };
    Ok(rows.map_err(error::from_server)?.iter().map(left).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waiting_mends_is_told_from_what_it_does_not() {
        for passing in [
            "pg_dump: error: query failed: ERROR:  canceling statement due to lock timeout",
            "pg_dump: error: connection to server at \"h\", port 1 failed: FATAL:  sorry, too many clients already",
            "pg_dump: error: query failed: FATAL:  terminating connection due to administrator command",
            "pg_dump: error: connection to server at \"h\", port 1 failed: Connection refused",
        ] {
            assert!(refused(passing).is_transient(), "{passing}");
        }
        assert!(refused("pg_dump: error: query failed: ERROR:  permission denied for table t").is(&codes::RIGHTS_MISSING));
        assert!(!refused("pg_dump: error: connection to server failed: FATAL:  password authentication failed").is_transient());
    }

    #[test]
    fn policies_are_forced_on_the_owner_at_the_end() {
        let sql = "CREATE TABLE public.t (\n    id integer\n);\n\nALTER TABLE ONLY public.t FORCE ROW LEVEL SECURITY;";
        let mut made = SchemaItem { id: "TABLE public.t".into(), stage: Stage::BeforeLoad, table: None, sql: vec![sql.into()] };
        let forced = forced_at_the_end(&mut made).unwrap();
        assert_eq!(forced.sql, ["ALTER TABLE ONLY public.t FORCE ROW LEVEL SECURITY;"]);
        assert_eq!(made.sql, ["CREATE TABLE public.t (\n    id integer\n);\n"]);
        assert_eq!(forced_at_the_end(&mut made), None);
    }

    #[test]
    fn an_identity_is_by_default_until_finish() {
        let sql = "ALTER TABLE public.t ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (\n    SEQUENCE NAME public.t_id_seq\n);";
        let mut made = SchemaItem { id: "SEQUENCE public.t_id_seq".into(), stage: Stage::BeforeLoad, table: None, sql: vec![sql.into()] };
        let finish = by_default_until_finish(&mut made).unwrap();
        assert_eq!(finish.sql, ["ALTER TABLE public.t ALTER COLUMN id SET GENERATED ALWAYS"]);
        assert!(made.sql[0].contains("BY DEFAULT"));
    }
}
