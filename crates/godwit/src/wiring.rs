//! From a task file to its stores, and from these to a job of the pipeline.

use std::path::Path;
use std::sync::Arc;

use godwit_model::{Error, Observer, Result, Source, Target, Task, codes};
use godwit_pipeline::{CHUNK_BYTES, Described, FolderStorage, Job, Survey, life_of, this_process};
use godwit_store::{Fingerprint, LogOptions, StateFolder};

/// The change log keeps its newest records in memory for a reader that keeps up; this part of the task's memory.
const LOG_PART_OF_MEMORY: u64 = 8;

/// A task and the stores it names. Nothing is connected to before something is asked.
pub struct Stores {
    pub task: Arc<Task>,
    pub source: Arc<dyn Source>,
    pub target: Arc<dyn Target>,
    /// What a person should know of the task file.
    pub warnings: Vec<String>,
}

impl Stores {
    pub async fn load(file: &Path) -> Result<Stores> {
        let file = file.to_owned();
        // a password command may take its time
        let loaded = tokio::task::spawn_blocking(move || godwit_task::load(&file));
        let loaded = loaded.await.map_err(|cause| Error::internal("reading the task file died").caused_by(cause))??;
        let task = Arc::new(loaded.task);
        let (source, target) = (godwit_engines::source(&task)?, godwit_engines::target(&task)?);
        Ok(Stores { task, source, target, warnings: loaded.warnings })
    }

    pub fn survey(&self) -> Survey {
        Survey { task: self.task.clone(), source: self.source.clone(), target: self.target.clone() }
    }

    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint { task: self.task.name.clone(), facts: godwit_task::fingerprint(&self.task) }
    }

    /// Whether the target knows of this task.
    pub async fn has_begun(&self) -> Result<bool> {
        Ok(!self.target.ledger(&self.task.name).await?.is_empty())
    }

    /// For what goes on with a task: that it has begun.
    pub async fn require_begun(&self) -> Result<()> {
        if self.has_begun().await? {
            return Ok(());
        }
        Err(Error::new(&codes::NOT_CONSISTENT, format!("the target knows nothing of task `{}`", self.task.name))
            .at(self.task.target.display())
            .remedy("start it with `godwit run`; if it was finished or cleaned, nothing is left to do")
            .effect("nothing was changed"))
    }

    pub fn job(&self, folder: &Arc<StateFolder>, observer: Arc<dyn Observer>) -> Job {
        let limits = &self.task.limits;
        let usual = LogOptions::default();
        let recent = usize::try_from(limits.memory.0 / LOG_PART_OF_MEMORY).unwrap_or(usize::MAX);
        let options = LogOptions { budget: limits.change_log.0, recent_bytes: usual.recent_bytes.min(recent), ..usual };
        Job {
            task: self.task.clone(),
            source: self.source.clone(),
            target: self.target.clone(),
            storage: Arc::new(FolderStorage { folder: folder.clone(), options }),
            observer,
            holder: this_process(),
            described: Described::default(),
            life: life_of,
            chunk_bytes: CHUNK_BYTES,
        }
    }
}
