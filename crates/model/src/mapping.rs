//! How a source table becomes a target table, and the rules that say so.

use std::collections::HashMap;

use crate::codes;
use crate::error::{Error, Result};
use crate::name::{TableName, glob_captures, glob_fill};
use crate::schema::Table;
use crate::task::{ColumnRule, MapRule};

#[derive(Clone, Debug, PartialEq)]
pub struct TableMapping {
    pub source: TableName,
    pub target: TableName,
    /// What arrives, in the source table's order. Generated columns and those left out are not here.
    pub columns: Vec<ColumnMapping>,
    /// Indices into `columns` that make the target's key, in the key's order; empty without a key.
    pub key: Vec<usize>,
    /// See `Table::key_is_exact`.
    pub key_is_exact: bool,
    /// Whether the target table has unique constraints besides the key.
    pub has_uniques: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ColumnMapping {
    pub source: String,
    pub target: String,
    /// The column's type at the target, as its engine writes it.
    pub type_name: String,
}

impl TableMapping {
    /// Applies the rules to one table: the last rule that matches and names a target decides the name, a later rule for
    /// a column wins over an earlier one.
    pub fn resolve(rules: &[MapRule], table: &Table) -> Result<Self> {
        let mut target = table.name.clone();
        let mut columns: HashMap<&str, &ColumnRule> = HashMap::new();
        for rule in rules {
            let Some(captures) = captures(&rule.from, &table.name) else { continue };
            if let Some(to) = &rule.to {
                target = TableName::new(glob_fill(&to.schema, &captures.0), glob_fill(&to.name, &captures.1));
            }
            for (column, what) in &rule.columns {
                if table.column(column).is_none() {
                    let known = table.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
                    return Err(Error::new(&codes::COLUMN_UNKNOWN, format!("table {} has no column `{column}`", table.name))
                        .at(format!("map of {}", rule.from))
                        .remedy(format!("name one of: {known}")));
                }
                columns.insert(column, what);
            }
        }
        Self::with_columns(table, target, &columns)
    }

    fn with_columns(table: &Table, target: TableName, rules: &HashMap<&str, &ColumnRule>) -> Result<Self> {
        let mut mapped = Vec::new();
        let mut place_of = vec![None; table.columns.len()];
        for (index, column) in table.columns.iter().enumerate().filter(|(_, column)| !column.generated) {
            let target = match rules.get(column.name.as_str()) {
                Some(ColumnRule::LeaveOut) => continue,
                Some(ColumnRule::Rename(name)) => name.clone(),
                None => column.name.clone(),
            };
            place_of[index] = Some(mapped.len());
            mapped.push(ColumnMapping { source: column.name.clone(), target, type_name: column.type_name.clone() });
        }
        distinct(&table.name, mapped.iter().map(|column| column.target.as_str()))?;
        let mut key = Vec::new();
        for index in table.key.iter().flat_map(|key| &key.columns) {
            key.push(place_of[*index].ok_or_else(|| {
                Error::new(
                    &codes::KEY_LEFT_OUT,
                    format!("column `{}` belongs to the key and cannot be left out", table.columns[*index].name),
                )
                .at(format!("table {}", table.name))
                .remedy("carry the column, under another name if need be")
            })?);
        }
        let has_uniques = !table.uniques.is_empty();
        Ok(TableMapping { source: table.name.clone(), target, columns: mapped, key, key_is_exact: table.key_is_exact, has_uniques })
    }

    /// All tables; two that would become one are refused.
    pub fn resolve_all<'a>(rules: &[MapRule], tables: impl IntoIterator<Item = &'a Table>) -> Result<Vec<TableMapping>> {
        let mappings = tables.into_iter().map(|table| Self::resolve(rules, table)).collect::<Result<Vec<_>>>()?;
        let mut seen: HashMap<&TableName, &TableName> = HashMap::new();
        for mapping in &mappings {
            if let Some(other) = seen.insert(&mapping.target, &mapping.source) {
                let what = format!("{other} and {} would both become {}", mapping.source, mapping.target);
                return Err(Error::new(&codes::NAMES_COLLIDE, what).at("map").remedy("give one of them another name"));
            }
        }
        Ok(mappings)
    }

