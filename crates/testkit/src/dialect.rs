//! Neutral tables and transactions as SQL text, for drivers that the testkit does not know.

use crate::neutral::{Kind, Neutral, NeutralRow, NeutralTable, NeutralTransaction, Operation};

/// How an engine writes what is not the same everywhere.
#[derive(Clone, Debug)]
pub struct Dialect {
    schema: String,
    int: &'static str,
    begin: &'static str,
    /// Compares so that NULL equals NULL.
    same: &'static str,
    /// Names one physical row; empty: a statement can be told to change only one.
    row: &'static str,
    /// Text of a column that is found by its values, and of any other.
    texts: [&'static str; 2],
    /// Whether tables say how they store large values and what they log of old rows.
    storage: bool,
}

impl Dialect {
    pub fn postgres(schema: &str) -> Self {
        Dialect {
            schema: schema.to_owned(),
            int: "bigint",
            begin: "BEGIN",
            same: "IS NOT DISTINCT FROM",
            row: "ctid",
            texts: ["text"; 2],
            storage: true,
        }
    }

    pub fn sqlite() -> Self {
        Dialect {
            schema: "main".to_owned(),
            int: "INTEGER",
            begin: "BEGIN IMMEDIATE",
            same: "IS",
            row: "rowid",
            texts: ["text"; 2],
            storage: false,
        }
    }

    /// For sessions with the mode `ANSI_QUOTES`.
    pub fn mysql(schema: &str, collation: &str) -> Self {
        let texts = match collation {
            "utf8mb4_nopad_bin" => {
                ["varchar(700) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin", "longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin"]
            }
            _ => ["varchar(700) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin", "longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin"],
        };
        Dialect { schema: schema.to_owned(), int: "bigint", begin: "START TRANSACTION", same: "<=>", row: "", texts, storage: false }
    }

    /// What a number is cast to, to be a 64-bit integer.
    pub fn int_cast(&self) -> &'static str {
        if self.row.is_empty() { "SIGNED" } else { self.int }
    }

    /// The type of a text that may be large.
    pub fn long_text(&self) -> &'static str {
        self.texts[1]
    }

    /// The table's name, quoted.
    pub fn name(&self, table: &str) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(table))
    }

    /// Statements that make the table. PostgreSQL: large columns uncompressed and out of line, full old images without a key.
    pub fn create(&self, table: &NeutralTable) -> Vec<String> {
        let column = |index: usize| {
            let column = &table.columns[index];
            let is_found = table.key.contains(&index) || table.unique.contains(&index);
            let kind = if column.kind == Kind::Int { self.int } else { self.texts[usize::from(!is_found)] };
            let null = if table.key.contains(&index) { " NOT NULL" } else { "" };
            format!("{} {kind}{null}", quoted(&column.name))
        };
        let mut parts: Vec<String> = (0..table.columns.len()).map(column).collect();
        if table.has_key() {
            parts.push(format!("PRIMARY KEY ({})", names(table, &table.key)));
        }
        if !table.unique.is_empty() {
            parts.push(format!("UNIQUE ({})", names(table, &table.unique)));
        }
        let name = self.name(&table.name);
        let mut statements = vec![format!("CREATE TABLE {name} ({})", parts.join(", "))];
        if self.storage {
            let large = table.columns.iter().filter(|column| column.kind == Kind::LargeText);
            statements.extend(large.map(|column| format!("ALTER TABLE {name} ALTER COLUMN {} SET STORAGE EXTERNAL", quoted(&column.name))));
            if !table.has_key() {
                statements.push(format!("ALTER TABLE {name} REPLICA IDENTITY FULL"));
            }
        }
        statements
    }

    /// The statements of one transaction, its begin and end among them. Each update and delete must touch one row.
    pub fn transaction(&self, tables: &[NeutralTable], transaction: &NeutralTransaction) -> Vec<String> {
        let mut statements = vec![self.begin.to_owned()];
        let mut depth = 0_usize;
        for operation in &transaction.operations {
            match operation {
                Operation::Savepoint => {
                    depth += 1;
                    statements.push(format!("SAVEPOINT s{depth}"));
                }
                Operation::RollBackToSavepoint => {
                    statements.push(format!("ROLLBACK TO SAVEPOINT s{depth}"));
                    statements.push(format!("RELEASE SAVEPOINT s{depth}"));
                    depth -= 1;
                }
                Operation::ReleaseSavepoint => {
                    statements.push(format!("RELEASE SAVEPOINT s{depth}"));
                    depth -= 1;
                }
                Operation::Insert { table, row } => {
                    let values: Vec<String> = row.iter().map(literal).collect();
                    statements.push(format!("INSERT INTO {} VALUES ({})", self.name(table), values.join(", ")));
                }
                Operation::Update { table, find, set } => {
                    let known = known(tables, table);
                    let set = set.iter().map(|(index, value)| format!("{} = {}", quoted(&known.columns[*index].name), literal(value)));
                    let set: Vec<String> = set.collect();
                    statements.push(format!("UPDATE {} SET {} WHERE {}", self.name(table), set.join(", "), self.one_row(known, find)));
                }
                Operation::Delete { table, find } => {
                    statements.push(format!("DELETE FROM {} WHERE {}", self.name(table), self.one_row(known(tables, table), find)));
                }
            }
        }
        statements.push(if transaction.commit { "COMMIT" } else { "ROLLBACK" }.to_owned());
        statements
    }

    /// All rows; columns in the table's order.
    pub fn select(&self, table: &NeutralTable) -> String {
        let all: Vec<usize> = (0..table.columns.len()).collect();
        format!("SELECT {} FROM {}", names(table, &all), self.name(&table.name))
    }

    fn one_row(&self, table: &NeutralTable, find: &NeutralRow) -> String {
        let columns: Vec<usize> = if table.has_key() { table.key.clone() } else { (0..table.columns.len()).collect() };
        let equal = columns.iter().zip(find).map(|(index, value)| {
            let same = if table.has_key() { "=" } else { self.same };
            format!("{} {same} {}", quoted(&table.columns[*index].name), literal(value))
        });
        let equal = equal.collect::<Vec<_>>().join(" AND ");
        match table.has_key() {
            true => equal,
            false if self.row.is_empty() => format!("{equal} LIMIT 1"),
            false => format!("{row} = (SELECT {row} FROM {} WHERE {equal} LIMIT 1)", self.name(&table.name), row = self.row),
        }
    }
}

