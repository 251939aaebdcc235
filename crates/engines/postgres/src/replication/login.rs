//! Login on the replication connection: startup message and the server's proofs.

use bytes::{Bytes, BytesMut};
use godwit_model::{Error, Result, codes};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;

use super::wire::Wire;
use crate::connect::Address;
use crate::error::{self, ServerMessage};

/// What the server says of itself until it is ready.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    pub(super) version: Option<String>,
    pub(super) process: i32,
}

pub(super) async fn log_in(wire: &mut Wire, address: &Address, application: &str) -> Result<Greeting> {
    let parameters = [
        ("user", address.user.as_str()),
        ("database", address.database.as_str()),
        ("replication", "database"),
        ("client_encoding", "UTF8"),
        ("application_name", application),
    ];
    let mut message = BytesMut::new();
    frontend::startup_message(parameters, &mut message).map_err(error::lost)?;
    wire.send(&message).await?;
    authenticate(wire, address).await?;
    greeting(wire).await
}

async fn greeting(wire: &mut Wire) -> Result<Greeting> {
    let mut greeting = Greeting::default();
    loop {
        let frame = wire.read().await?;
        match frame.tag {
            b'Z' => return Ok(greeting),
            b'S' => {
                let mut parts = frame.body.split(|byte| *byte == 0);
                if parts.next() == Some(b"server_version") {
                    greeting.version = parts.next().map(|version| String::from_utf8_lossy(version).into_owned());
                }
            }
            b'K' => greeting.process = number(&frame.body),
            b'E' => return Err(error::from_message(&ServerMessage::parse(&frame.body))),
            _ => {}
        }
    }
}

fn number(body: &[u8]) -> i32 {
    body.first_chunk::<4>().map_or(0, |bytes| i32::from_be_bytes(*bytes))
}

async fn authenticate(wire: &mut Wire, address: &Address) -> Result<()> {
    loop {
        let body = challenge(wire).await?;
        let data = body.slice(body.len().min(4)..);
        match number(&body) {
            0 => return Ok(()),
            3 => clear_text(wire, address).await?,
            5 => md5(wire, address, &data).await?,
            10 => scram(wire, address, &data).await?,
            other => {
                return Err(error::authentication(&format!("the server asks for a way to authenticate ({other}) that is not supported")));
            }
        }
    }
}

/// The next authentication message.
async fn challenge(wire: &mut Wire) -> Result<Bytes> {
    let frame = wire.read().await?;
    match frame.tag {
        b'R' if frame.body.len() >= 4 => Ok(frame.body),
        b'E' => Err(error::from_message(&ServerMessage::parse(&frame.body))),
        _ => Err(Error::new(&codes::CONNECTION_LOST, "the server sent something that is not its protocol")),
    }
}

fn password(address: &Address) -> Result<&str> {
    let password =
        address.password.as_ref().ok_or_else(|| error::authentication("the server asks for a password, and the task gives none"))?;
    Ok(password.expose())
}

async fn clear_text(wire: &mut Wire, address: &Address) -> Result<()> {
    if !wire.is_encrypted() {
        tracing::warn!("the server asks for the password in clear text on a connection that is not encrypted");
    }
    answer(wire, password(address)?.as_bytes()).await
}

async fn md5(wire: &mut Wire, address: &Address, salt: &[u8]) -> Result<()> {
    let salt = salt.first_chunk::<4>().ok_or_else(|| error::authentication("the server's challenge cannot be read"))?;
    let hash = md5_hash(address.user.as_bytes(), password(address)?.as_bytes(), *salt);
    answer(wire, hash.as_bytes()).await
}

async fn answer(wire: &mut Wire, secret: &[u8]) -> Result<()> {
    let mut message = BytesMut::new();
    frontend::password_message(secret, &mut message).map_err(error::lost)?;
    wire.send(&message).await
}

async fn scram(wire: &mut Wire, address: &Address, mechanisms: &[u8]) -> Result<()> {
    if !mechanisms.split(|byte| *byte == 0).any(|name| name == SCRAM_SHA_256.as_bytes()) {
        return Err(error::authentication("the server offers no way to authenticate that is supported"));
    }
    let refused =
        |problem: std::io::Error| error::authentication("the server could not prove that it knows the password").caused_by(problem);
    let mut scram = ScramSha256::new(password(address)?.as_bytes(), ChannelBinding::unsupported());
    let mut message = BytesMut::new();
    frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut message).map_err(error::lost)?;
    wire.send(&message).await?;
    scram.update(&challenge_of(wire, 11).await?).map_err(refused)?;
    let mut message = BytesMut::new();
    frontend::sasl_response(scram.message(), &mut message).map_err(error::lost)?;
    wire.send(&message).await?;
    scram.finish(&challenge_of(wire, 12).await?).map_err(refused)
}

async fn challenge_of(wire: &mut Wire, kind: i32) -> Result<Bytes> {
    let body = challenge(wire).await?;
    if number(&body) != kind {
        return Err(error::authentication("the server left the way to authenticate that it had chosen"));
    }
    Ok(body.slice(4..))
}
