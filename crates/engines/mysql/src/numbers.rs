//! Counters of tables, and sequences, moved ahead.

use godwit_model::{Error, Result, SequenceValue, Value};
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use crate::script::execute;
use crate::{error, quote};

/// A value is named as its table, or as the sequence that it is (MariaDB). What does not count is left alone.
pub(crate) async fn raise(conn: &mut Conn, values: &[SequenceValue]) -> Result<()> {
    for value in values {
        let place = || format!("table {}", value.name);
        raise_one(conn, value).await.map_err(|error| error.at_least_at(place))?;
    }
    Ok(())
}

async fn raise_one(conn: &mut Conn, value: &SequenceValue) -> Result<()> {
    let name = quote::table(&value.name);
    let last = number(&value.last)?;
    let Some((kind, next)) = state(conn, value).await? else { return Ok(()) };
    if kind == "SEQUENCE" {
        // it never goes back by itself, and says so with a NULL
        return conn.query_drop(format!("SELECT SETVAL({name}, {last}, {})", u8::from(value.called))).await.map_err(error::from_server);
    }
    let wanted = last.saturating_add(i128::from(value.called));
    // set to less than it is, the counter would go back to behind the largest value that is there
    match next.is_some_and(|next| wanted > i128::from(next)) {
        true => execute(conn, format!("ALTER TABLE {name} AUTO_INCREMENT = {wanted}")).await.map(drop),
        false => Ok(()),
    }
}

fn number(value: &Value) -> Result<i128> {
    let number = match value {
        Value::Int(number) => Some(i128::from(*number)),
        Value::Native(digits) => std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()),
        _ => None,
    };
    number.ok_or_else(|| Error::internal("a counter is a whole number"))
}

/// What it is, and the number it would give next; None: it is not there. MySQL keeps old answers for a day if it is let.
async fn state(conn: &mut Conn, value: &SequenceValue) -> Result<Option<(String, Option<u64>)>> {
    execute(conn, "SET /*!80000 information_schema_stats_expiry = 0, */ @godwit_asked = 1").await?;
    let sql = format!(
        "SELECT table_type, auto_increment FROM information_schema.tables WHERE table_schema = {} AND table_name = {1} ORDER BY table_name = BINARY {1} DESC",
        quote::literal(&value.name.schema),
        quote::literal(&value.name.name)
    );
    conn.query_first(sql).await.map_err(error::from_server)
}
