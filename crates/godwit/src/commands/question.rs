//! Asking a person before something that cannot be undone.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use godwit_model::{Error, Result, codes};

/// Needs a typed `yes` on a terminal. `remedy` says how to answer without one.
pub async fn confirm(question: String, remedy: &'static str) -> Result<()> {
    // a read from a terminal cannot be dropped; a signal meanwhile has its usual effect, since nobody listens yet
    let asked = tokio::task::spawn_blocking(move || ask(&question, remedy));
    asked.await.map_err(|cause| Error::internal("asking died").caused_by(cause))?
}

fn ask(question: &str, remedy: &str) -> Result<()> {
    let refused = |what: &str| Err(Error::new(&codes::NOT_CONFIRMED, what).remedy(remedy).effect("nothing was changed"));
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return refused("this needs a person's answer, and there is no terminal to ask at");
    }
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "{question} [yes/no] ").and_then(|()| err.flush());
    let mut line = String::new();
    match stdin.lock().read_line(&mut line) {
        Ok(_) if line.trim() == "yes" => Ok(()),
        _ => refused("the answer was not `yes`"),
    }
}
