//! Connections: what an endpoint's fields mean, what every session is told, and sessions that are used again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use godwit_model::{EndpointConfig, Error, Result, TlsMode, codes};
use mysql_async::prelude::Queryable;
use mysql_async::{ClientIdentity, Conn, DriverError, IoError, Opts, OptsBuilder, SslOpts};

use crate::error;

pub(crate) const DEFAULT_PORT: u16 = 3306;
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// How long a connection is silent before the system asks whether the other side is there.
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
    /// Whether a server that has no encryption is spoken to without. Not where an authority is named.
    prefers_tls: bool,
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
    /// Rows and structure of a task: what they refer to may come later.
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
        Ok(Endpoint {
            opts: builder.into(),
            prefers_tls: config.tls.mode == TlsMode::Prefer && config.tls.ca.is_none(),
            database: config.database.clone(),
            display,
            connect_limit,
        })
    }

    /// A session that was told what ours are told.
    pub(crate) async fn connect(&self, purpose: Purpose) -> Result<Conn> {
        let placed = |error: Error| error.at_least_at(|| self.display.clone());
        match tokio::time::timeout(self.connect_limit, self.begin(purpose)).await {
            Err(_) => Err(placed(Error::new(&codes::UNREACHABLE, "the server did not answer in time"))),
            Ok(begun) => begun.map_err(placed),
        }
    }

    async fn begin(&self, purpose: Purpose) -> Result<Conn> {
        let mut conn = self.reach().await.map_err(error::from_connecting)?;
        conn.query_drop(settings(purpose)).await.map_err(error::from_server)?;
        Ok(conn)
    }

    async fn reach(&self) -> Result<Conn, mysql_async::Error> {
        match Conn::new(self.opts.clone()).await {
            // one that has none, or speaks it in a way that is not understood
            Err(mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer) | mysql_async::Error::Io(IoError::Tls(_)))
                if self.prefers_tls =>
            {
                let plain: Opts = OptsBuilder::from_opts(self.opts.clone()).ssl_opts(None::<SslOpts>).into();
                Conn::new(plain).await
            }
            reached => reached,
        }
    }

    /// The same, for sessions on which larger packets arrive than the server takes.
    pub(crate) fn with_packets_of(&self, bytes: usize) -> Self {
        let opts = OptsBuilder::from_opts(self.opts.clone()).max_allowed_packet(Some(bytes)).into();
        Endpoint { opts, ..self.clone() }
    }

    pub(crate) async fn ask(&self, conn: &mut Conn) -> Result<Server> {
        let sql = "SELECT version(), @@max_allowed_packet, CONCAT_WS(' ', @@hostname, @@port, @@datadir, @@server_id)";
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
}

/// Every session has settings of its own, whatever the server's, the account's or a pooler's are. Zero dates pass where
/// they pass at the source, but nothing is cut or clipped: `STRICT_ALL_TABLES`. Times are UTC's.
fn settings(purpose: Purpose) -> String {
    // a server may ignore the character set that clients ask for; the isolation's variable has other names on older servers, the statement has not
    let mut sql = "SET NAMES utf8mb4; SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; SET SESSION time_zone = '+00:00', \
         sql_mode = 'STRICT_ALL_TABLES,ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION,NO_BACKSLASH_ESCAPES', \
         wait_timeout = 28800, net_read_timeout = 600, net_write_timeout = 600, lock_wait_timeout = 30, \
         group_concat_max_len = 4294967295, autocommit = 1, sql_select_limit = 18446744073709551615, completion_type = 'NO_CHAIN', sql_notes = 1, \
         max_error_count = 64, unique_checks = 1 \
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
}

#[cfg(test)]
mod tests {
    use godwit_testkit::servers::{self, MySqlOptions, MySqlServer, MySqlVersion};

    use super::*;

    #[test]
    fn versions_are_read_as_servers_write_them() {
        let server = Server::parse("5.5.5-10.11.19-MariaDB-0+deb12u1-log", 16 << 20).unwrap();
        assert_eq!((server.flavor, server.version), (Flavor::MariaDb, 101_119));
        let server = Server::parse("9.7.0-1", 64 << 20).unwrap();
        assert_eq!((server.flavor, server.version), (Flavor::MySql, 90_700));
    }

    async fn cipher(server: &MySqlServer, mode: TlsMode) -> Result<String> {
        let mut config = crate::lab::config_of(server, "");
        config.tls.mode = mode;
        let mut conn = Endpoint::new(&config)?.connect(Purpose::Read).await?;
        let said: Option<(String, String)> = conn.query_first("SHOW SESSION STATUS LIKE 'Ssl_cipher'").await.map_err(error::from_server)?;
        Ok(said.unwrap().1)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_can_be_encrypted_is() {
        let encrypted = MySqlOptions::default().with_setting("ssl", "ON");
        let Some(server) = MySqlServer::start(MySqlVersion::MariaDb11_8, &encrypted) else { return };
        assert_ne!(cipher(&server, TlsMode::Prefer).await.unwrap(), "");
        assert_ne!(cipher(&server, TlsMode::Require).await.unwrap(), "");
        assert_eq!(cipher(&server, TlsMode::Disable).await.unwrap(), "");
        let unknown = cipher(&server, TlsMode::VerifyCa).await.unwrap_err();
        assert!(unknown.is(&codes::UNREACHABLE), "{unknown}");
        let Some(plain) = servers::shared_mysql(MySqlVersion::MariaDb10_11) else { return };
        assert_eq!(cipher(plain, TlsMode::Prefer).await.unwrap(), "");
        let refused = cipher(plain, TlsMode::Require).await.unwrap_err();
        assert!(refused.is(&codes::UNREACHABLE), "{refused}");
    }
}
