//! Whole files in, tasks or errors out.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use godwit_model::{ByteCount, ColumnRule, Create, Error, Existing, MapRule, TableName, Task, TlsMode, Writes, codes};
use proptest::prelude::*;

use crate::{Environment, Loaded, all_fields, explain_field, fingerprint, json_schema, parse};

/// Surroundings made of what a test says.
#[derive(Default)]
pub struct Fake {
    variables: HashMap<String, String>,
    files: HashMap<PathBuf, String>,
    open: HashSet<PathBuf>,
    programs: HashMap<String, String>,
}

impl Fake {
    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    pub fn with_file(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.into(), text.into());
        self
    }

    pub fn open(mut self, path: &str) -> Self {
        self.open.insert(path.into());
        self
    }

    fn with_program(mut self, program: &str, output: &str) -> Self {
        self.programs.insert(program.into(), output.into());
        self
    }
}

impl Environment for Fake {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        self.files.get(path).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn is_file(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }

    fn is_open_to_others(&self, path: &Path) -> io::Result<bool> {
        Ok(self.open.contains(path))
    }

    fn run(&self, program: &str, _: &[String]) -> io::Result<String> {
        self.programs.get(program).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

fn loaded_with(text: &str, environment: &Fake) -> Result<Loaded, Error> {
    parse(text, "shop.yaml", Path::new("/base"), environment)
}

fn task(text: &str) -> Task {
    loaded_with(text, &Fake::default()).unwrap_or_else(|error| panic!("{}", shown(&error))).task
}

fn error(text: &str) -> Error {
    loaded_with(text, &Fake::default()).expect_err(text)
}

/// As a terminal would show it.
fn shown(error: &Error) -> String {
    let part = |text: Option<&str>| text.unwrap_or_default().to_owned();
    format!("{error}\n{}\n{}", part(error.detail_text()), part(error.remedy_text()))
}

const HEAD: &str = "name: shop\nmode: migrate\n";
const PAIR: &str = "name: shop\nmode: migrate\nsource: sqlite:a.db\ntarget: sqlite:b.db\n";

fn postgres(source: &str) -> String {
    format!("{HEAD}target: postgres://t@h2/d\nsource:\n  {}\n", source.replace('\n', "\n  "))
}

// --- what is read -------------------------------------------------------------------------------------------------

#[test]
fn the_least_task_gets_the_defaults() {
    let task = task(PAIR);
    assert_eq!(task.source.database, "/base/a.db");
    assert_eq!((task.limits.memory, task.limits.change_log), (ByteCount(256 << 20), ByteCount(100 << 30)));
    assert_eq!((task.limits.source_connections, task.limits.target_connections), (4, 4));
    assert_eq!(task.limits.snapshot_age, Duration::from_secs(1800));
    assert_eq!((task.existing, task.writes, task.log_budget.size), (Existing::Refuse, Writes::Marker, None));
    assert!(task.phases.schema && task.phases.load && task.phases.changes && task.verify_at_finish);
    assert_eq!(task.schema.create, Create::All);
    assert!(task.select.selects(&TableName::new("main", "x")));
}

#[test]
fn every_example_is_a_task() {
    let fake = Fake::default()
        .with_variable("SHOP_SOURCE_PASSWORD", "a")
        .with_variable("SHOP_TARGET_PASSWORD", "b")
        .with_file("/etc/ssl/certs/ca-certificates.crt", "");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read_to_string(&path).unwrap();
            loaded_with(&text, &fake).unwrap_or_else(|error| panic!("{}: {}", path.display(), shown(&error)));
            seen += 1;
        }
    }
    assert!(seen >= 3);
}

