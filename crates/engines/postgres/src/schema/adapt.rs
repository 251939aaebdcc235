//! Steps as this target can perform them: what names a role that is not here, what only a superuser may make, what the
//! server does not offer is taken out and listed, together with what needs it.

use std::collections::{BTreeMap, HashMap, HashSet};

use godwit_model::{Description, NotCarried, Result, SchemaItem};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::error;
use crate::quote::unquoted;

/// What the target answers once, before steps are judged.
#[derive(Debug, Default)]
pub(crate) struct Here {
    superuser: bool,
    /// Whether event triggers may be made: managed services give that to a role of theirs.
    administrator: bool,
    owns_public: bool,
    /// Roles, and whether objects may be given to them.
    roles: HashMap<String, bool>,
    extensions: HashMap<String, Extension>,
    /// Foreign data wrappers that are here and that this role may not use.
    closed_wrappers: Vec<String>,
    /// Providers of security labels that the server has not loaded.
    strange_labels: HashSet<String>,
}

#[derive(Debug, Default)]
struct Extension {
    /// The version of it that is here already.
    installed: Option<String>,
    /// Versions, and whether this role may create each.
    offered: BTreeMap<String, bool>,
    default: Option<String>,
}

impl Here {
    pub(crate) async fn ask(client: &Client) -> Result<Self> {
        let sql = "SELECT rolsuper, rolsuper OR EXISTS (SELECT FROM pg_roles m WHERE m.rolname IN ('rds_superuser', 'cloudsqlsuperuser', 'azure_pg_admin')
                AND pg_has_role(current_user, m.oid, 'USAGE')),
            coalesce((SELECT pg_has_role(current_user, nspowner, 'USAGE') FROM pg_namespace WHERE nspname = 'public'), false),
            current_setting('server_version_num')::int4 >= 160000
            FROM pg_roles WHERE rolname = current_user";
        let row = client.query_one(sql, &[]).await.map_err(error::from_server)?;
        let mut here = Here { superuser: row.get(0), administrator: row.get(1), owns_public: row.get(2), ..Here::default() };
        let right = if row.get(3) { "SET" } else { "MEMBER" };
        let roles = client.query("SELECT rolname::text, pg_has_role(current_user, oid, $1) FROM pg_roles", &[&right]).await;
        here.roles = roles.map_err(error::from_server)?.iter().map(|row| (row.get(0), row.get(1))).collect();
        let sql = "SELECT fdwname::text FROM pg_foreign_data_wrapper WHERE NOT has_foreign_data_wrapper_privilege(oid, 'USAGE')";
        here.closed_wrappers = client.query(sql, &[]).await.map_err(error::from_server)?.iter().map(|row| row.get(0)).collect();
        let sql =
            "SELECT v.name::text, v.version::text, NOT v.superuser OR (v.trusted AND has_database_privilege(current_database(), 'CREATE')),
                (SELECT extversion FROM pg_extension x WHERE x.extname = v.name), a.default_version::text
            FROM pg_available_extension_versions v JOIN pg_available_extensions a ON a.name = v.name";
        for row in client.query(sql, &[]).await.map_err(error::from_server)? {
            let extension = here.extensions.entry(row.get(0)).or_default();
            extension.offered.insert(row.get(1), here.superuser || row.get::<_, bool>(2));
            (extension.installed, extension.default) = (row.get(3), row.get(4));
        }
        Ok(here)
    }

    /// No catalog tells which providers are loaded: a label that changes nothing is tried.
    pub(crate) async fn ask_for_labels(&mut self, client: &Client, description: &Description) -> Result<()> {
        let providers: HashSet<&str> = description.items.iter().flat_map(|item| &item.sql).filter_map(|sql| label_provider(sql)).collect();
        for provider in providers {
            client.batch_execute("BEGIN").await.map_err(error::from_server)?;
            let tried = client.batch_execute(&format!("SECURITY LABEL FOR {provider} ON TYPE pg_catalog.int4 IS NULL")).await;
            client.batch_execute("ROLLBACK").await.map_err(error::from_server)?;
            if tried.is_err_and(|problem| problem.code() == Some(&SqlState::INVALID_PARAMETER_VALUE)) {
                self.strange_labels.insert(provider.to_owned());
            }
        }
        Ok(())
    }

    pub(crate) fn adapt(&self, mut description: Description) -> Description {
        let mut left = Vec::new();
        let mut fallen: HashMap<String, String> = HashMap::new();
        for item in &mut description.items {
            let before = item.sql.len();
            self.trim(item, &mut left);
            if item.sql.is_empty() && before > 0 {
                fallen.insert(item.id.clone(), String::new());
            } else if let Some(reason) = self.refuses(item, &description.leans_on) {
                fallen.insert(item.id.clone(), reason);
            }
        }
        cascade(&description, &mut fallen);
        for item in &description.items {
            // an empty reason: all that it held is listed already
            if let Some(reason) = fallen.get(&item.id).filter(|reason| !reason.is_empty()) {
                left.push(NotCarried { object: item.id.clone(), reason: reason.clone() });
            }
        }
        description.items.retain(|item| !fallen.contains_key(&item.id));
        description.not_carried.extend(left);
        // of thousands of objects it is large, and was for this alone
        description.leans_on = HashMap::new();
        description
    }

    fn refuses(&self, item: &SchemaItem, leans_on: &HashMap<String, Vec<String>>) -> Option<String> {
        if let Some(provider) =
            item.sql.iter().filter_map(|sql| label_provider(sql)).find(|provider| self.strange_labels.contains(*provider))
        {
            return Some(format!("the target has not loaded the label provider {provider}"));
        }
        let sql = item.sql.iter().find(|sql| sql.starts_with("CREATE ")).map_or("", String::as_str);
        let only = |what: bool| (!what).then(|| "only a superuser may make it at the target; let one create it there".to_owned());
        match kind_of(&item.id, sql) {
            Kind::Extension(name) => self.extension(name),
            Kind::Policy => {
                let absent = policy_roles(sql).into_iter().find(|role| !self.roles.contains_key(role));
                absent.map(|role| format!("the role {role} is not at the target"))
            }
            Kind::EventTrigger => only(self.administrator),
            Kind::OfASuperuser => only(self.superuser),
            // who makes one of the types owns it
            Kind::OfATypesOwner => only(self.superuser || leans_on.get(&item.id).is_some_and(|ids| ids.iter().any(|id| is_type(id)))),
            Kind::Server => {
                let closed = |wrapper: &&String| sql.contains(&format!(" FOREIGN DATA WRAPPER {wrapper}"));
                self.closed_wrappers.iter().find(closed).map(|wrapper| format!("the role may not use the foreign data wrapper {wrapper}"))
            }
            Kind::RightsOnPublic if !self.owns_public => Some("the target's schema public belongs to another role".to_owned()),
            Kind::RightsOnPublic | Kind::Other => None,
        }
    }

    fn extension(&self, name: &str) -> Option<String> {
        let Some(extension) = self.extensions.get(name) else {
            return Some("the target does not offer this extension".to_owned());
        };
        let allowed = extension.installed.is_some() || extension.offered.values().any(|may| *may);
        (!allowed).then(|| "only a superuser may create this extension at the target; let one create it there".to_owned())
    }

    /// Takes single statements out.
    fn trim(&self, item: &mut SchemaItem, left: &mut Vec<NotCarried>) {
        let id = item.id.clone();
        let mut leave = |object: String, reason: String| left.push(NotCarried { object, reason });
        if let Kind::Extension(name) = kind_of(&id, item.sql.last().map_or("", String::as_str)) {
            let name = name.to_owned();
            self.fit_version(&name, item, &mut leave);
        }
        if id.starts_with("ACL ") || id.starts_with("DEFAULT ACL ") {
            let rights = item.sql.iter().map(|sql| self.rights(sql, &mut leave)).filter(|sql| !sql.is_empty()).collect();
            item.sql = rights;
            return;
        }
        item.sql.retain(|sql| {
            let Some(reason) = new_owner(sql).and_then(|role| self.gives(&role)) else { return true };
            leave(format!("OWNER of {id}"), reason);
            false
        });
    }

    fn gives(&self, role: &str) -> Option<String> {
        match self.roles.get(role) {
            None => Some(format!("the role {role} is not at the target; the object belongs to the role that connects")),
            Some(false) => Some(format!("the role that connects is not a member of {role}, so the object belongs to itself")),
            Some(true) => None,
        }
    }

    /// The lines whose roles are here.
    fn rights(&self, sql: &str, leave: &mut impl FnMut(String, String)) -> String {
        let (mut kept, mut as_another) = (Vec::new(), None);
        for line in sql.lines() {
            if let Some(role) = line.strip_prefix("SET SESSION AUTHORIZATION ") {
                as_another = (!self.superuser || !self.roles.contains_key(&unquoted(role.trim_end_matches(';')))).then(|| line.to_owned());
            }
            let absent = rights_roles(line).into_iter().find(|role| !self.roles.contains_key(role));
            let granted = line.starts_with("GRANT ") || line.starts_with("REVOKE ") || line.starts_with("ALTER DEFAULT ");
            match (&as_another, absent) {
                (Some(_), _) if granted => {
                    leave(
                        line.trim_end_matches(';').to_owned(),
                        "another role granted it, and only a superuser may speak for it".to_owned(),
                    );
                }
                (Some(_), _) => {}
                (None, Some(role)) if granted => {
                    leave(line.trim_end_matches(';').to_owned(), format!("the role {role} is not at the target"))
                }
                (None, _) => kept.push(line),
            }
            if line.starts_with("RESET SESSION AUTHORIZATION") {
                as_another = None;
            }
        }
        kept.join("\n").trim().to_owned()
    }

    /// The source's version where it is offered and nothing is there yet.
    fn fit_version(&self, name: &str, item: &mut SchemaItem, leave: &mut impl FnMut(String, String)) {
        let Some(extension) = self.extensions.get(name) else { return };
        for sql in &mut item.sql {
            let Some((before, version)) = sql.split_once(" VERSION '") else { continue };
            let version = version.trim_end_matches([';', '\'']).to_owned();
            let comes = extension.installed.as_ref().or(extension.default.as_ref());
            let offered = extension.offered.get(&version).copied().unwrap_or(false);
            if extension.installed.is_none() && offered || extension.installed.as_deref() == Some(&version) {
                continue;
            }
            let object = format!("VERSION {version} of EXTENSION {name}");
            leave(object, format!("the target has {}", comes.map_or("others", String::as_str)));
            *sql = format!("{before};");
        }
    }
}

