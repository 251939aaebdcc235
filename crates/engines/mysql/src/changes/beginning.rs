//! The first events of a transaction, by which it is known again.

use godwit_model::{Error, Result, codes};

use crate::binlog::{Binlog, Event, GtidEvent, Header, decode};
use crate::connect::{Endpoint, Server};
use crate::gtid::Gtid;
use crate::position::{Beginning, Last, Place, ServerSum};
use crate::statement::Statement;

/// An idle server sends one every two seconds. One that is still looking for the place may too.
const MOST_HEARTBEATS: usize = 60;

/// Reads a beginning while the transaction's events come by.
pub(super) struct Reader {
    sum: crc32fast::Hasher,
    time: u32,
    is_whole: bool,
}

impl Reader {
    /// Of the transaction whose GTID event this is.
    pub(super) fn new(header: Header, body: &[u8]) -> Self {
        let mut reader = Reader { sum: crc32fast::Hasher::new(), time: 0, is_whole: false };
        reader.add(header, body);
        reader
    }

    pub(super) fn take(&mut self, header: Header, body: &[u8], event: &Event<'_>) {
        if self.is_whole || matches!(event, Event::Heartbeat) {
            return;
        }
        self.add(header, body);
        self.is_whole = matches!(event, Event::Rows(_) | Event::Query(_) | Event::Xid | Event::XaPrepare);
    }

    fn add(&mut self, header: Header, body: &[u8]) {
        self.time = header.time;
        self.sum.update(&[header.kind]);
        self.sum.update(&header.time.to_le_bytes());
        self.sum.update(body);
    }

    pub(super) fn read(&self) -> Beginning {
        Beginning { time: self.time, sum: self.sum.clone().finalize() }
    }
}

pub(super) fn sum_of(server: &Server) -> ServerSum {
    ServerSum(crc32fast::hash(server.instance.as_bytes()))
}

/// Refuses a log that holds another transaction under the number of the position's last one. Its file may be gone and the
/// position still serve, and a promoted replica may never have logged the one before it: then the number alone must do.
pub(super) async fn must_be_there(endpoint: &Endpoint, place: &Place, server: &Server) -> Result<()> {
    let Some(last) = &place.last else { return Ok(()) };
    let Some(gtid) = place.gtids.last(last.before.domain) else { return Ok(()) };
    let server = sum_of(server);
    let log = match Binlog::open(endpoint, &place.gtids.back_to(last.before)).await {
        Err(error) if error.is(&codes::POSITION_LOST) => return Ok(()),
        Err(error) if error.is(&codes::SOURCE_CHANGED) && server != last.seen => return Ok(()),
        opened => opened?,
    };
    find(log, *gtid, last, server).await
}

/// The first transaction of the domain that comes, to its end. Of other domains some may lie before it where a promoted
/// replica is asked. It may be one that a server which was killed did not finish: then its number is given again.
async fn find(mut log: Binlog, gtid: Gtid, last: &Last, server: ServerSum) -> Result<()> {
    let mut under_way: Option<(GtidEvent, Reader)> = None;
    let mut heartbeats = 0;
    while heartbeats < MOST_HEARTBEATS {
        let raw = match log.next().await {
            // a replica that never had it notices when it comes there
            Err(error) if error.is(&codes::SOURCE_CHANGED) && server != last.seen => return Ok(()),
            next => next?,
        };
        let (header, body) = (raw.header(), raw.body());
        match decode(header, body)? {
            Event::Gtid(event) if event.gtid.domain != gtid.domain => under_way = None,
            Event::Gtid(event) if event.gtid != gtid => return Err(another(&gtid)),
            Event::Gtid(event) => under_way = Some((event, Reader::new(header, body))),
            Event::Heartbeat => heartbeats += 1,
            event => {
                let Some((begun, reader)) = &mut under_way else { continue };
                reader.take(header, body, &event);
                if ends(begun, &event) {
                    return if last.is(reader.read(), server) { Ok(()) } else { Err(another(&gtid)) };
                }
            }
        }
    }
    Err(Error::new(&codes::RETRYABLE, format!("the source does not send {gtid}, which its log holds")))
}

fn ends(begun: &GtidEvent, event: &Event<'_>) -> bool {
    match event {
        Event::Xid | Event::XaPrepare => true,
        Event::Query(query) => begun.standalone || matches!(Statement::read(query), Statement::Commit | Statement::Rollback),
        _ => false,
    }
}

fn another(gtid: &Gtid) -> Error {
    Error::new(&codes::SOURCE_CHANGED, format!("the source's log holds another transaction as {gtid} than was read there"))
        .remedy("it was begun anew (RESET MASTER), or the server was restored or lost the end of its log: run with --resync")
}
