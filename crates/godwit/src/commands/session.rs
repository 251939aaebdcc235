//! A run, attended: its goal, signals, and what other processes want, whichever comes first.

use std::sync::Arc;

use godwit_model::{Error, Result};
use godwit_pipeline::{Running, Until};
use godwit_store::StateFolder;

use crate::answer::Answer;
use crate::control::{Command, Control, Order};
use crate::progress::Watch;
use crate::signal::{Signals, interrupted};
use crate::work;

/// How a session ended. In each case nothing of the task is at work any more.
#[derive(Debug)]
pub enum End {
    Goal,
    Signal {
        was_consistent: bool,
    },
    /// Finished or cleaned, on another process's order.
    Removed(Answer),
}

pub struct Session<'a> {
    pub running: Running,
    pub control: Control,
    pub signals: &'a mut Signals,
    pub watch: &'a Watch,
    pub folder: Arc<StateFolder>,
}

enum Next {
    Signal,
    Order(Order),
    Reached,
}

impl Session<'_> {
    pub async fn attend(mut self, until: Until) -> Result<End> {
        loop {
            let next = tokio::select! {
                biased;
                () = self.signals.next() => Next::Signal,
                order = self.control.next() => Next::Order(order),
                reached = self.running.reach(until) => match reached {
                    Ok(()) => Next::Reached,
                    // the work has ended: there is nothing to stop
                    Err(error) => return Err(self.end_without_work(error).await),
                },
            };
            match next {
                Next::Signal => return self.stop_by_signal().await,
                Next::Reached => return self.stop().await.map(|()| End::Goal),
                Next::Order(order) => match self.carry_out(order).await? {
                    Carried::GoesOn(session) => self = session,
                    Carried::Ended(end) => return Ok(end),
                },
            }
        }
    }

    async fn stop_by_signal(self) -> Result<End> {
        let was_consistent = self.running.status().consistent;
        self.stop().await?;
        Ok(End::Signal { was_consistent })
    }

    async fn stop(self) -> Result<()> {
        let Session { running, control, signals, .. } = self;
        signals
            .or_abort(async {
                let stopped = running.stop().await;
                control.close().await;
                stopped
            })
            .await
    }

    async fn end_without_work(self, error: Error) -> Error {
        drop(self.running);
        self.control.close().await;
        error
    }

    async fn carry_out(mut self, order: Order) -> Result<Carried<Self>> {
        let command = order.command;
        tracing::info!(?command, "another process asks");
        let changes = self.watch.changes();
        let done = match command {
            Command::Verify { repair } => self.signals.or(work::verify(&mut self.running, repair)).await,
            Command::Finish { read_only_source } => self.signals.or(work::complete(&mut self.running, read_only_source, changes)).await,
            Command::Clean => Ok(Answer::default()),
        };
        match done {
            Ok(answer) if command == Command::Clean || (matches!(command, Command::Finish { .. }) && !answer.no) => {
                self.end_by(order, answer).await.map(Carried::Ended)
            }
            Ok(answer) => {
                order.reply(Ok(answer));
                Ok(Carried::GoesOn(self))
            }
            Err(error) if error.is(interrupted().code()) => {
                order.reply(Err(error));
                self.stop_by_signal().await.map(Carried::Ended)
            }
            Err(error) if self.running.is_over() => {
                order.reply(Err(again(&error)));
                Err(self.end_without_work(error).await)
            }
            Err(error) => {
                order.reply(Err(error));
                Ok(Carried::GoesOn(self))
            }
        }
    }

    /// Stops the work, removes what is to be removed, answers, and lets the run end.
    async fn end_by(self, order: Order, answer: Answer) -> Result<End> {
        let Session { running, control, signals, folder, .. } = self;
        let finished = matches!(order.command, Command::Finish { .. });
        let job = running.job().clone();
        let removed = async {
            running.stop().await?;
            match finished {
                true => work::remove_finished(job, folder, answer).await,
                false => work::clean(job, folder).await,
            }
        };
        let removed = signals.or_abort(removed).await;
        order.reply(removed.as_ref().map(Answer::clone).map_err(again));
        control.close().await;
        removed.map(End::Removed)
    }
}

enum Carried<S> {
    GoesOn(S),
    Ended(End),
}

/// The same error for a second listener.
fn again(error: &Error) -> Error {
    let mut copy = Error::new(error.code(), error.what());
    if let Some(place) = error.place() {
        copy = copy.at(place);
    }
    if let Some(detail) = error.detail_text() {
        copy = copy.detail(detail);
    }
    if let Some(remedy) = error.remedy_text() {
        copy = copy.remedy(remedy);
    }
    if let Some(effect) = error.effect_text() {
        copy = copy.effect(effect);
    }
    copy
}
