//! What an account may do, as its server lists it (`SHOW GRANTS`, those of its roles among them), and what a task needs.
//!
//! Nothing is tried: most of what would be tried here commits by itself and could stay behind.

use std::collections::BTreeSet;

use godwit_model::{Create, Error, Existing, Finding, Result, Selection, TableName, Task, Writes, codes};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::connect::Flavor;
use crate::marker::DATABASE;
use crate::tokens::{self, Token};
use crate::{error, quote};

/// What a right is on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Server,
    /// In what a server lists, a pattern.
    Database(String),
    Table(TableName),
}

impl Level {
    /// As GRANT takes it.
    fn sql(&self) -> String {
        match self {
            Level::Server => "*.*".to_owned(),
            Level::Database(name) => format!("{}.*", quote::identifier(&literally(name))),
            Level::Table(name) => quote::table(name),
        }
    }

    /// For a person.
    fn words(&self) -> String {
        match self {
            Level::Server => "all databases".to_owned(),
            Level::Database(name) => format!("database {name}"),
            Level::Table(name) => format!("table {name}"),
        }
    }

    /// Whether what is granted on this level holds for the other one.
    fn covers(&self, other: &Level) -> bool {
        match (self, other) {
            (Level::Server, _) => true,
            (Level::Database(pattern), Level::Database(name) | Level::Table(TableName { schema: name, .. })) => like(pattern, name),
            (Level::Table(granted), Level::Table(name)) => granted == name,
            _ => false,
        }
    }
}

/// A database's name where GRANT takes a pattern.
fn literally(name: &str) -> String {
    name.replace('\\', "\\\\").replace('_', "\\_").replace('%', "\\%")
}

/// SQL's LIKE.
fn like(pattern: &str, name: &str) -> bool {
    let mut rest = pattern.chars();
    match rest.next() {
        None => name.is_empty(),
        Some('%') => {
            let ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            ends.into_iter().any(|at| like(rest.as_str(), &name[at..]))
        }
        Some(first) => {
            let any = first == '_';
            let first = if first == '\\' { rest.next().unwrap_or('\\') } else { first };
            let mut name = name.chars();
            name.next().is_some_and(|character| any || character == first) && like(rest.as_str(), name.as_str())
        }
    }
}

/// One thing that a task does at a server, and the rights that it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    /// The finding that tells that they lack.
    pub(crate) check: &'static str,
    /// What the account may not do without.
    pub(crate) act: &'static str,
    pub(crate) privileges: &'static [&'static str],
    pub(crate) on: Level,
}

impl Need {
    pub(crate) fn statement(&self, account: &str) -> String {
        format!("GRANT {} ON {} TO {account}", self.privileges.join(", "), self.on.sql())
    }
}

