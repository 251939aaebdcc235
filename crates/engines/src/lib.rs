//! The one list of engines: from a task's endpoints to a source and a target.
//!
//! Whoever else wants to tell engines apart asks a capability.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use godwit_model::{EndpointConfig, Error, GrantStatements, Result, Source, TableName, Target, Task, codes};

struct Engine {
    /// What `EndpointConfig::engine` may say.
    names: &'static [&'static str],
    source: fn(&Task) -> Result<Arc<dyn Source>>,
    target: fn(&Task) -> Result<Arc<dyn Target>>,
    /// None: this engine knows no rights.
    grants: Option<GrantWords>,
}

struct GrantWords {
    source: for<'a> fn(&'a Task, &'a [TableName]) -> Asked<'a>,
    target: for<'a> fn(&'a Task, &'a [TableName]) -> Asked<'a>,
    /// For both, without asking either.
    unasked: fn(&Task) -> (GrantStatements, GrantStatements),
}

type Asked<'a> = Pin<Box<dyn Future<Output = Result<GrantStatements>> + Send + 'a>>;

const ENGINES: &[Engine] = &[
    Engine {
        names: &["postgres", "postgresql"],
        source: godwit_postgres::source,
        target: godwit_postgres::target,
        grants: Some(GrantWords {
            source: |task, tables| Box::pin(godwit_postgres::source_grants(task, tables)),
            target: |task, tables| Box::pin(godwit_postgres::target_grants(task, tables)),
            unasked: godwit_postgres::grants_unasked,
        }),
    },
    Engine {
        names: &["mysql", "mariadb"],
        source: godwit_mysql::source,
        target: godwit_mysql::target,
        grants: Some(GrantWords {
            source: |task, _| Box::pin(godwit_mysql::source_grants(task)),
            target: |task, tables| Box::pin(godwit_mysql::target_grants(task, tables)),
            unasked: godwit_mysql::grants_unasked,
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
    Grants {
        statements: GrantStatements,
        /// Why the server could not be asked, so that these are only a beginning.
        incomplete: Option<String>,
    },
    /// The engine has none to give: a file is reached or not.
    OfTheFile,
}

/// For the source, given the tables that the task selects.
pub async fn source_rights(task: &Task, tables: &[TableName]) -> Result<Rights> {
    let Some(words) = &find(&task.source)?.grants else { return Ok(Rights::OfTheFile) };
    Ok(rights((words.source)(task, tables).await, (words.unasked)(task).0))
}

/// For the target, given the names of the tables there.
pub async fn target_rights(task: &Task, tables: &[TableName]) -> Result<Rights> {
    let Some(words) = &find(&task.target)?.grants else { return Ok(Rights::OfTheFile) };
    Ok(rights((words.target)(task, tables).await, (words.unasked)(task).1))
}

fn rights(asked: Result<GrantStatements>, unasked: GrantStatements) -> Rights {
    match asked {
        Ok(statements) => Rights::Grants { statements, incomplete: None },
        Err(error) => Rights::Grants { statements: unasked, incomplete: Some(error.what().to_owned()) },
    }
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
