//! Connections: what an endpoint's fields mean, what every session is told, and sessions that are used again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use godwit_model::{EndpointConfig, Error, Result, TlsMode, codes};
use mysql_async::prelude::Queryable;
use mysql_async::{ClientIdentity, Conn, Opts, OptsBuilder, SslOpts};

use crate::error;

pub(crate) const DEFAULT_PORT: u16 = 3306;
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// Largest packet that is sent; the server's own limit is asked for and may be smaller.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Which of the two families of servers it is, and its version as a number: 10.11.6 is 101106.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavor {
    MySql,
    MariaDb,
}

/// What a server said of itself when it was connected to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Server {
    pub(crate) flavor: Flavor,
    pub(crate) version: u32,
    /// As it says it itself.
    pub(crate) text: String,
    pub(crate) max_packet: usize,
    /// Which server it is, by whatever name it was reached.
    pub(crate) instance: String,
}

/// A checked endpoint.
#[derive(Clone)]
pub(crate) struct Endpoint {
    opts: Opts,
    /// The database of the URL; empty: none.
    pub(crate) database: String,
    /// For messages; holds no secret.
    pub(crate) display: String,
    connect_limit: Duration,
}

/// What a session is for: what it is told besides what all are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Read,
    /// Rows of a task: no foreign keys, no unique checks that are merely postponed.
    Write,
}

impl Endpoint {
    pub(crate) fn new(config: &EndpointConfig) -> Result<Self> {
        let display = config.display();
        let connect_limit = connect_limit(config, &display)?;
        let host = if config.host.is_empty() { "localhost" } else { &config.host };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let mut builder = OptsBuilder::default()
            .user(Some(config.user.clone().unwrap_or_else(|| "root".to_owned())))
            .pass(config.password.as_ref().map(|password| password.expose().to_owned()))
            .prefer_socket(false)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(KEEPALIVE))
            .client_found_rows(true)
            .stmt_cache_size(Some(256))
            .ssl_opts(tls(config, &display)?)
            .connect_attribute("program_name", "godwit");
        builder = match host.starts_with('/') {
            true => builder.socket(Some(host)),
            false => builder.ip_or_hostname(host).tcp_port(config.port.unwrap_or(DEFAULT_PORT)),
        };
        Ok(Endpoint { opts: builder.into(), database: config.database.clone(), display, connect_limit })
    }

    /// A session that was told what ours are told.
    pub(crate) async fn connect(&self, purpose: Purpose) -> Result<Conn> {
        let placed = |error: Error| error.at_least_at(|| self.display.clone());
        let connecting = tokio::time::timeout(self.connect_limit, Conn::new(self.opts.clone()));
        let mut conn = match connecting.await {
            Err(_) => return Err(placed(Error::new(&codes::UNREACHABLE, "the server did not answer in time"))),
            Ok(answer) => answer.map_err(|problem| placed(error::from_connecting(problem)))?,
        };
        conn.query_drop(settings(purpose)).await.map_err(|problem| placed(error::from_server(problem)))?;
        Ok(conn)
    }

    /// The same, for sessions on which larger packets arrive than the server takes.
    pub(crate) fn with_packets_of(&self, bytes: usize) -> Self {
        let opts = OptsBuilder::from_opts(self.opts.clone()).max_allowed_packet(Some(bytes)).into();
        Endpoint { opts, ..self.clone() }
    }

    pub(crate) async fn ask(&self, conn: &mut Conn) -> Result<Server> {
        let sql = "SELECT version(), @@max_allowed_packet, CONCAT_WS(' ', @@hostname, @@port, @@datadir)";
        let row: Option<(String, u64, String)> = conn.query_first(sql).await.map_err(error::from_server)?;
        let (text, packet, instance) = row.ok_or_else(|| Error::internal("a server without a version"))?;
        Ok(Server { instance, ..Server::parse(&text, packet)? })
    }
}

impl Server {
    fn parse(text: &str, packet: u64) -> Result<Self> {
        let flavor = if text.contains("MariaDB") { Flavor::MariaDb } else { Flavor::MySql };
        // servers that speak to old replicas put this before their version
        let number = text.strip_prefix("5.5.5-").unwrap_or(text);
        let mut parts = number.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
        let mut part = || parts.next().unwrap_or(0);
        let version = part() * 10_000 + part() * 100 + part();
        let max_packet = usize::try_from(packet).map_err(|_| Error::internal("a packet that does not fit"))?;
        Ok(Server { flavor, version, text: text.to_owned(), max_packet, instance: String::new() })
    }

    /// What `Capabilities::dialect` says: whose DDL and values it understands as they are.
    pub(crate) fn dialect(&self) -> &'static str {
        match self.flavor {
            Flavor::MySql => "mysql",
            Flavor::MariaDb => "mariadb",
        }
    }
}

