//! Cutting a table into ranges of its key, whose bounds the server finds by walking the key and compares by itself.
//!
//! A chunk's text is `key1 IDENTITY ABOVE UPTO`: rows with ABOVE < key <= UPTO, `-` for an open end, so the first and the
//! last chunk also cover rows that come later. A bound is the key's values, each a letter for its kind and its digits,
//! joined by commas: `n` a number, `q` a quoted text in hex (times and such), `b` bytes in hex, `t` a character set, a dot
//! and the bytes in hex. So neither the session's character set nor a quote inside a value plays a part.
//!
//! Comparisons are written out, `a > 1 OR (a = 1 AND b > 2)`: MariaDB 10.11 reads `(a, b) > (1, 2)` by scanning the whole
//! table, and the long form as two ranges of the index.

use godwit_model::{Chunk, Error, Result, Table, TableName, codes};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};

use crate::types::Kind;
use crate::{error, hex, quote};

const PREFIX: &str = "key1";
const OPEN: &str = "-";
/// Rows whose size is looked at: statistics of a table filled just now say nothing of it.
const SAMPLE: usize = 20;
/// Below this the bookkeeping of a chunk costs more than its rows.
const FEWEST_ROWS: u64 = 64;
/// No walk takes more steps, and no plan more room in the ledger: chunks of larger tables grow.
const MOST_CHUNKS: u64 = 10_000;
/// Members of an enum that are listed one by one, which the index can find; `>` on an enum reads the whole index.
const MOST_LISTED: usize = 256;

/// One value of a bound.
#[derive(Clone, Debug, PartialEq)]
enum Mark {
    Number(String),
    Quoted(Vec<u8>),
    Bytes(Vec<u8>),
    Text { charset: String, bytes: Vec<u8> },
}

type Bound = Vec<Mark>;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KeyRange {
    /// What the table was when the plan was made; see `identity`.
    pub(crate) identity: String,
    above: Option<Bound>,
    up_to: Option<Bound>,
}

/// A column of a key, as bounds are compared with it.
pub(crate) struct Part {
    column: String,
    kind: Kind,
}

impl Part {
    pub(crate) fn of(name: &str, type_name: &str) -> Result<Self> {
        Ok(Part { column: quote::identifier(name), kind: Kind::parse(type_name)? })
    }

    /// What the walk asks for. None: this version does not cut by such a column.
    fn selected(&self) -> Option<String> {
        let column = &self.column;
        Some(match self.kind {
            Kind::Int { .. } | Kind::Year | Kind::Bit { .. } | Kind::Enum { .. } | Kind::Set { .. } => format!("{column}+0"),
            Kind::Float | Kind::Double => format!("CAST({column} AS DOUBLE)"),
            Kind::Text { .. } | Kind::Bytes { .. } => format!("HEX({column})"),
            Kind::Decimal { .. }
            | Kind::Date
            | Kind::Time { .. }
            | Kind::DateTime { .. }
            | Kind::Timestamp { .. }
            | Kind::Uuid
            | Kind::Inet4
            | Kind::Inet6 => column.clone(),
            Kind::Json | Kind::Geometry => return None,
        })
    }

    fn mark(&self, cell: &[u8]) -> Option<Mark> {
        Some(match &self.kind {
            Kind::Int { .. } | Kind::Year | Kind::Bit { .. } | Kind::Enum { .. } | Kind::Set { .. } | Kind::Decimal { .. } => {
                number(cell, "")?
            }
            Kind::Float | Kind::Double => number(cell, if cell.contains(&b'e') { "" } else { "e0" })?,
            Kind::Text { charset, .. } => Mark::Text { charset: charset.clone(), bytes: unhex(cell)? },
            Kind::Bytes { .. } => Mark::Bytes(unhex(cell)?),
            _ => Mark::Quoted(cell.to_vec()),
        })
    }