enum Kind<'a> {
    Extension(&'a str),
    Policy,
    EventTrigger,
    OfASuperuser,
    OfATypesOwner,
    Server,
    RightsOnPublic,
    Other,
}

fn kind_of<'a>(id: &'a str, sql: &str) -> Kind<'a> {
    const SUPERUSERS: [&str; 8] = [
        "SHELL TYPE ",
        "OPERATOR CLASS ",
        "OPERATOR FAMILY ",
        "ACCESS METHOD ",
        "TEXT SEARCH PARSER ",
        "TEXT SEARCH TEMPLATE ",
        "FOREIGN DATA WRAPPER ",
        "SUBSCRIPTION ",
    ];
    if let Some(name) = id.strip_prefix("EXTENSION ") {
        return Kind::Extension(name);
    }
    let is = |kind: &str| id.starts_with(kind);
    let written_in =
        |language: &str| sql.contains(&format!("\n    LANGUAGE {language} ")) || sql.contains(&format!("\n    LANGUAGE {language}\n"));
    // what stands before the body: a body may hold any words
    let head = sql.split("\n    AS ").next().unwrap_or(sql);
    let of_a_superuser = SUPERUSERS.into_iter().any(is)
        || (is("FUNCTION ") || is("PROCEDURE ")) && (written_in("c") || written_in("internal") || head.contains(" LEAKPROOF"))
        || is("TYPE ") && !sql.contains(" AS ")
        || is("AGGREGATE ") && sql.contains("STYPE = internal")
        || is("CAST ") && sql.contains(" WITHOUT FUNCTION");
    match () {
        () if is("POLICY ") => Kind::Policy,
        () if is("EVENT TRIGGER ") => Kind::EventTrigger,
        () if of_a_superuser => Kind::OfASuperuser,
        () if is("CAST ") || is("TRANSFORM ") => Kind::OfATypesOwner,
        () if is("SERVER ") => Kind::Server,
        () if id == "ACL SCHEMA public" => Kind::RightsOnPublic,
        () => Kind::Other,
    }
}

