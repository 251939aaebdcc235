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
use mysql_async::{BinlogStream, BinlogStreamRequest};
use mysql_common::binlog::consts::BinlogChecksumAlg;
use mysql_common::binlog::events::{BinlogEventHeader, Event as RawEvent};

use super::events::Header;
use super::reader::Reader;
use super::undecodable;
use crate::connect::{Endpoint, Purpose};
use crate::error;
use crate::gtid::GtidPosition;
use crate::patience::answered;

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

/// Where a stream begins.
#[derive(Clone, Copy)]
enum Beginning<'a> {
    Behind(&'a GtidPosition),
    /// In a file, behind so many of its bytes.
    In {
        file: &'a str,
        position: u32,
    },
}

/// Behind what tells a file's format.
const FIRST_EVENT: u32 = 4;

/// An open stream of events. Dropping it closes the connection.
pub(crate) struct Binlog {
    stream: BinlogStream,
    endpoint: Endpoint,
    reached: Reached,
    remembered: Remembered,
    /// What arrived otherwise than it was written; nothing is read behind it.
    damaged: Option<RawEvent>,
}

/// One event: its header, and the bytes behind it without the checksum.
pub(crate) struct Raw {
    event: RawEvent,
    end: u64,
}

impl Binlog {
    /// Begins behind `from`. Returns when the server has agreed to send it.
    pub(crate) async fn open(endpoint: &Endpoint, from: &GtidPosition) -> Result<Self> {
        Self::begin(endpoint, Beginning::Behind(from)).await
    }

    /// Begins where this file begins.
    pub(crate) async fn open_file(endpoint: &Endpoint, file: &str) -> Result<Self> {
        Self::begin(endpoint, Beginning::In { file, position: FIRST_EVENT }).await
    }

    async fn begin(endpoint: &Endpoint, beginning: Beginning<'_>) -> Result<Self> {
        let begun = async {
            let stream = answered(ask(endpoint, beginning)).await?;
            let (reached, remembered) = (Reached::default(), Remembered::default());
            let mut log = Binlog { stream, endpoint: endpoint.clone(), reached, remembered, damaged: None };
            // first comes the name of a file, made up for replicas, and that file's description
            while log.arrived().await?.header().kind != FORMAT_DESCRIPTION {}
            Ok(log)
        };
        begun.await.map_err(|error: Error| error.at_least_at(|| endpoint.display.clone()))
    }

    /// The next event. Safe to drop while pending: what was read of one stays in the client's buffer.
    pub(crate) async fn next(&mut self) -> Result<Raw> {
        if self.damaged.is_none() {
            match self.arrived().await {
                Err(_) if self.damaged.is_some() => {}
                arrived => return arrived,
            }
        }
        Err(self.of_damage().await)
    }

    /// The next event, or `damaged` and an error.
    async fn arrived(&mut self) -> Result<Raw> {
        let event = match tokio::time::timeout(SILENCE, self.stream.next()).await {
            Err(_) => return Err(Error::new(&codes::CONNECTION_LOST, "the server sent nothing of its log for two minutes")),
            Ok(None) => return Err(Error::new(&codes::CONNECTION_LOST, "the server ended the stream of its log")),
            Ok(Some(event)) => event.map_err(refused)?,
        };
        if !is_whole(&event)? {
            self.damaged = Some(event);
            return Err(arrived_otherwise());
        }
        let body = without_checksum(&event);
        let end = self.reached.pass(event.header(), body)?;
        self.remembered.add(event.header(), body)?;
        Ok(Raw { event, end })
    }

    /// Bytes that the client keeps of this stream's tables, about. Only another stream is free of them.
    pub(crate) fn remembers(&self) -> usize {
        self.remembered.bytes
    }

    /// What came otherwise than it was written is asked for once more: the same bytes again are those of the server's file,
    /// and asking again and again would not mend them.
    async fn of_damage(&self) -> Error {
        let Some((event, place)) = self.damaged.as_ref().zip(self.reached.next()) else { return arrived_otherwise() };
        let (file, position) = place;
        let again = async {
            let mut log = Self::begin(&self.endpoint, Beginning::In { file, position }).await?;
            match log.arrived().await {
                Err(_) if log.damaged.is_some() => Ok(log.damaged),
                other => other.map(|_| None),
            }
        };
        match again.await {
            Ok(Some(again)) if again.header() == event.header() && again.data() == event.data() => Error::new(
                &codes::LOG_UNDECODABLE,
                format!("the source's log file {file} is damaged: the event at {position} is not what its checksum says"),
            )
            .remedy(DAMAGED),
            _ => arrived_otherwise(),
        }
    }
}

