//! The two ways in: a path, or a text with its surroundings.

use std::io::Read as _;
use std::path::Path;

use godwit_model::{Error, Result, Task, codes};

use crate::assemble::{Assembly, assemble};
use crate::environment::{Environment, Surroundings};
use crate::form::TaskForm;
use crate::problem::{Problem, Spot, into_error};
use crate::yaml::{self, MAX_FILE_BYTES, Node};
use crate::{check, reference};

/// A checked task and what a person should know of it.
#[derive(Debug)]
pub struct Loaded {
    pub task: Task,
    /// Sentences without secrets.
    pub warnings: Vec<String>,
}

/// Reads and checks a task file. May run `password_command`, for seconds: call it where blocking is allowed.
/// Nothing is connected to and nothing is written.
pub fn load(path: &Path) -> Result<Loaded> {
    let file = path.display().to_string();
    let unreadable = |error: std::io::Error| {
        Error::new(&codes::TASK_UNREADABLE, format!("the task file cannot be read: {error}"))
            .at(file.clone())
            .remedy("check the path and the file's permissions")
            .effect("nothing was changed")
    };
    let bytes = read(path).map_err(unreadable)?;
    let folder = std::path::absolute(path).map_err(unreadable)?;
    let folder = folder.parent().unwrap_or(Path::new("/"));
    let text = as_text(&bytes, &file)?;
    let mut loaded = parse(text, &file, folder, &Surroundings)?;
    if holds_password(text) && Surroundings.is_open_to_others(path).unwrap_or(false) {
        loaded.warnings.push(format!("{file} holds a password and others may read it: run `chmod 0600` on it, or use `${{file:...}}`"));
    }
    Ok(loaded)
}

/// One byte more than allowed is enough to see that it is too much.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn as_text<'a>(bytes: &'a [u8], file: &str) -> Result<&'a str> {
    if bytes.len() > MAX_FILE_BYTES {
        let problem =
            Problem::new(&codes::TASK_TOO_LARGE, format!("a task file may hold {MAX_FILE_BYTES} bytes; this one is longer"), Spot::START);
        return Err(into_error(vec![problem.remedy("is this the task file?")], file, ""));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').filter(|byte| **byte & 0xC0 != 0x80).count() + 1;
        let problem = Problem::new(&codes::TASK_SYNTAX, "the task file is not UTF-8 text", Spot { line, column, width: 1 });
        into_error(vec![problem.remedy("save it as UTF-8")], file, "")
    })
}

/// Checks a text as a task file. `file` is what messages call it; paths in it are relative to `folder`, which is absolute.
pub fn parse(text: &str, file: &str, folder: &Path, environment: &dyn Environment) -> Result<Loaded> {
    let refuse = |problems| into_error(problems, file, text);
    let Some(mut root) = yaml::parse(text).map_err(|problem| refuse(vec![problem]))? else {
        let problem = Problem::new(&codes::TASK_MISSING_KEY, "the task file is empty", Spot::START);
        return Err(refuse(vec![problem.remedy("it needs at least name, mode, source and target")]));
    };
    let mut problems = Vec::new();
    reference::resolve(&mut root, folder, environment, &mut problems);
    problems.extend(check::check(&root));
    if !problems.is_empty() {
        return Err(refuse(problems));
    }
    let mut assembly = Assembly { root: &root, folder, environment, problems, warnings: Vec::new() };
    match assemble(form_of(&root)?, &mut assembly) {
        Some(task) => Ok(Loaded { task, warnings: assembly.warnings }),
        None => Err(refuse(assembly.problems)),
    }
}

fn form_of(root: &Node) -> Result<TaskForm> {
    // The reader's own words may quote a value, so they stay away.
    serde_json::from_value(check::as_json(root)).map_err(|_| Error::internal("the form refused what its schema allows"))
}

/// Whether the file itself has a password: one that is no reference.
fn holds_password(text: &str) -> bool {
    let Ok(Some(root)) = yaml::parse(text) else { return false };
    ["source", "target"].into_iter().filter_map(|side| root.child(side)).any(|side| {
        let written = |node: Option<&Node>| node.and_then(Node::text).map(|text| text.written.clone());
        let password = written(side.child("password")).is_some_and(|password| !password.contains("${"));
        let url = written(side.child("url")).or_else(|| written(Some(side))).unwrap_or_default();
        let login = url.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).map(|(login, _)| login.to_owned());
        password || login.is_some_and(|login| login.contains(':') && !login.contains("${"))
    })
}