#[test]
fn a_file_on_disk_is_loaded_relative_to_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.yaml");
    std::fs::write(&path, PAIR).unwrap();
    let loaded = crate::load(&path).unwrap();
    assert_eq!(Path::new(&loaded.task.source.database), folder.path().join("a.db"));
    std::fs::write(&path, b"name: \xff\n").unwrap();
    let error = crate::load(&path).unwrap_err();
    assert!(error.is(&codes::TASK_SYNTAX) && error.place().unwrap().ends_with("t.yaml:1:7"), "{error}");
    std::fs::write(&path, vec![b'#'; 10 << 20]).unwrap();
    assert!(crate::load(&path).unwrap_err().is(&codes::TASK_TOO_LARGE));
    assert!(crate::load(&folder.path().join("none.yaml")).unwrap_err().is(&codes::TASK_UNREADABLE));
    assert!(crate::load(folder.path()).unwrap_err().is(&codes::TASK_UNREADABLE));
}

#[cfg(unix)]
#[test]
fn a_password_in_a_file_that_others_may_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.yaml");
    std::fs::write(&path, format!("{HEAD}source: postgres://u:hunter2@h/d\ntarget: sqlite:b.db\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let warnings = crate::load(&path).unwrap().warnings.join("\n");
    assert!(warnings.contains("chmod 0600") && !warnings.contains("hunter2"), "{warnings}");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(crate::load(&path).unwrap().warnings.is_empty());
}

#[test]
fn endpoints_are_read_from_urls_and_fields_alike() {
    let by_url = task(&postgres("url: postgres://u:p%40w@db1:5433/sh%2Fop?application_name=x&sslmode=require")).source;
    let by_fields =
        task(&postgres("engine: postgres\nhost: db1\nport: 5433\nuser: u\npassword: p@w\ndatabase: sh/op\ntls: {mode: require}")).source;
    assert_eq!(by_url.options, [("application_name".to_owned(), "x".to_owned())]);
    assert_eq!(godwit_model::EndpointConfig { options: vec![], ..by_url }, by_fields);
    assert_eq!(by_fields.password.as_ref().unwrap().expose(), "p@w");
    assert_eq!(by_fields.tls.mode, TlsMode::Require);
    let certified = postgres("url: postgres://h/d?user=u\ntls: {mode: verify-ca, ca: c.pem, certificate: /a, key: k}");
    let fake = Fake::default().with_file("/base/c.pem", "").with_file("/a", "").with_file("/base/k", "");
    let tls = loaded_with(&certified, &fake).unwrap().task.source.tls;
    assert!(error(&certified).is(&codes::TASK_REFERENCE));
    assert_eq!((tls.mode, tls.ca, tls.certificate), (TlsMode::VerifyCa, Some("/base/c.pem".into()), Some("/a".into())));
}

#[test]
fn passwords_come_from_references_programs_and_the_password_file() {
    let fake = Fake::default()
        .with_variable("PW", "a/b@c")
        .with_variable("PORT", "6000")
        .with_variable("HOME", "/home/u")
        .with_file("/run/pw", "secret\r\n")
        .with_file("/home/u/.pgpass", "*:*:*:t:passed\n")
        .with_program("vault", "first\nsecond\n");
    let source = |text: &str| loaded_with(&postgres(text), &fake).unwrap_or_else(|error| panic!("{}", shown(&error))).task;
    let password = |text: &str| source(text).source.password.unwrap().expose().to_owned();
    assert_eq!(password("url: postgres://u:${env:PW}@h/d"), "a/b@c");
    assert_eq!(password("url: postgres://u@h/d\npassword: ${file:/run/pw}"), "secret");
    assert_eq!(password("url: postgres://u@h/d\npassword: $${env:PW}"), "${env:PW}");
    assert_eq!(password("url: postgres://u@h/d\npassword_command: [vault, read]"), "first");
    assert_eq!(source("{engine: postgres, host: h, user: t, database: d, port: \"${env:PORT}\"}").source.port, Some(6000));
    assert_eq!(source("url: postgres://u@h/d").target.password.unwrap().expose(), "passed");
}

#[test]
fn a_password_program_that_fails_or_is_silent_is_refused() {
    let fake = Fake::default().with_program("silent", "\n");
    for command in ["[silent]", "[none]", "[]"] {
        let error = loaded_with(&postgres(&format!("url: postgres://u@h/d\npassword_command: {command}")), &fake).unwrap_err();
        assert!(error.is(&codes::TASK_REFERENCE), "{error}");
    }
}

#[test]
fn what_the_task_says_of_encryption_is_not_changed_by_variables() {
    let fake = Fake::default().with_variable("PGSSLMODE", "disable").with_variable("PGSSLROOTCERT", "/x").with_file("/x", "");
    let source = |text: &str| loaded_with(&postgres(text), &fake).unwrap().task.source.tls;
    assert_eq!(
        source("url: postgres://u@h/d\ntls: {mode: verify-full}"),
        godwit_model::Tls { mode: TlsMode::VerifyFull, ..Default::default() }
    );
    assert_eq!(source("url: postgres://u@h/d").mode, TlsMode::Disable);
}

#[test]
fn names_are_read_with_stars_and_quotes() {
    let text = format!(
        "{PAIR}select: {{tables: [t, 'other.*'], except: ['\"a.b\"', '\"x*\"']}}\nmap:\n- {{from: t, to: '\"n.*\"', columns: {{a: b, c: leave_out, d: {{to: leave_out}}}}}}\n"
    );
    let task = task(&text);
    assert!(task.select.selects(&TableName::new("main", "t")) && task.select.selects(&TableName::new("other", "z.y")));
    assert_eq!(task.select.except, ["main.a\\.b", "main.x\\*"]);
    let rule = MapRule {
        from: TableName::new("main", "t"),
        to: Some(TableName::new("main", "n\\.\\*")),
        columns: vec![
            ("a".into(), ColumnRule::Rename("b".into())),
            ("c".into(), ColumnRule::LeaveOut),
            ("d".into(), ColumnRule::Rename("leave_out".into())),
        ],
    };
    assert_eq!(task.map, [rule]);
}

#[test]
fn files_of_other_editors_are_read() {
    assert_eq!(task(&format!("\u{feff}{PAIR}")).name.as_str(), "shop");
    assert_eq!(task(&PAIR.replace('\n', "\r\n")).target.database, "/base/b.db");
    assert!(error(&PAIR.replace("migrate", "migrat").replace('\n', "\r\n")).place().unwrap().ends_with(":2:7"));
    assert_eq!(task(&format!("---\n{PAIR}...\n")).name.as_str(), "shop");
}

#[test]
fn yes_and_no_are_words_and_anchors_may_be_used() {
    let task = task(&format!("{PAIR}map:\n- {{from: a, columns: &c {{on: off, yes: no}}}}\n- {{from: b, columns: *c}}\n"));
    assert_eq!(task.map[1].columns, [("on".into(), ColumnRule::Rename("off".into())), ("yes".into(), ColumnRule::Rename("no".into()))]);
}

// --- what is refused ----------------------------------------------------------------------------------------------

#[test]
fn each_mistake_has_its_code_and_place() {
    let pair_and = |text: &str| format!("{PAIR}{text}\n");
    let cases: Vec<(String, &godwit_model::Code, &str)> = vec![
        (String::new(), &codes::TASK_MISSING_KEY, "1:1"),
        ("# nothing\n---\n".into(), &codes::TASK_MISSING_KEY, "1:1"),
        ("- a\n- b\n".into(), &codes::TASK_WRONG_TYPE, "1:1"),
        ("just text".into(), &codes::TASK_WRONG_TYPE, "1:1"),
        ("mode: migrate\nsource: sqlite:a.db\ntarget: sqlite:b.db\n".into(), &codes::TASK_MISSING_KEY, "1:1"),
        (pair_and("sorce: x"), &codes::TASK_UNKNOWN_KEY, "5:1"),
        (pair_and("name: again"), &codes::TASK_SYNTAX, "5:1"),
        (pair_and("select: {tables: a}"), &codes::TASK_WRONG_TYPE, "5:18"),
        (pair_and("select: {tables: [5]}"), &codes::TASK_WRONG_TYPE, "5:19"),
        (pair_and("select:"), &codes::TASK_WRONG_TYPE, "5:"),
        (pair_and("select: {rows: {a: b}}"), &codes::TASK_UNSUPPORTED, "5:10"),
        (pair_and("from: now"), &codes::TASK_CONTRADICTION, "5:"),
        (pair_and("phases: [changes]\nfrom: ''"), &codes::TASK_VALUE, "6:7"),
        (pair_and("values: {on_failure: park}"), &codes::TASK_UNSUPPORTED, "5:22"),
        (pair_and("values: {allow: []}"), &codes::TASK_UNSUPPORTED, "5:10"),
        (pair_and("limits: {rate: {bytes: 1MiB}}"), &codes::TASK_UNSUPPORTED, "5:10"),
        (pair_and("map: [{from: t, columns: {a: {value: x, to: b}}}]"), &codes::TASK_UNSUPPORTED, "5:31"),
        (pair_and("map: [{to: t}]"), &codes::TASK_MISSING_KEY, "5:7"),
        (pair_and("map: [{from: 'a*b*'}]"), &codes::TASK_VALUE, "5:14"),
        (pair_and("map: [{from: a, to: 'b*'}]"), &codes::TASK_VALUE, "5:21"),
        (pair_and("limits: {memory: 256}"), &codes::TASK_WRONG_TYPE, "5:18"),
        (pair_and("limits: {memory: 256mb}"), &codes::TASK_WRONG_TYPE, "5:18"),
        (pair_and("limits: {memory: 1MiB}"), &codes::TASK_VALUE, "5:18"),
        (pair_and("limits: {snapshot_age: 5}"), &codes::TASK_WRONG_TYPE, "5:24"),
        (pair_and("limits: {connections: {source: 0}}"), &codes::TASK_VALUE, "5:32"),
        (pair_and("limits: {connections: {source: 99999999999999999999}}"), &codes::TASK_WRONG_TYPE, "5:32"),
        (pair_and("phases: []"), &codes::TASK_VALUE, "5:9"),
        (pair_and("phases: [load, load]"), &codes::TASK_VALUE, "5:9"),
        (pair_and("phases: [changes]"), &codes::TASK_MISSING_KEY, "5:9"),
        (
            PAIR.replace("target: sqlite:b.db", "target: {url: 'sqlite:b.db', existing: truncate}") + "phases: [changes]\nfrom: now",
            &codes::TASK_CONTRADICTION,
            "4:40",
        ),
        (pair_and("schema: {create: {file: none.sql}}"), &codes::TASK_REFERENCE, "5:25"),
        (pair_and("schema: {create: al}"), &codes::TASK_VALUE, "5:18"),
        (pair_and("verify: {at: '${env:NONE}'}"), &codes::TASK_REFERENCE, "5:14"),
        (pair_and("a: [b"), &codes::TASK_SYNTAX, ""),
        (pair_and("a: *none"), &codes::TASK_SYNTAX, "5:"),
        (pair_and("<<: {a: b}"), &codes::TASK_SYNTAX, "5:1"),
        (pair_and("--- \nname: b"), &codes::TASK_SYNTAX, ""),
        (PAIR.replace("migrate", "track"), &codes::TASK_UNSUPPORTED, "2:7"),
        (PAIR.replace("migrate", "migrat"), &codes::TASK_VALUE, "2:7"),
        (PAIR.replace("shop", "Shop!"), &codes::TASK_VALUE, "1:7"),
        (PAIR.replace("b.db", "a.db"), &codes::SAME_STORE, "4:9"),
        (PAIR.replace("b.db", "./a.db"), &codes::SAME_STORE, "4:9"),
        (PAIR.replace("sqlite:b.db", "oracle://h/d"), &codes::TASK_UNSUPPORTED, "4:9"),
        (PAIR.replace("sqlite:b.db", "sqlite://b.db"), &codes::TASK_VALUE, "4:9"),
        (postgres("url: postgres://u@h/d\nhost: x"), &codes::TASK_CONTRADICTION, "6:9"),
        (postgres("url: postgres://u:p@h/d\npassword: x"), &codes::TASK_CONTRADICTION, "6:13"),
        (postgres("url: postgres://u@h/d\npassword: x\npassword_command: [x]"), &codes::TASK_CONTRADICTION, "7:21"),
        (postgres("url: postgres://u@h/d?sslmode=require\ntls: {mode: prefer}"), &codes::TASK_CONTRADICTION, "6:"),
        (postgres("url: postgres://u@h/d?password=x\npassword_command: [x]"), &codes::TASK_CONTRADICTION, "5:"),
        (postgres("url: postgres://u@h/d?sslmode=much"), &codes::TASK_VALUE, "5:"),
        (postgres("url: postgres://h"), &codes::TASK_MISSING_KEY, "5:"),
        (postgres("url: postgres://u@h/d?service=none"), &codes::TASK_REFERENCE, "5:"),
        (postgres("url: sqlite:x.db\nuser: u"), &codes::TASK_CONTRADICTION, "6:"),
        (postgres("url: postgres://u@h/d\nexisting: append"), &codes::TASK_UNKNOWN_KEY, "6:3"),
        (postgres("url: postgres://u@h/d\nlog_budget: {size: 5}"), &codes::TASK_WRONG_TYPE, "6:22"),
        (format!("{}select: {{tables: [customer]}}", postgres("url: postgres://u@h/d")), &codes::TASK_VALUE, "6:19"),
        (PAIR.replace("mode: migrate", "mode: synchronize") + "phases: [load]", &codes::TASK_CONTRADICTION, "5:9"),
    ];
    for (text, code, place) in cases {
        let error = error(&text);
        assert!(error.is(code), "{text}\nexpected {code}, got {}", shown(&error));
        assert!(error.place().unwrap().starts_with(&format!("shop.yaml:{place}")), "{text}\n{}", shown(&error));
        assert!(error.remedy_text().is_some() && error.effect_text().is_some(), "{}", shown(&error));
    }
}

#[test]
fn all_mistakes_of_a_file_are_said_at_once() {
    let error = error("name: shop\nmoed: migrate\nsource: {url: 5, existing: x}\ntarget: sqlite:b.db\nlimits: {memory: 5}\n");
    let text = shown(&error);
    for part in ["did you mean `mode`", "`existing` is not a key of `source`", "without a unit", "`source.url` is a number"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(error.is(&codes::TASK_UNKNOWN_KEY) && !text.contains("lacks"), "{text}");
}

#[test]
fn the_line_is_shown_with_a_caret() {
    let error = error(&PAIR.replace("migrate", "migrat"));
    assert_eq!(error.detail_text(), Some("    2 | mode: migrat\n      |       ^^^^^^"));
    assert_eq!(error.remedy_text(), Some("did you mean `migrate`? it can be: migrate, synchronize"));
}

#[test]
fn bombs_and_depth_are_refused_quickly() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let previous = format!("*a{}, ", level - 1).repeat(10);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", previous.trim_end_matches(", ")));
    }
    assert!(error(&bomb).is(&codes::TASK_TOO_LARGE), "{}", shown(&error(&bomb)));
    for deep in ["[".repeat(100_000), "{a: ".repeat(50_000), "- ".repeat(100_000), "? ".repeat(50_000)] {
        let code = error(&deep).code();
        assert!([&codes::TASK_TOO_LARGE, &codes::TASK_SYNTAX].contains(&code), "{code}");
    }
    assert!(error(&format!("a: {}", "x, ".repeat(2 << 20))).is(&codes::TASK_TOO_LARGE));
}