/// Asks for the log; what it is, and whether the server has it, stands in its first answer.
async fn ask(endpoint: &Endpoint, beginning: Beginning<'_>) -> Result<BinlogStream> {
    let mut conn = endpoint.with_packets_of(LARGEST_EVENT).connect(Purpose::Read).await?;
    let mut settings = format!("SET @mariadb_slave_capability = 4, @master_heartbeat_period = {}", HEARTBEAT.as_nanos());
    let mut request = BinlogStreamRequest::new(replica_number());
    match beginning {
        Beginning::Behind(from) => {
            settings += &format!(", @slave_gtid_strict_mode = 1, @slave_gtid_ignore_duplicates = 0, @slave_connect_state = '{from}'");
        }
        Beginning::In { file, position } => request = request.with_filename(file.as_bytes()).with_pos(position.into()),
    }
    conn.query_drop(settings).await.map_err(error::from_server)?;
    conn.get_binlog_stream(request).await.map_err(refused)
}

fn is_whole(event: &RawEvent) -> Result<bool> {
    let algorithm =
        event.footer().get_checksum_alg().map_err(|_| undecodable("the source's log has checksums of a kind that is not known"))?;
    Ok(match (algorithm, event.checksum()) {
        (Some(algorithm @ BinlogChecksumAlg::BINLOG_CHECKSUM_ALG_CRC32), Some(said)) => {
            event.calc_checksum(algorithm) == u32::from_le_bytes(said)
        }
        _ => true,
    })
}

/// A CRC32 over bytes and their own CRC32 behind them is always this.
const RESIDUE: u32 = 0x2144_DF1C;

/// Before the first file's description the client does not know whether events have a checksum, and leaves it on.
fn without_checksum(event: &RawEvent) -> &[u8] {
    let body = event.data();
    match body.split_last_chunk::<4>() {
        Some((body, _)) if event.checksum().is_none() && event.calc_checksum(BinlogChecksumAlg::BINLOG_CHECKSUM_ALG_CRC32) == RESIDUE => {
            body
        }
        _ => body,
    }
}

fn arrived_otherwise() -> Error {
    Error::new(&codes::CONNECTION_LOST, "an event of the source's log did not arrive as it was written")
}

/// How far the stream is in the server's files.
#[derive(Debug, Default)]
struct Reached {
    file: String,
    end: u64,
}

/// Made up for replicas: it is in no file.
const ARTIFICIAL: u16 = 0x20;
const ROTATE: u8 = 4;
const FORMAT_DESCRIPTION: u8 = 15;
const HEARTBEAT_EVENT: u8 = 27;

impl Reached {
    /// Behind this event. Where it ends in its file; 0 for one that is in none.
    ///
    /// Headers have room for files of 4 GiB, and a file that one transaction makes larger goes on from 0 (seen on 10.11). No
    /// event is so large: a lower end than the last one's is 4 GiB behind it.
    fn pass(&mut self, header: BinlogEventHeader, body: &[u8]) -> Result<u64> {
        let said = u64::from(header.log_pos());
        let kind = header.event_type_raw();
        let is_in_file = said != 0 && header.flags_raw() & ARTIFICIAL == 0 && kind != HEARTBEAT_EVENT;
        if is_in_file {
            let end = self.end >> 32 << 32 | said;
            self.end = if end < self.end { end + (1 << 32) } else { end };
        }
        let end = if is_in_file { self.end } else { 0 };
        if kind == ROTATE {
            let mut reader = Reader::new(body);
            self.end = reader.number(8)?;
            self.file = String::from_utf8_lossy(reader.rest()).into_owned();
        }
        Ok(end)
    }

    /// Where the next event begins, if it can be asked for.
    fn next(&self) -> Option<(&str, u32)> {
        u32::try_from(self.end).ok().map(|position| (self.file.as_str(), position))
    }
}