/// The provider of `SECURITY LABEL FOR provider ON ...`, as it stands there.
fn label_provider(sql: &str) -> Option<&str> {
    Some(sql.strip_prefix("SECURITY LABEL FOR ")?.split_once(" ON ")?.0)
}

fn is_type(id: &str) -> bool {
    id.starts_with("TYPE ") || id.starts_with("DOMAIN ")
}

/// What needs something that falls, falls; and so does a table of which a partition falls, for it has rows there.
fn cascade(description: &Description, fallen: &mut HashMap<String, String>) {
    let partitions: Vec<(String, &str)> = description.items.iter().filter_map(partition).collect();
    loop {
        for (root, partition) in &partitions {
            if fallen.contains_key(*partition) && !fallen.contains_key(root) {
                fallen.insert(root.clone(), format!("its {partition} is not made"));
            }
        }
        let falls = |item: &&SchemaItem| {
            let needs = description.leans_on.get(&item.id).into_iter().flatten().find(|id| fallen.contains_key(*id)).cloned();
            let table = item.table.as_ref().map(|table| format!("TABLE {table}")).filter(|id| *id != item.id && fallen.contains_key(id));
            needs.or(table).map(|needed| (item.id.clone(), format!("it needs {needed}, which is not made")))
        };
        let more: Vec<(String, String)> =
            description.items.iter().filter(|item| !fallen.contains_key(&item.id)).filter_map(|item| falls(&item)).collect();
        if more.is_empty() {
            return;
        }
        fallen.extend(more);
    }
}