#[test]
fn a_secret_is_never_shown() {
    let fake = Fake::default().with_variable("PW", "hunter2");
    let cases = [
        postgres("url: postgres://u:hunter2@h:x/d"),
        postgres("url: postgres://u:hunter2@h/d\nhost: x"),
        postgres("url: postgres://u:hunt/er2hunter2@h/d"),
        postgres("url: postgres://u@h/d\npassword: hunter2\nwrites: x"),
        postgres("url: postgres://u@h/d\npassword: hunter2\npassword_command: [x]"),
        postgres("url: postgres://u@h/d\npassword: [hunter2]"),
        postgres("url: postgres://u@h/d\npassword: {a: hunter2}"),
        postgres("url: postgres://u@h/d\npassword: 'hunter2"),
        postgres("url: postgres://u@h/d\npasword: hunter2"),
        postgres("url: postgres://u@h/d\npassword: hunter2\npassword: hunter2"),
        postgres("{url: postgres://u@h/d, password: hunter2, port: x}"),
        postgres("url: ${env:PW}"),
        postgres("url: postgres://u@h/d\nwrites: ${env:PW}"),
        postgres("url: postgres://u@h/d\nlog_budget: {size: '${env:PW}'}"),
        format!("{}schema: {{create: {{file: '${{env:PW}}'}}}}", PAIR).replace("file: '${env:PW}'", "file: x"),
        PAIR.replace("shop", "${env:PW}!"),
        PAIR.replace("sqlite:b.db", "${env:PW}://h/d"),
    ];
    for text in cases {
        let error = loaded_with(&text, &fake).expect_err(&text);
        let said = format!("{}\n{error:?}\n{:?}", shown(&error), error.effect_text());
        assert!(!said.contains("hunter2"), "{text}\n{said}");
    }
}