    pub fn has_key(&self) -> bool {
        !self.key.is_empty()
    }

    /// Target names of the key's columns.
    pub fn key_targets(&self) -> Vec<&str> {
        self.key.iter().map(|index| self.columns[*index].target.as_str()).collect()
    }

    /// Source names of the key's columns.
    pub fn key_sources(&self) -> Vec<&str> {
        self.key.iter().map(|index| self.columns[*index].source.as_str()).collect()
    }

    /// Whether nothing but the table's own names is asked for.
    pub fn is_identity(&self) -> bool {
        self.source == self.target && self.columns.iter().all(|column| column.source == column.target)
    }
}

fn distinct<'a>(table: &TableName, names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(Error::new(&codes::NAMES_COLLIDE, format!("two columns would become `{name}`"))
                .at(format!("table {table}"))
                .remedy("give one of them another name"));
        }
    }
    Ok(())
}

fn captures(from: &TableName, table: &TableName) -> Option<(String, String)> {
    Some((glob_captures(&from.schema, &table.schema)?, glob_captures(&from.name, &table.name)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Column, Key};

    fn table() -> Table {
        let column = |name: &str, generated| Column { name: name.into(), type_name: "text".into(), nullable: true, generated };
        Table {
            name: TableName::new("public", "customer"),
            columns: vec![column("ssn", false), column("id", false), column("full_name", false), column("upper_name", true)],
            key: Some(Key { columns: vec![1] }),
            uniques: vec![],
            estimated_rows: 0,
            estimated_bytes: 0,
            key_is_exact: true,
        }
    }

    fn rule(from: (&str, &str), to: Option<(&str, &str)>, columns: Vec<(&str, ColumnRule)>) -> MapRule {
        MapRule {
            from: TableName::new(from.0, from.1),
            to: to.map(|to| TableName::new(to.0, to.1)),
            columns: columns.into_iter().map(|(name, rule)| (name.to_owned(), rule)).collect(),
        }
    }

    #[test]
    fn without_rules_names_are_kept_and_generated_columns_stay_away() {
        let mapping = TableMapping::resolve(&[], &table()).unwrap();
        assert!(mapping.is_identity());
        assert_eq!(mapping.columns.len(), 3);
        assert_eq!(mapping.key_targets(), ["id"]);
    }

    #[test]
    fn later_rules_win_and_columns_add_up() {
        let rules = [
            rule(("public", "*"), Some(("shop", "*")), vec![]),
            rule(("public", "customer"), Some(("shop", "client")), vec![("full_name", ColumnRule::Rename("name".into()))]),
            rule(("*", "cust*"), None, vec![("ssn", ColumnRule::LeaveOut)]),
        ];
        let mapping = TableMapping::resolve(&rules, &table()).unwrap();
        assert_eq!(mapping.target, TableName::new("shop", "client"));
        assert_eq!(mapping.columns.iter().map(|c| c.target.as_str()).collect::<Vec<_>>(), ["id", "name"]);
        assert_eq!(mapping.key, [0]);
    }

    #[test]
    fn a_key_column_cannot_be_left_out() {
        let rules = [rule(("public", "customer"), None, vec![("id", ColumnRule::LeaveOut)])];
        assert!(TableMapping::resolve(&rules, &table()).unwrap_err().is(&codes::KEY_LEFT_OUT));
    }

    #[test]
    fn two_names_that_become_one_are_refused() {
        let rules = [rule(("public", "customer"), None, vec![("ssn", ColumnRule::Rename("id".into()))])];
        assert!(TableMapping::resolve(&rules, &table()).unwrap_err().is(&codes::NAMES_COLLIDE));
        let mut other = table();
        other.name.name = "client".into();
        let rules = [rule(("*", "*"), Some(("s", "t")), vec![])];
        assert!(TableMapping::resolve_all(&rules, [&table(), &other]).unwrap_err().is(&codes::NAMES_COLLIDE));
    }

    #[test]
    fn an_unknown_column_is_named() {
        let rules = [rule(("public", "customer"), None, vec![("nme", ColumnRule::LeaveOut)])];
        assert!(TableMapping::resolve(&rules, &table()).unwrap_err().is(&codes::COLUMN_UNKNOWN));
    }
}
