//! `godwit demo`: a small shop moved live from one SQLite file to another, under load, and proved.
//!
//! The shop (`shop`), those who write to it (`writers`), those who watch the target (`reader`) and the comparison at the
//! end (`proof`) speak to the files by SQL of their own; only the move itself is the pipeline's.

mod folder;
mod proof;
mod reader;
mod shop;
mod writers;

use std::sync::Arc;
use std::time::Duration;

use godwit_model::{Error, Result, codes};
use godwit_pipeline::{Running, Until};
use godwit_store::StateFolder;
use serde_json::json;

use crate::answer::Answer;
use crate::cli::Output;
use crate::progress::{Happening, Watch};
use crate::signal::Signals;
use crate::values::{count, counted};
use crate::wiring::Stores;
use crate::{state, work};
use folder::Folder;
use proof::Proof;
use reader::{Reader, Seen};
use writers::{Writers, Written};

/// How long the target is followed under load before the writers stop.
const STREAM_FOR: Duration = Duration::from_secs(6);

pub async fn demo(output: Output) -> Result<Answer> {
    let mut signals = Signals::listen()?;
    let mut watch = Watch::begin(output);
    let folder = blocking(Folder::prepare).await?;
    let done = signals.or(play(&folder, &watch)).await;
    watch.close();
    match done {
        Ok(played) => played.answer(&folder),
        Err(error) if error.is(&codes::INTERRUPTED) || error.is(&codes::INTERNAL) => Err(error),
        Err(error) => Err(Error::internal(format!("the demo failed: {}", error.what())).caused_by(error)),
    }
}

struct Played {
    written: Written,
    seen: Seen,
    proof: Proof,
}

async fn play(folder: &Folder, watch: &Watch) -> Result<Played> {
    let say = |text: String| watch.show(Happening::Note { text });
    let rows = {
        let folder = folder.clone();
        blocking(move || shop::create(&folder)).await?
    };
    say(format!("made {} with {} in 5 tables", folder.source().display(), counted(rows, "row")));
    let writers = Writers::begin(folder)?;
    say(format!("{} writers change it all the time; the move begins", writers::WRITERS));
    let stores = Stores::load(&folder.task()).await?;
    let state = state::open(&stores, &folder.state()).await?;
    let running = stores.job(&state, watch.observer()).start();
    let (written, seen) = follow(folder, running, state, writers, &stores, watch).await?;
    say("comparing both files by SQL of the demo's own".to_owned());
    let folder = folder.clone();
    let (written, proof) = blocking(move || Proof::find(&folder, &written).map(|proof| (written, proof))).await?;
    Ok(Played { written, seen, proof })
}

/// From the first row to the removal of what Godwit made.
async fn follow(
    folder: &Folder,
    mut running: Running,
    state: Arc<StateFolder>,
    writers: Writers,
    stores: &Stores,
    watch: &Watch,
) -> Result<(Written, Seen)> {
    let say = |text: String| watch.show(Happening::Note { text });
    running.reach(Until::Consistent).await?;
    let reader = Reader::begin(folder)?;
    say(format!("a reader of the target checks its sums while changes stream for {} s", STREAM_FOR.as_secs()));
    tokio::select! {
        // a task that follows changes ends only by an error
        ended = running.reach(Until::Stopped) => return Err(ended.err().unwrap_or_else(|| Error::internal("the task ended by itself"))),
        () = tokio::time::sleep(STREAM_FOR) => {}
    }
    let written = blocking(move || writers.end()).await?;
    say(format!("the writers stopped after {}; now finish", counted(written.transactions(), "transaction")));
    let proof = work::complete(&mut running, false, watch.changes()).await?;
    let seen = blocking(move || reader.end()).await?;
    let job = running.job().clone();
    running.stop().await?;
    if proof.no {
        return Err(Error::internal("finish found differences").detail(proof.text).at(stores.task.target.display()));
    }
    work::remove_finished(job, state, proof).await?;
    Ok((written, seen))
}

impl Played {
    fn answer(self, folder: &Folder) -> Result<Answer> {
        let Played { written, seen, proof } = self;
        let mut text = proof.text();
        text.push_str(&format!(
            "each of the {} transactions of {} writers is in the new file exactly once, none was refused\n",
            count(written.transactions()),
            writers::WRITERS
        ));
        text.push_str(&format!(
            "a reader of the new file compared its sums {} times while it was written: always whole\n",
            count(seen.reads)
        ));
        text.push_str(&format!("nothing of Godwit is left in either file; they are {}\n", folder.files()));
        if let Some(doubt) = proof.doubt().or_else(|| seen.doubt()).or_else(|| written.doubt()) {
            return Err(Error::internal(format!("the demo's proof failed: {doubt}")).at(folder.files()));
        }
        text.push_str(&format!("demo: equal, {} changes, {} lost\n", written.changes(), proof.lost()));
        let json = json!({
            "result": "demo", "equal": true, "changes": written.changes(), "transactions": written.transactions(), "lost": proof.lost(),
            "reads": seen.reads, "source": folder.source(), "target": folder.target(),
        });
        Ok(Answer::new(false, json, text))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|cause| Error::internal("a part of the demo died").caused_by(cause))?
}

/// The demo's own SQL failed: not what the demo is about, but a doubt.
fn failed(cause: rusqlite::Error) -> Error {
    Error::internal(format!("the demo's own SQL failed: {cause}")).caused_by(cause)
}
