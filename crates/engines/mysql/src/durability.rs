//! When a commit would survive a crash of the target.
//!
//! With `innodb_flush_log_at_trx_commit = 1` a commit is on disk when it returns, unless the server keeps a binary log
//! that it does not flush: then the commit's own record may still be in memory, because recovery would find the
//! transaction in the binary log. But the next transaction that writes flushes everything before it when it prepares: one
//! renewal of the lease makes what was committed durable. With 0 and 2 a server flushes about once a second, and tells how
//! far it is.

use std::time::Duration;

use godwit_model::{Error, Finding, Lease, Result, codes};
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use crate::{error, lease};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    AtCommit,
    AtNextCommit,
    Later,
}

/// Nothing tells when the log was flushed but asking.
const PAUSE: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(20);

const CURRENT: [&str; 2] = ["Innodb_lsn_current", "Innodb_redo_log_current_lsn"];
const FLUSHED: [&str; 2] = ["Innodb_lsn_flushed", "Innodb_redo_log_flushed_to_disk_lsn"];

impl Durability {
    pub(crate) async fn read(conn: &mut Conn) -> Result<Self> {
        let sql = "SELECT @@innodb_flush_log_at_trx_commit, @@log_bin, @@sync_binlog";
        let row: Option<(u8, bool, u64)> = conn.query_first(sql).await.map_err(error::from_server)?;
        let (flush, keeps_log, sync) = row.ok_or_else(|| Error::internal("settings without a row"))?;
        Ok(Self::of(flush, keeps_log, sync))
    }

    fn of(flush: u8, keeps_log: bool, sync: u64) -> Self {
        match (flush, keeps_log) {
            (0 | 2, _) => Durability::Later,
            (1, true) if sync != 1 => Durability::AtNextCommit,
            _ => Durability::AtCommit,
        }
    }

    /// Outside of a transaction. Returns when everything that was committed before would survive.
    pub(crate) async fn wait(self, conn: &mut Conn, lease: &Lease) -> Result<()> {
        match self {
            Durability::AtCommit => Ok(()),
            Durability::AtNextCommit => lease::renew(conn, lease).await,
            Durability::Later => {
                let end = position(conn, CURRENT).await?;
                match tokio::time::timeout(PATIENCE, flushed(conn, end)).await {
                    Ok(flushed) => flushed,
                    Err(_) => Err(Error::new(&codes::BUSY, "the target does not flush its log")),
                }
            }
        }
    }

    /// For `check`.
    pub(crate) fn finding(self) -> Option<Finding> {
        (self == Durability::Later).then(|| {
            Finding::warning(
                "innodb_flush_log_at_trx_commit",
                "the target loses its last second in a crash: Godwit goes on from what is left, and waits for the server's flushes",
                "set innodb_flush_log_at_trx_commit = 1 on the target",
            )
        })
    }
}

async fn flushed(conn: &mut Conn, end: u64) -> Result<()> {
    while position(conn, FLUSHED).await? < end {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// MariaDB's name for it, or MySQL's.
async fn position(conn: &mut Conn, names: [&str; 2]) -> Result<u64> {
    let sql = format!("SHOW GLOBAL STATUS WHERE variable_name IN ('{}', '{}')", names[0], names[1]);
    let row: Option<(String, String)> = conn.query_first(sql).await.map_err(error::from_server)?;
    row.and_then(|(_, value)| value.parse().ok()).ok_or_else(|| {
        Error::new(&codes::SETTING_UNSUITABLE, "the target does not flush each commit, and does not tell when it flushed")
            .remedy("set innodb_flush_log_at_trx_commit = 1 on the target")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_log_that_is_not_flushed_leaves_the_last_commit_behind() {
        assert_eq!(Durability::of(1, false, 0), Durability::AtCommit);
        assert_eq!(Durability::of(1, true, 1), Durability::AtCommit);
        assert_eq!(Durability::of(1, true, 0), Durability::AtNextCommit);
        assert_eq!(Durability::of(3, true, 0), Durability::AtCommit);
        assert_eq!(Durability::of(2, true, 1), Durability::Later);
        assert!(Durability::Later.finding().is_some() && Durability::AtCommit.finding().is_none());
    }
}
