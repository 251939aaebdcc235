//! `godwit finish`: the end of a migration, with a proof.

use std::path::Path;

use godwit_model::Result;
use serde_json::json;

use super::alone::Alone;
use super::question::confirm;
use super::run::warn;
use crate::answer::Answer;
use crate::cli::{Finish, Output};
use crate::control::{Command, Live};
use crate::progress::Watch;
use crate::signal::Signals;
use crate::wiring::Stores;
use crate::{state, work};

pub async fn finish(args: Finish, output: Output) -> Result<Answer> {
    let stores = Stores::load(&args.place.task).await?;
    let path = state::path_of(&args.place, &stores.task.name);
    if let Some(proof) = removed_but_for_the_folder(&stores, &path).await? {
        return Ok(proof);
    }
    stores.require_begun().await?;
    ask(&args, &stores).await?;
    let mut signals = Signals::listen()?;
    let watch = Watch::begin(output);
    warn(&watch, &stores);
    if let Some(live) = Live::find(&path).await? {
        let command = Command::Finish { read_only_source: args.read_only_source };
        return signals.or(live.ask(&stores, command, &watch)).await;
    }
    alone(&args, &stores, &path, &mut signals, &watch).await
}

async fn alone(args: &Finish, stores: &Stores, path: &Path, signals: &mut Signals, watch: &Watch) -> Result<Answer> {
    let folder = signals.or(state::open(stores, path)).await?;
    let job = stores.job(&folder, watch.observer());
    if job.is_complete().await? {
        let proof = state::proof(path).unwrap_or_else(found_equal_before);
        return signals.or_abort(work::remove_finished(job, folder, proof)).await;
    }
    let alone = Alone { running: job.clone().start(), folder };
    let (alone, proof) = alone.ask(signals, async |running| work::complete(running, args.read_only_source, 0).await).await?;
    let folder = alone.stop(signals).await?;
    if proof.no {
        return Ok(proof);
    }
    signals.or_abort(work::remove_finished(job, folder, proof)).await
}

/// An earlier finish died when nothing but its folder was left.
async fn removed_but_for_the_folder(stores: &Stores, path: &Path) -> Result<Option<Answer>> {
    let Some(proof) = state::proof(path) else { return Ok(None) };
    if stores.has_begun().await? {
        return Ok(None);
    }
    state::remove(state::open(stores, path).await?)?;
    Ok(Some(proof))
}

fn found_equal_before() -> Answer {
    let text = "finished: source and target were found equal before; what was left is removed\n";
    Answer::new(false, json!({"result": "finish", "equal": true}), text)
}

async fn ask(args: &Finish, stores: &Stores) -> Result<()> {
    if args.yes || args.read_only_source {
        return Ok(());
    }
    let question = format!("Have all writers to {} stopped?", stores.task.source.display());
    confirm(question, "stop all writers to the source, then say so with --yes; or have them shut out with --read-only-source").await
}
