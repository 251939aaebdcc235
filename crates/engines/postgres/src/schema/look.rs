//! How a table looks now: its columns as the change stream states them, and a stamp of its files, its parts and the
//! numbers of its columns. No number is ever given to a second column, so that two stamps say what was added and dropped
//! in between, and whether anything else may have touched rows outside of the log.

use std::collections::{BTreeMap, HashMap};

use godwit_model::{Appearance, Result, TableAppearance, TableName};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::catalog::CatalogTable;
use crate::error;

/// The stream names the types of larger OIDs, others it takes for known.
const FIRST_NAMED_TYPE: u32 = 10_000;

/// What a stamp says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) oid: u32,
    /// Columns ever made, dropped ones too.
    pub(crate) made: i16,
    /// By number: the name and the stream's type.
    pub(crate) columns: BTreeMap<i16, (String, String)>,
    /// OID and file of each relation that holds rows.
    pub(crate) files: BTreeMap<u32, u32>,
}

const VERSION: u64 = 1;

impl Stamp {
    fn text(&self) -> String {
        let columns: Vec<_> = self.columns.iter().map(|(number, (name, kind))| serde_json::json!([number, name, kind])).collect();
        let files: Vec<_> = self.files.iter().collect();
        serde_json::json!({"v": VERSION, "oid": self.oid, "made": self.made, "columns": columns, "files": files}).to_string()
    }

    /// None: another version's, or nothing is known.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let json: serde_json::Value = serde_json::from_str(text).ok()?;
        let number = |json: &serde_json::Value| json.as_u64();
        if json.get("v").and_then(number)? != VERSION {
            return None;
        }
        let columns = json.get("columns")?.as_array()?.iter().map(|column| {
            let text = |index: usize| Some(column.get(index)?.as_str()?.to_owned());
            Some((i16::try_from(column.get(0)?.as_i64()?).ok()?, (text(1)?, text(2)?)))
        });
        let files = json.get("files")?.as_array()?.iter().map(|file| {
            let part = |index: usize| u32::try_from(file.get(index)?.as_u64()?).ok();
            Some((part(0)?, part(1)?))
        });
        Some(Stamp {
            oid: u32::try_from(number(json.get("oid")?)?).ok()?,
            made: i16::try_from(json.get("made")?.as_i64()?).ok()?,
            columns: columns.collect::<Option<_>>()?,
            files: files.collect::<Option<_>>()?,
        })
    }

    /// Columns made since `before`, and how many that were there then are gone; names that changed are not looked at. None:
    /// something else happened as well, or a column came and went in between.
    pub(crate) fn since(&self, before: &Stamp) -> Option<Shift> {
        if self.oid != before.oid || self.files != before.files {
            return None;
        }
        let kept = self.columns.range(..=before.made);
        let alike = |number: &i16, kind: &str| before.columns.get(number).is_some_and(|(_, old)| is_stored_alike(old, kind));
        let unchanged = kept.clone().all(|(number, (_, kind))| alike(number, kind));
        let added: Vec<(i16, String)> = self.columns.range(before.made + 1..).map(|(number, (name, _))| (*number, name.clone())).collect();
        let whole = usize::try_from(self.made - before.made).ok()? == added.len();
        (unchanged && whole).then(|| Shift { added, gone: before.columns.len() - kept.count() })
    }

    /// Columns that were there then and have another name now, old and new. None: it is another table.
    pub(crate) fn renamed(&self, before: &Stamp) -> Option<Vec<(String, String)>> {
        let pairs = self.columns.iter().filter_map(|(number, (name, _))| Some((before.columns.get(number)?.0.clone(), name.clone())));
        (self.oid == before.oid).then(|| pairs.filter(|(old, new)| old != new).collect())
    }
}

/// Whether a column of the one type became one of the other without a value that reads otherwise, if no row was written anew:
/// the same type, with another length or precision too, and text of whatever length.
pub(crate) fn is_stored_alike(old: &str, new: &str) -> bool {
    let base = |kind: &str| kind.split('(').next().unwrap_or_default().to_owned();
    let text = |kind: &str| matches!(base(kind).as_str(), "varchar" | "text");
    base(old) == base(new) || (text(old) && text(new))
}

