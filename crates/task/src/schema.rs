//! The JSON Schema of the form: made once from the types, simplified, and asked by the check and by `explain`.

use std::sync::LazyLock;

use serde_json::Value;

use crate::form::{FORM_VERSION, TaskForm};

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let mut schema = Value::from(schemars::schema_for!(TaskForm));
    without_null(&mut schema);
    schema["x-form-version"] = FORM_VERSION.into();
    schema
});

pub fn root() -> &'static Value {
    &SCHEMA
}

/// A key without a value is a mistake in a task file, never "the default": `null` leaves the schema.
fn without_null(schema: &mut Value) {
    if let Value::Object(map) = schema {
        if map.get("default").is_some_and(Value::is_null) {
            map.remove("default");
        }
        if let Some(Value::Array(types)) = map.get_mut("type") {
            types.retain(|name| name != "null");
            if let [only] = types.as_slice() {
                map["type"] = only.clone();
            }
        }
        if let Some(Value::Array(branches)) = map.get_mut("anyOf") {
            branches.retain(|branch| branch["type"] != "null");
            if let [Value::Object(only)] = branches.as_slice() {
                let only = only.clone();
                map.remove("anyOf");
                for (key, value) in only {
                    map.entry(key).or_insert(value);
                }
            }
        }
    }
    match schema {
        Value::Object(map) => map.values_mut().for_each(without_null),
        Value::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}

/// What a `$ref` stands for.
pub fn followed(schema: &'static Value) -> &'static Value {
    let target = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#'));
    target.and_then(|pointer| root().pointer(pointer)).map_or(schema, followed)
}

/// The alternatives of a schema; itself if there is one only.
pub fn branches(schema: &'static Value) -> Vec<&'static Value> {
    let schema = followed(schema);
    match schema.get("anyOf").and_then(Value::as_array) {
        Some(branches) => branches.iter().flat_map(|branch| self::branches(branch)).collect(),
        None => vec![schema],
    }
}

/// The words of a choice with their help; empty if the schema is no choice.
pub fn words(schema: &'static Value) -> Vec<(&'static str, &'static str)> {
    let schema = followed(schema);
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return words.iter().filter_map(Value::as_str).map(|word| (word, "")).collect();
    }
    if let Some(word) = schema.get("const").and_then(Value::as_str) {
        return vec![(word, schema["description"].as_str().unwrap_or_default())];
    }
    schema.get("oneOf").and_then(Value::as_array).into_iter().flatten().flat_map(words).collect()
}

pub fn properties(schema: &'static Value) -> impl Iterator<Item = (&'static str, &'static Value)> {
    followed(schema).get("properties").and_then(Value::as_object).into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

/// The schema of the values of a mapping whose keys are free, such as `columns`.
pub fn free_values(schema: &'static Value) -> Option<&'static Value> {
    followed(schema).get("additionalProperties").filter(|additional| additional.is_object())
}

/// What a person calls such a value.
pub fn noun(schema: &'static Value) -> String {
    let nouns: Vec<String> = branches(schema).into_iter().map(noun_of_one).collect();
    nouns.join(" or ")
}

fn noun_of_one(schema: &'static Value) -> String {
    let words = words(schema);
    if !words.is_empty() {
        let words: Vec<&str> = words.into_iter().map(|(word, _)| word).collect();
        return if words.len() == 1 { words[0].to_owned() } else { format!("one of {}", words.join(", ")) };
    }
    match (schema["type"].as_str(), schema["format"].as_str()) {
        (_, Some("size")) => "a size with its unit, such as 50GiB or 100MB".to_owned(),
        (_, Some("duration")) => "a duration with its unit, such as 30s, 5min or 1h".to_owned(),
        (Some("integer"), _) => match (schema["minimum"].as_i64(), schema["maximum"].as_i64()) {
            (Some(least), Some(most)) => format!("a whole number from {least} to {most}"),
            _ => "a whole number".to_owned(),
        },
        (Some("array"), _) => format!("a list, each {}", noun(&schema["items"])),
        (Some("object"), _) => "a mapping".to_owned(),
        (Some("boolean"), _) => "true or false".to_owned(),
        _ => "text".to_owned(),
    }
}
