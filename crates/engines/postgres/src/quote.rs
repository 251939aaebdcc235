//! Names and texts as they stand in SQL.

use godwit_model::TableName;

/// A name in quotes, always: what the catalog says is then what the server reads, whatever its case or spelling.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text constant that means the same whatever `standard_conforming_strings` is.
pub(crate) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

pub(crate) fn table(name: &TableName) -> String {
    format!("{}.{}", identifier(&name.schema), identifier(&name.name))
}

/// The name that a server wrote: in quotes where it must be.
pub(crate) fn unquoted(name: &str) -> String {
    match name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => name.to_owned(),
    }
}

/// The name with its schema that a statement of the server's goes on with.
pub(crate) fn leading_table(sql: &str) -> Option<TableName> {
    let mut quoted = false;
    let mut outside = sql.char_indices().filter(|(_, letter)| {
        quoted ^= *letter == '"';
        !quoted
    });
    let (dot, _) = outside.find(|(_, letter)| *letter == '.')?;
    let end = outside.find(|(_, letter)| letter.is_whitespace()).map_or(sql.len(), |(at, _)| at);
    Some(TableName::new(unquoted(&sql[..dot]), unquoted(&sql[dot + 1..end])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_wrote_is_read_back() {
        let expected = |schema: &str, name: &str| Some(TableName::new(schema, name));
        assert_eq!(leading_table("public.item ALTER COLUMN id ADD"), expected("public", "item"));
        assert_eq!(leading_table("\"Order . s\".\"a \"\" ALTER COLUMN .b\"\nALTER"), expected("Order . s", "a \" ALTER COLUMN .b"));
        assert_eq!(leading_table("public.\"Größe\""), expected("public", "Größe"));
        assert_eq!(leading_table("item ALTER"), None);
    }

    #[test]
    fn quotes_inside_are_doubled() {
        assert_eq!(table(&TableName::new("Order", "\"x\"\"y\"")), "\"Order\".\"\"\"x\"\"\"\"y\"\"\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'b"), " E'a\\\\''b'");
    }
}