const OWN_TABLES: &[&str] = &["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP"];
/// The right to see triggers is the one to make them.
const FILLED: &[&str] = &["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "TRIGGER"];
const MADE: &[&str] = &["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "TRIGGER", "DROP", "INDEX", "REFERENCES"];

/// To read these.
pub(crate) fn reading(levels: impl IntoIterator<Item = Level>) -> Vec<Need> {
    let read = |on| Need { check: "read_right", act: "read", privileges: &["SELECT"], on };
    levels.into_iter().map(read).collect()
}

/// To follow what changes at the source.
pub(crate) fn following(flavor: Flavor, task: &Task) -> Vec<Need> {
    if !task.phases.changes {
        return Vec::new();
    }
    let privileges: &[&str] = match flavor {
        Flavor::MariaDb => &["REPLICATION SLAVE", "BINLOG MONITOR"],
        Flavor::MySql => &["REPLICATION SLAVE", "REPLICATION CLIENT"],
    };
    let mut needs = vec![Need { check: "replication_right", act: "read the binary log of", privileges, on: Level::Server }];
    if task.writes == Writes::Marker {
        needs.push(own("marker_right", "keep a marker in"));
    }
    needs
}

/// What the tables of a target, in these databases, take.
pub(crate) fn writing<'a>(task: &Task, databases: impl IntoIterator<Item = &'a str>) -> Vec<Need> {
    let makes = task.schema.create != Create::None || task.existing == Existing::Replace;
    let privileges = if makes { MADE } else { FILLED };
    let databases: BTreeSet<&str> = databases.into_iter().collect();
    let write =
        |name: &str| Need { check: "table_right", act: "make and fill tables in", privileges, on: Level::Database(name.to_owned()) };
    [own("create_right", "keep its checkpoint in")].into_iter().chain(databases.into_iter().map(write)).collect()
}

fn own(check: &'static str, act: &'static str) -> Need {
    Need { check, act, privileges: OWN_TABLES, on: Level::Database(DATABASE.to_owned()) }
}

/// What a selection speaks of, as far as rights can be given on it before anything is seen: a server shows an account only
/// what it has rights on.
pub(crate) fn levels_of(selection: &Selection, database: &str) -> BTreeSet<Level> {
    if selection.tables.is_empty() {
        return [if database.is_empty() { Level::Server } else { Level::Database(database.to_owned()) }].into();
    }
    let level = |(schema, name)| match (schema, name) {
        (Some(schema), Some(name)) => Level::Table(TableName { schema, name }),
        (Some(schema), None) => Level::Database(schema),
        _ => Level::Server,
    };
    let levels: BTreeSet<Level> = selection.named().into_iter().map(level).collect();
    levels.iter().filter(|level| !levels.iter().any(|wider| wider != *level && wider.covers(level))).cloned().collect()
}

/// What the account that asks has.
pub(crate) struct Rights {
    /// As it stands in GRANT.
    pub(crate) account: String,
    held: Vec<Held>,
}

struct Held {
    privileges: Vec<String>,
    on: Level,
}

impl Rights {
    pub(crate) async fn read(conn: &mut Conn) -> Result<Self> {
        let account: Option<String> = conn.query_first("SELECT CURRENT_USER()").await.map_err(error::from_server)?;
        let account = account.ok_or_else(|| Error::internal("a session of nobody"))?;
        let lines: Vec<String> = conn.query("SHOW GRANTS").await.map_err(error::from_server)?;
        Ok(Rights { account: quoted(&account), held: lines.iter().filter_map(|line| Held::parse(line)).collect() })
    }

    fn lacks(&self, need: &Need) -> bool {
        let has = |privilege: &&str| {
            let gives =
                |held: &Held| held.on.covers(&need.on) && held.privileges.iter().any(|own| own == privilege || own.starts_with("ALL"));
            self.held.iter().any(gives)
        };
        !need.privileges.iter().all(has)
    }

    /// One blocker for each kind of thing that the account may not do, with all places at once.
    pub(crate) fn findings(&self, needs: &[Need]) -> Vec<Finding> {
        let lacking: Vec<&Need> = needs.iter().filter(|need| self.lacks(need)).collect();
        let kinds: BTreeSet<(&'static str, &'static str)> = lacking.iter().map(|need| (need.check, need.act)).collect();
        let finding = |(check, act): (&'static str, &'static str)| {
            let of_kind: Vec<&&Need> = lacking.iter().filter(|need| need.check == check).collect();
            let places = quote::list(of_kind.iter().map(|need| need.on.words()));
            let statements: Vec<String> = of_kind.iter().map(|need| need.statement(&self.account)).collect();
            let what = format!("the account {} may not {act} {places}", self.account);
            Finding::blocker(check, &codes::RIGHTS_MISSING, what, statements.join("; "))
        };
        kinds.into_iter().map(finding).collect()
    }
}

/// `user@host`, as the server says it; a user's name may hold an @, a host's none.
pub(crate) fn quoted(account: &str) -> String {
    let (user, host) = account.rsplit_once('@').unwrap_or((account, "%"));
    format!("{}@{}", quote::identifier(user), quote::identifier(host))
}

impl Held {
    /// None: a role that is granted, or a right on code.
    fn parse(line: &str) -> Option<Held> {
        let pieces = tokens::pieces(line.as_bytes());
        let at = |word: &str| pieces.iter().position(|piece| piece.is_word(word));
        let (on, to) = (at("ON")?, at("TO")?);
        if !pieces.first()?.is_word("GRANT")
            || to < on
            || ["PROCEDURE", "FUNCTION", "PACKAGE"].iter().any(|kind| pieces[on + 1].is_word(kind))
        {
            return None;
        }
        let mut names = pieces[on + 1..to].iter().filter_map(|piece| match &piece.token {
            Token::Name(name) => Some(name.clone()),
            _ => None,
        });
        let on_level = match (names.next(), names.next()) {
            (None, _) => Level::Server,
            (Some(database), None) => Level::Database(database),
            (Some(schema), Some(name)) => Level::Table(TableName { schema, name }),
        };
        // a right on some columns is none on the table
        let whole = tokens::parts(&pieces[1..on]).into_iter().filter(|part| !part.iter().any(|piece| piece.is(&Token::Open)));
        let privileges = whole.map(|part| tokens::written(part).to_ascii_uppercase()).collect();
        Some(Held { privileges, on: on_level })
    }
}

/// An account that has no right on anything that is selected sees nothing of it.
pub(crate) async fn must_see(conn: &mut Conn, task: &Task) -> Result<()> {
    let rights = Rights::read(conn).await?;
    let needs = reading(levels_of(&task.select, &task.source.database));
    let Some(need) = needs.iter().find(|need| rights.lacks(need)) else { return Ok(()) };
    let what = format!("the account {} sees no table that is selected, and may not read {}", rights.account, need.on.words());
    Err(Error::new(&codes::RIGHTS_MISSING, what).remedy(need.statement(&rights.account)).effect("nothing was changed"))
}

/// What the account may not see is not selected, and nothing else would say so: a table that the task names is a blocker.
pub(crate) fn unseen(rights: &Rights, task: &Task) -> Vec<Finding> {
    let (named, wide): (Vec<Level>, Vec<Level>) =
        levels_of(&task.select, &task.source.database).into_iter().partition(|level| matches!(level, Level::Table(_)));
    let lacking = reading(wide).into_iter().filter(|need| rights.lacks(need));
    let warning = |need: Need| {
        let what =
            format!("the account may not read all of {}: tables that it has no right on are not seen, and not moved", need.on.words());
        Finding::warning("read_right", what, need.statement(&rights.account))
    };
    let mut findings = rights.findings(&reading(named));
    findings.extend(lacking.map(warning));
    findings
}

#[cfg(test)]
mod tests {
    use godwit_model::Severity;

    use super::*;

    fn rights(lines: &[&str]) -> Rights {
        Rights { account: quoted("a@b@%"), held: lines.iter().filter_map(|line| Held::parse(line)).collect() }
    }

    fn need(privileges: &'static [&'static str], on: Level) -> Need {
        Need { check: "read_right", act: "read", privileges, on }
    }

    #[test]
    fn grants_are_read_as_servers_write_them() {
        let rights = rights(&[
            "GRANT `reader`@`%` TO `a`@`%`",
            "GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO `a`@`%` IDENTIFIED BY PASSWORD '*AB ON *'",
            "GRANT SELECT, CREATE TEMPORARY TABLES ON `my\\_shop`.* TO `a`@`%`",
            "GRANT ALL PRIVILEGES ON `test_%`.* TO `a`@`%` WITH GRANT OPTION",
            "GRANT SELECT (`id`, `name`), INSERT ON `shop`.`customer` TO `a`@`%`",
            "GRANT EXECUTE ON PROCEDURE `shop`.`p` TO `a`@`%`",
        ]);
        let shop = |table: &str| Level::Table(TableName::new("shop", table));
        let database = |name: &str| Level::Database(name.to_owned());
        assert!(!rights.lacks(&need(&["BINLOG MONITOR", "REPLICATION SLAVE"], Level::Server)));
        assert!(!rights.lacks(&need(&["SELECT"], database("my_shop"))));
        assert!(rights.lacks(&need(&["SELECT"], database("myxshop"))));
        assert!(!rights.lacks(&need(&["DROP", "INDEX"], database("test1"))));
        assert!(rights.lacks(&need(&["DROP"], database("test"))));
        assert!(rights.lacks(&need(&["SELECT"], shop("customer"))), "some columns are not the table");
        assert!(!rights.lacks(&need(&["INSERT"], shop("customer"))));
        assert!(rights.lacks(&need(&["INSERT"], shop("other"))));
        assert!(rights.lacks(&need(&["EXECUTE"], shop("p"))));
    }

    #[test]
    fn statements_name_one_database_and_no_other() {
        let grant = need(&["SELECT", "INSERT"], Level::Database("my_shop`%".to_owned())).statement(&quoted("a@b@10.%"));
        assert_eq!(grant, "GRANT SELECT, INSERT ON `my\\_shop``\\%`.* TO `a@b`@`10.%`");
        assert!(like(&literally("a_b\\%c"), "a_b\\%c"));
        assert!(!like(&literally("a_b"), "axb"));
    }

    #[test]
    fn what_an_account_does_not_see_is_told() {
        let reader = rights(&["GRANT SELECT ON `shop`.`a` TO `a`@`%`"]);
        let mut task = godwit_testkit::task::task("lab");
        task.select.tables = ["shop.a", "shop.b", "bar.*"].map(str::to_owned).into();
        let told: Vec<(Severity, String)> = unseen(&reader, &task).into_iter().map(|found| (found.severity, found.what)).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].0 == Severity::Blocker && told[0].1.ends_with("may not read table shop.b"), "{told:?}");
        assert!(told[1].0 == Severity::Warning && told[1].1.contains("database bar"), "{told:?}");
    }

    #[test]
    fn a_selection_names_no_more_than_it_must() {
        let of = |patterns: &[&str]| {
            let tables = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
            levels_of(&Selection { tables, except: Vec::new() }, "shop").into_iter().map(|level| level.words()).collect::<Vec<_>>()
        };
        assert_eq!(of(&[]), ["database shop"]);
        assert_eq!(of(&["a.b", "a.c*", "d.e"]), ["database a", "table d.e"]);
        assert_eq!(of(&["a.b", "*.c"]), ["all databases"]);
    }
}