fn known<'a>(tables: &'a [NeutralTable], name: &str) -> &'a NeutralTable {
    tables.iter().find(|table| table.name == name).expect("operations name known tables")
}

fn names(table: &NeutralTable, columns: &[usize]) -> String {
    columns.iter().map(|index| quoted(&table.columns[*index].name)).collect::<Vec<_>>().join(", ")
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(value: &Neutral) -> String {
    match value {
        Neutral::Null => "NULL".to_owned(),
        Neutral::Int(number) => number.to_string(),
        Neutral::Text(text) => format!("'{}'", text.replace('\'', "''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_names_are_quoted_and_savepoints_nest() {
        let table = NeutralTable::new("a\"b", &[("x y", Kind::Text), ("n", Kind::Int)], &[]);
        let row = vec![Neutral::text("it's"), Neutral::Null];
        let operations = vec![
            Operation::Savepoint,
            Operation::Insert { table: "a\"b".into(), row: row.clone() },
            Operation::Savepoint,
            Operation::RollBackToSavepoint,
            Operation::ReleaseSavepoint,
            Operation::Delete { table: "a\"b".into(), find: row },
        ];
        let sql = Dialect::postgres("s").transaction(&[table], &NeutralTransaction::commit(operations));
        let find = "\"x y\" IS NOT DISTINCT FROM 'it''s' AND \"n\" IS NOT DISTINCT FROM NULL";
        let delete = format!("DELETE FROM \"s\".\"a\"\"b\" WHERE ctid = (SELECT ctid FROM \"s\".\"a\"\"b\" WHERE {find} LIMIT 1)");
        let expected = [
            "BEGIN",
            "SAVEPOINT s1",
            "INSERT INTO \"s\".\"a\"\"b\" VALUES ('it''s', NULL)",
            "SAVEPOINT s2",
            "ROLLBACK TO SAVEPOINT s2",
            "RELEASE SAVEPOINT s2",
            "RELEASE SAVEPOINT s1",
            &delete,
            "COMMIT",
        ];
        assert_eq!(sql, expected);
    }
}
