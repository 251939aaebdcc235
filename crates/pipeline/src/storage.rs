//! Where a task's change log and spool come from. Opened anew by each attempt: a log that failed once must be reopened.

use std::sync::Arc;

use async_trait::async_trait;
use godwit_model::{Error, Result, codes};
use godwit_store::{ChangeLog, FileLog, LogOptions, Spool, SpoolLimits, StateFolder};

#[async_trait]
pub trait Storage: Send + Sync {
    async fn log(&self) -> Result<Arc<dyn ChangeLog>>;

    /// An empty spool.
    async fn spool(&self) -> Result<Spool>;

    /// Forgets the log: the task begins anew. No log of this storage may be open.
    async fn wipe(&self) -> Result<()>;
}

/// The state folder of a task on this machine.
pub struct FolderStorage {
    pub folder: Arc<StateFolder>,
    pub options: LogOptions,
}

#[async_trait]
impl Storage for FolderStorage {
    async fn log(&self) -> Result<Arc<dyn ChangeLog>> {
        Ok(Arc::new(FileLog::open(self.folder.log(), self.options.clone()).await?))
    }

    async fn spool(&self) -> Result<Spool> {
        Spool::open(self.folder.spool(), SpoolLimits::default()).await
    }

    async fn wipe(&self) -> Result<()> {
        let path = self.folder.log();
        match tokio::task::spawn_blocking(move || std::fs::remove_dir_all(path)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(cause)) if cause.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Ok(Err(cause)) => Err(Error::new(&codes::STATE_IO, "the change log could not be removed")
                .at(self.folder.log().display().to_string())
                .caused_by(cause)),
            Err(cause) => Err(Error::internal("removing the change log died").caused_by(cause)),
        }
    }
}
