//! Which columns identify a row, and whether the equality of their text is the store's own.

use godwit_model::Key;

/// A unique index of a table, as the catalog states it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UniqueIndex {
    pub(crate) oid: u32,
    pub(crate) name: String,
    pub(crate) primary: bool,
    pub(crate) replica_identity: bool,
    pub(crate) immediate: bool,
    pub(crate) valid: bool,
    /// Without a predicate.
    pub(crate) whole: bool,
    /// Indices into the table's columns; None where an expression stands in the index.
    pub(crate) columns: Option<Vec<usize>>,
    /// The constraint it carries, if any.
    pub(crate) constraint: Option<String>,
    /// The constraint's in the server's words; else the index's, from `USING` on.
    pub(crate) definition: String,
    /// Storage parameters, which a constraint's definition leaves out.
    pub(crate) options: Option<String>,
}

impl UniqueIndex {
    /// Whether it can identify a row at every moment of the log. `unfit` are columns that may be NULL or are computed.
    fn identifies(&self, unfit: &[bool]) -> bool {
        let columns_fit = self.columns.as_ref().is_some_and(|columns| !columns.is_empty() && columns.iter().all(|index| !unfit[*index]));
        self.immediate && self.valid && self.whole && columns_fit
    }
}

/// The primary key, else the replica identity's index, else the narrowest index that fits (by name among equals, so
/// that the choice is stable).
pub(crate) fn choose<'a>(indexes: &'a [UniqueIndex], unfit: &[bool]) -> Option<&'a UniqueIndex> {
    let usable = indexes.iter().filter(|index| index.identifies(unfit));
    usable.min_by_key(|index| {
        let width = index.columns.as_ref().map_or(usize::MAX, Vec::len);
        (!index.primary, !index.replica_identity, width, index.name.clone())
    })
}

pub(crate) fn key_of(index: &UniqueIndex) -> Key {
    Key { columns: index.columns.clone().unwrap_or_default() }
}

/// What decides whether the text of a type's values is as fine and as coarse as its equality.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TypeFacts<'a> {
    /// Of the base type, domains resolved.
    pub(crate) schema: &'a str,
    pub(crate) name: &'a str,
    pub(crate) is_enum: bool,
    pub(crate) modifier: i32,
    pub(crate) deterministic: bool,
}

const EXACT: &[&str] = &[
    "int2",
    "int4",
    "int8",
    "oid",
    "bool",
    "uuid",
    "bytea",
    "date",
    "time",
    "timestamp",
    "timestamptz",
    "name",
    "char",
    "text",
    "varchar",
    "macaddr",
    "macaddr8",
    "pg_lsn",
    "xid8",
];

pub(crate) fn is_exact(facts: &TypeFacts<'_>) -> bool {
    if facts.is_enum {
        return true;
    }
    // Without a length, char compares values that its text tells apart.
    let padded = facts.name == "bpchar" && facts.modifier > 0;
    facts.schema == "pg_catalog" && facts.deterministic && (padded || EXACT.contains(&facts.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(name: &str, columns: &[usize]) -> UniqueIndex {
        UniqueIndex {
            oid: 1,
            name: name.into(),
            primary: false,
            replica_identity: false,
            immediate: true,
            valid: true,
            whole: true,
            columns: Some(columns.to_vec()),
            constraint: None,
            definition: String::new(),
            options: None,
        }
    }

    #[test]
    fn a_deferrable_primary_key_identifies_nothing() {
        let deferrable = UniqueIndex { primary: true, immediate: false, ..index("pkey", &[0]) };
        let other = index("other", &[1]);
        assert_eq!(choose(&[deferrable, other.clone()], &[false, false]), Some(&other));
    }

    #[test]
    fn a_column_that_may_be_null_identifies_nothing() {
        assert_eq!(choose(&[index("a", &[0])], &[true]), None);
    }

    #[test]
    fn the_primary_key_comes_first_then_the_replica_identity() {
        let primary = UniqueIndex { primary: true, ..index("z", &[0, 1]) };
        let identity = UniqueIndex { replica_identity: true, ..index("y", &[0, 1]) };
        let narrow = index("a", &[0]);
        assert_eq!(choose(&[narrow.clone(), identity.clone(), primary.clone()], &[false, false]), Some(&primary));
        assert_eq!(choose(&[narrow, identity.clone()], &[false, false]), Some(&identity));
    }

    #[test]
    fn numbers_with_a_scale_are_not_exact() {
        let facts = |name, modifier| TypeFacts { schema: "pg_catalog", name, is_enum: false, modifier, deterministic: true };
        assert!(!is_exact(&facts("numeric", -1)));
        assert!(!is_exact(&facts("float8", -1)));
        assert!(!is_exact(&facts("bpchar", -1)));
        assert!(is_exact(&facts("bpchar", 9)));
        assert!(!is_exact(&TypeFacts { deterministic: false, ..facts("text", -1) }));
        assert!(!is_exact(&TypeFacts { schema: "public", ..facts("citext", -1) }));
    }
}
