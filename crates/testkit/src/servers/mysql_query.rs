//! Just enough of the protocol of MySQL and MariaDB to run SQL as `root`; tests bring their own driver.
//!
//! A driver here would be in every test program, with all that it needs.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// Rows that are found count as changed; with a database, in the present protocol, many statements at once, and with a named way to authenticate.
const CAPABILITIES: u32 = 0x0000_0002 | 0x0000_0008 | 0x0000_0200 | 0x0000_2000 | 0x0000_8000 | 0x0001_0000 | 0x0002_0000 | 0x0008_0000;
const UTF8MB4_GENERAL_CI: u8 = 45;
const MAX_PACKET: u32 = 0x00ff_ffff;
const QUERY: u8 = 3;
const MORE_RESULTS: u16 = 8;
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

pub(super) type Rows = Vec<Vec<Option<String>>>;

/// Runs statements in a session of their own and returns the rows of all of them, or what the server says.
pub(super) fn run(port: u16, database: &str, sql: &str) -> Result<Rows, String> {
    Ok(MySqlSession::open(port, database)?.run(sql)?.rows)
}

/// One user's connection.
pub struct MySqlSession {
    stream: TcpStream,
    /// Of the next packet in this exchange.
    number: u8,
}

/// What statements gave together.
#[derive(Default)]
pub struct Answer {
    pub rows: Vec<Vec<Option<String>>>,
    /// Rows found or changed.
    pub touched: u64,
}

impl MySqlSession {
    /// Runs statements, divided by semicolons.
    ///
    /// # Errors
    /// What the server says; those before it are done.
    pub fn run(&mut self, sql: &str) -> Result<Answer, String> {
        self.number = 0;
        self.send(&[&[QUERY], sql.as_bytes()])?;
        let mut answer = Answer::default();
        while self.read_result(&mut answer)? {}
        Ok(answer)
    }

    pub(super) fn open(port: u16, database: &str) -> Result<Self, String> {
        let stream = TcpStream::connect(("127.0.0.1", port)).map_err(said)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT)).map_err(said)?;
        let mut session = Self { stream, number: 0 };
        let greeting = session.receive()?;
        // the way that the server likes best is its last word; no password is the same in all ways
        let way = greeting.strip_suffix(b"\0").and_then(|rest| rest.rsplit(|byte| *byte == 0).next()).unwrap_or_default();
        let head = [&CAPABILITIES.to_le_bytes()[..], &MAX_PACKET.to_le_bytes(), &[UTF8MB4_GENERAL_CI], &[0; 23]].concat();
        session.send(&[&head, b"root\0", b"\0", database.as_bytes(), b"\0", way, b"\0"])?;
        while session.receive()?[0] != 0 {
            session.send(&[])?; // it wants another way
        }
        Ok(session)
    }

    /// Whether there is another result behind this one.
    fn read_result(&mut self, answer: &mut Answer) -> Result<bool, String> {
        let head = self.receive()?;
        let mut rest = &head[..];
        let columns = length(&mut rest)?.ok_or("the server wants a file")?;
        if columns == 0 {
            answer.touched += length(&mut rest)?.unwrap_or(0) as u64;
            length(&mut rest)?;
            return Ok(status(rest)? & MORE_RESULTS != 0);
        }
        while !is_end(&self.receive()?) {} // descriptions of columns
        loop {
            let packet = self.receive()?;
            if is_end(&packet) {
                return Ok(status(&packet[3..])? & MORE_RESULTS != 0);
            }
            answer.rows.push(row(&packet)?);
        }
    }

    fn send(&mut self, parts: &[&[u8]]) -> Result<(), String> {
        let body = parts.concat();
        let length = u32::try_from(body.len()).ok().filter(|length| *length < MAX_PACKET).ok_or("too long for one packet")?;
        let [low, middle, high, _] = length.to_le_bytes();
        let packet = [&[low, middle, high, self.number], &body[..]].concat();
        self.number = self.number.wrapping_add(1);
        self.stream.write_all(&packet).map_err(said)
    }

    /// A packet that has something in it and is no refusal.
    fn receive(&mut self) -> Result<Vec<u8>, String> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head).map_err(said)?;
        let [low, middle, high, number] = head;
        let length = u32::from_le_bytes([low, middle, high, 0]);
        let mut body = vec![0; length as usize];
        self.stream.read_exact(&mut body).map_err(said)?;
        self.number = number.wrapping_add(1);
        match body.first() {
            None => Err("an empty packet".to_owned()),
            Some(0xff) => Err(refusal(&body)),
            Some(_) if length == MAX_PACKET => Err("a packet in parts".to_owned()),
            Some(_) => Ok(body),
        }
    }
}

/// As "1054: Unknown column 'x' in 'SELECT'".
fn refusal(packet: &[u8]) -> String {
    let code = packet.get(1..3).map_or(0, |code| u16::from_le_bytes([code[0], code[1]]));
    let text = packet.get(3..).unwrap_or_default();
    // behind a mark and five characters for the kind, but when it refuses to greet
    let text = if text.starts_with(b"#") { text.get(6..).unwrap_or_default() } else { text };
    format!("{code}: {}", String::from_utf8_lossy(text))
}

fn is_end(packet: &[u8]) -> bool {
    packet[0] == 0xfe && packet.len() < 9
}

fn row(mut packet: &[u8]) -> Result<Vec<Option<String>>, String> {
    let mut row = Vec::new();
    while !packet.is_empty() {
        let value = match length(&mut packet)? {
            None => None,
            Some(length) => Some(take(&mut packet, length)?.to_vec()),
        };
        let text = value.map(String::from_utf8).transpose();
        row.push(text.map_err(|_| "a value that is no text: ask for its HEX()")?);
    }
    Ok(row)
}

fn status(at: &[u8]) -> Result<u16, String> {
    at.first_chunk().map(|bytes| u16::from_le_bytes(*bytes)).ok_or("a packet without a status".to_owned())
}

/// A number in as many bytes as it needs; `None` stands for NULL.
fn length(rest: &mut &[u8]) -> Result<Option<usize>, String> {
    let bytes = match take(rest, 1)?[0] {
        0xfb => return Ok(None),
        0xfc => take(rest, 2)?,
        0xfd => take(rest, 3)?,
        0xfe => take(rest, 8)?,
        short => return Ok(Some(usize::from(short))),
    };
    Ok(Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], String> {
    let (taken, left) = rest.split_at_checked(length).ok_or("a packet that is too short")?;
    *rest = left;
    Ok(taken)
}

fn said(error: io::Error) -> String {
    error.to_string()
}
