//! Whether a table of the target holds every value of the source's as it is.
//!
//! Values are written by the source's types, and a server makes the best of what does not fit, often without a word: members
//! of an ENUM or a SET go by their numbers, FLOAT rounds, CHAR drops spaces at the end, BINARY adds zeros, DATETIME forgets a
//! time zone, and a coarser collation of a key makes one row of two. So a column has the source's type, or one of few that
//! are known to keep every value:
//!
//! - a longer INT of the same sign, or a longer signed one for an unsigned one; a DECIMAL of the same scale and more digits
//! - CHAR, VARCHAR, VARBINARY of a greater length; a longer TEXT for a TEXT, a longer BLOB for a BLOB
//! - utf8mb4 for utf8mb3 and ascii, whose bytes it has; other collations, but of a key only those that tell as much apart
//! - an ENUM or SET with more members behind the source's
//!
//! And its engine is InnoDB: what others wrote cannot be taken back.

use std::collections::HashMap;

use godwit_model::{Existing, Finding, Result, TableMapping, TableName, TargetNeeds, codes};
use mysql_async::Conn;

use crate::catalog::{self, CatalogTable};
use crate::connect::Server;
use crate::types::{Declared, Kind};

pub(crate) const REMEDY: &str = "give it the source column's type; docs/engines/mysql.md says which others hold every value of it";
pub(crate) const ENGINE_REMEDY: &str = "ALTER TABLE ... ENGINE = InnoDB";

/// What is wrong with a column of the mapping, which has this type at the target.
pub(crate) fn misfit(mapping: &TableMapping, column: usize, target: &str) -> Option<String> {
    let wanted = &mapping.columns[column];
    let holds = holds(target, &wanted.type_name, mapping.key.contains(&column));
    (!holds).then(|| format!("column `{}` should be {} and is {target}", wanted.target, wanted.type_name))
}

/// What is wrong with a table's engine; views have none.
pub(crate) fn wrong_engine(engine: Option<&str>) -> Option<String> {
    let engine = engine.filter(|engine| !engine.is_empty()).unwrap_or("none, as of a view");
    (!engine.eq_ignore_ascii_case("InnoDB")).then(|| format!("its engine is {engine}: what was written there cannot be taken back"))
}

/// Tables that are there already, for `check`.
pub(crate) async fn findings(conn: &mut Conn, server: &Server, needs: &TargetNeeds<'_>) -> Result<Vec<Finding>> {
    if needs.task.existing == Existing::Replace {
        return Ok(Vec::new());
    }
    let names: Vec<TableName> = needs.mappings.iter().map(|mapping| mapping.target.clone()).collect();
    let tables = catalog::read(conn, server, &names).await?;
    let tables: HashMap<&TableName, &CatalogTable> = tables.iter().map(|table| (&table.table.name, table)).collect();
    let there = needs.mappings.iter().filter_map(|mapping| Some((mapping, tables.get(&mapping.target)?)));
    Ok(there.flat_map(|(mapping, table)| of_table(mapping, table)).collect())
}

fn of_table(mapping: &TableMapping, there: &CatalogTable) -> Vec<Finding> {
    let finding = |check, what: String, remedy: &str| {
        Finding::blocker(check, &codes::SCHEMA_MISMATCH, format!("table {} at the target: {what}", mapping.target), remedy)
    };
    let engine = wrong_engine(Some(&there.engine)).map(|what| finding("engine", what, ENGINE_REMEDY));
    let column = |(index, wanted): (usize, &godwit_model::ColumnMapping)| match there.table.column(&wanted.target) {
        Some(at) => misfit(mapping, index, &there.table.columns[at].type_name).map(|what| finding("columns", what, REMEDY)),
        None => {
            Some(finding("columns", format!("column `{}` is not there", wanted.target), "give the target table the source table's columns"))
        }
    };
    engine.into_iter().chain(mapping.columns.iter().enumerate().filter_map(column)).collect()
}