/// What two stamps say of what lies between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shift {
    pub(crate) added: Vec<(i16, String)>,
    pub(crate) gone: usize,
}

const COLUMNS: &str = "
SELECT a.attrelid, a.attnum, a.attname::text, a.atttypid, a.atttypmod, CASE WHEN n.nspname = 'pg_catalog' THEN '' ELSE n.nspname::text END,
       b.typname::text
FROM pg_attribute a
JOIN LATERAL (
    WITH RECURSIVE base(oid, typtype, typbasetype) AS (
        SELECT t.oid, t.typtype, t.typbasetype FROM pg_type t WHERE t.oid = a.atttypid
        UNION ALL SELECT u.oid, u.typtype, u.typbasetype FROM base JOIN pg_type u ON u.oid = base.typbasetype WHERE base.typtype = 'd'
    ) SELECT oid FROM base WHERE typtype <> 'd'
) r ON true
JOIN pg_type b ON b.oid = r.oid
JOIN pg_namespace n ON n.oid = b.typnamespace
WHERE a.attrelid = ANY($1) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
ORDER BY a.attrelid, a.attnum";

/// Each file by its number, one by one (`OFFSET 0` keeps it so): else every table is compared with the whole catalog.
const FILES: &str = "
SELECT c.oid, c.relnatts, l.oid, l.relfilenode, c.relkind = 'p'
FROM pg_class c
CROSS JOIN LATERAL (SELECT c.oid WHERE c.relkind = 'r'
                    UNION ALL SELECT t.relid FROM pg_partition_tree(c.oid) t WHERE c.relkind = 'p') AS file(oid)
CROSS JOIN LATERAL (SELECT f.oid, f.relfilenode FROM pg_class f WHERE f.oid = file.oid OFFSET 0) l
WHERE c.oid = ANY($1)";

/// In the order of the tables given.
pub(crate) async fn of_tables(client: &Client, tables: &[CatalogTable]) -> Result<Vec<Appearance>> {
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let mut looks = by_oid(client, &oids).await?;
    Ok(oids.iter().map(|oid| looks.remove(oid).unwrap_or_default()).collect())
}

/// Those of these tables that are there.
pub(crate) async fn of_names(client: &Client, names: &[TableName]) -> Result<Vec<TableAppearance>> {
    let (schemas, tables): (Vec<&str>, Vec<&str>) = names.iter().map(|name| (name.schema.as_str(), name.name.as_str())).unzip();
    let sql = "SELECT c.oid, w.place FROM unnest($1::text[], $2::text[]) WITH ORDINALITY w(schema, name, place)
               JOIN pg_namespace n ON n.nspname = w.schema JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name ORDER BY w.place";
    let rows = client.query(sql, &[&schemas, &tables]).await.map_err(error::from_server)?;
    let oids: Vec<u32> = rows.iter().map(|row| row.get(0)).collect();
    let mut looks = by_oid(client, &oids).await?;
    let named = |row: &tokio_postgres::Row| {
        let place = usize::try_from(row.get::<_, i64>(1) - 1).ok()?;
        Some(TableAppearance { table: names.get(place)?.clone(), look: looks.remove(&row.get(0))? })
    };
    Ok(rows.iter().filter_map(named).collect())
}

async fn by_oid(client: &Client, oids: &[u32]) -> Result<HashMap<u32, Appearance>> {
    let mut stamps: HashMap<u32, (Stamp, bool)> = HashMap::new();
    for row in client.query(FILES, &[&oids]).await.map_err(error::from_server)? {
        let oid: u32 = row.get(0);
        let (stamp, in_parts) = stamps.entry(oid).or_default();
        (stamp.oid, stamp.made, *in_parts) = (oid, row.get(1), row.get(4));
        stamp.files.insert(row.get(2), row.get(3));
    }
    for row in client.query(COLUMNS, &[&oids]).await.map_err(error::from_server)? {
        let Some((stamp, _)) = stamps.get_mut(&row.get::<_, u32>(0)) else { continue };
        let kind = stated_type(row.get(3), row.get(4), row.get(5), row.get(6));
        stamp.columns.insert(row.get(1), (row.get(2), kind));
    }
    let look =
        |(stamp, in_parts): (Stamp, bool)| Appearance { columns: stamp.columns.values().cloned().collect(), in_parts, stamp: stamp.text() };
    Ok(stamps.into_iter().map(|(oid, found)| (oid, look(found))).collect())
}