    fn compared(&self, comparison: &str, mark: &Mark) -> String {
        let column = &self.column;
        if let (Kind::Enum { members, .. }, Mark::Number(number), ">" | "<") = (&self.kind, mark, comparison)
            && members.len() <= MOST_LISTED
            && let Ok(number) = number.parse::<usize>()
        {
            let numbers = if comparison == ">" { number + 1..members.len() + 1 } else { 0..number.min(members.len() + 1) };
            return match numbers.is_empty() {
                true => "FALSE".to_owned(),
                false => format!("{column} IN ({})", quote::list(numbers.map(|number| number.to_string()))),
            };
        }
        format!("{column} {comparison} {}", mark.literal())
    }
}

fn number(cell: &[u8], exponent: &str) -> Option<Mark> {
    let text = std::str::from_utf8(cell).ok().filter(|text| is_number(text))?;
    Some(Mark::Number(format!("{text}{exponent}")))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.e".contains(&byte))
}

impl Mark {
    fn literal(&self) -> String {
        match self {
            Mark::Number(number) => number.clone(),
            // plain text of times, numbers and addresses: the same in every character set
            Mark::Quoted(bytes) => quote::literal(&String::from_utf8_lossy(bytes)),
            Mark::Bytes(bytes) => hex::literal(bytes),
            Mark::Text { charset, bytes } => format!("_{charset} {}", hex::literal(bytes)),
        }
    }

    fn text(&self) -> String {
        match self {
            Mark::Number(number) => format!("n{number}"),
            Mark::Quoted(bytes) => format!("q{}", hex::digits(bytes)),
            Mark::Bytes(bytes) => format!("b{}", hex::digits(bytes)),
            Mark::Text { charset, bytes } => format!("t{charset}.{}", hex::digits(bytes)),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_at_checked(1)?;
        Some(match kind {
            "n" => Mark::Number(Some(rest).filter(|rest| is_number(rest))?.to_owned()),
            "q" => Mark::Quoted(unhex(rest.as_bytes())?),
            "b" => Mark::Bytes(unhex(rest.as_bytes())?),
            "t" => {
                let (charset, digits) = rest.split_once('.')?;
                let is_name = !charset.is_empty() && charset.bytes().all(|byte| byte.is_ascii_alphanumeric());
                Mark::Text { charset: Some(charset).filter(|_| is_name)?.to_owned(), bytes: unhex(digits.as_bytes())? }
            }
            _ => return None,
        })
    }
}

impl KeyRange {
    pub(crate) fn whole(identity: String) -> Self {
        KeyRange { identity, above: None, up_to: None }
    }

    pub(crate) fn text(&self) -> String {
        let bound = |bound: &Option<Bound>| match bound {
            Some(marks) => marks.iter().map(Mark::text).collect::<Vec<_>>().join(","),
            None => OPEN.to_owned(),
        };
        format!("{PREFIX} {} {} {}", self.identity, bound(&self.above), bound(&self.up_to))
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        read(text).ok_or_else(|| Error::internal("a chunk was planned by another version"))
    }

    /// ` WHERE ...`, or nothing for the whole table.
    pub(crate) fn condition(&self, key: &[Part]) -> Result<String> {
        let mut conditions = Vec::new();
        for (bound, beyond, last) in [(&self.above, ">", ">"), (&self.up_to, "<", "<=")] {
            let Some(bound) = bound else { continue };
            if bound.len() != key.len() || key.is_empty() {
                return Err(Error::internal("a chunk's bound has another width than its table's key"));
            }
            conditions.push(compared(key, bound, beyond, last));
        }
        Ok(if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) })
    }
}

fn read(text: &str) -> Option<KeyRange> {
    let mut words = text.split(' ');
    if words.next()? != PREFIX {
        return None;
    }
    let identity = words.next()?.to_owned();
    let mut bound = || -> Option<Option<Bound>> {
        match words.next()? {
            OPEN => Some(None),
            marks => marks.split(',').map(Mark::parse).collect::<Option<Bound>>().map(Some),
        }
    };
    let (above, up_to) = (bound()?, bound()?);
    words.next().is_none().then_some(KeyRange { identity, above, up_to })
}

/// `(a > 1 OR (a = 1 AND (b > 2 OR ...)))`
fn compared(key: &[Part], bound: &[Mark], beyond: &str, last: &str) -> String {
    match (key, bound) {
        ([part], [mark]) => part.compared(last, mark),
        ([part, parts @ ..], [mark, marks @ ..]) => {
            let further = compared(parts, marks, beyond, last);
            format!("({} OR ({} AND {further}))", part.compared(beyond, mark), part.compared("=", mark))
        }
        _ => "TRUE".to_owned(),
    }
}

fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?);
    digits.chunks(2).map(pair).collect()
}

/// What tells a table from what stood or stands under its name at other times: when its definition was made, by the
/// server's clock in whole seconds, its columns and its partitions. `id` is hex; `since` whether the definition was made
/// after that moment.
///
/// Tried on MariaDB 10.11: an older view of a table that was truncated or rebuilt is refused (error 1412), but it is read
/// without a word, with other rows or other values, after a partition was dropped, a table of that name was renamed into
/// its place, or a column was dropped and added again in an instant. Exchanging a partition shows nowhere but in the log.
pub(crate) fn identity(table: &TableName, since: &str) -> String {
    let at = format!("TABLE_SCHEMA = {} AND TABLE_NAME = {}", quote::literal(&table.schema), quote::literal(&table.name));
    format!(
        "SELECT SHA2(CONCAT_WS('|', IFNULL(CREATE_TIME, ''), ENGINE, \
           (SELECT GROUP_CONCAT(CONCAT_WS(' ', COLUMN_NAME, COLUMN_TYPE, COLLATION_NAME) ORDER BY ORDINAL_POSITION) \
              FROM information_schema.COLUMNS WHERE {at}), \
           (SELECT GROUP_CONCAT(CONCAT_WS(' ', PARTITION_NAME, CREATE_TIME) ORDER BY PARTITION_ORDINAL_POSITION) \
              FROM information_schema.PARTITIONS WHERE {at})), 256) AS id, \
         IFNULL(CREATE_TIME > {}, 0) AS since, IFNULL(TABLE_ROWS, 0) AS estimate, IFNULL(DATA_LENGTH, 0) AS bytes \
         FROM information_schema.TABLES WHERE {at}",
        quote::literal(since)
    )
}

/// What is asked of a table before it is cut.
struct Measured {
    identity: String,
    rows: u64,
    bytes: u64,
}

async fn measure(conn: &mut Conn, table: &TableName) -> Result<Measured> {
    let row: Option<(String, u64, u64, u64)> = conn.query_first(identity(table, "9999-12-31")).await.map_err(error::from_server)?;
    let (identity, _, rows, bytes) = row.ok_or_else(|| missing(table))?;
    Ok(Measured { identity, rows, bytes })
}

pub(crate) fn missing(table: &TableName) -> Error {
    Error::new(&codes::TABLE_MISSING, format!("there is no table {table}"))
        .at(format!("table {table}"))
        .remedy("it was dropped or renamed meanwhile: look at the selection, then run again")
}

/// One question for a small table; else one more for the size of its rows and one for each chunk, answered from the key.
pub(crate) async fn plan(conn: &mut Conn, table: &Table, chunk_bytes: u64) -> Result<Vec<Chunk>> {
    let measured = measure(conn, &table.name).await?;
    let mut range = KeyRange::whole(measured.identity.clone());
    let Some((key, selected)) = walkable(table)? else {
        return Ok(vec![Chunk { spec: range.text(), estimated_rows: measured.rows }]);
    };
    let is_small = measured.rows < FEWEST_ROWS && measured.bytes.saturating_mul(2) < chunk_bytes;
    if is_small {
        return Ok(vec![Chunk { spec: range.text(), estimated_rows: measured.rows }]);
    }
    let weight = row_weight(conn, table).await?.max(measured.bytes / measured.rows.max(1)).max(1);
    let step = (chunk_bytes / weight).max(FEWEST_ROWS).max(measured.rows / MOST_CHUNKS);
    let mut chunks = Vec::new();
    while let Some(bound) = bound_behind(conn, table, &key, &selected, &range, step).await? {
        range.up_to = Some(bound.clone());
        chunks.push(Chunk { spec: range.text(), estimated_rows: step });
        range = KeyRange { above: Some(bound), up_to: None, ..range };
    }
    let left = measured.rows.saturating_sub(step.saturating_mul(chunks.len() as u64)).min(step);
    chunks.push(Chunk { spec: range.text(), estimated_rows: left });
    Ok(chunks)
}

