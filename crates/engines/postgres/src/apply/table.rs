//! Reading what a write must know of a target table.

use godwit_model::{Error, Result, TableMapping, codes};
use tokio_postgres::{Client, Row};

use super::statement::{TargetColumn, TargetTable};
use crate::{error, quote};

/// `format_type` with -1 gives the name under which a cast checks nothing and cuts nothing (`bpchar`, not `character`,
/// which would be `character(1)`). A type whose arrays are not separated by commas has no literal of ours; composites (and
/// domains over them, of the same category) `unnest` would take apart. A table that others refer to has triggers: only then are all
/// constraints looked through.
const COLUMNS: &str = "
SELECT a.attname::text, format_type(a.atttypid, -1),
       t.typarray <> 0 AND t.typdelim = ',' AND t.typcategory <> 'C' AND NOT (t.typtype = 'b' AND t.typcategory = 'A'),
       (SELECT quote_ident(n.nspname) || '.' || o.oprname
        FROM pg_index i
        CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indclass::oid[]) AS k(number, opclass)
        JOIN pg_opclass oc ON oc.oid = k.opclass
        JOIN pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amopstrategy = 3
                       AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype
        JOIN pg_operator o ON o.oid = ao.amopopr
        JOIN pg_namespace n ON n.oid = o.oprnamespace
        WHERE i.indrelid = a.attrelid AND i.indisunique AND i.indisvalid AND k.number = a.attnum
        ORDER BY i.indisprimary DESC, i.indexrelid LIMIT 1),
       c.relkind <> 'p',
       c.relhastriggers AND EXISTS (SELECT FROM pg_constraint f WHERE f.confrelid = c.oid AND f.contype = 'f' AND f.conrelid <> c.oid),
       c.relkind IN ('r', 'p') AND NOT row_security_active(c.oid),
       c.relkind = 'r'
           AND EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype IN ('p', 'u', 'x') AND k.condeferrable)
FROM pg_class c
LEFT JOIN (pg_attribute a JOIN pg_type t ON t.oid = a.atttypid) ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.oid = to_regclass($1)";

pub(crate) async fn read(client: &Client, mapping: &TableMapping) -> Result<TargetTable> {
    let rows = client.query(COLUMNS, &[&quote::table(&mapping.target)]).await.map_err(error::from_server)?;
    let Some(first) = rows.first() else {
        return Err(Error::new(&codes::TABLE_MISSING, format!("the target has no table {}", mapping.target))
            .at(format!("table {}", mapping.target))
            .remedy("create it, or let the task create it (schema.create)"));
    };
    let columns = mapping.columns.iter().map(|column| find(&rows, mapping, &column.target)).collect::<Result<_>>()?;
    Ok(TargetTable {
        name: mapping.target.clone(),
        only: first.get(4),
        referenced: first.get(5),
        columns,
        key: mapping.key.clone(),
        key_is_exact: mapping.key_is_exact,
        takes_copy: first.get(6),
        checks_late: first.get(7),
    })
}

fn find(rows: &[Row], mapping: &TableMapping, name: &str) -> Result<TargetColumn> {
    let row = rows.iter().find(|row| row.get::<_, Option<&str>>(0) == Some(name)).ok_or_else(|| {
        Error::new(&codes::SCHEMA_MISMATCH, format!("the target table {} has no column `{name}`", mapping.target))
            .at(format!("table {}", mapping.target))
            .remedy("add the column, or map or leave out the source's column")
    })?;
    Ok(TargetColumn { name: name.to_owned(), base_type: row.get(1), in_arrays: row.get(2), equality: row.get(3) })
}
