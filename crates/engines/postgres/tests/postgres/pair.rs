//! Two databases of one server: a source to fill by hand, a target to move into.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use godwit_model::{
    ChunkMode, ChunkWrite, ChunkWritten, Description, DigestPlan, EndpointConfig, Entry, Holder, Lease, ReadSpec, SchemaItem, Source,
    Stage, TableMapping, Target, Task,
};
use godwit_testkit::servers::{self, Postgres};
use tokio_postgres::{Client, NoTls};

static NUMBER: AtomicU32 = AtomicU32::new(0);

pub struct Pair {
    pub task: Task,
    pub source: Arc<dyn Source>,
    pub target: Arc<dyn Target>,
    source_url: String,
    target_url: String,
}

impl Pair {
    /// None where the version is not there and may be skipped. `change` sets the task up.
    pub fn new(major: u16, change: impl FnOnce(&mut Task)) -> Option<Pair> {
        let server = servers::shared(major)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let names = (format!("b_first_{number}"), format!("b_second_{number}"));
        let (source_url, target_url) = (server.create_database(&names.0), server.create_database(&names.1));
        let mut task = godwit_testkit::task::task("shop");
        (task.source, task.target) = (endpoint(server, &names.0), endpoint(server, &names.1));
        change(&mut task);
        let (source, target) = (godwit_postgres::source(&task).unwrap(), godwit_postgres::target(&task).unwrap());
        Some(Pair { task, source, target, source_url, target_url })
    }

    /// The same target with another database of the same server as its source.
    pub fn with_source(self, task: Task, database: &str) -> Pair {
        let server = self.source_url.rsplit_once('/').expect("a URL ends in the database").0;
        let source_url = format!("{server}/{database}");
        Pair { source: godwit_postgres::source(&task).unwrap(), task, source_url, ..self }
    }

    pub async fn at_source(&self, sql: &str) {
        run(&self.source_url, sql).await;
    }

    pub async fn at_target(&self, sql: &str) {
        run(&self.target_url, sql).await;
    }

    pub async fn connected_to_target(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.target_url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// One text from each side.
    pub async fn ask_target(&self, sql: &str) -> Option<String> {
        ask(&self.target_url, sql).await
    }

    pub async fn ask_source(&self, sql: &str) -> Option<String> {
        ask(&self.source_url, sql).await
    }

    /// The first column of every row.
    pub async fn all_of_source(&self, sql: &str) -> Vec<String> {
        all(&self.source_url, sql).await
    }

    pub async fn all_of_target(&self, sql: &str) -> Vec<String> {
        all(&self.target_url, sql).await
    }

    /// Installs, takes the lease.
    pub async fn lease(&self) -> Lease {
        self.target.install().await.unwrap();
        let seen = self.target.lease(&self.task.name).await.unwrap();
        let record = self.target.take_lease(&self.task.name, &holder(1), seen.as_ref()).await.unwrap().unwrap();
        Lease { task: self.task.name.clone(), epoch: record.epoch }
    }

    /// Before the load keys are made too, after it indexes.
    pub async fn perform(&self, lease: &Lease, description: &Description, stage: Stage) {
        for item in steps(description, stage) {
            if let Err(error) = self.target.perform(lease, &[item], &[entry(&item.id)]).await {
                panic!("{}: {error:?} {:?}\n{:?}", item.id, error.detail_text(), item.sql);
            }
        }
    }

    /// The same, many steps in one transaction.
    pub async fn perform_together(&self, lease: &Lease, description: &Description, stage: Stage) {
        for items in steps(description, stage).chunks(50) {
            let done: Vec<Entry> = items.iter().map(|item| entry(&item.id)).collect();
            if let Err(error) = self.target.perform(lease, items, &done).await {
                panic!("{error:?} {:?}", error.detail_text());
            }
        }
    }

    /// Copies every table under one snapshot; the rows copied.
    pub async fn load(&self, lease: &Lease, mappings: &[Arc<TableMapping>], description: &Description, mode: ChunkMode) -> u64 {
        let snapshot = self.source.snapshot().await.unwrap();
        let mut total = 0;
        for (table, mapping) in description.tables.iter().zip(mappings) {
            for chunk in snapshot.plan(table, 16 * 1024).await.unwrap() {
                let spec = ReadSpec { mapping, chunk: &chunk, native: true, block_bytes: 4096 };
                let mut rows = snapshot.read(&spec).await.unwrap();
                let done = entry(&format!("{} {}", mapping.target, chunk.spec));
                let write = ChunkWrite { mapping, mode, done: &done };
                match self.target.write_chunk(lease, &write, rows.as_mut()).await {
                    Ok(ChunkWritten::Written { rows }) => total += rows,
                    other => panic!("{}: {other:?} {:?}", mapping.target, other.as_ref().err().and_then(|e| e.detail_text())),
                }
            }
        }
        total
    }

    pub async fn assert_equal(&self, mappings: &[Arc<TableMapping>]) {
        for mapping in mappings {
            let first = self.source.examiner().digest(&DigestPlan::of_source(mapping, 64)).await.unwrap();
            let second = self.target.examiner().digest(&DigestPlan::of_target(mapping, 64)).await.unwrap();
            assert_eq!(first, second, "{}", mapping.source);
        }
    }
}

fn steps(description: &Description, stage: Stage) -> Vec<&SchemaItem> {
    let stages = match stage {
        Stage::BeforeLoad => vec![Stage::BeforeLoad, Stage::Key],
        Stage::AfterLoad => vec![Stage::Index, Stage::AfterLoad],
        other => vec![other],
    };
    stages.iter().flat_map(|stage| description.items.iter().filter(move |item| item.stage == *stage)).collect()
}

pub fn mappings(task: &Task, description: &Description) -> Vec<Arc<TableMapping>> {
    TableMapping::resolve_all(&task.map, &description.tables).unwrap().into_iter().map(Arc::new).collect()
}

pub fn entry(key: &str) -> Entry {
    Entry { key: key.to_owned(), value: "done".into() }
}

pub fn holder(pid: u32) -> Holder {
    Holder { host: "here".into(), boot: "boot".into(), pid, started: 7 }
}

pub fn endpoint(server: &Postgres, database: &str) -> EndpointConfig {
    EndpointConfig {
        engine: "postgres".into(),
        host: "127.0.0.1".into(),
        port: Some(server.port()),
        user: Some("postgres".into()),
        password: None,
        database: database.into(),
        tls: godwit_model::Tls::default(),
        options: Vec::new(),
    }
}

async fn run(url: &str, sql: &str) {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    client.batch_execute(sql).await.unwrap_or_else(|problem| panic!("{problem:?} in {}", sql.chars().take(2000).collect::<String>()));
    driver.abort();
}

async fn ask(url: &str, sql: &str) -> Option<String> {
    all(url, sql).await.into_iter().next()
}

async fn all(url: &str, sql: &str) -> Vec<String> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    let messages = client.simple_query(sql).await.unwrap_or_else(|problem| panic!("{problem:?} in {sql}"));
    driver.abort();
    let rows = messages.iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    rows.collect()
}