#[test]
fn no_program_is_run_for_a_file_that_is_refused() {
    struct Strict;
    impl Environment for Strict {
        fn variable(&self, _: &str) -> Option<String> {
            None
        }
        fn read(&self, _: &Path) -> io::Result<String> {
            Err(io::ErrorKind::NotFound.into())
        }
        fn is_file(&self, _: &Path) -> bool {
            false
        }
        fn is_open_to_others(&self, _: &Path) -> io::Result<bool> {
            Ok(false)
        }
        fn run(&self, _: &str, _: &[String]) -> io::Result<String> {
            panic!("must not be run")
        }
    }
    let text = postgres("url: postgres://u@h/d\npassword_command: [x]") + "phases: []\n";
    assert!(parse(&text, "t", Path::new("/"), &Strict).unwrap_err().is(&codes::TASK_VALUE));
}

/// Bad input is the user's mistake and gets a code of theirs.
fn never_internal(text: &str) {
    if let Err(error) = loaded_with(text, &Fake::default()) {
        assert!(!error.is(&codes::INTERNAL), "{text}\n{}", shown(&error));
        let _ = shown(&error);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        never_internal(&text);
    }

    #[test]
    fn text_of_yaml_and_keys_never_panics(parts in prop::collection::vec(prop::sample::select(vec![
        "name: ", "mode: ", "source: ", "target: ", "map: ", "select: ", "limits: ", "url: ", "password: ", "postgres://", "sqlite:", "@", ":", "/", "?",
        "%", "\n", "\n  ", "- ", "[", "]", "{", "}", "'", "\"", "|", ">", "&a ", "*a", "!!int ", "!x ", "~", "5", "1e999", ".nan", "-", "${env:", "}", "$${",
        "é", "\t", "#", "\u{0}", "\u{feff}", "\r", "---", "...", "<<: ", "? ", ",", "migrate", "columns: ", "from: ", "a.*", "\\",
    ]), 0..60)) {
        never_internal(&parts.concat());
        never_internal(&format!("{PAIR}{}", parts.concat()));
        never_internal(&postgres(&parts.concat()));
    }

    #[test]
    fn any_value_under_any_key_is_taken_or_refused(
        key in prop::sample::select(all_fields()),
        value in prop::sample::select(vec!["5", "0", "-1", "70000", "1.5", "1e400", ".nan", "true", "~", "''", "x", "[]", "[x]", "{}", "{x: y}", "[[x]]",
            "1GiB", "5min", "'${env:X}'", "all", "a.b", "!!binary aGk=", "!!str 5", "!!int x", "!!null x", "99999999999999999999999999999999999999999999"]),
    ) {
        let nested = key.split('.').rev().fold(value.to_owned(), |inner, step| match step {
            "map" => format!("{{map: [{inner}]}}"),
            step => format!("{{{step}: {inner}}}"),
        });
        never_internal(&nested);
        let inner = &nested[1..nested.len() - 1];
        if !["name", "mode", "source", "target"].contains(&key.split('.').next().unwrap()) {
            never_internal(&format!("{{name: a, mode: migrate, source: 'sqlite:a', target: 'sqlite:b', {inner}}}"));
        }
    }

    #[test]
    fn arbitrary_bytes_on_disk_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let _ = crate::load(file.path());
    }
}

