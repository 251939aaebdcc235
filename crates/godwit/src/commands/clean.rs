//! `godwit clean`: giving a task up.

use std::path::Path;

use godwit_model::{Result, Trace};

use super::question::confirm;
use super::run::warn;
use crate::answer::Answer;
use crate::cli::{Clean, Output};
use crate::control::{Command, Live};
use crate::progress::{Happening, Watch};
use crate::signal::Signals;
use crate::wiring::Stores;
use crate::{state, work};

pub async fn clean(args: Clean, output: Output) -> Result<Answer> {
    let stores = Stores::load(&args.place.task).await?;
    let path = state::path_of(&args.place, &stores.task.name);
    let mut watch = Watch::begin(output);
    warn(&watch, &stores);
    let traces = traces(&stores, &path).await?;
    for trace in &traces {
        watch.show(Happening::Note { text: format!("found: {trace}") });
    }
    if !args.yes {
        // the question stands alone on the terminal
        watch.close();
        let question = format!("Remove these {} and give task `{}` up?", traces.len(), stores.task.name);
        confirm(question, "say so with --yes").await?;
        watch = Watch::begin(output);
    }
    let mut signals = Signals::listen()?;
    if let Some(live) = Live::find(&path).await? {
        return signals.or(live.ask(&stores, Command::Clean, &watch)).await;
    }
    let folder = signals.or(state::open_to_clean(&stores, &path)).await?;
    let job = stores.job(&folder, watch.observer());
    signals.or_abort(work::clean(job, folder)).await
}

async fn traces(stores: &Stores, path: &Path) -> Result<Vec<String>> {
    let mut found: Vec<Trace> = stores.source.traces().await?;
    found.extend(stores.target.traces(&stores.task.name).await?);
    let mut found: Vec<String> = found.into_iter().map(|trace| trace.what).collect();
    if path.exists() {
        found.push(format!("state folder {}", path.display()));
    }
    Ok(found)
}