/// The key's columns and what is selected of them. None: one chunk is all the table can be.
fn walkable(table: &Table) -> Result<Option<(Vec<Part>, String)>> {
    let columns = table.key.iter().flat_map(|key| &key.columns).map(|index| &table.columns[*index]);
    let key = columns.map(|column| Part::of(&column.name, &column.type_name)).collect::<Result<Vec<_>>>()?;
    let selected = key.iter().map(Part::selected).collect::<Option<Vec<_>>>();
    Ok(selected.filter(|selected| !selected.is_empty()).map(|selected| (key, quote::list(selected))))
}

/// The key so many rows further on; None: there are not so many.
async fn bound_behind(conn: &mut Conn, table: &Table, key: &[Part], selected: &str, range: &KeyRange, step: u64) -> Result<Option<Bound>> {
    let order = quote::list(key.iter().map(|part| part.column.as_str()));
    let name = quote::table(&table.name);
    let sql = format!("SELECT {selected} FROM {name}{} ORDER BY {order} LIMIT 1 OFFSET {}", range.condition(key)?, step - 1);
    let row: Option<Row> = conn.query_first(sql).await.map_err(error::from_server)?;
    let Some(row) = row else { return Ok(None) };
    let mark = |(part, cell): (&Part, Value)| match cell {
        Value::Bytes(cell) => part.mark(&cell),
        _ => None,
    };
    let bound = key.iter().zip(row.unwrap()).map(mark).collect::<Option<Bound>>();
    bound.map(Some).ok_or_else(|| Error::internal("the server gave no bound of a key").at(format!("table {}", table.name)))
}

/// Bytes of a row, from the first few.
async fn row_weight(conn: &mut Conn, table: &Table) -> Result<u64> {
    let columns = || table.columns.iter().map(|column| quote::identifier(&column.name));
    let lengths = columns().map(|column| format!("IFNULL(LENGTH({column}), 0)")).collect::<Vec<_>>().join(" + ");
    let sql = format!(
        "SELECT IFNULL(CAST(AVG({lengths}) AS UNSIGNED), 0) FROM (SELECT {} FROM {} LIMIT {SAMPLE}) AS some",
        quote::list(columns()),
        quote::table(&table.name)
    );
    let weight: Option<u64> = conn.query_first(sql).await.map_err(error::from_server)?;
    Ok(weight.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range() -> KeyRange {
        let text = Mark::Text { charset: "latin1".into(), bytes: vec![0xe9, b'\''] };
        let above = vec![Mark::Number("-5".into()), text, Mark::Bytes(vec![0, 255])];
        let up_to = vec![Mark::Number("1.5e3".into()), Mark::Quoted(b"2020-01-01 00:00:00".to_vec()), Mark::Bytes(vec![])];
        KeyRange { identity: "abc".into(), above: Some(above), up_to: Some(up_to) }
    }

    #[test]
    fn a_range_is_read_as_it_was_written() {
        for range in [range(), KeyRange::whole("x".into()), KeyRange { above: None, ..range() }, KeyRange { up_to: None, ..range() }] {
            assert_eq!(KeyRange::parse(&range.text()).unwrap(), range);
        }
        assert_eq!(KeyRange::parse("key1 x - tlatin1.e927").unwrap().text(), "key1 x - tlatin1.e927");
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for text in
            ["", "key1", "key2 x - -", "key1 x -", "key1 x - - -", "key1 x n1;DROP -", "key1 x nx -", "key1 x b0 -", "key1 x tla'tin.00 -"]
        {
            assert!(KeyRange::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn comparisons_are_written_out() {
        let key = [Part::of("a", "int(11)").unwrap(), Part::of("b", "varbinary(9)").unwrap()];
        let range = KeyRange::parse("key1 x n1,b00 n2,bff").unwrap();
        let expected = " WHERE (`a` > 1 OR (`a` = 1 AND `b` > x'00')) AND (`a` < 2 OR (`a` = 2 AND `b` <= x'ff'))";
        assert_eq!(range.condition(&key).unwrap(), expected);
        assert!(range.condition(&key[..1]).is_err());
    }
}
