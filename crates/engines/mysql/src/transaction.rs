//! The transaction that rows are written in, known again when it is committed.
//!
//! A deadlock or a lock that is waited for too long may roll all of it back while the session goes on: what is sent then
//! runs in another transaction, or in none. So the first savepoint of a transaction stands until its end and is released
//! in the message that commits: elsewhere it would not be there, and the message ends with an error before its COMMIT.

use godwit_model::{Error, Result, codes};
use mysql_async::Conn;

use crate::script::{Failed, Script};

/// What begins one.
pub(crate) const OPENING: [&str; 2] = ["START TRANSACTION", "SAVEPOINT godwit_batch"];
const NO_SAVEPOINT: u16 = 1305;

pub(crate) async fn open(conn: &mut Conn) -> Result<()> {
    let mut script = Script::default();
    OPENING.iter().for_each(|sql| script.add(sql));
    script.run(conn).await?;
    Ok(())
}

/// Whether the transaction that is ended was begun by `open`. A schema step's was not: each DDL ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    Here,
    BySteps,
}

impl Begun {
    /// In front of what is to be a part of it.
    pub(crate) fn still_open(self) -> Script {
        let mut script = self.ending();
        if self == Begun::Here {
            script.add(OPENING[1]);
        }
        script
    }

    /// In front of what ends it.
    pub(crate) fn ending(self) -> Script {
        let mut script = Script::default();
        if self == Begun::Here {
            script.add("RELEASE SAVEPOINT godwit_batch");
        }
        script
    }
}

pub(crate) fn is_gone(failed: &Failed) -> bool {
    failed.number() == Some(NO_SAVEPOINT)
}

pub(crate) fn rolled_back() -> Error {
    Error::new(&codes::RETRYABLE, "the server rolled the transaction back").effect("nothing was written")
}
