//! The help of `godwit explain`: every field of the form, from its schema.

use serde_json::Value;

use crate::schema::{self, words};

/// The whole form for editors and other programs.
pub fn json_schema() -> String {
    serde_json::to_string_pretty(schema::root()).expect("a JSON value with text keys can be written")
}

/// Every field, in the order of the form: `name`, `source.tls.mode`, `map.columns` ...
pub fn all_fields() -> Vec<String> {
    let mut fields = Vec::new();
    gather(schema::root(), "", &mut fields);
    fields
}

fn gather(wanted: &'static Value, prefix: &str, fields: &mut Vec<String>) {
    for branch in schema::branches(wanted) {
        let inner = if branch["type"] == "array" { &branch["items"] } else { branch };
        for part in schema::branches(inner) {
            for (name, property) in schema::properties(part) {
                let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
                fields.push(path.clone());
                gather(property, &path, fields);
            }
        }
    }
}

/// Type, default and help of a field such as `target.existing`; None if there is no such field.
/// An index or a column in the path (`map[0].columns.ssn`) is passed over.
pub fn explain_field(path: &str) -> Option<String> {
    let path = path.trim();
    let steps: Vec<&str> = path.split(['.', '[', ']']).filter(|step| !step.is_empty() && step.parse::<usize>().is_err()).collect();
    let mut wanted = schema::root();
    for step in &steps {
        wanted = step_into(wanted, step)?;
    }
    (!steps.is_empty()).then(|| page(&steps.join("."), wanted))
}

/// The nearest field, for a path that does not exist.
pub fn nearest_field(path: &str) -> Option<String> {
    let fields = all_fields();
    let last_matches = fields.iter().find(|field| field.rsplit('.').next() == Some(path));
    last_matches.cloned().or_else(|| crate::suggest::nearest(path, fields.iter().map(String::as_str)).map(str::to_owned))
}

fn step_into(wanted: &'static Value, step: &str) -> Option<&'static Value> {
    schema::branches(wanted).into_iter().find_map(|branch| {
        if branch["type"] == "array" {
            return step_into(&branch["items"], step);
        }
        schema::properties(branch).find(|(name, _)| *name == step).map(|(_, property)| property).or_else(|| schema::free_values(branch))
    })
}

fn page(path: &str, wanted: &'static Value) -> String {
    let mut text = format!("{path}\n  type:    {}\n", schema::noun(wanted));
    if let Some(default) = default_text(wanted) {
        text.push_str(&format!("  default: {default}\n"));
    }
    let help = wanted["description"].as_str().or_else(|| schema::followed(wanted)["description"].as_str()).unwrap_or_default();
    if !help.is_empty() {
        text.push('\n');
        help.lines().for_each(|line| text.push_str(&format!("  {}\n", line.trim_end())));
    }
    text.push_str(&word_list(wanted));
    text.push_str(&key_list(wanted));
    text
}

fn default_text(wanted: &'static Value) -> Option<String> {
    match wanted.get("default")? {
        Value::String(text) => Some(text.clone()),
        // The defaults of what is inside are said there.
        Value::Object(_) => None,
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) => Some(format!("[{}]", items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "))),
        other => Some(other.to_string()),
    }
}

fn word_list(wanted: &'static Value) -> String {
    let choices: Vec<_> = schema::branches(wanted)
        .into_iter()
        .flat_map(|branch| words(if branch["type"] == "array" { &branch["items"] } else { branch }))
        .collect();
    let width = choices.iter().map(|(word, _)| word.len()).max().unwrap_or(0);
    let lines: String = choices.iter().map(|(word, help)| format!("    {word:width$}  {}\n", help.replace('\n', " "))).collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

fn key_list(wanted: &'static Value) -> String {
    let mut keys: Vec<&str> = Vec::new();
    for branch in schema::branches(wanted) {
        let inner = if branch["type"] == "array" { &branch["items"] } else { branch };
        keys.extend(schema::branches(inner).into_iter().flat_map(|part| schema::properties(part).map(|(name, _)| name)));
    }
    if keys.is_empty() { String::new() } else { format!("\n  keys: {}\n", keys.join(", ")) }
}
