//! What can only be known by trying: made in a transaction that is rolled back.

use godwit_model::{Finding, Result, SourceNeeds, codes};
use tokio_postgres::Client;

use crate::{error, establish, quote};

/// Two processes may look at once, and neither may stand in the other's way. At most 63 bytes long.
fn trial_name(needs: &SourceNeeds<'_>) -> String {
    format!("godwit_{}_check_{:08x}", needs.task.name, fastrand::u32(..))
}

/// A publication of one of the tables, and a marker; under a short lock timeout, because users' work comes first.
pub(super) async fn publication(client: &Client, needs: &SourceNeeds<'_>, findings: &mut Vec<Finding>) -> Result<()> {
    let Some(table) = needs.tables.get(..1) else { return Ok(()) };
    let sql = "SELECT has_database_privilege(current_database(), 'CREATE'), quote_ident(current_database()), quote_ident(current_user)";
    let row = client.query_one(sql, &[]).await.map_err(error::from_server)?;
    if !row.get::<_, bool>(0) {
        findings.push(Finding::blocker(
            "publication",
            &codes::RIGHTS_MISSING,
            "the role may not make a publication in the source's database",
            format!("GRANT CREATE ON DATABASE {} TO {}", row.get::<_, &str>(1), row.get::<_, &str>(2)),
        ));
        return Ok(());
    }
    // a table that is another's is told already
    if findings.iter().any(|finding| matches!(finding.check, "ownership" | "tables")) {
        return Ok(());
    }
    let creation = establish::creation(client, &trial_name(needs), table).await?;
    client.batch_execute("BEGIN; SET LOCAL lock_timeout = '200ms'").await.map_err(error::from_server)?;
    let made = client.batch_execute(&creation).await;
    client.batch_execute("ROLLBACK").await.map_err(error::from_server)?;
    if let Err(problem) = made {
        let error = error::from_server(problem);
        findings.push(if error.is_transient() {
            Finding::warning("publication", format!("a trial publication met a lock: {}", error.what()), "try again when less goes on")
        } else {
            Finding::blocker(
                "publication",
                &codes::RIGHTS_MISSING,
                format!("a trial publication was refused: {}", error.what()),
                "`godwit check --grants` prints all statements that are needed",
            )
        });
    }
    Ok(())
}

/// A slot that ends with the session. It waits for transactions under way, and users' work must not wait for it.
pub(super) async fn slot(client: &Client, needs: &SourceNeeds<'_>, findings: &mut Vec<Finding>) -> Result<()> {
    let name = quote::literal(&trial_name(needs));
    client.batch_execute("SET statement_timeout = '3s'").await.map_err(error::from_server)?;
    let made = client.batch_execute(&format!("SELECT pg_create_logical_replication_slot({name}, 'pgoutput', true)")).await;
    client.batch_execute("SET statement_timeout = 0").await.map_err(error::from_server)?;
    let Err(problem) = made else {
        return client.batch_execute(&format!("SELECT pg_drop_replication_slot({name})")).await.map_err(error::from_server);
    };
    let error = error::from_server(problem);
    findings.push(if error.is_transient() {
        let blockers = establish::name_all(client, 0).await?.join("; ");
        let what = format!("a trial slot was not made within 3 s: it waits for transactions under way: {blockers}");
        Finding::warning("trial_slot", what, "let long transactions end, and prepared ones be committed or rolled back")
    } else {
        Finding::blocker(
            "trial_slot",
            &codes::RIGHTS_MISSING,
            format!("a trial slot was refused: {}", error.what()),
            "give the role REPLICATION and the server a free slot; `godwit check --grants` prints the statements",
        )
    });
    Ok(())
}
