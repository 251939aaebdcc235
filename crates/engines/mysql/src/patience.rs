//! How long a question that the server answers at once may stay without an answer.
//!
//! A connection can be open and carry nothing any more: a balancer in between forgot it and answers keepalives itself, or
//! the server stands still. What reads rows or waits for other people's transactions may take as long as it takes and is
//! not asked so.

use std::future::Future;
use std::time::Duration;

use godwit_model::{Error, Result, codes};

/// Longer than a server under load takes, and than a failover behind one address; as long as the pipeline waits for what it
/// asks itself.
const LONGEST: Duration = Duration::from_secs(60);

/// More, for each table that a question is about: a server that has just started opens each.
const FOR_A_TABLE: Duration = Duration::from_millis(100);

/// The answer, or that the connection is lost. Given up, the question's connection goes with it.
pub(crate) async fn answered<T>(question: impl Future<Output = Result<T>>) -> Result<T> {
    answered_of(0, question).await
}

/// The same for questions about so many tables.
pub(crate) async fn answered_of<T>(tables: usize, question: impl Future<Output = Result<T>>) -> Result<T> {
    let limit = LONGEST + FOR_A_TABLE.saturating_mul(u32::try_from(tables).unwrap_or(u32::MAX));
    match tokio::time::timeout(limit, question).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::new(&codes::CONNECTION_LOST, format!("the server has not answered for {} s", limit.as_secs()))
            .remedy("look for a proxy or balancer in between that forgets connections")),
    }
}
