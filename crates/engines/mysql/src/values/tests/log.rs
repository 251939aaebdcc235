//! The log of the server, as far as it is rows of our tables.

use std::collections::HashMap;

use futures_util::StreamExt;
use mysql_async::prelude::Queryable;
use mysql_async::{BinlogStreamRequest, Conn, OptsBuilder, Row};
use mysql_common::binlog::events::{Event, TableMapEvent, WriteRowsEventV1};

use super::super::*;

pub(super) async fn position(conn: &mut Conn) -> (String, u64) {
    let row: Row = conn.query_first("SHOW MASTER STATUS").await.unwrap().unwrap();
    (row.get(0).unwrap(), row.get(1).unwrap())
}

/// Values by table (`s0`, `s1`, ..) and row, of all rows inserted since.
pub(super) async fn read(lab: (String, u16), from: (String, u64), database: &str, codecs: &[Codec]) -> Vec<Vec<Value>> {
    let opts = OptsBuilder::default().ip_or_hostname(lab.0).tcp_port(lab.1).user(Some("root")).prefer_socket(false);
    let conn = Conn::new(opts).await.unwrap();
    let request =
        BinlogStreamRequest::new(fastrand::u32(1_000_000..)).with_filename(from.0.as_bytes()).with_pos(from.1).with_non_blocking();
    let mut stream = conn.get_binlog_stream(request).await.unwrap();
    let mut tables: HashMap<u64, TableMapEvent<'static>> = HashMap::new();
    let mut values = vec![Vec::new(); codecs.len()];
    while let Some(event) = stream.next().await {
        let event = event.unwrap();
        match event.header().event_type_raw() {
            19 => {
                let map = event.read_event::<TableMapEvent<'_>>().unwrap().into_owned();
                tables.insert(map.table_id(), map);
            }
            23 => read_rows(&event, &tables, database, codecs, &mut values),
            _ => {}
        }
    }
    values
}

fn read_rows(
    event: &Event,
    tables: &HashMap<u64, TableMapEvent<'static>>,
    database: &str,
    codecs: &[Codec],
    values: &mut [Vec<Value>],
) {
    let rows = event.read_event::<WriteRowsEventV1<'_>>().unwrap();
    let map = &tables[&rows.table_id()];
    if map.database_name() != database || !map.table_name().starts_with('s') {
        return;
    }
    let index: usize = map.table_name()[1..].parse().unwrap();
    let kind = map.get_raw_column_type(1).unwrap().unwrap() as u8;
    let logged = LoggedType::new(kind, map.get_column_metadata(1).unwrap());
    let mut raw = rows.rows_data();
    while !raw.is_empty() {
        let nulls = raw[0];
        let id = u32::from_le_bytes(raw[1..5].try_into().unwrap());
        assert_eq!(id as usize, values[index].len());
        raw = &raw[5..];
        values[index].push(if nulls & 2 == 2 { Value::Null } else { read_value(&codecs[index], logged, &mut raw) });
    }
}

/// The value; on the way, that no part of its bytes is taken for a value, and that damaged ones do no harm.
fn read_value(codec: &Codec, logged: LoggedType, raw: &mut &[u8]) -> Value {
    let whole = *raw;
    let value = codec.from_log(logged, raw).unwrap_or_else(|error| panic!("{error} {logged:?} {codec:?} {whole:x?}"));
    let length = whole.len() - raw.len();
    for cut in (0..length).rev().take(100) {
        let mut part = &whole[..cut];
        assert!(codec.from_log(logged, &mut part).is_err(), "{cut} of {length} bytes: {codec:?}");
    }
    for _ in 0..length.min(20) {
        let mut damaged = whole[..length].to_vec();
        damaged[fastrand::usize(..length)] = fastrand::u8(..);
        let _ = codec.from_log(logged, &mut &damaged[..]);
    }
    value
}
