//! Just enough of PostgreSQL's protocol to send one statement as a trusted role; tests bring their own driver.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

const PROTOCOL_3: u32 = 196_608;

/// Runs one statement as `postgres` in the database `postgres`; its rows are thrown away.
pub(super) fn run(port: u16, statement: &str) -> Result<(), String> {
    let mut stream = connect(port).map_err(|error| error.to_string())?;
    let mut conversation = || -> io::Result<Result<(), String>> {
        send(&mut stream, None, &[&PROTOCOL_3.to_be_bytes(), b"user\0postgres\0database\0postgres\0\0"])?;
        if let Err(refused) = read_until_ready(&mut stream)? {
            return Ok(Err(refused));
        }
        send(&mut stream, Some(b'Q'), &[statement.as_bytes(), b"\0"])?;
        let answer = read_until_ready(&mut stream)?;
        send(&mut stream, Some(b'X'), &[])?;
        Ok(answer)
    };
    conversation().map_err(|error| error.to_string())?
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    Ok(stream)
}

fn send(stream: &mut TcpStream, kind: Option<u8>, parts: &[&[u8]]) -> io::Result<()> {
    let body = parts.concat();
    let length = u32::try_from(body.len() + 4).expect("a short message");
    let kind = kind.as_slice();
    stream.write_all(&[kind, &length.to_be_bytes(), &body].concat())
}

/// Ok(Err) is the server's refusal; one during the connect ends the stream, one during a statement does not.
fn read_until_ready(stream: &mut TcpStream) -> io::Result<Result<(), String>> {
    let mut outcome = Ok(());
    loop {
        let (kind, body) = match read_message(stream) {
            Err(_) if outcome.is_err() => return Ok(outcome),
            message => message?,
        };
        match kind {
            b'Z' => return Ok(outcome),
            b'E' => outcome = Err(message_of(&body)),
            b'R' if body != [0; 4] => return Ok(Err("the server wants a password".to_owned())),
            _ => {}
        }
    }
}

fn read_message(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]).saturating_sub(4);
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body)?;
    Ok((head[0], body))
}

fn message_of(error: &[u8]) -> String {
    let mut fields = error.split(|byte| *byte == 0);
    let message = fields.find_map(|field| field.strip_prefix(b"M")).unwrap_or_default();
    String::from_utf8_lossy(message).into_owned()
}
