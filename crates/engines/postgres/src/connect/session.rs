//! An SQL session.

use std::ops::{Deref, DerefMut};

use godwit_model::{EndpointConfig, Error, Result, TlsMode, codes};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};

use super::address::Address;
use super::{settings, socket};
use crate::error;

/// The oldest version whose settings and log we know.
const OLDEST: u32 = 14;

/// A client and the task that drives its connection, which ends with this value: the server then rolls back whatever
/// was open. A lost connection shows as `CONNECTION_LOST` on the next call.
pub(crate) struct Session {
    client: Client,
    connection: JoinHandle<()>,
    major: u32,
}

impl Session {
    /// The server's major version.
    pub(crate) fn major(&self) -> u32 {
        self.major
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// A session of the endpoint's user with our settings, named `application` in the server's views.
pub(crate) async fn sql(endpoint: &EndpointConfig, application: &str) -> Result<Session> {
    let address = Address::parse(endpoint)?;
    let session = tokio::time::timeout(address.connect_limit, log_in_as_preferred(endpoint, &address, application)).await;
    match session {
        Ok(session) => session.map_err(|error| error.at_least_at(|| address.display.clone())),
        Err(_) => Err(timed_out(&address)),
    }
}

/// What `prefer` means to libpq: without encryption if with it there is no way in. A wrong password is not tried twice.
pub(crate) fn without_encryption(endpoint: &EndpointConfig, refused: &Error) -> Option<EndpointConfig> {
    let is_no_way_in = refused.is(&codes::TLS_FAILED) || error::is_not_admitted(refused);
    (endpoint.tls.mode == TlsMode::Prefer && is_no_way_in).then(|| {
        let mut plain = endpoint.clone();
        plain.tls.mode = TlsMode::Disable;
        plain
    })
}

async fn log_in_as_preferred(endpoint: &EndpointConfig, address: &Address, application: &str) -> Result<Session> {
    let refused = match log_in(endpoint, address, application).await {
        Err(refused) => refused,
        session => return session,
    };
    match without_encryption(endpoint, &refused) {
        Some(plain) => log_in(&plain, address, application).await.map_err(|_| refused),
        None => Err(refused),
    }
}

pub(crate) fn timed_out(address: &Address) -> Error {
    Error::new(&codes::UNREACHABLE, format!("the server did not answer within {} s", address.connect_limit.as_secs()))
        .at(&address.display)
        .remedy("check host and port, that the server runs, and that no firewall is in between")
}

async fn log_in(endpoint: &EndpointConfig, address: &Address, application: &str) -> Result<Session> {
    let stream = socket::open(endpoint, address).await?;
    let mut config = Config::new();
    config.user(&address.user).dbname(&address.database).application_name(application);
    // Encryption, where wanted, is already there.
    config.ssl_mode(SslMode::Disable);
    if let Some(password) = &address.password {
        config.password(password.expose());
    }
    let (client, connection) = config.connect_raw(stream.bytes, NoTls).await.map_err(error::from_server)?;
    let major = major_version(connection.parameter("server_version"))?;
    let connection = tokio::spawn(async move {
        // Whoever uses the client sees the same end as an error of its own call.
        if let Err(problem) = connection.await {
            tracing::debug!(state = problem.code().map(|state| state.code()), "an sql connection ended");
        }
    });
    let session = Session { client, connection, major };
    session.batch_execute(&settings::settings_for(major)).await.map_err(error::from_server)?;
    Ok(session)
}

/// From `18.0`, `17beta1`, `15.14 (Debian 15.14-0+deb12u1)`.
pub(crate) fn major_version(text: Option<&str>) -> Result<u32> {
    let text = text.unwrap_or_default();
    let digits = text.find(|c: char| !c.is_ascii_digit()).map_or(text, |end| &text[..end]);
    match digits.parse::<u32>() {
        Ok(major) if major >= OLDEST => Ok(major),
        _ => Err(Error::new(&codes::VERSION_UNSUPPORTED, format!("the server's version `{text}` is older than {OLDEST} or unknown"))
            .remedy("move with a server of version 14 or later; an older one can be upgraded in place first")),
    }
}

#[cfg(test)]
mod tests {
    use super::major_version;

    #[test]
    fn versions_are_read() {
        for (text, major) in [("18.0", 18), ("17beta1", 17), ("15.14 (Debian 15.14-0+deb12u1)", 15)] {
            assert_eq!(major_version(Some(text)).unwrap(), major);
        }
        assert!(major_version(Some("9.6.24")).is_err() && major_version(Some("x")).is_err() && major_version(None).is_err());
    }
}
