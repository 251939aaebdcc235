//! What of a task must not change between two runs that share state.
//!
//! Lines of key and value, so that a refusal can show the difference. No password is part of it, and nothing that may
//! change without harm: mode, limits, encryption, user, the time of a verification.

use godwit_model::{ColumnRule, Create, EndpointConfig, Existing, MapRule, Task};

use crate::dialect;

/// In a fixed order. The texts are stored with a task's state: a change of their form is a change of the state's version.
pub fn fingerprint(task: &Task) -> Vec<(String, String)> {
    let mut lines = vec![
        ("name".to_owned(), task.name.to_string()),
        ("source".to_owned(), identity(&task.source)),
        ("target".to_owned(), identity(&task.target)),
        ("target.existing".to_owned(), existing(task.existing).to_owned()),
        ("select.tables".to_owned(), globs(&task.select.tables)),
        ("select.except".to_owned(), globs(&task.select.except)),
        ("phases".to_owned(), phases(task)),
        ("schema.create".to_owned(), create(&task.schema.create)),
    ];
    lines.extend(task.from.as_ref().map(|position| ("from".to_owned(), position.to_string())));
    lines.extend(task.map.iter().enumerate().map(|(index, rule)| (format!("map[{index}]"), map_rule(rule))));
    // Each is kept as one line of text; a path may hold any character.
    lines.into_iter().map(|(key, value)| (key, one_line(&value))).collect()
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// Which store, not how to log in.
fn identity(endpoint: &EndpointConfig) -> String {
    let usual = dialect::find(&endpoint.engine).and_then(|dialect| dialect.usual_port);
    let port = endpoint.port.or(usual);
    EndpointConfig { user: None, host: endpoint.host.to_lowercase(), port, ..endpoint.clone() }.display()
}

/// Quoted, so that no two lists read alike.
fn globs(globs: &[String]) -> String {
    globs.iter().map(|glob| format!("{glob:?}")).collect::<Vec<_>>().join(", ")
}

fn existing(existing: Existing) -> &'static str {
    match existing {
        Existing::Refuse => "refuse",
        Existing::Append => "append",
        Existing::Truncate => "truncate",
        Existing::Replace => "replace",
    }
}

fn phases(task: &Task) -> String {
    let phases = [("schema", task.phases.schema), ("load", task.phases.load), ("changes", task.phases.changes)];
    phases.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect::<Vec<_>>().join(", ")
}

fn create(create: &Create) -> String {
    match create {
        Create::All => "all".to_owned(),
        Create::Tables => "tables".to_owned(),
        Create::None => "none".to_owned(),
        Create::File(path) => format!("file {}", path.display()),
    }
}

fn map_rule(rule: &MapRule) -> String {
    let mut text = format!("from {}", rule.from);
    if let Some(to) = &rule.to {
        text.push_str(&format!(" to {to}"));
    }
    for (column, what) in &rule.columns {
        // Quoted, so that no two rules read alike.
        match what {
            ColumnRule::Rename(name) => text.push_str(&format!("; {column:?} to {name:?}")),
            ColumnRule::LeaveOut => text.push_str(&format!("; {column:?} left out")),
        }
    }
    text
}