/// Types as `Column::type_name` has them.
fn holds(target: &str, source: &str, in_key: bool) -> bool {
    if target == source {
        return true;
    }
    let (Ok(to), Ok(from)) = (Kind::parse(target), Kind::parse(source)) else { return false };
    let (wide, narrow) = (Declared::of(target), Declared::of(source));
    let keeps_sign = !wide.unsigned || narrow.unsigned;
    match (&to, &from) {
        (Kind::Int { bytes: wide, unsigned: to }, Kind::Int { bytes: narrow, unsigned: from }) => match to == from {
            true => wide >= narrow,
            false => *from && wide > narrow,
        },
        (Kind::Decimal { precision: wide, scale: to }, Kind::Decimal { precision: narrow, scale: from }) => {
            to == from && wide >= narrow && keeps_sign
        }
        (Kind::Float, Kind::Float) | (Kind::Double, Kind::Double) => wide.numbers == narrow.numbers && keeps_sign,
        (Kind::Text { charset: to, collation: coarse, fixed }, Kind::Text { charset: from, collation: fine, .. }) => {
            has_room(&wide, &narrow) && has_its_bytes(to, from) && (!in_key || tells_apart(coarse, fine, *fixed))
        }
        (Kind::Bytes { fixed: 0 }, Kind::Bytes { fixed: 0 }) => has_room(&wide, &narrow),
        (Kind::Enum { members: to, .. }, Kind::Enum { members: from, .. })
        | (Kind::Set { members: to, .. }, Kind::Set { members: from, .. }) => to.starts_with(from),
        (Kind::Geometry, Kind::Geometry) => wide.name == narrow.name,
        _ => to == from,
    }
}

/// Whether a text is the same bytes in both character sets: rows are compared by them.
fn has_its_bytes(target: &str, source: &str) -> bool {
    target == source || (target == "utf8mb4" && matches!(source, "utf8mb3" | "utf8" | "ascii"))
}

fn has_room(wide: &Declared, narrow: &Declared) -> bool {
    const TEXTS: [&str; 4] = ["tinytext", "text", "mediumtext", "longtext"];
    const BLOBS: [&str; 4] = ["tinyblob", "blob", "mediumblob", "longblob"];
    let place = |names: [&str; 4], declared: &Declared| names.iter().position(|name| *name == declared.name);
    for names in [TEXTS, BLOBS] {
        if let (Some(wide), Some(narrow)) = (place(names, wide), place(names, narrow)) {
            return wide >= narrow;
        }
    }
    let length = |declared: &Declared| declared.numbers.first().copied().unwrap_or(1);
    match (wide.name.as_str(), narrow.name.as_str()) {
        ("char", "char") | ("varchar", "varchar") | ("varbinary", "varbinary") => length(wide) >= length(narrow),
        ("vector", "vector") => length(wide) == length(narrow),
        _ => false,
    }
}

