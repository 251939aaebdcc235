//! Names and values as SQL text.

use godwit_model::TableName;

pub(crate) fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A table's schema is its database.
pub(crate) fn table(name: &TableName) -> String {
    format!("{}.{}", identifier(&name.schema), identifier(&name.name))
}

/// A text of ours, of the catalog or of the task file. Sessions run with `NO_BACKSLASH_ESCAPES`: a quote is the only
/// character that means something.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

pub(crate) fn list<T: AsRef<str>>(parts: impl IntoIterator<Item = T>) -> String {
    let mut text = String::new();
    for part in parts {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(part.as_ref());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_quotes_stay_one_name() {
        assert_eq!(table(&TableName::new("a`b", "x.y")), "`a``b`.`x.y`");
        assert_eq!(literal("it's \\ a"), "'it''s \\ a'");
        assert_eq!(list(["a", "b"]), "a, b");
    }
}
