//! How fast small transactions are appended with grouped syncs, and read back from memory and from files.
//!
//! `cargo run --release -p godwit-store --example append_rate`

use std::sync::Arc;
use std::time::Instant;

use godwit_model::{ChangeBatch, Error, Layout, LayoutColumn, LayoutId, Micros, Position, Result, Sequence, TableName, Value};
use godwit_store::{ChangeLog, FileLog, LogOptions, LogReader, Record};

const TRANSACTIONS: u64 = 500_000;
const GROUP: u64 = 2_000;

#[tokio::main]
async fn main() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("godwit-append-rate-{}", std::process::id()));
    let outcome = measure(&folder).await;
    std::fs::remove_dir_all(&folder).map_err(|cause| Error::internal("removing the log failed").caused_by(cause))?;
    outcome
}

async fn measure(folder: &std::path::Path) -> Result<()> {
    let log: Arc<dyn ChangeLog> = Arc::new(FileLog::open(folder, LogOptions::default()).await?);
    let follower = tokio::spawn(follow(log.read_from(Sequence(1)).await?, TRANSACTIONS));
    let started = Instant::now();
    append(&*log).await?;
    report("appended and durable", started);
    follower.await.map_err(|error| Error::internal("the follower ended").caused_by(error))??;
    report("... and read beside it", started);
    let started = Instant::now();
    follow(log.read_from(Sequence(1)).await?, TRANSACTIONS).await?;
    report("read from files", started);
    println!("{} MiB on disk", log.size() >> 20);
    Ok(())
}

async fn append(log: &dyn ChangeLog) -> Result<()> {
    let column = |name: &str| LayoutColumn { name: name.into(), type_name: "text".into(), key: name == "id" };
    let columns = vec![column("id"), column("amount"), column("note")];
    let layout = Layout { id: LayoutId(1), table: TableName::new("public", "t"), columns, full_old_images: false };
    log.append(&Record::Layout(Arc::new(layout)))?;
    let note = Value::text("a note of some thirty characters");
    for number in 0..TRANSACTIONS {
        log.room().await?;
        log.append(&Record::Begin)?;
        let mut batch = ChangeBatch::default();
        batch.push_update(LayoutId(1), None, false, [Value::Int(number as i64), Value::text("12345.67"), note.clone()]);
        log.append(&Record::Changes(batch))?;
        let position = Position::from(format!("0/{number:X}"));
        log.append(&Record::Commit { position, time: Micros(number as i64), origin: None })?;
        if number % GROUP == 0 {
            log.sync().await?;
        }
    }
    log.sync().await?;
    Ok(())
}

async fn follow(mut reader: Box<dyn LogReader>, commits: u64) -> Result<()> {
    let mut seen = 0;
    while seen < commits {
        if let (_, Record::Commit { .. }) = reader.next().await? {
            seen += 1;
        }
    }
    Ok(())
}

fn report(what: &str, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    println!("{what}: {:.0} records/s ({seconds:.2} s)", (TRANSACTIONS * 3) as f64 / seconds);
}
