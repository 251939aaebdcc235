//! Values by their storage class, exactly.
//!
//! Text that is not valid UTF-8 travels as `Native`, which means: TEXT with these bytes. NULL, integers, reals, text
//! and blobs are told apart also where the column's declared type says otherwise.

use bytes::Bytes;
use godwit_model::Value;
use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};

pub(crate) fn read(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Int(number),
        ValueRef::Real(number) => Value::Float(number),
        ValueRef::Text(text) if std::str::from_utf8(text).is_ok() => Value::Text(Bytes::copy_from_slice(text)),
        ValueRef::Text(text) => Value::Native(Bytes::copy_from_slice(text)),
        ValueRef::Blob(bytes) => Value::Bytes(Bytes::copy_from_slice(bytes)),
    }
}

/// One row's columns from `first` on.
pub(crate) fn read_row(row: &rusqlite::Row<'_>, first: usize, count: usize) -> rusqlite::Result<Vec<Value>> {
    (first..first + count).map(|index| row.get_ref(index).map(read)).collect()
}

/// A value on its way into a statement. What a row image does not hold is refused, never written as NULL.
pub(crate) struct Bound<'a>(pub(crate) &'a Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Int(number) => ValueRef::Integer(*number),
            Value::Float(number) => ValueRef::Real(*number),
            Value::Text(text) | Value::Native(text) => ValueRef::Text(text),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
            Value::Absent | Value::Unsent => return Err(rusqlite::Error::ToSqlConversionFailure("not in the row image".into())),
        }))
    }
}

/// A row as parameters.
pub(crate) fn bound(row: &[Value]) -> impl Iterator<Item = Bound<'_>> {
    row.iter().map(Bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(value: &Value) -> Value {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t(a)").unwrap();
        connection.execute("INSERT INTO t VALUES(?1)", [Bound(value)]).unwrap();
        connection.query_row("SELECT a FROM t", [], |row| row.get_ref(0).map(read)).unwrap()
    }

    #[test]
    fn every_storage_class_comes_back_as_it_went() {
        let values = [
            Value::Null,
            Value::Int(i64::MIN),
            Value::Int(1),
            Value::Float(1.0),
            Value::Float(f64::INFINITY),
            Value::text(""),
            Value::text("a\0b"),
            Value::text("ünï 😀"),
            Value::Bytes(Bytes::new()),
            Value::Bytes(Bytes::from_static(b"\0\xff")),
            Value::Native(Bytes::from_static(b"\xff\xfe")),
        ];
        for value in &values {
            assert_eq!(&round_trip(value), value);
        }
    }

    #[test]
    fn what_is_not_in_the_image_is_never_written() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t(a)").unwrap();
        assert!(connection.execute("INSERT INTO t VALUES(?1)", [Bound(&Value::Unsent)]).is_err());
    }
}
