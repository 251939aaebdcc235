//! The tree of a file against the schema of the form: unknown keys, missing keys, wrong types, all of them.
//!
//! Knows no single setting by name: what is allowed comes from the schema, what is to come from `later`.

use godwit_model::codes;
use serde_json::{Map, Number, Value};

use crate::measure::{Age, Size};
use crate::problem::{Problem, Spot};
use crate::yaml::{Data, Key, Node, Text};
use crate::{later, schema, suggest};

/// Everything that is wrong with the tree as a task file, apart from what the values mean.
pub fn check(root: &Node) -> Vec<Problem> {
    let mut check = Check { problems: Vec::new() };
    check.node(root, schema::root(), &mut Vec::new());
    check.problems
}

/// The tree as the form's types read it. Only for a tree without problems.
pub fn as_json(node: &Node) -> Value {
    match &node.data {
        Data::Null => Value::Null,
        Data::Bool(value) => Value::Bool(*value),
        Data::Integer(value) => Value::Number(Number::from(*value)),
        Data::Float(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
        Data::Text(text) => Value::String(text.resolved.clone().unwrap_or_default()),
        Data::List(items) => Value::Array(items.iter().map(as_json).collect()),
        Data::Map(entries) => Value::Object(entries.iter().map(|(key, value)| (key.name.clone(), as_json(value))).collect::<Map<_, _>>()),
    }
}

struct Check {
    problems: Vec<Problem>,
}

type Path<'a> = Vec<&'a str>;

impl Check {
    fn node<'a>(&mut self, node: &'a Node, wanted: &'static Value, path: &mut Path<'a>) {
        let branches = schema::branches(wanted);
        let Some(branch) = branches.iter().copied().find(|branch| fits(&node.data, branch)) else {
            return self.wrong_type(node, wanted, path);
        };
        match &node.data {
            Data::Map(entries) => self.mapping(node, entries, branch, path),
            Data::List(items) => {
                let indices: Vec<String> = (0..items.len()).map(|index| index.to_string()).collect();
                for (item, index) in items.iter().zip(&indices) {
                    self.list_item(item, &branch["items"], path, index);
                }
            }
            Data::Integer(number) => self.number(*number, node.spot, branch, path),
            Data::Text(text) => self.text(text, node.spot, branch, path),
            _ => {}
        }
    }

    fn list_item(&mut self, item: &Node, wanted: &'static Value, path: &[&str], index: &str) {
        let mut path: Path<'_> = path.to_vec();
        path.push(index);
        self.node(item, wanted, &mut path);
    }

    fn mapping<'a>(&mut self, node: &Node, entries: &'a [(Key, Node)], wanted: &'static Value, path: &mut Path<'a>) {
        for (key, value) in entries {
            path.push(&key.name);
            let known = schema::properties(wanted).find(|(name, _)| *name == key.name).map(|(_, known)| known);
            match known.or_else(|| schema::free_values(wanted)) {
                Some(known) => self.node(value, known, path),
                None => self.unknown_key(key, wanted, path),
            }
            path.pop();
        }
        for needed in wanted.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            // A key that is there under a misspelled name was reported as that.
            let misspelled = |key: &Key| nearest_key(key, wanted) == Some(needed);
            if !entries.iter().any(|(key, _)| key.name == needed || misspelled(key)) {
                self.missing_key(node.spot, needed, wanted, path);
            }
        }
    }

    fn unknown_key(&mut self, key: &Key, wanted: &'static Value, path: &[&str]) {
        if let Some(sentence) = later::sentence(path) {
            return self.problems.push(Problem::new(&codes::TASK_UNSUPPORTED, sentence, key.spot).remedy("remove the key"));
        }
        let known: Vec<&str> = schema::properties(wanted).map(|(name, _)| name).collect();
        let shown: String = key.name.chars().filter(|c| !c.is_control()).take(60).collect();
        let what = match path.len() {
            1 => format!("`{shown}` is not a key of a task"),
            _ => format!("`{shown}` is not a key of `{}`", dotted(&path[..path.len() - 1])),
        };
        let remedy = match nearest_key(key, wanted) {
            Some(near) => format!("did you mean `{near}`? the keys here are: {}", known.join(", ")),
            None => format!("the keys here are: {}", known.join(", ")),
        };
        self.problems.push(Problem::new(&codes::TASK_UNKNOWN_KEY, what, key.spot).remedy(remedy));
    }

    fn missing_key(&mut self, spot: Spot, needed: &str, wanted: &'static Value, path: &[&str]) {
        let owner = if path.is_empty() { "the task".to_owned() } else { format!("`{}`", dotted(path)) };
        let kind = schema::properties(wanted).find(|(name, _)| *name == needed).map(|(_, known)| schema::noun(known));
        let remedy = format!("add `{needed}:` with {}", kind.unwrap_or_else(|| "its value".to_owned()));
        self.problems.push(Problem::new(&codes::TASK_MISSING_KEY, format!("{owner} lacks `{needed}`"), spot).remedy(remedy));
    }

    fn wrong_type(&mut self, node: &Node, wanted: &'static Value, path: &[&str]) {
        let name = if path.is_empty() { "a task file".to_owned() } else { format!("`{}`", dotted(path)) };
        let noun = schema::noun(wanted);
        let measured = schema::branches(wanted).iter().any(|branch| branch["format"] == "size" || branch["format"] == "duration");
        let (what, remedy) = match &node.data {
            Data::Null => (format!("{name} has no value"), format!("give it {noun}, or remove the key to get the default")),
            Data::Integer(_) | Data::Float(_) if measured => (format!("{name} is a number without a unit"), format!("write {noun}")),
            Data::Integer(_) | Data::Float(_) | Data::Bool(_) if takes_text(wanted) => {
                (format!("{name} is {} and must be text", kind(&node.data)), "put it in quotes".to_owned())
            }
            Data::Map(_) if path.is_empty() => (format!("{name} is {noun}"), String::new()),
            data => (format!("{name} is {} and must be {noun}", kind(data)), format!("write {noun}")),
        };
        self.problems.push(Problem::new(&codes::TASK_WRONG_TYPE, what, node.spot).remedy(remedy));
    }

    fn number(&mut self, number: i64, spot: Spot, wanted: &'static Value, path: &[&str]) {
        let below = wanted["minimum"].as_i64().is_some_and(|least| number < least);
        let above = wanted["maximum"].as_i64().is_some_and(|most| number > most);
        if below || above {
            let what = format!("`{}` is {number}, which it cannot be", dotted(path));
            self.problems.push(Problem::new(&codes::TASK_VALUE, what, spot).remedy(format!("write {}", schema::noun(wanted))));
        }
    }

    fn text<'a>(&mut self, text: &'a Text, spot: Spot, wanted: &'static Value, path: &mut Path<'a>) {
        let Some(value) = &text.resolved else { return };
        let words = schema::words(wanted);
        if !words.is_empty() && !words.iter().any(|(word, _)| word == value) {
            return self.not_a_word(&text.written, &words, spot, path);
        }
        let refused = match wanted["format"].as_str() {
            Some("size") => Size::parse(value).err(),
            Some("duration") => Age::parse(value).err(),
            _ => None,
        };
        if let Some(sentence) = refused {
            // The sentence quotes the text; what a reference stands for may be a secret put in the wrong place.
            let sentence = if text.written.contains("${") { "what the reference stands for does not fit" } else { &sentence };
            let what = format!("`{}`: {sentence}", dotted(path));
            self.problems.push(Problem::new(&codes::TASK_WRONG_TYPE, what, spot).remedy(format!("write {}", schema::noun(wanted))));
        }
    }

    fn not_a_word<'a>(&mut self, written: &'a str, words: &[(&str, &str)], spot: Spot, path: &mut Path<'a>) {
        path.push(written);
        let later = later::sentence(path);
        path.pop();
        if let Some(sentence) = later {
            return self.problems.push(Problem::new(&codes::TASK_UNSUPPORTED, sentence, spot).remedy("choose another value, or wait"));
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let shown: String = written.chars().filter(|c| !c.is_control()).take(60).collect();
        let what = format!("`{}` cannot be `{shown}`", dotted(path));
        let remedy = match suggest::nearest(written, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`? it can be: {}", known.join(", ")),
            None => format!("it can be: {}", known.join(", ")),
        };
        self.problems.push(Problem::new(&codes::TASK_VALUE, what, spot).remedy(remedy));
    }
}

/// What an unknown key was probably meant to be.
fn nearest_key(key: &Key, wanted: &'static Value) -> Option<&'static str> {
    let is_known = schema::properties(wanted).any(|(name, _)| name == key.name);
    if is_known { None } else { suggest::nearest(&key.name, schema::properties(wanted).map(|(name, _)| name)) }
}

/// Whether data of that kind can be of that branch, whatever its content.
fn fits(data: &Data, branch: &Value) -> bool {
    let kind = branch["type"].as_str().unwrap_or("string");
    match data {
        Data::Null | Data::Float(_) => false,
        Data::Bool(_) => kind == "boolean",
        Data::Integer(_) => kind == "integer",
        Data::Text(_) => kind == "string",
        Data::List(_) => kind == "array",
        Data::Map(_) => kind == "object",
    }
}

fn takes_text(wanted: &'static Value) -> bool {
    schema::branches(wanted)
        .iter()
        .any(|branch| fits(&Data::Text(Text { written: String::new(), resolved: None }), branch) && schema::words(branch).is_empty())
}

fn kind(data: &Data) -> &'static str {
    match data {
        Data::Null => "nothing",
        Data::Bool(_) => "true or false",
        Data::Integer(_) | Data::Float(_) => "a number",
        Data::Text(_) => "text",
        Data::List(_) => "a list",
        Data::Map(_) => "a mapping",
    }
}

/// `map[0].columns.ssn`; a step that is long or odd is clipped, since it may come from a hostile file.
pub fn dotted(path: &[&str]) -> String {
    let mut text = String::new();
    for step in path {
        let step: String = step.chars().filter(|c| !c.is_control()).take(60).collect();
        if step.chars().all(|c| c.is_ascii_digit()) && !text.is_empty() {
            text.push_str(&format!("[{step}]"));
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(&step);
        }
    }
    text
}