/// Every session has settings of its own, whatever the server's, the account's or a pooler's are. Zero dates pass where
/// they pass at the source, but nothing is cut or clipped: `STRICT_ALL_TABLES`. Times are UTC's.
fn settings(purpose: Purpose) -> String {
    // a server may ignore the character set that clients ask for; the isolation's variable has other names on older servers, the statement has not
    let mut sql = "SET NAMES utf8mb4; SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; SET SESSION time_zone = '+00:00', \
         sql_mode = 'STRICT_ALL_TABLES,ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION,NO_BACKSLASH_ESCAPES', \
         wait_timeout = 28800, net_read_timeout = 600, net_write_timeout = 600, lock_wait_timeout = 30, \
         group_concat_max_len = 4294967295, autocommit = 1 \
         /*M! , max_statement_time = 0, idle_transaction_timeout = 0, idle_readonly_transaction_timeout = 0, \
         idle_write_transaction_timeout = 0 */ /*!80000 , max_execution_time = 0 */"
        .to_owned();
    if purpose == Purpose::Write {
        sql.push_str(", foreign_key_checks = 0, innodb_lock_wait_timeout = 10");
    }
    sql
}

fn tls(config: &EndpointConfig, display: &str) -> Result<Option<SslOpts>> {
    let mode = config.tls.mode;
    if mode == TlsMode::Disable || config.host.starts_with('/') {
        return Ok(None);
    }
    // the protocol has no way to try: whoever wants encryption says so
    if mode == TlsMode::Prefer && config.tls.ca.is_none() {
        return Ok(None);
    }
    let mut opts = SslOpts::default();
    if let Some(ca) = &config.tls.ca {
        opts = opts.with_root_certs(vec![ca.clone().into()]).with_disable_built_in_roots(true);
    }
    match (&config.tls.certificate, &config.tls.key) {
        (Some(certificate), Some(key)) => {
            opts = opts.with_client_identity(Some(ClientIdentity::new(certificate.clone().into(), key.clone().into())))
        }
        (None, None) => {}
        _ => {
            return Err(
                Error::new(&codes::TASK_VALUE, "a client certificate needs its key, and a key its certificate").at(display.to_owned())
            );
        }
    }
    let checks_name = mode == TlsMode::VerifyFull;
    let checks_chain = checks_name || mode == TlsMode::VerifyCa || config.tls.ca.is_some();
    Ok(Some(opts.with_danger_accept_invalid_certs(!checks_chain).with_danger_skip_domain_validation(!checks_name)))
}

fn connect_limit(config: &EndpointConfig, display: &str) -> Result<Duration> {
    let mut limit = CONNECT_LIMIT;
    for (name, value) in &config.options {
        match name.as_str() {
            "connect_timeout" => {
                let seconds = value
                    .parse::<u64>()
                    .map_err(|_| Error::new(&codes::TASK_VALUE, "the option `connect_timeout` is a whole number of seconds").at(display))?;
                limit = if seconds == 0 { CONNECT_LIMIT } else { Duration::from_secs(seconds.max(2)) };
            }
            _ => {
                return Err(Error::new(&codes::TASK_UNKNOWN_KEY, format!("the option `{name}` is not one that mysql endpoints have"))
                    .at(display)
                    .remedy("leave it out; known is: connect_timeout"));
            }
        }
    }
    Ok(limit)
}

/// Sessions of one purpose that wait for their next use. One whose use did not end is never used again: whoever takes one
/// owns it, and gives it back only when all of its answers were read and no transaction is open.
pub(crate) struct Sessions {
    endpoint: Endpoint,
    purpose: Purpose,
    idle: Arc<Mutex<Vec<Conn>>>,
}

impl Sessions {
    pub(crate) fn new(endpoint: Endpoint, purpose: Purpose) -> Self {
        Sessions { endpoint, purpose, idle: Arc::default() }
    }

    pub(crate) async fn take(&self) -> Result<Conn> {
        let waiting = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match waiting {
            Some(conn) => Ok(conn),
            None => self.endpoint.connect(self.purpose).await,
        }
    }

    pub(crate) fn give_back(&self, conn: Conn) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_servers_write_them() {
        let server = Server::parse("5.5.5-10.11.19-MariaDB-0+deb12u1-log", 16 << 20).unwrap();
        assert_eq!((server.flavor, server.version), (Flavor::MariaDb, 101_119));
        let server = Server::parse("9.7.0-1", 64 << 20).unwrap();
        assert_eq!((server.flavor, server.version, server.dialect()), (Flavor::MySql, 90_700, "mysql"));
    }
}
