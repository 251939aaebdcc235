//! What an endpoint's fields mean to this engine, with the defaults of every PostgreSQL client.

use std::path::PathBuf;
use std::time::Duration;

use godwit_model::{EndpointConfig, Error, Result, Secret, codes};

pub(crate) const DEFAULT_PORT: u16 = 5432;
/// For name, socket, encryption and login together: long enough for a far server, short enough to be told soon.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// A checked endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) place: Place,
    pub(crate) user: String,
    pub(crate) password: Option<Secret>,
    pub(crate) database: String,
    pub(crate) connect_limit: Duration,
    /// For messages; holds no secret.
    pub(crate) display: String,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Place {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl Address {
    pub(crate) fn parse(endpoint: &EndpointConfig) -> Result<Self> {
        let display = endpoint.display();
        let user = endpoint.user.clone().or_else(login_name).ok_or_else(|| {
            Error::new(&codes::TASK_REFERENCE, "the endpoint names no user, and this process has no user name")
                .at(&display)
                .remedy("write the user into the URL: postgres://USER@HOST/DATABASE")
        })?;
        let database = if endpoint.database.is_empty() { user.clone() } else { endpoint.database.clone() };
        Ok(Address {
            place: place(endpoint),
            password: endpoint.password.clone(),
            connect_limit: connect_limit(endpoint, &display)?,
            user,
            database,
            display,
        })
    }
}

fn login_name() -> Option<String> {
    ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok()).filter(|name| !name.is_empty())
}

fn place(endpoint: &EndpointConfig) -> Place {
    let port = endpoint.port.unwrap_or(DEFAULT_PORT);
    if endpoint.host.starts_with('/') {
        return Place::Unix(PathBuf::from(format!("{}/.s.PGSQL.{port}", endpoint.host.trim_end_matches('/'))));
    }
    let host = if endpoint.host.is_empty() { "localhost" } else { &endpoint.host };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Place::Tcp { host: host.to_owned(), port }
}

/// The only options this engine has; a name of our own is given to every session anyway.
fn connect_limit(endpoint: &EndpointConfig, display: &str) -> Result<Duration> {
    let mut limit = CONNECT_LIMIT;
    for (name, value) in &endpoint.options {
        match name.as_str() {
            "application_name" | "fallback_application_name" => {}
            "connect_timeout" => {
                let seconds = value
                    .parse::<u64>()
                    .map_err(|_| Error::new(&codes::TASK_VALUE, "the option `connect_timeout` is a whole number of seconds").at(display))?;
                // As libpq: 0 means no limit of the user's own.
                limit = if seconds == 0 { CONNECT_LIMIT } else { Duration::from_secs(seconds.max(2)) };
            }
            _ => {
                return Err(Error::new(&codes::TASK_UNKNOWN_KEY, format!("the option `{name}` is not one that postgres endpoints have"))
                    .at(display)
                    .remedy("leave it out; known is: connect_timeout"));
            }
        }
    }
    Ok(limit)
}

#[cfg(test)]
mod tests {
    use godwit_model::Tls;

    use super::*;

    fn endpoint(host: &str) -> EndpointConfig {
        EndpointConfig {
            engine: "postgres".to_owned(),
            host: host.to_owned(),
            port: None,
            user: Some("u".to_owned()),
            password: None,
            database: String::new(),
            tls: Tls::default(),
            options: Vec::new(),
        }
    }

    #[test]
    fn the_defaults_are_those_of_every_client() {
        let address = Address::parse(&endpoint("")).unwrap();
        assert_eq!(address.place, Place::Tcp { host: "localhost".to_owned(), port: 5432 });
        assert_eq!(address.database, "u");
        assert_eq!(Address::parse(&endpoint("/run/pg/")).unwrap().place, Place::Unix("/run/pg/.s.PGSQL.5432".into()));
        assert_eq!(Address::parse(&endpoint("[::1]")).unwrap().place, Place::Tcp { host: "::1".to_owned(), port: 5432 });
    }

    #[test]
    fn an_unknown_option_is_refused() {
        let mut unknown = endpoint("h");
        unknown.options = vec![("sslmoed".to_owned(), "require".to_owned())];
        assert!(Address::parse(&unknown).unwrap_err().is(&codes::TASK_UNKNOWN_KEY));
        unknown.options = vec![("connect_timeout".to_owned(), "soon".to_owned())];
        assert!(Address::parse(&unknown).unwrap_err().is(&codes::TASK_VALUE));
    }
}
