//! The connection on which the server sends its log, as it does to a replica.
//!
//! A replica of our own number says where it wants to go on by `@slave_connect_state`, and that it knows MariaDB's events
//! (`@mariadb_slave_capability` 4; with less the server sends others in their place). A position that its log never had, of
//! a server whose numbers in the log are higher, the server takes for the place behind the gap, in strict mode too (seen on
//! 10.11); one of a server that never came as far it refuses. The client's own reading of events is not
//! used: for those that it does not know it says nothing. Its raw bytes are, and their checksums are checked here.

use std::time::Duration;

use futures_util::StreamExt;
use godwit_model::{Error, Result, codes};
use mysql_async::prelude::Queryable;
use mysql_async::{BinlogStream, BinlogStreamRequest, Conn};
use mysql_common::binlog::consts::BinlogChecksumAlg;
use mysql_common::binlog::events::Event as RawEvent;

use super::events::Header;
use super::undecodable;
use crate::connect::{Endpoint, Purpose};
use crate::error;
use crate::gtid::GtidPosition;

/// An idle server says so this often.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// A server that is silent for longer is gone. It may be busy looking for the position in a large file, without a word.
const SILENCE: Duration = Duration::from_secs(120);
/// Events are as large as a row's two images; `max_allowed_packet` limits what is sent, not what is logged.
const LARGEST_EVENT: usize = 1 << 30;

/// Numbers of replicas that people give are small. Two of the same number end each other's streams: ours is drawn.
fn replica_number() -> u32 {
    fastrand::u32(0x8000_0000..u32::MAX)
}

/// An open stream of events. Dropping it closes the connection.
pub(crate) struct Binlog {
    stream: BinlogStream,
}

/// One event: its header, and the bytes behind it without the checksum.
pub(crate) struct Raw(RawEvent);

impl Binlog {
    /// Begins behind `from`. Returns when the server has agreed to send it.
    pub(crate) async fn open(endpoint: &Endpoint, from: &GtidPosition) -> Result<Self> {
        let place = format!("SET @slave_gtid_strict_mode = 1, @slave_gtid_ignore_duplicates = 0, @slave_connect_state = '{from}'");
        let mut conn = Self::connect(endpoint).await?;
        conn.query_drop(place).await.map_err(error::from_server)?;
        Self::start(conn, "").await.map_err(|error| error.at_least_at(|| endpoint.display.clone()))
    }

    /// Begins where this file begins.
    pub(crate) async fn open_file(endpoint: &Endpoint, file: &str) -> Result<Self> {
        let conn = Self::connect(endpoint).await?;
        Self::start(conn, file).await.map_err(|error| error.at_least_at(|| endpoint.display.clone()))
    }

    async fn connect(endpoint: &Endpoint) -> Result<Conn> {
        let mut conn = endpoint.with_packets_of(LARGEST_EVENT).connect(Purpose::Read).await?;
        let settings = format!("SET @mariadb_slave_capability = 4, @master_heartbeat_period = {}", HEARTBEAT.as_nanos());
        conn.query_drop(settings).await.map_err(error::from_server)?;
        Ok(conn)
    }

    async fn start(conn: Conn, file: &str) -> Result<Self> {
        let request = BinlogStreamRequest::new(replica_number()).with_filename(file.as_bytes());
        let stream = conn.get_binlog_stream(request).await.map_err(refused)?;
        let mut log = Binlog { stream };
        // first comes the name of a file, made up for replicas, and that file's description
        while log.next().await?.header().kind != 15 {}
        Ok(log)
    }

    /// The next event. Safe to drop while pending: what was read of one stays in the client's buffer.
    pub(crate) async fn next(&mut self) -> Result<Raw> {
        let event = match tokio::time::timeout(SILENCE, self.stream.next()).await {
            Err(_) => return Err(Error::new(&codes::CONNECTION_LOST, "the server sent nothing of its log for two minutes")),
            Ok(None) => return Err(Error::new(&codes::CONNECTION_LOST, "the server ended the stream of its log")),
            Ok(Some(event)) => event.map_err(refused)?,
        };
        Raw::checked(event)
    }
}

impl Raw {
    fn checked(event: RawEvent) -> Result<Self> {
        let algorithm =
            event.footer().get_checksum_alg().map_err(|_| undecodable("the source's log has checksums of a kind that is not known"))?;
        match (algorithm, event.checksum()) {
            (Some(algorithm @ BinlogChecksumAlg::BINLOG_CHECKSUM_ALG_CRC32), Some(said))
                if event.calc_checksum(algorithm) != u32::from_le_bytes(said) =>
            {
                Err(Error::new(&codes::CONNECTION_LOST, "an event of the source's log did not arrive as it was written"))
            }
            _ => Ok(Raw(event)),
        }
    }

    pub(crate) fn header(&self) -> Header {
        let header = self.0.header();
        Header {
            time: header.timestamp(),
            kind: header.event_type_raw(),
            server: header.server_id(),
            end: header.log_pos(),
            flags: header.flags_raw(),
        }
    }

    pub(crate) fn body(&self) -> &[u8] {
        self.0.data()
    }
}

/// What a server says instead of its log.
const LOG_ERROR: u16 = 1236;

/// The number alone does not tell: the text does.
fn refused(problem: mysql_async::Error) -> Error {
    let mysql_async::Error::Server(said) = &problem else { return error::from_server(problem) };
    if said.code != LOG_ERROR {
        return error::from_server(problem);
    }
    let text = said.message.as_str();
    let any = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    if any(&["purged", "Could not find GTID state", "Could not find first log"]) {
        return Error::new(&codes::POSITION_LOST, format!("the source no longer keeps its log from the position on: {text}"))
            .remedy("run with --resync; keep logs for longer (binlog_expire_logs_seconds) than Godwit may be away");
    }
    if any(&["not in the master's binlog", "is ahead", "diverged", "GTID"]) {
        return Error::new(&codes::SOURCE_CHANGED, format!("the source's log does not hold the position: {text}"))
            .remedy("name the server that the position was taken on; if it was restored, run with --resync");
    }
    Error::new(&codes::RETRYABLE, format!("the source does not send its log: {text}")).caused_by(problem)
}
