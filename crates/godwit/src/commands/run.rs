//! `godwit run`: a task in the foreground.

use std::path::Path;
use std::sync::Arc;

use godwit_model::{Result, codes};
use godwit_pipeline::{Described, Job, Until};
use godwit_store::StateFolder;
use serde_json::json;

use super::check;
use super::session::{End, Session};
use crate::answer::Answer;
use crate::cli::{Goal, Output, Run};
use crate::control::Control;
use crate::failure::Failure;
use crate::progress::{Happening, Watch};
use crate::signal::{Signals, interrupted};
use crate::state;
use crate::traces::Remains;
use crate::wiring::Stores;

pub async fn run(args: Run, output: Output) -> Result<Answer, Failure> {
    let mut signals = Signals::listen()?;
    let stores = Stores::load(&args.place.task).await?;
    let path = state::path_of(&args.place, &stores.task.name);
    let mut watch = Watch::begin(output);
    warn(&watch, &stores);
    let (folder, described) = match signals.or(prepare(&stores, &path, &watch)).await? {
        Prepared::Ready(folder, described) => (folder, described),
        Prepared::Blocked(answer) => return Ok(answer),
    };
    let control = Control::open(&folder, stores.fingerprint(), &watch).unwrap_or_else(|error| {
        watch.show(Happening::Warning { text: format!("no other process can ask this run for something: {error:?}") });
        Control::none(&folder)
    });
    let job = Job { described, ..stores.job(&folder, watch.observer()) };
    let running = if args.resync { job.resync() } else { job.start() };
    let session = Session { running, control, signals: &mut signals, watch: &watch, folder };
    let end = session.attend(until(args.until)).await;
    watch.close();
    let remains = async || Remains::ask(&stores, &args.place.task).await;
    match end {
        Ok(End::Removed(answer)) => Ok(answer),
        Ok(End::Goal) => Ok(ended(&stores, reached(args.until), &remains().await)),
        Ok(End::Signal { was_consistent: true }) if args.until.is_none() => {
            Ok(ended(&stores, "stopped by a signal; the target is a true past state of the source", &remains().await))
        }
        Ok(End::Signal { .. }) => Err(Failure { error: interrupted(), remains: Some(remains().await) }),
        // whoever has the task says what remains
        Err(error) if error.is(&codes::HELD) || error.is(&codes::LEASE_LOST) => Err(error.into()),
        Err(error) => Err(Failure { error, remains: Some(remains().await) }),
    }
}

enum Prepared {
    Ready(Arc<StateFolder>, Described),
    Blocked(Answer),
}

/// A task that has not begun is checked first; a folder that is there already is asked before any store.
async fn prepare(stores: &Stores, path: &Path, watch: &Watch) -> Result<Prepared> {
    let (mut folder, mut described) = (None, Described::default());
    if StateFolder::exists(path) {
        folder = Some(state::open(stores, path).await?);
    }
    if !stores.has_begun().await? {
        let report = stores.survey().check().await;
        // what another process has begun meanwhile looks like anything, and says nothing of this task
        if !stores.has_begun().await? {
            let report = report?;
            if !report.is_clear() {
                return Ok(Prepared::Blocked(check::answer(&report, &[])));
            }
            for finding in &report.findings {
                watch.show(Happening::Note { text: check::line(finding) });
            }
            described = Described::now(report.description);
        }
    }
    let folder = match folder {
        Some(folder) => folder,
        None => state::open(stores, path).await?,
    };
    state::forget_proof(&folder);
    Ok(Prepared::Ready(folder, described))
}

pub fn warn(watch: &Watch, stores: &Stores) {
    for warning in &stores.warnings {
        watch.show(Happening::Warning { text: warning.clone() });
    }
}

fn until(goal: Option<Goal>) -> Until {
    match goal {
        None => Until::Stopped,
        Some(Goal::Consistent) => Until::Consistent,
        Some(Goal::CaughtUp) => Until::CaughtUp,
    }
}

fn reached(goal: Option<Goal>) -> &'static str {
    match goal {
        None => "loaded",
        Some(Goal::Consistent) => "consistent: the target is a true past state of the source",
        Some(Goal::CaughtUp) => "caught up: the target is less than a second behind the source",
    }
}

fn ended(stores: &Stores, how: &str, remains: &Remains) -> Answer {
    let json = json!({"result": "run", "task": stores.task.name.as_str(), "ended": how, "remains": remains.json()});
    Answer::new(false, json, format!("{how}\n{}", remains.text()))
}
