//! What a command ends with when it did not fail: a result on stdout and an exit status.

use std::io::{IsTerminal as _, Write as _};

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::cli::Output;

/// The version of every JSON object that Godwit prints.
pub const JSON_VERSION: u32 = 1;

/// A result in all its forms, so that it can be made in one process and printed by another.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// The answer to the question that was asked is no.
    pub no: bool,
    /// Never holds a key or a value of a row.
    pub json: Json,
    /// Never holds a key or a value of a row.
    pub text: String,
    /// Keys of rows, for a person's terminal only.
    pub keys: String,
}

impl Answer {
    /// `json` is an object; its version is added here.
    pub fn new(no: bool, mut json: Json, text: impl Into<String>) -> Self {
        if let Json::Object(fields) = &mut json {
            fields.insert("v".to_owned(), json!(JSON_VERSION));
        }
        Answer { no, json, text: text.into(), keys: String::new() }
    }

    #[must_use]
    pub fn with_keys(mut self, keys: String) -> Self {
        self.keys = keys;
        self
    }

    /// Prints it and gives the exit status.
    pub fn print(&self, output: Output) -> u8 {
        let mut out = std::io::stdout().lock();
        let written = match output {
            Output::Json => writeln!(out, "{}", self.json),
            Output::Text => {
                let keys = if out.is_terminal() { self.keys.as_str() } else { "" };
                write!(out, "{}{}", lines(keys), lines(&self.text))
            }
        };
        // a reader that went away has seen what it wanted
        let _ = written.and_then(|()| out.flush());
        u8::from(self.no)
    }
}

/// Ends with exactly one line end, unless there is nothing.
fn lines(text: &str) -> String {
    let text = text.trim_end();
    if text.is_empty() { String::new() } else { format!("{text}\n") }
}
