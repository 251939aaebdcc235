//! How long a short question to a store may stay without an answer.
//!
//! A connection can be open and carry nothing any more: a balancer in between forgot it, and answers keepalives itself.
//! Work on rows may take as long as it takes; a question that a store answers at once when it can be reached may not.
//! Given up, its connection is dropped with it, and the next one is asked on another.

use std::future::Future;
use std::time::Duration;

use godwit_model::{Error, Result, codes};

/// Longer than a store under load takes, and than a failover behind one address.
const LONGEST: Duration = Duration::from_secs(60);

/// The answer, or that the connection is lost.
pub(crate) async fn answered<T>(question: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(LONGEST, question).await {
        Ok(answer) => answer,
        Err(_) => {
            let what = format!("a connection has not answered for {} s", LONGEST.as_secs());
            Err(Error::new(&codes::CONNECTION_LOST, what).remedy("look for a proxy or balancer in between that forgets connections"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_never_answered_is_a_lost_connection() {
        assert!(answered(std::future::pending::<Result<()>>()).await.unwrap_err().is(&codes::CONNECTION_LOST));
        assert_eq!(answered(async { Ok(1) }).await.unwrap(), 1);
    }
}
