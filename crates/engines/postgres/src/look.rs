//! A view of the source at one exact place of its log, for comparing.
//!
//! Only the making of a logical slot gives a snapshot whose place is known. The slot is temporary and goes as soon as a
//! session has begun on its snapshot.

use std::time::Duration;

use godwit_model::{Look, Position, Result, Task, Writes, codes};

use crate::connect;
use crate::digest::ServerExaminer;
use crate::establish::{SlotWanted, create_slot};
use crate::position::Place;
use crate::replication::Replication;
use crate::{error, names, quote};

/// Transactions that were open before the slot must end first; the target stands still meanwhile.
const LIMIT: Duration = Duration::from_secs(20);

/// None: no slot is to be had now; at a source that is not written to none is made.
pub(crate) async fn open(task: &Task) -> Result<Option<Look>> {
    if task.writes == Writes::Never {
        return Ok(None);
    }
    let session = connect::sql(&task.source, "godwit look").await?;
    let mut replication = Replication::open(&task.source, &names::of_task(&task.name)).await?;
    let log = replication.identify().await?.log;
    let name = format!("godwit_look_{}", replication.process());
    let wanted = SlotWanted { name: &name, temporary: true, within: LIMIT };
    let (point, snapshot) = match create_slot(&session, &mut replication, wanted).await {
        Ok(made) => made,
        Err(error) if error.is(&codes::CONNECTION_LOST) => return Err(error),
        Err(error) => {
            tracing::info!(%error, "the source cannot be looked at in one exact place now");
            return Ok(None);
        }
    };
    let sql = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}", quote::literal(&snapshot));
    session.batch_execute(&sql).await.map_err(error::from_server)?;
    Ok(Some(Look { position: log.position(point), examiner: Box::new(ServerExaminer::of(session)) }))
}

/// The snapshot shows what was committed before the slot's first place, and the slot tells the rest.
pub(crate) fn shows(look: &Position, commit: &Position) -> Result<bool> {
    Ok(Place::parse(commit)?.lsn <= Place::parse(look)?.lsn)
}
