//! Markers: one tiny transaction in the source's log, which any role may write; or, where nothing may be written, how far
//! the log goes.

use godwit_model::{Error, Marker, Micros, Result, TaskName};
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::changes::Wanted;
use crate::position::Lsn;
use crate::{error, names, quote};

/// Writes the marker and waits until it is in this server's own log, not for standbys: a marker that a failover loses
/// is written again.
pub(crate) async fn mark(client: &Client, task: &TaskName, marker: &Marker) -> Result<()> {
    let (prefix, name) = (quote::literal(&names::marker_prefix(task)), quote::literal(&marker.0));
    let sql = format!(
        "BEGIN READ WRITE; SET LOCAL synchronous_commit = local; SELECT pg_catalog.pg_logical_emit_message(true, {prefix}, {name}); COMMIT"
    );
    client.batch_execute(&sql).await.map_err(error::from_server)
}

/// The insert position, not the flushed or the sent one: a commit is visible before it is flushed where it is
/// asynchronous. A standby shows what it replayed, and says where the replay stands only behind each record; what it
/// received is ahead of what it shows.
const LOG_END: &str = "
SELECT CASE WHEN pg_is_in_recovery() THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) ELSE pg_current_wal_insert_lsn() END::text,
       pg_size_bytes(current_setting('wal_segment_size')), current_setting('wal_block_size')::int8,
       (extract(epoch FROM clock_timestamp()) * 1000000)::int8";

/// A place at or behind the end of every transaction that is visible now.
pub(crate) async fn place(client: &Client, marker: &Marker) -> Result<Wanted> {
    let row = client.query_one(LOG_END, &[]).await.map_err(error::from_server)?;
    let (end, sizes) = (row.get::<_, Option<&str>>(0).and_then(Lsn::parse), (to_unsigned(row.get(1)), to_unsigned(row.get(2))));
    let end = end.ok_or_else(|| Error::internal("the server did not say where its log ends"))?;
    Ok(Wanted { place: before_header(end, sizes.0, sizes.1), marker: marker.clone(), time: Micros(row.get(3)), since: Instant::now() })
}

fn to_unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// What the headers of a log's pages take: the first of each file is longer.
const FILE_HEADER: u64 = 40;
const PAGE_HEADER: u64 = 24;

/// At the boundary of a page the insert position lies behind a header that is still to be written, where nothing ends:
/// an idle server never sends as far. What is there ends before the header.
fn before_header(place: Lsn, file: u64, page: u64) -> Lsn {
    let is_behind = |size: u64, header: u64| size > 0 && place.0 % size == header;
    match (is_behind(file, FILE_HEADER), is_behind(page, PAGE_HEADER)) {
        (true, _) => Lsn(place.0 - FILE_HEADER),
        (false, true) => Lsn(place.0 - PAGE_HEADER),
        (false, false) => place,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_behind_a_header_alone_is_the_boundary() {
        let place = |lsn: u64| before_header(Lsn(lsn), 16 << 20, 8192).0;
        assert_eq!(place(0x500_0028), 0x500_0000);
        assert_eq!(place(0x500_2018), 0x500_2000);
        // 40 bytes into a page that does not begin a file, 16 bytes of content stand there
        for unchanged in [0x500_2028, 0x500_2020, 0x500_2000, 0x500_0030, 0x500_1fff] {
            assert_eq!(place(unchanged), unchanged);
        }
    }
}
