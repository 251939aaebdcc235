//! TABLE_MAP_EVENT: how the rows of one table are written in the row events that follow.

use godwit_model::{Result, TableName};

use super::column::{LoggedType, is_number, metadata_length};
use super::reader::Reader;
use super::undecodable;

/// A table that rows come of. Most are of tables that nobody asks for: how they are written is not looked at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TableMap<'a> {
    pub(crate) id: u64,
    pub(crate) table: TableName,
    rest: Reader<'a>,
}

/// A table as the log has it at one place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LoggedTable {
    pub(crate) columns: Vec<LoggedType>,
    pub(crate) metadata: Metadata,
}

/// What servers write besides, by `binlog_row_metadata`: nothing (MariaDB's default), signedness and character sets, or all.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Metadata {
    /// For each column that is a number, in order.
    pub(crate) unsigned: Option<Vec<bool>>,
    pub(crate) names: Option<Vec<String>>,
    /// For each SET and each ENUM column, its members in the column's character set.
    pub(crate) set_members: Option<Vec<Vec<Vec<u8>>>>,
    pub(crate) enum_members: Option<Vec<Vec<Vec<u8>>>>,
}

impl<'a> TableMap<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self> {
        let mut rest = Reader::new(body);
        let id = rest.number(6)?;
        rest.skip(2)?;
        let table = TableName { schema: rest.name()?, name: rest.name()? };
        Ok(TableMap { id, table, rest })
    }

    pub(crate) fn open(&self) -> Result<LoggedTable> {
        self.read().map_err(|error| error.at_least_at(|| format!("table {}", self.table)))
    }

    fn read(&self) -> Result<LoggedTable> {
        let mut reader = self.rest;
        let width = reader.packed()?;
        let kinds = reader.bytes(width)?;
        let length = reader.packed()?;
        let mut metas = Reader::new(reader.bytes(length)?);
        let logged = |kind: &u8| Ok(LoggedType::new(*kind, metas.bytes(metadata_length(*kind)?)?));
        let columns = kinds.iter().map(logged).collect::<Result<Vec<_>>>()?;
        if !metas.is_empty() {
            return Err(undecodable("the source's log describes a table in a way that cannot be read"));
        }
        // which columns may be NULL
        reader.skip(width.div_ceil(8))?;
        let metadata = Metadata::parse(reader, &columns)?;
        Ok(LoggedTable { columns, metadata })
    }
}

impl Metadata {
    fn parse(mut reader: Reader<'_>, columns: &[LoggedType]) -> Result<Self> {
        let mut metadata = Metadata::default();
        while !reader.is_empty() {
            let field = reader.u8()?;
            let length = reader.packed()?;
            let value = Reader::new(reader.bytes(length)?);
            match field {
                1 => {
                    let numbers = columns.iter().filter(|column| is_number(**column)).count();
                    let bits = value.rest();
                    let highest_first = |index: usize| bits.get(index / 8).is_some_and(|byte| byte & (0x80 >> (index % 8)) != 0);
                    metadata.unsigned = Some((0..numbers).map(highest_first).collect());
                }
                4 => metadata.names = Some(all(value, column_name)?),
                5 => metadata.set_members = Some(all(value, members)?),
                6 => metadata.enum_members = Some(all(value, members)?),
                // character sets, geometry types, the primary key, visibility: nothing that a value is read by
                _ => {}
            }
        }
        Ok(metadata)
    }
}

fn all<T>(mut reader: Reader<'_>, one: impl Fn(&mut Reader<'_>) -> Result<T>) -> Result<Vec<T>> {
    let mut found = Vec::new();
    while !reader.is_empty() {
        found.push(one(&mut reader)?);
    }
    Ok(found)
}

fn column_name(reader: &mut Reader<'_>) -> Result<String> {
    let length = reader.packed()?;
    String::from_utf8(reader.bytes(length)?.to_vec()).map_err(|_| undecodable("the source's log holds a name that is no text"))
}

fn members(reader: &mut Reader<'_>) -> Result<Vec<Vec<u8>>> {
    let count = reader.packed()?;
    let mut found = Vec::new();
    for _ in 0..count {
        let length = reader.packed()?;
        found.push(reader.bytes(length)?.to_vec());
    }
    Ok(found)
}
