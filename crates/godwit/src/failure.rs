//! How an error reaches a person or a program.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};

use godwit_model::{Error, codes};
use serde_json::json;

use crate::answer::JSON_VERSION;
use crate::cli::Output;
use crate::traces::Remains;

/// An error that ends a command, and what remains at the source where that must be said.
pub struct Failure {
    pub error: Error,
    pub remains: Option<Remains>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure { error, remains: None }
    }
}

/// Prints it on stderr and gives the exit status.
pub fn print(failure: &Failure, output: Output) -> u8 {
    let Failure { error, remains } = failure;
    tracing::error!(%error, "ended");
    let mut err = std::io::stderr().lock();
    let text = match output {
        Output::Json => format!("{}\n", as_json(error, remains.as_ref())),
        Output::Text => as_text(error, err.is_terminal()) + &remains.as_ref().map(Remains::text).unwrap_or_default(),
    };
    // nobody is left to be told
    let _ = err.write_all(text.as_bytes());
    error.kind().exit_status()
}

/// `person`: stderr is somebody's terminal, where keys and values may be shown.
pub fn as_text(error: &Error, person: bool) -> String {
    let mut text = format!("error {}: {}\n", error.code(), error.what());
    let mut field = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            let _ = writeln!(text, "  {name:<8} {}", value.trim_end().replace('\n', "\n           "));
        }
    };
    field("at:", error.place());
    if person || speaks_of_no_row(error) {
        let causes = causes(error);
        field("because:", (!causes.is_empty()).then_some(causes.as_str()));
    }
    field("do:", error.remedy_text());
    field("effect:", error.effect_text());
    let _ = writeln!(text, "  {:<8} godwit explain {}", "more:", error.code());
    if person || speaks_of_no_row(error) {
        let detail = error.detail_text().map(|detail| format!("\n{}\n", detail.trim_end())).unwrap_or_default();
        text.push_str(&detail);
    }
    text
}

/// The command line, the task file and the state folder: their details hold no row.
fn speaks_of_no_row(error: &Error) -> bool {
    error.code().number < 2000 || error.is(&codes::STATE_OTHER) || error.is(&codes::STATE_IO)
}

fn causes(error: &Error) -> String {
    let mut causes = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        causes.push(next.to_string());
        cause = next.source();
    }
    causes.dedup();
    causes.join(": ")
}

fn as_json(error: &Error, remains: Option<&Remains>) -> serde_json::Value {
    let detail = error.detail_text().filter(|_| speaks_of_no_row(error));
    json!({
        "v": JSON_VERSION, "event": "error", "code": error.code().to_string(), "title": error.code().title, "what": error.what(),
        "place": error.place(), "remedy": error.remedy_text(), "effect": error.effect_text(), "detail": detail,
        "exit_status": error.kind().exit_status(),
        "remains": remains.map(Remains::json),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_of_rows_are_for_a_terminal_only() {
        let error = Error::new(&codes::CONFLICT, "a row is missing").at("main.orders").detail("key (7)").remedy("look").effect("nothing");
        assert!(as_text(&error, true).contains("key (7)"));
        assert!(!as_text(&error, false).contains("key (7)"));
        assert!(!as_json(&error, None).to_string().contains("key (7)"));
        assert!(as_text(&error, false).starts_with("error GW4002: a row is missing\n  at:      main.orders\n  do:      look\n"));
    }

    #[test]
    fn details_of_the_task_file_are_for_everyone() {
        let error = Error::new(&codes::TASK_SYNTAX, "no YAML").detail("    1 | x");
        assert!(as_text(&error, false).contains("1 | x"));
    }
}