// --- fingerprint and help -----------------------------------------------------------------------------------------

#[test]
fn the_fingerprint_changes_with_what_matters_only() {
    let base = fingerprint(&task(&postgres("url: postgres://u@h/d")));
    let same = fingerprint(&task(
        &(postgres("url: postgres://v:hunter2@H:5432/d?sslmode=require") + "limits: {memory: 1GiB}\nverify: {at: never}\n"),
    ));
    assert_eq!(base, same);
    let others = [
        "phases: [schema, load]",
        "select: {tables: [public.*]}",
        "select: {except: [public.*]}",
        "map: [{from: a.b, to: a.c}]",
        "map: [{from: a.b, columns: {a: b}}]",
        "schema: {create: tables}",
    ];
    for other in others {
        assert_ne!(base, fingerprint(&task(&(postgres("url: postgres://u@h/d") + other))), "{other}");
    }
    assert_ne!(base, fingerprint(&task(&postgres("url: postgres://u@h/e"))));
    assert!(!format!("{same:?}").contains("hunter2"));
    let odd = fingerprint(&task(&PAIR.replace("b.db", "b%0Amode.db")));
    assert!(odd.iter().all(|(_, value)| !value.contains('\n')), "{odd:?}");
}

#[test]
fn every_field_has_help() {
    let fields = all_fields();
    for needed in
        ["name", "target.existing", "source.tls.mode", "limits.connections.source", "map.columns", "schema.create.file", "verify.at"]
    {
        assert!(fields.iter().any(|field| field == needed), "{needed} in {fields:?}");
    }
    for field in &fields {
        let page = explain_field(field).expect(field);
        assert!(page.lines().count() > 3, "{page}");
    }
    let existing = explain_field("target.existing").unwrap();
    for part in ["refuse", "append", "truncate", "replace", "default: refuse", "Done once"] {
        assert!(existing.contains(part), "{existing}");
    }
    assert!(explain_field("limits.memory").unwrap().contains("default: 256MiB"));
    assert!(explain_field("map[0].columns.ssn").is_some());
    assert!(explain_field("target.exist").is_none() && explain_field("").is_none());
    assert_eq!(crate::nearest_field("existing").as_deref(), Some("target.existing"));
}

