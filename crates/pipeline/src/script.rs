//! Schema steps as a file that a person may edit: written by `plan --sql`, read back by `schema.create: {file: ...}`.
//!
//! Each step begins with a line of its own that says when it runs, on which table it builds and what it is called; all
//! up to the next such line is its SQL. A file without such lines is the target's to cut.

use godwit_model::{SchemaItem, Stage, TableName};
use serde_json::{Value as Json, json};

const MARK: &str = "-- godwit step ";
const STAGES: [(Stage, &str); 5] = [
    (Stage::BeforeLoad, "before load"),
    (Stage::Key, "with last row"),
    (Stage::Index, "with last row, index"),
    (Stage::AfterLoad, "after load"),
    (Stage::AtFinish, "at finish"),
];

/// Steps in the order in which they run.
pub fn write(items: &[SchemaItem]) -> String {
    let mut text = String::new();
    for (stage, when) in STAGES {
        for item in items.iter().filter(|item| item.stage == stage) {
            let table = item.table.as_ref().map(|table| json!([table.schema, table.name]));
            text.push_str(&format!("{MARK}{}\n", json!({"run": when, "table": table, "id": item.id})));
            for statement in &item.sql {
                let statement = statement.trim_end();
                text.push_str(statement);
                // a comment at the end would hide it
                text.push_str(if statement.ends_with(';') { "\n" } else { "\n;\n" });
            }
            text.push('\n');
        }
    }
    text
}

/// None where no step is marked. What stands before the first mark runs before the load.
pub(crate) fn read(text: &str) -> Option<Vec<SchemaItem>> {
    let mut items: Vec<SchemaItem> = Vec::new();
    let mut before = String::new();
    for line in text.split_inclusive('\n') {
        match (mark(line), items.last_mut()) {
            (Some(item), _) => items.push(item),
            (None, Some(item)) => item.sql[0].push_str(line),
            (None, None) => before.push_str(line),
        }
    }
    if items.is_empty() {
        return None;
    }
    if before.lines().any(|line| !line.trim().is_empty() && !line.starts_with("--")) {
        let id = "FILE before the first step".to_owned();
        items.insert(0, SchemaItem { id, stage: Stage::BeforeLoad, table: None, sql: vec![before] });
    }
    Some(items)
}

fn mark(line: &str) -> Option<SchemaItem> {
    let facts: Json = serde_json::from_str(line.strip_prefix(MARK)?).ok()?;
    let (stage, _) = STAGES.into_iter().find(|(_, when)| facts["run"] == *when)?;
    let table = match facts["table"].as_array().map(Vec::as_slice) {
        Some([schema, name]) => Some(TableName::new(schema.as_str()?, name.as_str()?)),
        _ => None,
    };
    // what waits for a table's last row says which table
    let waits = matches!(stage, Stage::Key | Stage::Index);
    let stage = if waits && table.is_none() { Stage::AfterLoad } else { stage };
    Some(SchemaItem { id: facts["id"].as_str()?.to_owned(), stage, table, sql: vec![String::new()] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let item = |id: &str, stage, table: Option<&str>, sql: &[&str]| SchemaItem {
            id: id.to_owned(),
            stage,
            table: table.map(|table| TableName::new("a.b", table)),
            sql: sql.iter().map(|sql| (*sql).to_owned()).collect(),
        };
        let items = [
            item("INDEX \"odd\n\" name", Stage::Index, Some("t"), &["CREATE INDEX i ON t (a)"]),
            item("UNIQUE t u", Stage::AfterLoad, Some("t"), &["ALTER TABLE t ADD CONSTRAINT u UNIQUE (b)"]),
            item("KEY t", Stage::Key, Some("t"), &["ALTER TABLE t ADD PRIMARY KEY (a)"]),
            item("TABLE t", Stage::BeforeLoad, Some("t"), &["CREATE TABLE t (a int) -- why", "COMMENT ON t IS ';';"]),
            item("TRIGGER x", Stage::AtFinish, None, &["CREATE TRIGGER x;"]),
        ];
        let read = read(&write(&items)).unwrap();
        let order: Vec<(&str, Stage, Option<&TableName>)> =
            read.iter().map(|item| (item.id.as_str(), item.stage, item.table.as_ref())).collect();
        let expected: Vec<_> = [3, 2, 0, 1, 4].map(|at: usize| (items[at].id.as_str(), items[at].stage, items[at].table.as_ref())).into();
        assert_eq!(order, expected);
        assert_eq!(read[0].sql[0].trim(), "CREATE TABLE t (a int) -- why\n;\nCOMMENT ON t IS ';';");
        assert_eq!(super::read("CREATE TABLE t ();\n"), None);
    }

    #[test]
    fn a_key_of_no_table_waits_for_all_rows() {
        let items = read(&write(&[SchemaItem { id: "KEY".to_owned(), stage: Stage::Key, table: None, sql: Vec::new() }])).unwrap();
        assert_eq!((items.len(), items[0].stage), (1, Stage::AfterLoad));
    }

    #[test]
    fn what_a_person_puts_first_runs_first() {
        let text = format!("CREATE SCHEMA s;\n{}", write(&[]));
        assert_eq!(read(&text), None);
        let marked = "CREATE SCHEMA s;\n-- godwit step {\"run\":\"at finish\",\"table\":null,\"id\":\"X\"}\nSELECT 1;\n";
        let items = read(marked).unwrap();
        assert_eq!((items.len(), items[0].stage, items[1].stage), (2, Stage::BeforeLoad, Stage::AtFinish));
    }
}