/// The step of a partition, behind that of the whole table.
fn partition(item: &SchemaItem) -> Option<(String, &str)> {
    let root = item.table.as_ref().filter(|_| item.id.starts_with("TABLE ")).map(|table| format!("TABLE {table}"))?;
    (root != item.id).then_some((root, &item.id))
}

/// The role of `ALTER TABLE x OWNER TO role;`.
fn new_owner(sql: &str) -> Option<String> {
    let (_, role) = sql.strip_prefix("ALTER ")?.rsplit_once(" OWNER TO ")?;
    (!sql.contains('\n')).then(|| unquoted(role.trim_end_matches(';')))
}

/// Roles that one line of rights names.
fn rights_roles(line: &str) -> Vec<String> {
    let mut roles = Vec::new();
    if let Some(rest) = line.strip_prefix("ALTER DEFAULT PRIVILEGES FOR ROLE ") {
        roles.extend(names(rest).into_iter().take(1));
    }
    let ends = [" TO ", " FROM "].into_iter().filter_map(|word| line.rfind(word).map(|at| at + word.len())).max();
    roles.extend(ends.and_then(|at| names(&line[at..]).into_iter().next()));
    roles.retain(|role| role != "PUBLIC");
    roles
}

/// Roles of `CREATE POLICY name ON table ... TO a, b USING (...)`.
fn policy_roles(sql: &str) -> Vec<String> {
    let words = words(sql);
    let Some(to) = words.iter().position(|word| *word == "TO") else { return Vec::new() };
    let listed = words[to + 1..].iter().take_while(|word| !matches!(**word, "USING" | "WITH" | ";"));
    let known = ["PUBLIC", "CURRENT_ROLE", "CURRENT_USER", "SESSION_USER"];
    listed.filter(|word| **word != "," && !known.contains(word)).map(|word| unquoted(word)).collect()
}

fn names(text: &str) -> Vec<String> {
    words(text).into_iter().filter(|word| *word != ",").map(unquoted).collect()
}