/// The client keeps every table's description, by the log's number of it, until the server begins a new file. A table that
/// is opened anew has another number: with more tables than `table_definition_cache` that is every other transaction.
#[derive(Debug, Default)]
struct Remembered {
    newest: u64,
    bytes: usize,
}

const TABLE_MAP: u8 = 19;
/// What the client's own record of a table takes besides the event's bytes.
const RECORD: usize = 400;

impl Remembered {
    fn add(&mut self, header: BinlogEventHeader, body: &[u8]) -> Result<()> {
        match header.event_type_raw() {
            TABLE_MAP => {
                let id = Reader::new(body).number(6)?;
                if id > self.newest {
                    self.newest = id;
                    self.bytes += RECORD + body.len();
                }
            }
            ROTATE if header.flags_raw() & ARTIFICIAL == 0 => *self = Remembered::default(),
            _ => {}
        }
        Ok(())
    }
}

impl Raw {
    pub(crate) fn header(&self) -> Header {
        let header = self.event.header();
        Header {
            time: header.timestamp(),
            kind: header.event_type_raw(),
            server: header.server_id(),
            end: self.end,
            flags: header.flags_raw(),
        }
    }

    pub(crate) fn body(&self) -> &[u8] {
        self.event.data()
    }
}

/// What a server says instead of its log.
const LOG_ERROR: u16 = 1236;
const DAMAGED: &str = "run with --resync, which begins behind the damage; let the source's administrator look after its disk";

const TORN: &str = "a server that was killed leaves such an end of a file, which is passed when it is tried again; if it comes for ever, \
                    run with --resync";

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
    if any(&["bogus data", "did not pass crc check"]) {
        return Error::new(&codes::LOG_UNDECODABLE, format!("the source cannot read its own log: {text}")).remedy(DAMAGED);
    }
    if any(&["not in the master's binlog", "is ahead", "diverged", "GTID"]) {
        return Error::new(&codes::SOURCE_CHANGED, format!("the source's log does not hold the position: {text}"))
            .remedy("name the server that the position was taken on; if it was restored, run with --resync");
    }
    // the server begins a new file behind such an end, and sends that to whoever has all that is whole
    let is_torn = any(&["truncated in the middle"]);
    let error = Error::new(&codes::RETRYABLE, format!("the source does not send its log: {text}")).caused_by(problem);
    if is_torn { error.remedy(TORN) } else { error }
}

#[cfg(test)]
mod tests {
    use mysql_common::binlog::consts::{EventFlags, EventType};

    use super::*;

    fn pass(reached: &mut Reached, kind: EventType, end: u32, flags: EventFlags, body: &[u8]) -> u64 {
        reached.pass(BinlogEventHeader::new(0, kind, 1, 100, end, flags), body).unwrap()
    }

    #[test]
    fn a_file_may_be_larger_than_headers_can_say() {
        let (mut reached, none) = (Reached::default(), EventFlags::empty());
        let rotate = |file: &str| [&[4, 0, 0, 0, 0, 0, 0, 0], file.as_bytes()].concat();
        let made_up = EventFlags::LOG_EVENT_ARTIFICIAL_F;
        assert_eq!(pass(&mut reached, EventType::ROTATE_EVENT, 0, made_up, &rotate("bin.000007")), 0);
        assert_eq!(reached.next(), Some(("bin.000007", 4)));
        for (end, expected) in [(256, 256), (u32::MAX, u64::from(u32::MAX)), (20, (1 << 32) + 20), (19, (2 << 32) + 19)] {
            assert_eq!(pass(&mut reached, EventType::XID_EVENT, end, none, &[]), expected);
            // an idle server says where it is, and what is made up for replicas is nowhere
            assert_eq!(pass(&mut reached, EventType::HEARTBEAT_EVENT, 4, none, &[]), 0);
            assert_eq!(pass(&mut reached, EventType::FORMAT_DESCRIPTION_EVENT, 0, none, &[]), 0);
        }
        assert_eq!(reached.next(), None, "so far nobody can ask");
        assert_eq!(pass(&mut reached, EventType::ROTATE_EVENT, 80, none, &rotate("bin.000008")), (2 << 32) + 80);
        assert_eq!(reached.next(), Some(("bin.000008", 4)));
        assert!(reached.pass(BinlogEventHeader::new(0, EventType::ROTATE_EVENT, 1, 19, 0, made_up), &[4]).is_err());
    }
}