fn stated_type(oid: u32, modifier: i32, schema: &str, name: &str) -> String {
    let named = (oid >= FIRST_NAMED_TYPE).then(|| format!("{schema}.{name}"));
    type_name(oid, modifier, named)
}

/// A column's type as a layout has it; `named` where the stream says the name.
pub(crate) fn type_name(oid: u32, modifier: i32, named: Option<String>) -> String {
    let name = match (named, Type::from_oid(oid)) {
        (Some(name), _) => name,
        (None, Some(built_in)) => built_in.name().to_owned(),
        (None, None) => oid.to_string(),
    };
    if modifier < 0 { name } else { format!("{name}({modifier})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(made: i16, columns: &[(i16, &str)], file: u32) -> Stamp {
        let columns = columns.iter().map(|(number, name)| (*number, ((*name).to_owned(), "text".to_owned()))).collect();
        Stamp { oid: 7, made, columns, files: BTreeMap::from([(7, file)]) }
    }

    #[test]
    fn a_stamp_comes_back_as_it_was_written() {
        let stamp = stamp(3, &[(1, "id"), (3, "a\"b")], 9);
        assert_eq!(Stamp::parse(&stamp.text()), Some(stamp));
        assert_eq!(Stamp::parse(""), None);
        assert_eq!(Stamp::parse("{\"v\":2}"), None);
    }

    #[test]
    fn what_was_added_and_dropped_is_told_by_numbers() {
        let before = stamp(2, &[(1, "id"), (2, "a")], 9);
        let added = stamp(3, &[(1, "id"), (2, "a"), (3, "b")], 9).since(&before).unwrap();
        assert_eq!(added, Shift { added: vec![(3, "b".to_owned())], gone: 0 });
        assert_eq!(stamp(2, &[(1, "id")], 9).since(&before).unwrap(), Shift { added: vec![], gone: 1 });
        // dropped and made anew under the same name is another column
        let anew = stamp(3, &[(1, "id"), (3, "a")], 9);
        assert_eq!(anew.since(&before).unwrap(), Shift { added: vec![(3, "a".to_owned())], gone: 1 });
        assert_eq!(anew.renamed(&before).unwrap(), []);
    }

    #[test]
    fn what_may_have_touched_rows_is_never_told_away() {
        let before = stamp(2, &[(1, "id"), (2, "a")], 9);
        assert_eq!(stamp(2, &[(1, "id"), (2, "a")], 10).since(&before), None, "rewritten");
        assert_eq!(stamp(4, &[(1, "id"), (2, "a"), (4, "b")], 9).since(&before), None, "a column came and went");
        let mut retyped = before.clone();
        retyped.columns.insert(2, ("a".to_owned(), "int4".to_owned()));
        assert_eq!(retyped.since(&before), None);
    }

    #[test]
    fn another_name_is_told_by_the_number() {
        let before = stamp(3, &[(1, "id"), (2, "a"), (3, "b")], 9);
        let renamed = stamp(3, &[(1, "id"), (2, "z"), (3, "b")], 9);
        assert_eq!(renamed.renamed(&before).unwrap(), [("a".to_owned(), "z".to_owned())]);
        assert_eq!(renamed.since(&before).unwrap(), Shift { added: vec![], gone: 0 });
        assert_eq!(Stamp { oid: 8, ..renamed }.renamed(&before), None, "another table");
    }

    #[test]
    fn a_longer_text_is_stored_alike() {
        assert!(is_stored_alike("varchar(54)", "varchar(104)") && is_stored_alike("varchar(54)", "text"));
        assert!(is_stored_alike("numeric(655366)", "numeric(786438)"));
        assert!(!is_stored_alike("int4", "int8") && !is_stored_alike("bpchar(9)", "text"));
    }
}
