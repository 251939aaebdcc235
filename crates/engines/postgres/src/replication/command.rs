//! Questions and commands on the replication connection.

use bytes::BytesMut;
use godwit_model::{EndpointConfig, Error, Result, codes};
use postgres_protocol::message::frontend;

use super::login;
use super::wire::{Frame, Wire};
use crate::connect::{self, Address};
use crate::error::{self, ServerMessage};
use crate::position::{Log, Lsn};

/// An open replication connection with the settings of all our sessions. Dropping it closes it.
pub(crate) struct Replication {
    wire: Wire,
    major: u32,
    process: i32,
}

/// What IDENTIFY_SYSTEM says.
#[derive(Clone, Debug)]
pub(crate) struct ServerIdentity {
    pub(crate) log: Log,
    /// Up to where the server's log is on its disk.
    pub(crate) flushed: Lsn,
}

/// Rows of an answer, as text.
pub(crate) type TextRows = Vec<Vec<Option<String>>>;

impl Replication {
    pub(crate) async fn open(endpoint: &EndpointConfig, application: &str) -> Result<Self> {
        let address = Address::parse(endpoint)?;
        connect::within_limit(&address, || Self::log_in_as_preferred(endpoint, &address, application)).await
    }

    async fn log_in_as_preferred(endpoint: &EndpointConfig, address: &Address, application: &str) -> Result<Self> {
        let refused = match Self::log_in(endpoint, address, application).await {
            Err(refused) => refused,
            opened => return opened,
        };
        match connect::without_encryption(endpoint, &refused) {
            Some(plain) => Self::log_in(&plain, address, application).await.map_err(|_| refused),
            None => Err(refused),
        }
    }

    async fn log_in(endpoint: &EndpointConfig, address: &Address, application: &str) -> Result<Self> {
        let mut wire = Wire::new(connect::open(endpoint, address).await?);
        let greeting = login::log_in(&mut wire, address, application).await?;
        let major = connect::major_version(greeting.version.as_deref())?;
        let mut replication = Replication { wire, major, process: greeting.process };
        replication.query(&connect::settings_for(major)).await?;
        Ok(replication)
    }

    pub(crate) fn major(&self) -> u32 {
        self.major
    }

    /// The server process that serves this connection.
    pub(crate) fn process(&self) -> i32 {
        self.process
    }

    /// The rows of one command or of a list of SQL statements.
    pub(crate) async fn query(&mut self, sql: &str) -> Result<TextRows> {
        self.send_query(sql).await?;
        let mut rows = Vec::new();
        let mut problem = None;
        loop {
            let frame = self.wire.read().await?;
            match frame.tag {
                b'D' => rows.push(text_row(&frame)?),
                // Only after ReadyForQuery can the connection be used again.
                b'E' => problem = Some(error::from_message(&ServerMessage::parse(&frame.body))),
                b'Z' => return problem.map_or(Ok(rows), Err),
                _ => {}
            }
        }
    }

    async fn send_query(&mut self, sql: &str) -> Result<()> {
        let mut message = BytesMut::new();
        frontend::query(sql, &mut message).map_err(|_| Error::internal("a command holds a zero byte"))?;
        self.wire.send(&message).await
    }

    pub(crate) async fn identify(&mut self) -> Result<ServerIdentity> {
        let rows = self.query("IDENTIFY_SYSTEM").await?;
        identity_of(&rows).ok_or_else(|| Error::new(&codes::SERVER_REFUSED, "the server's answer to IDENTIFY_SYSTEM cannot be read"))
    }

    /// Turns the connection into a stream of the log.
    pub(super) async fn start(mut self, command: &str) -> Result<Wire> {
        self.send_query(command).await?;
        let mut problem = None;
        loop {
            let frame = self.wire.read().await?;
            match frame.tag {
                b'W' => return Ok(self.wire),
                b'E' => problem = Some(error::from_message(&ServerMessage::parse(&frame.body))),
                b'Z' => return Err(problem.unwrap_or_else(|| Error::new(&codes::SERVER_REFUSED, "the server did not begin to stream"))),
                _ => {}
            }
        }
    }
}

fn identity_of(rows: &TextRows) -> Option<ServerIdentity> {
    let field = |index: usize| rows.first()?.get(index)?.as_deref();
    let log = Log { system: field(0)?.to_owned(), timeline: field(1)?.parse().ok()? };
    Some(ServerIdentity { log, flushed: Lsn::parse(field(2)?)? })
}

fn text_row(frame: &Frame) -> Result<Vec<Option<String>>> {
    read_row(&frame.body).ok_or_else(|| Error::new(&codes::CONNECTION_LOST, "the server sent a row that cannot be read"))
}

fn read_row(mut body: &[u8]) -> Option<Vec<Option<String>>> {
    let (count, rest) = body.split_first_chunk::<2>()?;
    body = rest;
    let mut row = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, rest) = body.split_first_chunk::<4>()?;
        body = rest;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            row.push(None);
            continue;
        };
        let (value, rest) = body.split_at_checked(length)?;
        body = rest;
        row.push(Some(String::from_utf8_lossy(value).into_owned()));
    }
    Some(row)
}