/// Words up to the first parenthesis; a quoted identifier is one word, a comma and a semicolon are their own.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let (mut start, mut quoted) = (None, false);
    for (at, letter) in text.char_indices() {
        let ends = !quoted && (letter.is_whitespace() || matches!(letter, ',' | ';' | '('));
        if ends {
            words.extend(start.take().map(|start: usize| &text[start..at]));
            match letter {
                '(' => return words,
                ',' | ';' => words.push(&text[at..=at]),
                _ => {}
            }
            continue;
        }
        if letter == '"' {
            quoted = !quoted;
        }
        start = start.or(Some(at));
    }
    words.extend(start.map(|start| &text[start..]));
    words
}

#[cfg(test)]
mod tests {
    use godwit_model::{Stage, TableName};

    use super::*;

    fn item(id: &str, sql: &[&str]) -> SchemaItem {
        let sql = sql.iter().map(|sql| (*sql).to_owned()).collect();
        SchemaItem { id: id.to_owned(), stage: Stage::BeforeLoad, table: None, sql }
    }

    fn here() -> Here {
        let extension = Extension { installed: None, offered: BTreeMap::from([("1.1".to_owned(), true)]), default: Some("1.1".into()) };
        Here {
            roles: HashMap::from([("app".to_owned(), true), ("other".to_owned(), false)]),
            extensions: HashMap::from([("hstore".to_owned(), extension)]),
            ..Here::default()
        }
    }

    fn ids(description: &Description) -> HashSet<&str> {
        description.items.iter().map(|item| item.id.as_str()).collect()
    }

    fn left(description: &Description) -> Vec<&str> {
        description.not_carried.iter().map(|left| left.object.as_str()).collect()
    }

    #[test]
    fn a_missing_role_costs_its_own_statements_alone() {
        let items = vec![
            item("TABLE s.a", &["CREATE TABLE s.a ()", "ALTER TABLE s.a OWNER TO app;"]),
            item("TABLE s.b", &["CREATE TABLE s.b ()", "ALTER TABLE s.b OWNER TO \"no one\";"]),
            item("TABLE s.c", &["CREATE TABLE s.c ()", "ALTER TABLE s.c OWNER TO other;"]),
            item("ACL s.TABLE a", &["GRANT SELECT ON TABLE s.a TO app;\nGRANT SELECT ON TABLE s.a TO gone WITH GRANT OPTION;"]),
            item("ACL s.TABLE b", &["GRANT SELECT ON TABLE s.b TO gone;"]),
            item("POLICY s.a p", &["CREATE POLICY p ON s.a FOR SELECT TO app, gone USING ((x = 1));"]),
            item("POLICY s.a q", &["CREATE POLICY \"to TO gone\" ON s.a TO app USING ((x = 1));"]),
        ];
        let adapted = here().adapt(Description { items, ..Description::default() });
        let expected = [
            "OWNER of TABLE s.b",
            "OWNER of TABLE s.c",
            "GRANT SELECT ON TABLE s.a TO gone WITH GRANT OPTION",
            "GRANT SELECT ON TABLE s.b TO gone",
            "POLICY s.a p",
        ];
        assert_eq!(left(&adapted), expected);
        assert_eq!(ids(&adapted), HashSet::from(["TABLE s.a", "TABLE s.b", "TABLE s.c", "ACL s.TABLE a", "POLICY s.a q"]));
        assert_eq!(adapted.items[3].sql, ["GRANT SELECT ON TABLE s.a TO app;"]);
    }

