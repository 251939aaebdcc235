//! What lies outside the task file: variables, files, programs. A parameter everywhere, so that tests can own it.

use std::io::{self, Read as _};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;

/// A password, a certificate's path, a service file: none is longer, and a reference must not fill the memory.
pub const MAX_REFERENCED_BYTES: u64 = 1 << 20;
/// A program that asks a vault over a network answers within this, or a person wants to know.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

pub trait Environment {
    /// None: not set, or not UTF-8.
    fn variable(&self, name: &str) -> Option<String>;

    /// The whole file as text; an error beyond `MAX_REFERENCED_BYTES`.
    fn read(&self, path: &Path) -> io::Result<String>;

    fn is_file(&self, path: &Path) -> bool;

    /// Whether anyone but the owner has any right to the file (where the platform knows such rights).
    fn is_open_to_others(&self, path: &Path) -> io::Result<bool>;

    /// Runs the program without a shell, for at most `COMMAND_TIMEOUT`; gives its standard output.
    /// The error's text may be shown: it holds nothing of the output.
    fn run(&self, program: &str, arguments: &[String]) -> io::Result<String>;
}

/// The process's own surroundings.
pub struct Surroundings;

impl Environment for Surroundings {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(MAX_REFERENCED_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_REFERENCED_BYTES {
            return Err(io::Error::other(format!("the file is longer than {MAX_REFERENCED_BYTES} bytes")));
        }
        String::from_utf8(bytes).map_err(|_| io::Error::other("the file is not UTF-8 text"))
    }

    fn is_file(&self, path: &Path) -> bool {
        path.is_file()
    }

    #[cfg(unix)]
    fn is_open_to_others(&self, path: &Path) -> io::Result<bool> {
        use std::os::unix::fs::PermissionsExt as _;
        Ok(std::fs::metadata(path)?.permissions().mode() & 0o077 != 0)
    }

    #[cfg(not(unix))]
    fn is_open_to_others(&self, path: &Path) -> io::Result<bool> {
        std::fs::metadata(path).map(|_| false)
    }

    /// On a thread of its own with a small runtime, since a caller may already be inside one, where blocking is not allowed.
    fn run(&self, program: &str, arguments: &[String]) -> io::Result<String> {
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(output_of(program, arguments))
            });
            worker.join().unwrap_or_else(|_| Err(io::Error::other("the program could not be run")))
        })
    }
}

async fn output_of(program: &str, arguments: &[String]) -> io::Result<String> {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let stdout = child.stdout.take().ok_or_else(|| io::Error::other("the program has no output"))?;
    let answer = async {
        let mut bytes = Vec::new();
        stdout.take(MAX_REFERENCED_BYTES).read_to_end(&mut bytes).await?;
        let status = child.wait().await?;
        if !status.success() {
            return Err(io::Error::other(format!("it ended with {status}")));
        }
        String::from_utf8(bytes).map_err(|_| io::Error::other("its output is not UTF-8 text"))
    };
    match tokio::time::timeout(COMMAND_TIMEOUT, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("it did not end within {} s", COMMAND_TIMEOUT.as_secs()))),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_program_answers_or_its_failure_is_said() {
        let run =
            |program: &str, arguments: &[&str]| Surroundings.run(program, &arguments.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
        assert_eq!(run("printf", &["a b\\nc"]).unwrap(), "a b\nc");
        assert!(run("false", &[]).unwrap_err().to_string().contains("ended with"));
        assert_eq!(run("/does/not/exist", &[]).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_program_can_be_run_from_inside_a_runtime() {
        assert_eq!(Surroundings.run("echo", &["x".to_owned()]).unwrap(), "x\n");
    }
}
