//! Databases that no one here wrote, moved to the end by a role with the least rights while users write to every table.
//!
//! What arrived is judged from outside: rows by counts and hashes over explicit lists of columns, structure by what
//! `pg_dump` says of both sides. An object that is not as at the source must be in the plan's list of what is not carried.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use godwit_testkit::servers::{self, PostgresOptions};

use crate::pair::{Pair, is_long};
use crate::postgres::execute;
use crate::store::{Store, Tier};

/// Hundreds of tables, on a busy machine.
const MOST_TIME: Duration = Duration::from_secs(1800);
/// Rounds over all tables before and after the run is consistent.
const ROUNDS: u64 = 2;

/// A statement each for every user's table: values that wander from row to row, rows that are written again, rows that go
/// and come back, rows twice. Where a constraint, a trigger or a rule is against it, it fails, as users' statements do.
const STATEMENTS: &str = "
SELECT s.text
FROM (SELECT c.relkind = 'r' AS alone, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS whole,
        (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute a
         WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '') AS list,
        (SELECT quote_ident(attname) FROM pg_attribute a
         WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '' AND attidentity <> 'a' ORDER BY random() LIMIT 1) AS one
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p' AND n.nspname !~ '^(pg_|information_schema|godwit)') t
CROSS JOIN LATERAL (SELECT CASE WHEN alone THEN 'ONLY ' ELSE '' END || whole AS own) o
CROSS JOIN LATERAL (SELECT format('(x.tableoid, x.ctid) IN (SELECT tableoid, ctid FROM %s ORDER BY random() LIMIT 3)', own) AS chosen) w
CROSS JOIN LATERAL (VALUES
    (format('UPDATE %s AS x SET %s = (SELECT %s FROM %s ORDER BY random() LIMIT 1) WHERE %s', own, one, one, own, chosen)),
    (format('UPDATE %s AS x SET %s = %s WHERE %s', own, one, one, chosen)),
    (format('WITH gone AS (DELETE FROM %s AS x WHERE %s RETURNING %s) INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM gone', own, chosen, t.list, whole, t.list, t.list)),
    (format('INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s ORDER BY random() LIMIT 2', whole, t.list, t.list, own))
) s(text)
WHERE s.text IS NOT NULL ORDER BY random()";

/// For every table with rows of its own, by itself or as a partition: its root's name, and what asks for its rows.
const QUESTIONS: &str = "
SELECT r.nspname || '.' || r.relname,
       format('SELECT %L, count(*), sum((''x'' || substr(md5(ROW(%s)::text), 1, 15))::bit(60)::bigint) FROM ONLY %I.%I', n.nspname || '.' || c.relname,
              (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attname) FROM pg_attribute a WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped),
              n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (SELECT rn.nspname, rc.relname FROM pg_class rc JOIN pg_namespace rn ON rn.oid = rc.relnamespace
                    WHERE rc.oid = CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::oid ELSE c.oid END) r
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^(pg_|information_schema|godwit)'";

/// So that values read the same whatever a database sets.
const SETTINGS: &str = "SET search_path = ''; SET TimeZone = 'UTC'; SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres';
SET extra_float_digits = 3; SET bytea_output = 'hex'; SET lc_monetary = 'C'; SET row_security = off";

/// Users who write to all tables of the source in turn.
struct Writers {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: JoinHandle<u64>,
}

impl Writers {
    fn begin(source: Arc<dyn Store>) -> Writers {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (stop.clone(), rounds.clone());
        let thread = std::thread::spawn(move || {
            let mut session = source.connect().unwrap();
            let mut written = 0;
            while !stopped.load(Ordering::SeqCst) {
                for statement in session.rows(STATEMENTS).unwrap().into_iter().flatten().flatten() {
                    if stopped.load(Ordering::SeqCst) {
                        break;
                    }
                    written += session.execute(&[statement]).map_or(0, |touched| touched.iter().sum());
                }
                counted.fetch_add(1, Ordering::SeqCst);
            }
            written
        });
        Writers { stop, rounds, thread }
    }

    /// Waits until they went over all tables this often from now on. Counting gives no notice.
    fn await_rounds(&self, more: u64) {
        let until = self.rounds.load(Ordering::SeqCst) + more;
        while self.rounds.load(Ordering::SeqCst) < until {
            assert!(!self.thread.is_finished(), "the writers ended");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// How many rows they touched.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

/// A database to be moved: what fills it, by a superuser who is none afterwards, and the tables that cannot be moved.
struct Foreign<'a> {
    fill: &'a dyn Fn(&Filling),
    except: &'a [&'a [&'a str]],
}

struct Filling {
    major: u16,
    url: String,
    psql: PathBuf,
    folder: PathBuf,
}

impl Filling {
    /// What a script's statements come to is its own affair: many of them fail by intention.
    fn run(&self, script: &Path, at: &Path, options: &str, variables: &[(&str, &Path)]) {
        let mut command = Command::new(&self.psql);
        command.args(["-X", "-q", "-d", &self.url, "-v", "HIDE_TABLEAM=on", "-v", "HIDE_TOAST_COMPRESSION=on"]);
        command.env("PGTZ", "America/Los_Angeles").env("PGDATESTYLE", "Postgres, MDY").env("PGOPTIONS", options);
        command.envs(variables.iter().copied()).current_dir(at);
        command.stdin(std::fs::File::open(script).unwrap()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().unwrap();
        // 3 is an error in a script that stops at the first
        assert!(matches!(status.code(), Some(0 | 3)), "{}: {status}", script.display());
    }

    fn execute(&self, sql: &str) -> Result<(), String> {
        execute(&self.url, sql)
    }
}

fn moved(first: u16, second: u16, foreign: &Foreign<'_>) {
    let quick = || PostgresOptions::default().with_setting("max_wal_size", "4GB");
    let Some(pair) = Pair::postgres_with((first, quick()), (second, quick()), Tier::Managed) else { return };
    let Some(psql) = servers::tool(18, "psql") else { return };
    fill(&pair, first, psql, foreign);
    let except = foreign.except.concat();
    let patterns = except.iter().map(|table| format!("{table:?}")).collect::<Vec<_>>().join(", ");
    if !except.is_empty() {
        pair.write_task(&format!("select: {{except: [{patterns}]}}\n"));
    }
    pair.start(&["check"]).end_within(MOST_TIME).with(0);
    let plan = pair.start(&["plan"]).end_within(MOST_TIME).with(0).stdout;

    let writers = Writers::begin(pair.source.clone());
    let mut run = pair.start(&["run"]);
    assert!(run.within(MOST_TIME, |event| event["event"] == "consistent").is_some(), "not consistent in time");
    writers.await_rounds(ROUNDS);
    assert!(writers.stop() > 0);
    run.kill();
    pair.start(&["finish", "--yes"]).end_within(MOST_TIME).with(0);
    pair.assert_no_traces();
    same_rows(&pair, &except);
    same_structure(&pair, &plan, &except);
}

fn fill(pair: &Pair, major: u16, psql: PathBuf, foreign: &Foreign<'_>) {
    let superuser = pair.source.server().unwrap().url("source");
    execute(&superuser, "ALTER ROLE source_app SUPERUSER").unwrap();
    for setting in ["lc_messages TO 'C'", "lc_monetary TO 'C'", "bytea_output TO 'hex'", "timezone_abbreviations TO 'Default'"] {
        execute(&superuser, &format!("ALTER DATABASE source SET {setting}")).unwrap();
    }
    let url = superuser.replace("//postgres@", "//source_app@");
    (foreign.fill)(&Filling { major, url, psql, folder: pair.path().to_owned() });
    execute(&superuser, "ALTER ROLE source_app NOSUPERUSER").unwrap();
    // some values are the names of roles
    execute(&pair.target.server().unwrap().url("target"), "CREATE ROLE source_app").unwrap();
}

/// Counts and hashes of all tables that are moved, leaf by leaf.
fn same_rows(pair: &Pair, except: &[&str]) {
    let questions: Vec<String> = (pair.source.rows(QUESTIONS).into_iter())
        .map(|row| (row[0].clone().unwrap(), row[1].clone().unwrap()))
        .filter(|(root, _)| !except.contains(&root.as_str()))
        .map(|(_, question)| question)
        .collect();
    assert!(!questions.is_empty());
    let answers = |store: &dyn Store| -> Vec<_> {
        let mut session = store.connect().unwrap();
        session.execute(&[SETTINGS.to_owned()]).unwrap();
        questions.iter().map(|question| session.rows(question).unwrap_or_else(|problem| panic!("{question}: {problem}"))).collect()
    };
    let (source, target) = (answers(&*pair.source), answers(&*pair.target));
    let differ: Vec<_> = source.iter().zip(&target).filter(|(source, target)| source != target).collect();
    assert!(differ.is_empty(), "{differ:#?}");
}

/// Tables, partitions too, that are moved with none of these: schema and name with a dot.
const PARTS: &str = "
SELECT n.nspname || '.' || c.relname, rn.nspname || '.' || r.relname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class r ON r.oid = CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::oid ELSE c.oid END
JOIN pg_namespace rn ON rn.oid = r.relnamespace WHERE c.relkind IN ('r', 'p')";

/// What `psql` makes of the source's dump at the target's server is the measure, so that a server's own ways (an inheriting
/// table's columns follow its parents', a new version writes a view otherwise) count for neither side. Every object of it
/// is at the target alike, or the plan said that it is not carried, or it is a part of a table that was left out.
fn same_structure(pair: &Pair, plan: &str, except: &[&str]) {
    let server = pair.target.server().unwrap();
    let measure = server.create_database("measure");
    let script = pair.path().join("dump.sql");
    std::fs::write(&script, dump(&pair.source.server().unwrap().url("source"))).unwrap();
    let psql = servers::tool(18, "psql").unwrap();
    let restored =
        Command::new(psql).args(["-X", "-q", "-d", &measure, "-f"]).arg(&script).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(restored.unwrap().success());
    let (expected, target) = (entries(&dump(&measure)), entries(&dump(&server.url("target"))));
    let plan: serde_json::Value = serde_json::from_str(plan).unwrap();
    let listed: Vec<&str> = plan["not_carried"].as_array().unwrap().iter().filter_map(|left| left["object"].as_str()).collect();
    let parts = pair.source.rows(PARTS);
    let gone: Vec<&str> =
        parts.iter().filter(|row| except.contains(&row[1].as_deref().unwrap())).map(|row| row[0].as_deref().unwrap()).collect();
    let is_excused = |object: &str, text: &str| {
        listed.contains(&object)
            || object.starts_with("PUBLICATION ")
            || gone.iter().any(|table| names(text, table) || is_of(object, table))
    };
    let differ: Vec<_> = expected.iter().filter(|(object, text)| target.get(*object) != Some(text) && !is_excused(object, text)).collect();
    for (object, text) in &differ {
        eprintln!("-- {object}\n{text}\n-- at the target:\n{}\n", target.get(*object).map_or("", String::as_str));
    }
    let surplus: Vec<_> = target.keys().filter(|object| !expected.contains_key(*object)).collect();
    assert!(differ.is_empty() && surplus.is_empty(), "{} objects differ; surplus: {surplus:?}", differ.len());
}

/// Whether a definition names the table, and not one whose name begins alike.
fn names(text: &str, table: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|letter: char| letter.is_alphanumeric() || letter == '_');
    text.match_indices(table).any(|(at, _)| ends(&text[at + table.len()..]))
}

/// `ROW SECURITY s.t`, `SEQUENCE s.t_id_seq`.
fn is_of(object: &str, table: &str) -> bool {
    object
        .split(' ')
        .any(|word| word == table || word.strip_prefix(table).is_some_and(|rest| rest.starts_with('_') && rest.ends_with("_seq")))
}

fn dump(url: &str) -> String {
    let mut command = Command::new(servers::tool(18, "pg_dump").unwrap());
    let output = command.args(["--schema-only", "--no-owner", "--no-privileges", "-d", url]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Entries of a schema's dump: `KIND schema.name` and the text.
fn entries(dump: &str) -> BTreeMap<String, String> {
    let mut entries = BTreeMap::new();
    for part in dump.split("\n--\n-- Name: ").skip(1) {
        let (head, body) = part.split_once("\n--\n").unwrap();
        let (head, _) = head.rsplit_once("; Owner:").unwrap();
        let (head, schema) = head.rsplit_once("; Schema: ").unwrap();
        let (name, kind) = head.rsplit_once("; Type: ").unwrap();
        let schema = if schema == "-" { String::new() } else { format!("{schema}.") };
        let body: Vec<&str> = body.lines().filter(|line| !is_of_the_dump(line)).collect();
        let mut id = format!("{kind} {schema}{name}");
        let twins = (2..).find(|number| *number > 1 && !entries.contains_key(&format!("{id} ({number})"))).unwrap();
        if entries.contains_key(&id) {
            id = format!("{id} ({twins})");
        }
        entries.insert(id, body.join("\n").trim().to_owned());
    }
    entries
}

fn is_of_the_dump(line: &str) -> bool {
    let begins = ["SET default_table", "-- PostgreSQL database dump complete", "\\unrestrict "];
    line == "--" || begins.iter().any(|begin| line.starts_with(begin))
}

/// PostgreSQL's own regression database: its tests, in their order.
fn regression(filling: &Filling) {
    // the servers' package crashes there
    const LEFT_OUT: &[&str] = &["sqljson", "hash_part"];
    let Some(folder) = servers::foreign(&format!("regress-{}", filling.major)) else { return };
    let regress = folder.join("regress");
    let (lib, built) = (folder.join("lib"), filling.folder.join("built"));
    std::fs::create_dir_all(built.join("results")).unwrap();
    let suffix = PathBuf::from(".so");
    let variables: [(&str, &Path); 4] =
        [("PG_ABS_SRCDIR", &regress), ("PG_LIBDIR", &lib), ("PG_DLSUFFIX", &suffix), ("PG_ABS_BUILDDIR", &built)];
    let schedule = std::fs::read_to_string(regress.join("parallel_schedule")).unwrap();
    for test in schedule.lines().filter_map(|line| line.strip_prefix("test:")).flat_map(str::split_whitespace) {
        if !LEFT_OUT.contains(&test) {
            let script = regress.join("sql").join(format!("{test}.sql"));
            filling.run(&script, &built, "-c intervalstyle=postgres_verbose", &variables);
        }
    }
    // servers before 18.5 let a rule be renamed to a name that no server takes in a definition
    let _ = filling.execute("ALTER RULE \"_RETURN\" ON public.rtest_t4 RENAME TO rtest_t4_ins1");
}

/// The tests of contrib modules whose extensions a database's owner may create, each in a schema of its own.
fn contrib(filling: &Filling) {
    const MODULES: &[&str] = &[
        "btree_gin",
        "btree_gist",
        "citext",
        "cube",
        "dict_int",
        "fuzzystrmatch",
        "hstore",
        "intarray",
        "isn",
        "lo",
        "ltree",
        "pg_trgm",
        "pgcrypto",
        "seg",
        "tablefunc",
        "unaccent",
        "uuid-ossp",
    ];
    let Some(folder) = servers::foreign(&format!("regress-{}", filling.major)) else { return };
    for module in MODULES {
        let at = folder.join("contrib").join(module);
        filling.execute(&format!("CREATE EXTENSION IF NOT EXISTS \"{module}\" SCHEMA public; CREATE SCHEMA \"of_{module}\"")).unwrap();
        let mut scripts: Vec<PathBuf> = std::fs::read_dir(at.join("sql")).unwrap().map(|script| script.unwrap().path()).collect();
        scripts.retain(|script| script.extension().is_some_and(|kind| kind == "sql"));
        scripts.sort();
        for script in scripts {
            filling.run(&script, &at, &format!("-c search_path=of_{module},public"), &[]);
        }
    }
}

/// Some rows for every table: numbers that meet as references do, texts of their columns' lengths. What a constraint is
/// against stays away.
const ROWS: &str = "
SELECT format('INSERT INTO %I.%I (%s) SELECT %s FROM generate_series(1, 40) g ON CONFLICT DO NOTHING', n.nspname, c.relname,
              string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum),
              string_agg(CASE WHEN t.typcategory = 'N' THEN format('g::%s', format_type(a.atttypid, a.atttypmod))
                              WHEN t.typcategory = 'B' THEN 'g % 2 = 0'
                              WHEN t.typcategory = 'D' THEN format('(timestamp ''2024-02-29'' + g * interval ''1 day'')::%s', format_type(a.atttypid, a.atttypmod))
                              WHEN t.typname = 'bytea' THEN 'decode(md5(g::text), ''hex'')'
                              WHEN t.typcategory = 'S' THEN format('substr(''x'' || g || md5(g::text), 1, %s)', CASE WHEN a.atttypmod > 4 THEN least(a.atttypmod - 4, 20) ELSE 20 END)
                              ELSE format('NULL::%s', format_type(a.atttypid, a.atttypmod)) END, ', ' ORDER BY a.attnum))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type t ON t.oid = a.atttypid
WHERE c.relkind = 'r' AND n.nspname !~ '^(pg_|information_schema)' AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND a.attidentity <> 'a'
GROUP BY n.nspname, c.relname ORDER BY random()";

/// The schemas of programs that Debian packages, each in a schema of its own (mixed names, sequences, triggers, references
/// in circles, hundreds of tables), with the rows that they come with and some more.
fn programs(filling: &Filling) {
    const SCRIPTS: &[(&str, &[&str])] = &[
        (
            "zabbix",
            &[
                "zabbix-server-pgsql/usr/share/zabbix-server-pgsql/schema.sql",
                "zabbix-server-pgsql/usr/share/zabbix-server-pgsql/images.sql",
                "zabbix-server-pgsql/usr/share/zabbix-server-pgsql/data.sql",
            ],
        ),
        ("kea", &["kea-admin/usr/share/kea/scripts/pgsql/dhcpdb_create.pgsql"]),
        ("bacula", &["bacula-director-pgsql/usr/share/dbconfig-common/data/bacula-director-pgsql/install/pgsql"]),
        ("Icinga", &["icinga2-ido-pgsql/usr/share/icinga2-ido-pgsql/schema/pgsql.sql"]),
        ("roundcube", &["roundcube-core/usr/share/roundcube/SQL/postgres.initial.sql"]),
    ];
    let Some(folder) = servers::foreign("samples") else { return };
    for (schema, scripts) in SCRIPTS {
        filling.execute(&format!("CREATE SCHEMA \"{schema}\"")).unwrap();
        for script in *scripts {
            filling.run(&folder.join(script), &filling.folder, &format!("-c search_path=\"{schema}\""), &[]);
        }
    }
    let rows = filling.folder.join("rows.sql");
    std::fs::write(&rows, format!("{ROWS}\n\\gexec\n").repeat(3)).unwrap();
    filling.run(&rows, &filling.folder, "-c search_path=public", &[]);
}

/// Types, access methods and operator classes of C functions are a superuser's.
const OF_A_SUPERUSER: &[&str] =
    &["public.city", "public.ec1", "public.ec2", "public.tableam_parted_heap2", "public.tableam_tbl_heap2", "public.tableam_tblas_heap2"];
const UNLOGGED: &[&str] = &["public.identity_dump_unlogged", "public.itest17", "public.itest18", "public.spgist_unlogged_tbl"];
/// Without a key and with a virtual generated column.
const VIRTUAL: &[&str] = &[
    "generated_virtual_tests.gtest1_1",
    "generated_virtual_tests.gtest1_y",
    "generated_virtual_tests.gtest20c",
    "generated_virtual_tests.gtest21b",
    "generated_virtual_tests.gtest22c",
    "generated_virtual_tests.gtest27",
    "generated_virtual_tests.gtest28a",
    "generated_virtual_tests.gtest28b",
    "generated_virtual_tests.gtest29",
    "generated_virtual_tests.gtest3",
    "generated_virtual_tests.gtest30",
    "generated_virtual_tests.gtest30_1",
    "generated_virtual_tests.gtest3a",
    "generated_virtual_tests.gtest_parent",
    "generated_virtual_tests.gtestnn_parent",
    "generated_virtual_tests.gtestx",
    "generated_virtual_tests.gtestxx_3",
    "generated_virtual_tests.gtestxx_4",
    "generated_virtual_tests.gtesty",
];
/// Since 16 a generated column does not inherit from an ordinary one.
const INHERITED: &[&str] = &["public.gtest_normal_child", "public.gtest_normal_child2"];

#[test]
fn the_regression_database_of_18_is_moved_to_18() {
    if is_long() && servers::foreign("regress-18").is_some() {
        moved(18, 18, &Foreign { fill: &regression, except: &[OF_A_SUPERUSER, UNLOGGED, VIRTUAL] });
    }
}

#[test]
fn the_regression_database_of_15_is_moved_to_18() {
    if is_long() && servers::foreign("regress-15").is_some() {
        moved(15, 18, &Foreign { fill: &regression, except: &[OF_A_SUPERUSER, UNLOGGED, INHERITED] });
    }
}

#[test]
fn databases_of_contrib_modules_are_moved() {
    if is_long() && servers::foreign("regress-18").is_some() {
        moved(18, 18, &Foreign { fill: &contrib, except: &[] });
    }
}

#[test]
fn databases_of_packaged_programs_are_moved() {
    if is_long() && servers::foreign("samples").is_some() {
        moved(18, 18, &Foreign { fill: &programs, except: &[] });
    }
}
