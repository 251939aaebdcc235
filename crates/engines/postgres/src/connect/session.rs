//! An SQL session.

use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use godwit_model::{EndpointConfig, Error, Result, TlsMode, codes};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{Client, Config, Connection, NoTls, SimpleQueryMessage};

use super::address::Address;
use super::watch::{self, Process, Watched};
use super::{settings, socket};
use crate::error;

/// The oldest version whose settings and log we know.
const OLDEST: u32 = 14;
/// By so much a limit is only overrun by a process that was paused.
const STOOD_STILL: Duration = Duration::from_secs(1);

/// A client and the task that drives its connection, which ends with this value: the server then rolls back whatever
/// was open. A lost connection shows as `CONNECTION_LOST` on the call under way, or the next.
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

    /// Sets what every session of ours has; gives the server's process.
    async fn begin(&self) -> Result<Process> {
        let sql = format!("{}; {}", settings::settings_for(self.major), watch::OWN_PROCESS);
        let answers = self.client.simple_query(&sql).await.map_err(error::from_server)?;
        let process = answers.iter().find_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => {
                let began = row.get(1).and_then(|began| began.parse().ok());
                Some(Process { number: row.get(0)?.parse().ok()?, began })
            }
            _ => None,
        });
        process.ok_or_else(|| Error::internal("a server did not say which process serves a session"))
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
    open(endpoint, application, true).await
}

/// One that nobody looks after, to look after another.
pub(super) async fn unwatched(endpoint: &EndpointConfig, application: &str) -> Result<Session> {
    open(endpoint, application, false).await
}

async fn open(endpoint: &EndpointConfig, application: &str, watched: bool) -> Result<Session> {
    let address = Address::parse(endpoint)?;
    let login = Login { endpoint, address: &address, application, watched };
    within_limit(&address, || login.as_preferred()).await
}

/// A limit that passed while this process itself stood still says nothing of the server: that login counts for nothing.
pub(crate) async fn within_limit<T, F>(address: &Address, log_in: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    loop {
        let began = Instant::now();
        match tokio::time::timeout(address.connect_limit, log_in()).await {
            Ok(done) => return done.map_err(|error| error.at_least_at(|| address.display.clone())),
            Err(_) if began.elapsed() > address.connect_limit + STOOD_STILL => {}
            Err(_) => return Err(timed_out(address)),
        }
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

/// How one session is made.
#[derive(Clone, Copy)]
struct Login<'a> {
    endpoint: &'a EndpointConfig,
    address: &'a Address,
    application: &'a str,
    watched: bool,
}

impl Login<'_> {
    async fn as_preferred(self) -> Result<Session> {
        let refused = match self.log_in().await {
            Err(refused) => refused,
            session => return session,
        };
        match without_encryption(self.endpoint, &refused) {
            Some(plain) => Login { endpoint: &plain, ..self }.log_in().await.map_err(|_| refused),
            None => Err(refused),
        }
    }

    async fn log_in(self) -> Result<Session> {
        let Login { endpoint, address, application, watched } = self;
        let stream = socket::open(endpoint, address).await?;
        let mut config = Config::new();
        config.user(&address.user).dbname(&address.database).application_name(application);
        // Encryption, where wanted, is already there.
        config.ssl_mode(SslMode::Disable);
        if let Some(password) = &address.password {
            config.password(password.expose());
        }
        let (bytes, talk) = Watched::new(stream.bytes);
        let (client, connection) = config.connect_raw(bytes, NoTls).await.map_err(error::from_server)?;
        let major = major_version(connection.parameter("server_version"))?;
        let silent = watched.then(|| watch::until_lost(talk.clone(), endpoint.clone()));
        let connection = tokio::spawn(drive(connection, silent));
        let session = Session { client, connection, major };
        talk.serves(session.begin().await?);
        Ok(session)
    }
}

/// Whoever uses the client sees the end, whichever it is, as an error of its own call.
async fn drive(connection: Connection<Watched, NoTlsStream>, silent: Option<impl Future<Output = ()>>) {
    let lost = async {
        match silent {
            Some(silent) => silent.await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = connection => if let Err(problem) = ended {
            tracing::debug!(state = problem.code().map(|state| state.code()), "an sql connection ended");
        },
        () = lost => tracing::warn!("an sql connection is open and carries nothing any more: it is given up"),
    }
}

fn timed_out(address: &Address) -> Error {
    Error::new(&codes::UNREACHABLE, format!("the server did not answer within {} s", address.connect_limit.as_secs()))
        .at(&address.display)
        .remedy("check host and port, that the server runs, and that no firewall is in between")
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
    use std::cell::Cell;

    use super::*;
    use crate::connect::address::Place;

    #[test]
    fn versions_are_read() {
        for (text, major) in [("18.0", 18), ("17beta1", 17), ("15.14 (Debian 15.14-0+deb12u1)", 15)] {
            assert_eq!(major_version(Some(text)).unwrap(), major);
        }
        assert!(major_version(Some("9.6.24")).is_err() && major_version(Some("x")).is_err() && major_version(None).is_err());
    }

    fn nowhere() -> Address {
        Address {
            place: Place::Tcp { host: "nowhere".into(), port: 1 },
            user: String::new(),
            password: None,
            database: String::new(),
            connect_limit: Duration::from_millis(10),
            display: "postgres://nowhere".into(),
        }
    }

    #[tokio::test]
    async fn a_limit_that_passed_while_the_process_was_paused_is_no_answer_of_the_server() {
        let tries = Cell::new(0);
        let log_in = || {
            tries.set(tries.get() + 1);
            let first = tries.get() == 1;
            async move {
                if first {
                    // what a stop signal does to all threads
                    std::thread::sleep(STOOD_STILL + Duration::from_millis(100));
                    std::future::pending::<()>().await;
                }
                Ok("in")
            }
        };
        assert_eq!(within_limit(&nowhere(), log_in).await.unwrap(), "in");
        assert_eq!(tries.get(), 2);
        let silent = within_limit(&nowhere(), std::future::pending::<Result<()>>).await;
        assert!(silent.is_err_and(|error| error.is(&codes::UNREACHABLE)));
    }
}
