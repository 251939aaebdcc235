//! Connections to one endpoint that are used again.
//!
//! A session goes back only when its user says that no transaction is open; one that is dropped on an error, or because
//! a caller gave up waiting, is closed, and the server rolls back whatever it had begun.

use std::ops::Deref;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use godwit_model::{EndpointConfig, Result};

use crate::connect::{self, Session};
use crate::writer;

/// More idle connections than a task's default number of writers would only hold slots of the server.
const MOST_IDLE: usize = 4;

pub(crate) struct Sessions {
    endpoint: EndpointConfig,
    application: &'static str,
    /// Whether sessions are made ready for writing.
    writers: bool,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    session: Session,
    since: Instant,
}

/// What was not used for longer may be forgotten by a balancer in between, and would be found out late.
const LONGEST_IDLE: Duration = Duration::from_secs(20);

impl Sessions {
    pub(crate) fn new(endpoint: EndpointConfig, application: &'static str) -> Self {
        Sessions { endpoint, application, writers: false, idle: Mutex::new(Vec::new()) }
    }

    pub(crate) fn of_writer(endpoint: EndpointConfig, application: &'static str) -> Self {
        Sessions { writers: true, ..Self::new(endpoint, application) }
    }

    pub(crate) fn endpoint(&self) -> &EndpointConfig {
        &self.endpoint
    }

    pub(crate) async fn take(&self) -> Result<Lent<'_>> {
        let session = match self.pop() {
            Some(session) => session,
            None => self.open().await?,
        };
        Ok(Lent { session, home: self })
    }

    async fn open(&self) -> Result<Session> {
        let session = connect::sql(&self.endpoint, self.application).await?;
        if self.writers {
            writer::prepare(&session).await?;
        }
        Ok(session)
    }

    fn pop(&self) -> Option<Session> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(Idle { session, since }) = idle.pop() {
            if !session.is_closed() && since.elapsed() < LONGEST_IDLE {
                return Some(session);
            }
        }
        None
    }
}

pub(crate) struct Lent<'a> {
    session: Session,
    home: &'a Sessions,
}

impl Lent<'_> {
    /// For a session without an open transaction and with the settings it came with.
    pub(crate) fn give_back(self) {
        let mut idle = self.home.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE && !self.session.is_closed() {
            idle.push(Idle { session: self.session, since: Instant::now() });
        }
    }
}

impl Deref for Lent<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}
