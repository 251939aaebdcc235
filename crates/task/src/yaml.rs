//! From bytes to a tree in which every key and value knows its place.
//!
//! The tree is untyped on purpose: the check wants to name *all* mistakes of a file, and a typed deserializer ends at the
//! first. Budgets against hostile input are set here and nowhere else. Nothing in the tree implements `Debug`, since
//! values may be secrets.

use std::fmt;

use godwit_model::codes;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Error as YamlError, Location, MergeKeyPolicy, NonFiniteFloatPolicy, Options, Spanned};

use crate::problem::{Problem, Spot};

/// A task that maps 10,000 tables one by one is about this long; anything beyond is not a task file.
pub const MAX_FILE_BYTES: usize = 2 << 20;
/// The form is seven levels deep.
const MAX_DEPTH: usize = 24;
/// Keys and values together; the file's length allows no more that are useful.
const MAX_NODES: usize = 200_000;
/// Aliases are a comfort for a repeated block; a bomb needs many.
const MAX_ALIASES: usize = 100;
/// What all aliases together may add.
const MAX_REPLAYED: usize = 10_000;

/// One value and its place.
#[derive(Clone)]
pub struct Node {
    pub data: Data,
    pub spot: Spot,
}

#[derive(Clone)]
pub enum Data {
    Null,
    Bool(bool),
    Integer(i64),
    /// Also an integer that no setting could hold.
    Float(f64),
    Text(Text),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Clone)]
pub struct Text {
    /// As the file has it; this is what messages show.
    pub written: String,
    /// With its references resolved; None if one of them could not be, which is reported elsewhere.
    pub resolved: Option<String>,
}

#[derive(Clone)]
pub struct Key {
    pub name: String,
    pub spot: Spot,
}

impl Node {
    /// The value under that key of a mapping, or at that index of a list.
    pub fn child(&self, step: &str) -> Option<&Node> {
        match &self.data {
            Data::Map(entries) => entries.iter().find(|(key, _)| key.name == step).map(|(_, node)| node),
            Data::List(items) => items.get(step.parse::<usize>().ok()?),
            _ => None,
        }
    }

    /// The place of what `path` leads to, or of the deepest part of it that is there.
    pub fn spot_of(&self, path: &[&str]) -> Spot {
        let mut node = self;
        for step in path {
            match node.child(step) {
                Some(child) => node = child,
                None => break,
            }
        }
        node.spot
    }

    pub fn text(&self) -> Option<&Text> {
        match &self.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// None for a file that says nothing.
pub fn parse(text: &str) -> Result<Option<Node>, Problem> {
    if text.len() > MAX_FILE_BYTES {
        let what = format!("the file is {} bytes long; a task file may hold {MAX_FILE_BYTES}", text.len());
        return Err(Problem::new(&codes::TASK_TOO_LARGE, what, Spot::START).remedy("is this the task file?"));
    }
    let found: Option<Spanned<Data>> = serde_saphyr::from_str_with_options(text, options()).map_err(|error| explain(&error))?;
    Ok(found.map(Node::from).filter(|node| !matches!(node.data, Data::Null)))
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
            max_recorded_anchor_events: MAX_REPLAYED,
            max_recorded_anchor_bytes: MAX_FILE_BYTES,
            max_total_scalar_bytes: MAX_FILE_BYTES,
            // The second one gets a sentence of its own.
            max_documents: 2,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_REPLAYED,
            max_replay_stack_depth: MAX_DEPTH,
            max_alias_expansions_per_anchor: MAX_ALIASES,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
    }
}

impl From<Spanned<Data>> for Node {
    fn from(spanned: Spanned<Data>) -> Self {
        Node { data: spanned.value, spot: spot(spanned.referenced) }
    }
}

fn spot(location: Location) -> Spot {
    let as_usize = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    Spot { line: as_usize(location.line()).max(1), column: as_usize(location.column()).max(1), width: as_usize(location.span().len()) }
}

fn explain(error: &YamlError) -> Problem {
    let spot = error.location().map_or(Spot::START, spot);
    let mut cause = error.without_snippet();
    while let YamlError::AliasError { error, .. } = cause {
        cause = error;
    }
    match cause {
        YamlError::DuplicateMappingKey { key, .. } => {
            let key = key.as_ref().map_or_else(|| "a key".to_owned(), |key| format!("the key `{}`", clipped(key)));
            Problem::new(&codes::TASK_SYNTAX, format!("{key} stands twice in one mapping"), spot).remedy("keep one of the two")
        }
        YamlError::MultipleDocuments { .. } => Problem::new(&codes::TASK_SYNTAX, "the file holds more than one document", spot)
            .remedy("put each task in a file of its own"),
        YamlError::MergeKeyNotAllowed { .. } => Problem::new(&codes::TASK_SYNTAX, "merge keys (`<<`) are not allowed in a task file", spot)
            .remedy("write the keys out"),
        YamlError::Budget { .. }
        | YamlError::AliasReplayLimitExceeded { .. }
        | YamlError::AliasExpansionLimitExceeded { .. }
        | YamlError::AliasReplayStackDepthExceeded { .. }
        | YamlError::AliasReplayCounterOverflow { .. } => {
            let what = format!(
                "the file is nested deeper than {MAX_DEPTH} levels, or holds more than {MAX_NODES} values or {MAX_ALIASES} aliases"
            );
            Problem::new(&codes::TASK_TOO_LARGE, what, spot).remedy("is this the task file?")
        }
        other => Problem::new(&codes::TASK_SYNTAX, sentence(other), spot)
            .remedy("check indentation, colons and quotes near this place; text with `: `, ` #` or a leading `*`, `&`, `{`, `[`, `@` needs quotes, and so does `${...}` inside `{ }` or `[ ]`"),
    }
}

/// The parser's own words without the place, which we say in our way. They quote structure, not values.
fn sentence(error: &YamlError) -> String {
    let said = match error {
        YamlError::Message { msg, .. } | YamlError::ExternalMessage { msg, .. } => msg.clone(),
        YamlError::Eof { .. } => "the file ends in the middle of something".to_owned(),
        YamlError::UnknownAnchor { .. } => "`*` refers to an anchor that does not exist".to_owned(),
        YamlError::InvalidScalar { ty, .. } => format!("this is not a {ty}"),
        _ => "this is not valid YAML".to_owned(),
    };
    clipped(said.lines().next().unwrap_or_default())
}

fn clipped(text: &str) -> String {
    // One terminal line or two; a hostile key may be a megabyte long.
    const LONGEST: usize = 160;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DataVisitor)
    }
}

struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Data, E> {
        Ok(Data::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Data, E> {
        Ok(Data::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Data, E> {
        Ok(Data::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Data, E> {
        Ok(Data::Integer(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Data, E> {
        Ok(i64::try_from(value).map_or(Data::Float(value as f64), Data::Integer))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Data, E> {
        Ok(Data::Float(value as f64))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Data, E> {
        Ok(Data::Float(value as f64))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Data, E> {
        Ok(Data::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Data, E> {
        self.visit_string(value.to_owned())
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Data, E> {
        Ok(Data::Text(Text { written: value, resolved: None }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Data, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Spanned<Data>>()? {
            items.push(Node::from(item));
        }
        Ok(Data::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Data, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key::<Spanned<String>>()? {
            let value = access.next_value::<Spanned<Data>>()?;
            entries.push((Key { name: key.value, spot: spot(key.referenced) }, Node::from(value)));
        }
        Ok(Data::Map(entries))
    }
}