#[test]
fn the_schema_shows_what_exists_only() {
    let schema = json_schema();
    assert!(!schema.contains("\"null\"") && !schema.contains("park") && !schema.contains("\"rows\"") && !schema.contains("integrate"));
    assert!(schema.contains("\"x-form-version\": 1"));
}

#[test]
fn every_code_has_a_page_and_every_page_a_code() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
    let index = std::fs::read_to_string(folder.join("README.md")).unwrap();
    for code in codes::ALL {
        let page = crate::explain_code(&code.to_string()).unwrap_or_else(|| panic!("{code} has no page in `pages`"));
        assert!(page.starts_with(&format!("# {code}: {}\n", code.title)), "{code}: the page's title is not the code's");
        assert!(page.contains(&format!("Exit status {}", code.kind.exit_status())), "{code}: another exit status");
        for section in ["## Example\n\n```\n", "## What happened\n\n", "## What to do\n\n", "## What was changed\n\n"] {
            assert!(page.contains(section), "{code} lacks {section}");
        }
        assert!(page.contains(&format!("error {code}: ")), "{code}: the example is of another code");
        let row = format!("| [{code}]({code}.md) | {} | {} |", code.title, code.kind.exit_status());
        assert!(index.contains(&row), "{code} is not in the index");
    }
    let pages = std::fs::read_dir(&folder).unwrap().filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("GW"));
    assert_eq!(pages.count(), codes::ALL.len());
    assert!(crate::explain_code("gw1003").is_some() && crate::explain_code("1003").is_some());
    assert!(crate::explain_code("GW0000").is_none() && crate::explain_code("GW").is_none() && crate::explain_code("é").is_none());
}
