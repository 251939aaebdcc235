//! `godwit verify`: both sides compared while they live.

use godwit_model::{Result, codes};

use super::alone::Alone;
use super::run::warn;
use crate::answer::Answer;
use crate::cli::{Output, Verify};
use crate::control::{Command, Live};
use crate::progress::Watch;
use crate::signal::Signals;
use crate::wiring::Stores;
use crate::{state, work};

pub async fn verify(args: Verify, output: Output) -> Result<Answer> {
    let stores = Stores::load(&args.place.task).await?;
    let path = state::path_of(&args.place, &stores.task.name);
    let mut signals = Signals::listen()?;
    let watch = Watch::begin(output);
    warn(&watch, &stores);
    if let Some(live) = Live::find(&path).await? {
        return signals.or(live.ask(&stores, Command::Verify { repair: args.repair }, &watch)).await;
    }
    let alone = signals.or(Alone::begin(&stores, &path, &watch)).await?;
    let asked = alone.ask(&mut signals, async |running| work::verify(running, args.repair).await).await;
    let (alone, answer) = match asked {
        // the target cannot follow any further: what differs must be mended before both sides can be compared
        Err(error) if args.repair && error.is(&codes::CONFLICT) => {
            let alone = signals.or(Alone::mend(&stores, &path, &watch)).await?;
            alone.ask(&mut signals, async |running| work::verify(running, true).await).await?
        }
        asked => asked?,
    };
    alone.stop(&mut signals).await?;
    Ok(answer)
}