    #[test]
    fn what_needs_something_that_cannot_be_made_falls_with_it() {
        let mut items = vec![
            item("FUNCTION s.f(integer)", &["CREATE FUNCTION s.f(integer) RETURNS integer\n    LANGUAGE c\n    AS 'lib', 'f';"]),
            item(
                "FUNCTION s.g(integer)",
                &["CREATE FUNCTION s.g(integer) RETURNS integer\n    LANGUAGE sql\n    AS 'SELECT 1 -- LEAKPROOF';"],
            ),
            item("VIEW s.v", &["CREATE VIEW s.v AS SELECT s.f(1);"]),
            item("TABLE s.t", &["CREATE TABLE s.t ();"]),
            item("INDEX s.i", &["CREATE INDEX i ON s.t (x);"]),
        ];
        items[4].table = Some(TableName::new("s", "t"));
        let needs = |id: &str, on: &str| (id.to_owned(), vec![on.to_owned()]);
        let leans_on = HashMap::from([needs("VIEW s.v", "FUNCTION s.f(integer)"), needs("TABLE s.t", "VIEW s.v")]);
        let adapted = here().adapt(Description { items, leans_on, ..Description::default() });
        assert_eq!(ids(&adapted), HashSet::from(["FUNCTION s.g(integer)"]));
        assert_eq!(left(&adapted), ["FUNCTION s.f(integer)", "VIEW s.v", "TABLE s.t", "INDEX s.i"]);
    }

    #[test]
    fn a_table_falls_with_one_of_its_partitions() {
        let of_root = |id: &str, sql: &str| SchemaItem { table: Some(TableName::new("s", "root")), ..item(id, &[sql]) };
        let items = vec![
            item("ACCESS METHOD rows", &["CREATE ACCESS METHOD rows TYPE TABLE HANDLER heap_tableam_handler;"]),
            of_root("TABLE s.root", "CREATE TABLE s.root (id int) PARTITION BY LIST (id);"),
            of_root("TABLE s.leaf", "CREATE TABLE s.leaf (id int);"),
            of_root("TABLE s.other", "CREATE TABLE s.other (id int);"),
            of_root("TABLE ATTACH s.leaf", "ALTER TABLE ONLY s.root ATTACH PARTITION s.leaf DEFAULT;"),
            item("VIEW s.v", &["CREATE VIEW s.v AS SELECT id FROM s.root;"]),
        ];
        let needs = |id: &str, on: &str| (id.to_owned(), vec![on.to_owned()]);
        let leans_on = HashMap::from([needs("TABLE s.leaf", "ACCESS METHOD rows"), needs("VIEW s.v", "TABLE s.root")]);
        let adapted = here().adapt(Description { items, leans_on, ..Description::default() });
        assert_eq!(ids(&adapted), HashSet::new());
        assert_eq!(adapted.not_carried.len(), 6);
    }

    #[test]
    fn an_extension_comes_in_the_version_that_is_offered() {
        let create = |name: &str, version: &str| format!("CREATE EXTENSION IF NOT EXISTS {name} WITH SCHEMA public VERSION '{version}';");
        let items = vec![item("EXTENSION hstore", &[&create("hstore", "1.1")]), item("EXTENSION postgis", &[&create("postgis", "3.0")])];
        let adapted = here().adapt(Description { items, ..Description::default() });
        assert_eq!((adapted.items.len(), left(&adapted)), (1, vec!["EXTENSION postgis"]));
        assert!(adapted.items[0].sql[0].contains("VERSION '1.1'"));
        let items = vec![item("EXTENSION hstore", &[&create("hstore", "9")])];
        let adapted = here().adapt(Description { items, ..Description::default() });
        assert_eq!(left(&adapted), ["VERSION 9 of EXTENSION hstore"]);
        assert_eq!(adapted.items[0].sql, ["CREATE EXTENSION IF NOT EXISTS hstore WITH SCHEMA public;"]);
    }

    #[test]
    fn rights_that_another_granted_need_a_superuser() {
        let sql = "SET SESSION AUTHORIZATION app;\nGRANT SELECT ON TABLE s.a TO app;\nRESET SESSION AUTHORIZATION;\nGRANT INSERT ON TABLE s.a TO app;";
        let adapted = here().adapt(Description { items: vec![item("ACL s.TABLE a", &[sql])], ..Description::default() });
        assert_eq!(adapted.items[0].sql, ["GRANT INSERT ON TABLE s.a TO app;"]);
        assert_eq!(left(&adapted), ["GRANT SELECT ON TABLE s.a TO app"]);
    }
}
