//! Rows asked for by their keys: the keys as a table of literals, for statements whose answer must be text.
//!
//! The driver's prepared statements answer in the binary form; the simple protocol answers in the text form that every
//! value travels in, and takes no parameters.

use godwit_model::{Error, Result, RowBatch};

use crate::{quote, values};

/// Keys travel as arrays of text and become the column's type one by one, without its modifier.
pub(crate) fn as_table(keys: &RowBatch) -> Result<String> {
    let mut arrays = Vec::new();
    for column in 0..keys.stride() {
        let literal = values::array_literal(keys.rows().map(|row| &row[column]))?;
        let literal = std::str::from_utf8(&literal).map_err(|_| Error::internal("a key's text is not UTF-8"))?.to_owned();
        arrays.push(format!("{}::text[]", quote::literal(&literal)));
    }
    let names: Vec<String> = (0..keys.stride()).map(|column| format!("v{column}")).collect();
    Ok(format!("ROWS FROM (unnest({})) WITH ORDINALITY AS d({}, place)", arrays.join(", "), names.join(", ")))
}

/// Names and types of the key's columns, of the table `t`.
pub(crate) fn same_key(key: &[(String, String)]) -> String {
    let equal = key
        .iter()
        .enumerate()
        .map(|(place, (name, type_name))| format!("t.{} = d.v{place}::{}", quote::identifier(name), untruncated(type_name)));
    equal.collect::<Vec<_>>().join(" AND ")
}

/// A cast to a type with a length cuts in silence: without it the comparison is exact.
fn untruncated(type_name: &str) -> String {
    if type_name.ends_with(']') {
        return type_name.to_owned();
    }
    let base = type_name.split_once('(').map_or(type_name, |(base, _)| base).trim_end();
    match base {
        "character" => "pg_catalog.bpchar".to_owned(),
        "bit" => "pg_catalog.varbit".to_owned(),
        _ if type_name.starts_with("character varying") => "pg_catalog.varchar".to_owned(),
        _ => type_name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_never_cuts_a_key() {
        assert_eq!(untruncated("character(3)"), "pg_catalog.bpchar");
        assert_eq!(untruncated("character varying(3)"), "pg_catalog.varchar");
        assert_eq!(untruncated("public.mood"), "public.mood");
    }
}
