//! The pipeline at work for one command, when no run is alive that could carry it out.

use std::path::Path;
use std::sync::Arc;

use godwit_model::Result;
use godwit_pipeline::{Job, Running};
use godwit_store::StateFolder;

use crate::progress::Watch;
use crate::signal::Signals;
use crate::state;
use crate::wiring::Stores;

/// A task at work that must be stopped.
pub struct Alone {
    pub running: Running,
    pub folder: Arc<StateFolder>,
}

impl Alone {
    pub async fn begin(stores: &Stores, path: &Path, watch: &Watch) -> Result<Alone> {
        Self::begin_as(stores, path, watch, Job::start).await
    }

    /// As `begin`, but rows that differ are copied anew before anything else: a way out of a conflict.
    pub async fn mend(stores: &Stores, path: &Path, watch: &Watch) -> Result<Alone> {
        Self::begin_as(stores, path, watch, Job::mend).await
    }

    async fn begin_as(stores: &Stores, path: &Path, watch: &Watch, start: fn(Job) -> Running) -> Result<Alone> {
        stores.require_begun().await?;
        let folder = state::open(stores, path).await?;
        let running = start(stores.job(&folder, watch.observer()));
        Ok(Alone { running, folder })
    }

    /// Does what was asked. If that failed, or a signal came, the work is stopped and gives its lease back.
    pub async fn ask<T>(mut self, signals: &mut Signals, what: impl AsyncFnOnce(&mut Running) -> Result<T>) -> Result<(Alone, T)> {
        match signals.or(what(&mut self.running)).await {
            Ok(answer) => Ok((self, answer)),
            Err(error) => {
                // what ended the work is the error at hand
                let _ = self.stop(signals).await;
                Err(error)
            }
        }
    }

    pub async fn stop(self, signals: &mut Signals) -> Result<Arc<StateFolder>> {
        if !self.running.is_over() {
            signals.or_abort(self.running.stop()).await?;
        }
        Ok(self.folder)
    }
}
