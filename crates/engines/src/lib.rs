//! The one list of engines: from a task's endpoints to a source and a target.
//!
//! Whoever else wants to tell engines apart asks a capability.

use std::sync::Arc;

use godwit_model::{EndpointConfig, Error, Result, Source, TableName, Target, Task, codes};

struct Engine {
    /// What `EndpointConfig::engine` may say.
    names: &'static [&'static str],
    source: fn(&Task) -> Result<Arc<dyn Source>>,
    target: fn(&Task) -> Result<Arc<dyn Target>>,
    /// None: this engine knows no rights.
    grants: Option<GrantWords>,
}

struct GrantWords {
    source: fn(&Task, &[TableName]) -> Vec<String>,
    target: fn(&Task, &[TableName]) -> Vec<String>,
}

const ENGINES: &[Engine] = &[
    Engine {
        names: &["postgres", "postgresql"],
        source: godwit_postgres::source,
        target: godwit_postgres::target,
        grants: Some(GrantWords {
            source: |task, tables| godwit_postgres::source_grants(&task.source, tables, &[], task.phases.changes),
            target: |task, tables| godwit_postgres::target_grants(&task.target, tables),
        }),
    },
    Engine { names: &["sqlite"], source: godwit_sqlite::source, target: godwit_sqlite::target, grants: None },
];

/// The task's source. Connects to nothing yet.
pub fn source(task: &Task) -> Result<Arc<dyn Source>> {
    (find(&task.source)?.source)(task)
}

/// The task's target. Connects to nothing yet.
pub fn target(task: &Task) -> Result<Arc<dyn Target>> {
    (find(&task.target)?.target)(task)
}

/// The statements that give a role what a task needs at one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rights {
    Grants(Vec<String>),
    /// The engine has none to give: a file is reached or not.
    OfTheFile,
}

/// For the source, given the tables that the task selects.
pub fn source_rights(task: &Task, tables: &[TableName]) -> Result<Rights> {
    Ok(find(&task.source)?.grants.as_ref().map_or(Rights::OfTheFile, |words| Rights::Grants((words.source)(task, tables))))
}

/// For the target, given the names of the tables there.
pub fn target_rights(task: &Task, tables: &[TableName]) -> Result<Rights> {
    Ok(find(&task.target)?.grants.as_ref().map_or(Rights::OfTheFile, |words| Rights::Grants((words.target)(task, tables))))
}

/// The engines of this version, by their first names.
pub fn known() -> Vec<&'static str> {
    ENGINES.iter().map(|engine| engine.names[0]).collect()
}

fn find(endpoint: &EndpointConfig) -> Result<&'static Engine> {
    ENGINES.iter().find(|engine| engine.names.contains(&endpoint.engine.as_str())).ok_or_else(|| {
        Error::new(&codes::TASK_UNSUPPORTED, format!("this version knows no engine `{}`", endpoint.engine))
            .remedy(format!("the engines are: {}", known().join(", ")))
            .effect("nothing was changed")
    })
}
