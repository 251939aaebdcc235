//! Markers: one tiny transaction in the source's log, which any role may write.

use godwit_model::{Marker, Result, TaskName};
use tokio_postgres::Client;

use crate::{error, names, quote};

/// Writes the marker and waits until it is in this server's own log, not for standbys: a marker that a failover loses
/// is written again.
pub(crate) async fn mark(client: &Client, task: &TaskName, marker: &Marker) -> Result<()> {
    let (prefix, name) = (quote::literal(&names::marker_prefix(task)), quote::literal(&marker.0));
    let sql = format!(
        "BEGIN READ WRITE; SET LOCAL synchronous_commit = local; SELECT pg_catalog.pg_logical_emit_message(true, {prefix}, {name}); COMMIT"
    );
    client.batch_execute(&sql).await.map_err(error::from_server)
}
