//! TABLE_MAP_EVENT: how the rows of one table are written in the row events that follow.

use godwit_model::{Result, TableName};

use super::reader::Reader;
use super::{LoggedType, undecodable};

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
    /// Numbers of collations: the text columns' default, and (place among the text columns, collation) of the others.
    pub(crate) default_charset: Option<(usize, Vec<(usize, usize)>)>,
    /// A collation for each text column.
    pub(crate) charsets: Option<Vec<usize>>,
    pub(crate) names: Option<Vec<String>>,
    /// For each SET and each ENUM column, its members in the column's character set.
    pub(crate) set_members: Option<Vec<Vec<Vec<u8>>>>,
    pub(crate) enum_members: Option<Vec<Vec<Vec<u8>>>>,
    /// Places of the primary key's columns.
    pub(crate) primary_key: Option<Vec<usize>>,
}

pub(crate) mod kind {
    //! Column types' numbers in the log.
    pub(crate) const TINY: u8 = 1;
    pub(crate) const SHORT: u8 = 2;
    pub(crate) const LONG: u8 = 3;
    pub(crate) const FLOAT: u8 = 4;
    pub(crate) const DOUBLE: u8 = 5;
    pub(crate) const TIMESTAMP: u8 = 7;
    pub(crate) const LONGLONG: u8 = 8;
    pub(crate) const INT24: u8 = 9;
    pub(crate) const DATE: u8 = 10;
    pub(crate) const TIME: u8 = 11;
    pub(crate) const DATETIME: u8 = 12;
    pub(crate) const YEAR: u8 = 13;
    pub(crate) const NEWDATE: u8 = 14;
    pub(crate) const VARCHAR: u8 = 15;
    pub(crate) const BIT: u8 = 16;
    pub(crate) const TIMESTAMP2: u8 = 17;
    pub(crate) const DATETIME2: u8 = 18;
    pub(crate) const TIME2: u8 = 19;
    /// MariaDB's `COMPRESSED` columns.
    pub(crate) const BLOB_COMPRESSED: u8 = 140;
    pub(crate) const VARCHAR_COMPRESSED: u8 = 141;
    pub(crate) const VECTOR: u8 = 242;
    pub(crate) const JSON: u8 = 245;
    pub(crate) const NEWDECIMAL: u8 = 246;
    pub(crate) const ENUM: u8 = 247;
    pub(crate) const SET: u8 = 248;
    pub(crate) const TINY_BLOB: u8 = 249;
    pub(crate) const BLOB: u8 = 252;
    pub(crate) const VAR_STRING: u8 = 253;
    pub(crate) const STRING: u8 = 254;
    pub(crate) const GEOMETRY: u8 = 255;
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
        let columns = kinds.iter().map(|kind| logged_type(*kind, &mut metas)).collect::<Result<Vec<_>>>()?;
        if !metas.is_empty() {
            return Err(undecodable("the source's log describes a table in a way that cannot be read"));
        }
        // which columns may be NULL
        reader.skip(width.div_ceil(8))?;
        let metadata = Metadata::parse(reader, &columns)?;
        Ok(LoggedTable { columns, metadata })
    }
}

/// `meta` holds the bytes in their order, the first one lowest: of a DECIMAL the precision, of a STRING the type that it
/// really is, of a BIT the bits beside whole bytes; of a VARCHAR its length.
fn logged_type(kind: u8, metas: &mut Reader<'_>) -> Result<LoggedType> {
    let meta = match kind {
        kind::FLOAT
        | kind::DOUBLE
        | kind::TIMESTAMP2
        | kind::DATETIME2
        | kind::TIME2
        | kind::BLOB_COMPRESSED
        | kind::VECTOR
        | kind::JSON
        | kind::TINY_BLOB..=kind::BLOB
        | kind::GEOMETRY => metas.u8()?.into(),
        kind::VARCHAR
        | kind::VARCHAR_COMPRESSED
        | kind::VAR_STRING
        | kind::BIT
        | kind::NEWDECIMAL
        | kind::ENUM
        | kind::SET
        | kind::STRING => metas.u16()?,
        kind::TINY..=kind::LONG | kind::TIMESTAMP..=kind::NEWDATE => 0,
        other => return Err(undecodable(format!("the source's log holds a column of type {other}, which is not known to this version"))),
    };
    Ok(LoggedType { kind, meta })
}

pub(crate) fn is_number(logged: LoggedType) -> bool {
    matches!(
        logged.kind,
        kind::TINY | kind::SHORT | kind::INT24 | kind::LONG | kind::LONGLONG | kind::FLOAT | kind::DOUBLE | kind::NEWDECIMAL | kind::YEAR
    )
}

impl Metadata {
    fn parse(mut reader: Reader<'_>, columns: &[LoggedType]) -> Result<Self> {
        let mut metadata = Metadata::default();
        while !reader.is_empty() {
            let field = reader.u8()?;
            let length = reader.packed()?;
            let mut value = Reader::new(reader.bytes(length)?);
            match field {
                1 => {
                    let numbers = columns.iter().filter(|column| is_number(**column)).count();
                    let bits = value.rest();
                    let highest_first = |index: usize| bits.get(index / 8).is_some_and(|byte| byte & (0x80 >> (index % 8)) != 0);
                    metadata.unsigned = Some((0..numbers).map(highest_first).collect());
                }
                2 => metadata.default_charset = Some((value.packed()?, pairs(value)?)),
                3 => metadata.charsets = Some(numbers(value)?),
                4 => metadata.names = Some(all(value, column_name)?),
                5 => metadata.set_members = Some(all(value, members)?),
                6 => metadata.enum_members = Some(all(value, members)?),
                8 => metadata.primary_key = Some(numbers(value)?),
                9 => metadata.primary_key = Some(pairs(value)?.into_iter().map(|(place, _)| place).collect()),
                // geometry types, character sets of enums, visibility: nothing that a value is read by
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

fn numbers(reader: Reader<'_>) -> Result<Vec<usize>> {
    all(reader, |reader| reader.packed())
}

fn pairs(reader: Reader<'_>) -> Result<Vec<(usize, usize)>> {
    all(reader, |reader| Ok((reader.packed()?, reader.packed()?)))
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
