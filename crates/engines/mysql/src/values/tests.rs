//! Every type on a real server: both ways in agree, and what is written is found again. `GODWIT_LAB_SEED` repeats a run of the
//! random one.

mod edges;
mod log;
mod random;
mod refusals;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, Row};

use super::*;

fn lab() -> Option<(String, u16)> {
    let config = crate::lab::config("")?;
    Some((config.host, config.port?))
}

async fn session() -> Option<Conn> {
    let (host, port) = lab()?;
    let opts = OptsBuilder::default().ip_or_hostname(host).tcp_port(port).user(Some("root")).prefer_socket(false);
    let mut conn = Conn::new(opts).await.unwrap();
    conn.query_drop(
        "SET NAMES utf8mb4, SESSION time_zone = '+00:00', \
         sql_mode = 'STRICT_ALL_TABLES,ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION,NO_BACKSLASH_ESCAPES'",
    )
    .await
    .unwrap();
    Some(conn)
}

/// One column and SQL expressions for its values; each column gets a table of its own.
struct Case {
    definition: String,
    values: Vec<String>,
}

fn case(definition: &str, values: &[&str]) -> Case {
    Case { definition: definition.to_owned(), values: values.iter().map(|value| (*value).to_owned()).collect() }
}

async fn database(conn: &mut Conn, name: &str) {
    conn.query_drop(format!("CREATE OR REPLACE DATABASE {name} CHARACTER SET utf8mb4")).await.unwrap();
}

async fn type_name(conn: &mut Conn, database: &str, table: &str) -> String {
    let sql = format!(
        "SELECT concat(column_type, if(character_set_name IS NULL, '', concat(' CHARACTER SET ', character_set_name, ' COLLATE ', \
         collation_name))) FROM information_schema.columns WHERE table_schema = '{database}' AND table_name = '{table}' AND \
         column_name = 'v'"
    );
    unescaped(&conn.query_first::<String, _>(sql).await.unwrap().unwrap())
}

/// The catalog's backslashes taken away, as the room that reads it does: a type's text is one that sessions of ours read.
fn unescaped(catalog: &str) -> String {
    let mut text = String::new();
    let mut characters = catalog.chars();
    while let Some(c) = characters.next() {
        let next = if c == '\\' { characters.next() } else { Some(c) };
        text.extend(next.map(|next| match (c, next) {
            ('\\', '0') => '\0',
            ('\\', 'n') => '\n',
            ('\\', 'r') => '\r',
            _ => next,
        }));
    }
    text
}

/// The column of all rows, by their numbers.
async fn selected(conn: &mut Conn, codec: &Codec, table: &str) -> Vec<Value> {
    let rows: Vec<Row> = conn.query(format!("SELECT id, {} FROM {table} ORDER BY id", codec.selected("v"))).await.unwrap();
    rows.into_iter()
        .map(|row| {
            let cell = match &row[1] {
                mysql_async::Value::NULL => None,
                mysql_async::Value::Bytes(bytes) => Some(&bytes[..]),
                other => panic!("{other:?} in a text answer"),
            };
            codec.from_select(cell).unwrap()
        })
        .collect()
}

fn written(codec: &Codec, value: &Value) -> Vec<u8> {
    let mut sql = Vec::new();
    codec.literal(value, &mut sql).unwrap_or_else(|error| panic!("{error} {value:?}"));
    sql
}

/// The numbers of the rows that the condition finds.
async fn found(conn: &mut Conn, codec: &Codec, value: &Value, table: &str) -> Vec<usize> {
    let mut sql = format!("SELECT id FROM {table} WHERE ").into_bytes();
    codec.equals("v", value, &mut sql).unwrap();
    sql.extend_from_slice(b" ORDER BY id");
    conn.query(sql).await.unwrap()
}

/// All that is promised, for all of these columns.
async fn prove(conn: &mut Conn, database: &str, cases: &[Case]) {
    self::database(conn, database).await;
    let mut codecs = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        for table in ["s", "t"] {
            let sql = format!("CREATE TABLE {database}.{table}{index} (id int PRIMARY KEY, v {})", case.definition);
            conn.query_drop(sql).await.unwrap_or_else(|error| panic!("{error} {}", case.definition));
        }
        codecs.push(Codec::of(&type_name(conn, database, &format!("s{index}")).await).unwrap());
    }
    let from = log::position(conn).await;
    for (index, case) in cases.iter().enumerate() {
        for (id, value) in case.values.iter().enumerate() {
            let sql = format!("INSERT INTO {database}.s{index} VALUES ({id}, {value})");
            conn.query_drop(sql).await.unwrap_or_else(|error| panic!("{error} {} {value}", case.definition));
        }
    }
    let logged = log::read(lab().unwrap(), from, database, &codecs).await;
    for (index, (case, codec)) in cases.iter().zip(&codecs).enumerate() {
        let values = selected(conn, codec, &format!("{database}.s{index}")).await;
        assert_eq!(values.len(), case.values.len());
        for (id, value) in values.iter().enumerate() {
            assert!(logged[index][id].same(value), "{} {}: {:?} {value:?}", case.definition, case.values[id], logged[index][id]);
        }
        prove_writing(conn, database, index, codec, &values, case).await;
    }
}

async fn prove_writing(conn: &mut Conn, database: &str, index: usize, codec: &Codec, values: &[Value], case: &Case) {
    let (source, target) = (format!("{database}.s{index}"), format!("{database}.t{index}"));
    for (id, value) in values.iter().enumerate() {
        let mut sql = format!("INSERT INTO {target} VALUES ({id}, ").into_bytes();
        sql.extend_from_slice(&written(codec, value));
        sql.push(b')');
        conn.query_drop(sql).await.unwrap_or_else(|error| panic!("{error} {} {value:?}", case.definition));
    }
    let again = selected(conn, codec, &target).await;
    assert!(again.iter().zip(values).all(|(a, b)| a.same(b)), "{}: {again:?} {values:?}", case.definition);
    let different: Option<u64> = conn
        .query_first(format!(
            "SELECT count(*) FROM {source} s JOIN {target} t USING (id) WHERE NOT CAST(s.v AS BINARY) <=> CAST(t.v AS BINARY)"
        ))
        .await
        .unwrap();
    assert_eq!(different, Some(0), "{}", case.definition);
    // each of a few, and never its neighbours; zeros of both signs are one
    let step = values.len().div_ceil(60).max(1);
    for value in values.iter().step_by(step) {
        let same = |other: &Value| other.same(value) || *other == *value;
        let expected: Vec<usize> = values.iter().enumerate().filter(|(_, other)| same(other)).map(|(id, _)| id).collect();
        for table in [&source, &target] {
            assert_eq!(found(conn, codec, value, table).await, expected, "{} {value:?}", case.definition);
        }
    }
}