/// Whether a collation takes no two values for the same that another tells apart. Binary ones tell all apart, but for
/// spaces at the end where they pad; CHAR has none there.
fn tells_apart(target: &str, source: &str, fixed: bool) -> bool {
    let is_binary = target.ends_with("_bin");
    let pads = |collation: &str| !collation.contains("_nopad_") && !collation.contains("_0900_");
    let of_utf8 = source.strip_prefix("utf8mb3_").or_else(|| source.strip_prefix("utf8_"));
    target == source
        || (is_binary && (fixed || !pads(target) || pads(source)))
        || of_utf8.is_some_and(|name| target.strip_prefix("utf8mb4_") == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIN: &str = " CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin";
    const CI: &str = " CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci";
    const LATIN: &str = " CHARACTER SET latin1 COLLATE latin1_swedish_ci";

    fn text(declared: &str, charset: &str) -> String {
        format!("{declared}{charset}")
    }

    #[test]
    fn what_keeps_every_value_is_taken() {
        for (target, source) in [
            ("int(10)", "int(11)"),
            ("bigint(20)", "int(11)"),
            ("bigint(20)", "int(10) unsigned"),
            ("bigint(20) unsigned", "int(10) unsigned zerofill"),
            ("decimal(12,2)", "decimal(10,2) unsigned"),
            ("varbinary(20)", "varbinary(10)"),
            ("longblob", "blob"),
            ("double", "double"),
            ("enum('a','b','c')", "enum('a','b')"),
            ("set('a','b','c')", "set('a','b')"),
        ] {
            assert!(holds(target, source, true), "{target} for {source}");
        }
        assert!(!holds(&text("varchar(20)", CI), &text("varchar(10)", LATIN), false), "rows are compared by bytes");
        assert!(holds(&text("varchar(20)", CI), "varchar(10) CHARACTER SET ascii COLLATE ascii_bin", false));
        assert!(holds(&text("longtext", BIN), &text("text", CI), true));
        assert!(holds(&text("char(5)", CI), &text("char(4)", CI), true));
        assert!(holds(&text("enum('x','y')", CI), &text("enum('x')", LATIN), true), "numbers know no collation");
    }

    #[test]
    fn what_may_change_a_value_is_not() {
        for (target, source) in [
            ("int(11)", "bigint(20)"),
            ("int(10) unsigned", "int(11)"),
            ("int(11)", "int(10) unsigned"),
            ("decimal(12,3)", "decimal(10,2)"),
            ("decimal(10,2) unsigned", "decimal(10,2)"),
            ("float", "double"),
            ("float(7,2)", "float"),
            ("double unsigned", "double"),
            ("binary(20)", "binary(10)"),
            ("binary(10)", "varbinary(10)"),
            ("varbinary(9)", "varbinary(10)"),
            ("blob", "longblob"),
            ("blob", "vector(3)"),
            ("datetime", "timestamp"),
            ("datetime(3)", "datetime(6)"),
            ("enum('b','a')", "enum('a','b')"),
            ("enum('a')", "enum('a','b')"),
            ("set('a')", "enum('a')"),
            ("bit(4)", "bit(8)"),
            ("hologram", "int(11)"),
        ] {
            assert!(!holds(target, source, false), "{target} for {source}");
        }
        assert!(!holds(&text("char(10)", CI), &text("varchar(10)", CI), false));
        assert!(!holds(&text("varchar(10)", LATIN), &text("varchar(10)", CI), false));
        assert!(!holds(&text("tinytext", CI), &text("text", CI), false));
    }

    #[test]
    fn a_key_is_compared_as_finely() {
        let apart = |target, source| tells_apart(target, source, false);
        assert!(apart("utf8mb4_general_ci", "utf8mb3_general_ci") && apart("utf8mb4_unicode_ci", "utf8_unicode_ci"));
        assert!(apart("utf8mb4_nopad_bin", "latin1_nopad_bin") && apart("utf8mb4_bin", "latin1_swedish_ci"));
        assert!(!apart("utf8mb4_general_ci", "utf8mb4_bin") && !apart("utf8mb4_unicode_ci", "utf8mb3_general_ci"));
        assert!(!apart("utf8mb4_bin", "utf8mb4_nopad_bin") && !apart("utf8mb4_bin", "utf8mb4_general_nopad_ci"));
        assert!(tells_apart("utf8mb4_bin", "utf8mb4_nopad_bin", true));
        assert!(!holds(&text("varchar(10)", CI), &text("varchar(10)", BIN), true));
        assert!(holds(&text("varchar(10)", CI), &text("varchar(10)", BIN), false));
    }

    #[test]
    fn only_innodb_takes_back_what_was_written() {
        assert_eq!(wrong_engine(Some("InnoDB")), None);
        assert!(wrong_engine(Some("Aria")).is_some() && wrong_engine(None).is_some());
    }
}
