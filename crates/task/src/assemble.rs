//! From the form to the task: what values mean, and whether they fit together. Mistakes are gathered, not thrown.

use std::path::Path;

use godwit_model::{
    BudgetEnd, ByteCount, Code, ColumnRule, Create, DdlPolicy, EndpointConfig, Existing, Grants, Limits, LogBudget, MapRule, Mode, Owners,
    Phases, Position, SchemaPolicy, Selection, TableName, Task, TaskName, Writes, codes,
};

use crate::dialect::Dialect;
use crate::endpoint;
use crate::environment::Environment;
use crate::form::{
    BudgetEndForm, ColumnForm, CreateForm, CreateWord, DdlForm, EndpointFields, ExistingForm, FailureForm, GrantsForm, LimitsForm,
    LogBudgetForm, MapRuleForm, ModeForm, OwnersForm, PhaseForm, SchemaForm, SelectForm, SourceForm, TargetForm, TaskForm, VerifyAtForm,
    WritesForm,
};
use crate::pattern::{TablePattern, stars};
use crate::problem::Problem;
use crate::yaml::Node;

/// Below this no batch of a usual row fits beside another.
const LEAST_MEMORY: u64 = 16 << 20;
/// A change log needs room for several segments.
const LEAST_CHANGE_LOG: u64 = 16 << 20;
/// A shorter snapshot would be renewed for every chunk.
const LEAST_SNAPSHOT_AGE_SECONDS: u64 = 1;

/// What is at hand while a task is put together, and what was found.
pub struct Assembly<'a> {
    pub root: &'a Node,
    pub folder: &'a Path,
    pub environment: &'a dyn Environment,
    pub problems: Vec<Problem>,
    pub warnings: Vec<String>,
}

impl Assembly<'_> {
    pub fn report(&mut self, code: &'static Code, path: &[&str], what: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem::new(code, what, self.root.spot_of(path)).remedy(remedy));
    }

    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }
}

struct Side {
    endpoint: EndpointConfig,
    dialect: &'static Dialect,
}

/// None if anything was reported. Endpoints come in the second half, so that no program is run for a file that is refused.
pub fn assemble(form: TaskForm, assembly: &mut Assembly<'_>) -> Option<Task> {
    let name = task_name(&form.name, assembly);
    let mode = mode(form.mode);
    // One word so far, which is what the pipeline does.
    let FailureForm::Stop = form.values.on_failure;
    let phases = phases(&form.phases, mode, assembly);
    let from = from(form.from.as_deref(), phases, assembly);
    let schema = schema(form.schema, assembly);
    let limits = limits(&form.limits, assembly);
    let (source_fields, writes, log_budget) = source_parts(form.source);
    let (target_fields, existing) = target_parts(form.target);
    let existing = existing_for(existing, phases, assembly);
    let source = side("source", source_fields, assembly);
    let target = side("target", target_fields, assembly);
    let source_default = source.as_ref().map(|side| side.dialect.default_schema);
    let target_default = target.as_ref().map(|side| side.dialect.default_schema);
    let select = source_default.map(|default| selection(&form.select, default, assembly));
    let map = source_default.zip(target_default).map(|(from, to)| map_rules(form.map, from, to, assembly));
    let (source, target) = (source?, target?);
    distinct(&source, &target, assembly);
    let task = Task {
        name: name?,
        mode,
        source: source.endpoint,
        target: target.endpoint,
        writes,
        log_budget,
        existing,
        select: select?,
        map: map?,
        phases,
        from,
        schema,
        limits,
        verify_at_finish: form.verify.at == VerifyAtForm::Finish,
    };
    assembly.is_sound().then_some(task)
}

fn task_name(text: &str, assembly: &mut Assembly<'_>) -> Option<TaskName> {
    let name = TaskName::parse(text);
    if name.is_none() {
        let remedy = "use lower-case letters, digits and `_`, begin with a letter, at most 40 long, such as `shop_2`";
        assembly.report(&codes::TASK_VALUE, &["name"], "`name` is not a name a task can have", remedy);
    }
    name
}

fn mode(form: ModeForm) -> Mode {
    match form {
        ModeForm::Migrate => Mode::Migrate,
        ModeForm::Synchronize => Mode::Synchronize,
    }
}

fn phases(form: &[PhaseForm], mode: Mode, assembly: &mut Assembly<'_>) -> Phases {
    let has = |phase| form.contains(&phase);
    let phases = Phases { schema: has(PhaseForm::Schema), load: has(PhaseForm::Load), changes: has(PhaseForm::Changes) };
    let mut refuse = |code, what: &str, remedy: &str| assembly.report(code, &["phases"], what, remedy);
    if form.is_empty() {
        refuse(&codes::TASK_VALUE, "`phases` names no phase", "name at least one, or remove the key to get all three");
    } else if usize::from(phases.schema) + usize::from(phases.load) + usize::from(phases.changes) < form.len() {
        refuse(&codes::TASK_VALUE, "`phases` names a phase twice", "name each phase once");
    } else if mode == Mode::Synchronize && !phases.changes {
        refuse(&codes::TASK_CONTRADICTION, "`mode: synchronize` needs the phase `changes`", "add `changes`, or choose `mode: migrate`");
    }
    phases
}

/// None stands for `now`.
fn from(text: Option<&str>, phases: Phases, assembly: &mut Assembly<'_>) -> Option<Position> {
    let alone = phases.changes && !phases.load;
    match text {
        None if alone => {
            let remedy = "add `from: now`, or the position that the target's rows are as of, or add `load`";
            assembly.report(
                &codes::TASK_MISSING_KEY,
                &["phases"],
                "`phases` has `changes` without `load`, and nothing says where they begin",
                remedy,
            );
            None
        }
        Some(_) if !alone => {
            let remedy = "remove `from`, or choose `phases: [changes]`";
            assembly.report(&codes::TASK_CONTRADICTION, &["from"], "`from` is only for a task with `changes` and without `load`", remedy);
            None
        }
        Some(text) if text.trim().is_empty() => {
            assembly.report(
                &codes::TASK_VALUE,
                &["from"],
                "`from` is empty",
                "write `now`, or a position of the source such as `0/16B3748`",
            );
            None
        }
        None | Some("now") => None,
        Some(position) => Some(Position::from(position.trim().to_owned())),
    }
}

/// Changes alone go to rows that are there.
fn existing_for(existing: Existing, phases: Phases, assembly: &mut Assembly<'_>) -> Existing {
    if !phases.changes || phases.load {
        return existing;
    }
    if matches!(existing, Existing::Truncate | Existing::Replace) {
        let what = "rows that changes go to, without a load, would be removed";
        assembly.report(&codes::TASK_CONTRADICTION, &["target", "existing"], what, "remove `existing`, or add `load` to `phases`");
    }
    Existing::Append
}

fn schema(form: SchemaForm, assembly: &mut Assembly<'_>) -> SchemaPolicy {
    let create = match form.create {
        CreateForm::Word(CreateWord::All) => Create::All,
        CreateForm::Word(CreateWord::Tables) => Create::Tables,
        CreateForm::Word(CreateWord::None) => Create::None,
        CreateForm::File(named) => {
            let path = assembly.folder.join(&named.file);
            if !assembly.environment.is_file(&path) {
                let what = format!("the script {} is not there", path.display());
                assembly.report(
                    &codes::TASK_REFERENCE,
                    &["schema", "create", "file"],
                    what,
                    "check the path; it is relative to the task file",
                );
            }
            Create::File(path)
        }
    };
    SchemaPolicy {
        create,
        owners: match form.owners {
            OwnersForm::Current => Owners::Current,
            OwnersForm::Keep => Owners::Keep,
        },
        grants: match form.grants {
            GrantsForm::List => Grants::List,
            GrantsForm::Keep => Grants::Keep,
        },
        changes: match form.changes {
            DdlForm::Carry => DdlPolicy::Carry,
            DdlForm::Ignore => DdlPolicy::Ignore,
            DdlForm::Stop => DdlPolicy::Stop,
        },
    }
}

fn limits(form: &LimitsForm, assembly: &mut Assembly<'_>) -> Limits {
    let mut least = |is_less: bool, key: &str, least: &str| {
        if is_less {
            let what = format!("`limits.{key}` is too small to work with");
            assembly.report(&codes::TASK_VALUE, &["limits", key], what, format!("give it at least {least}"));
        }
    };
    least(form.memory.0 < LEAST_MEMORY, "memory", "16MiB");
    least(form.change_log.0 < LEAST_CHANGE_LOG, "change_log", "16MiB");
    least(form.snapshot_age.0.as_secs() < LEAST_SNAPSHOT_AGE_SECONDS, "snapshot_age", "1s");
    Limits {
        memory: ByteCount(form.memory.0),
        source_connections: form.connections.source.into(),
        target_connections: form.connections.target.into(),
        change_log: ByteCount(form.change_log.0),
        snapshot_age: form.snapshot_age.0,
    }
}

fn source_parts(form: SourceForm) -> (EndpointFields, Writes, LogBudget) {
    let (endpoint, writes, budget) = match form {
        SourceForm::Url(url) => {
            (EndpointFields { url: Some(url.0), ..Default::default() }, WritesForm::default(), LogBudgetForm::default())
        }
        SourceForm::Fields(mut fields) => (fields.endpoint(), fields.writes, fields.log_budget),
    };
    let writes = match writes {
        WritesForm::Marker => Writes::Marker,
        WritesForm::Never => Writes::Never,
    };
    let then = match budget.then {
        BudgetEndForm::Stop => BudgetEnd::Stop,
        BudgetEndForm::Release => BudgetEnd::Release,
    };
    (endpoint, writes, LogBudget { size: budget.size.map(|size| ByteCount(size.0)), then })
}

fn target_parts(form: TargetForm) -> (EndpointFields, Existing) {
    let (endpoint, existing) = match form {
        TargetForm::Url(url) => (EndpointFields { url: Some(url.0), ..Default::default() }, ExistingForm::default()),
        TargetForm::Fields(mut fields) => (fields.endpoint(), fields.existing),
    };
    let existing = match existing {
        ExistingForm::Refuse => Existing::Refuse,
        ExistingForm::Append => Existing::Append,
        ExistingForm::Truncate => Existing::Truncate,
        ExistingForm::Replace => Existing::Replace,
    };
    (endpoint, existing)
}

fn side(name: &'static str, fields: EndpointFields, assembly: &mut Assembly<'_>) -> Option<Side> {
    endpoint::assemble(name, fields, assembly).map(|(endpoint, dialect)| Side { endpoint, dialect })
}

/// What can be seen without connecting; the engines look again at the servers' identities.
fn distinct(source: &Side, target: &Side, assembly: &mut Assembly<'_>) {
    let identity = |side: &Side| {
        let endpoint = &side.endpoint;
        (endpoint.engine.clone(), endpoint.host.to_lowercase(), endpoint.port.or(side.dialect.usual_port), endpoint.database.clone())
    };
    if identity(source) == identity(target) {
        let what = format!("source and target are both {}", target.endpoint.display());
        assembly.report(&codes::SAME_STORE, &["target"], what, "name another database as the target");
    }
}

fn selection(form: &SelectForm, default_schema: Option<&str>, assembly: &mut Assembly<'_>) -> Selection {
    let mut globs = |key: &str, texts: &[String]| {
        let mut globs = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            match TablePattern::parse(text, default_schema) {
                Ok(pattern) => globs.push(pattern.glob()),
                Err(what) => report_pattern(&["select", key, &index.to_string()], what, assembly),
            }
        }
        globs
    };
    Selection { tables: globs("tables", &form.tables), except: globs("except", &form.except) }
}

fn report_pattern(path: &[&str], what: String, assembly: &mut Assembly<'_>) {
    let remedy = "write `schema.table`; `*` stands for any run of characters, a part in double quotes is taken literally";
    assembly.report(&codes::TASK_VALUE, path, format!("`{}`: {what}", crate::check::dotted(path)), remedy);
}

fn map_rules(forms: Vec<MapRuleForm>, from_default: Option<&str>, to_default: Option<&str>, assembly: &mut Assembly<'_>) -> Vec<MapRule> {
    let mut rules = Vec::with_capacity(forms.len());
    for (index, form) in forms.into_iter().enumerate() {
        let index = index.to_string();
        let from = TablePattern::parse(&form.from, from_default).and_then(one_star_a_part);
        let to = form.to.as_deref().map(|to| TablePattern::parse(to, to_default).and_then(one_star_a_part)).transpose();
        let columns = column_rules(form.columns, &index, assembly);
        match (from, to) {
            (Ok(from), Ok(to)) => {
                if let Some(what) = to.as_ref().and_then(|to| star_from_nothing(&from, to)) {
                    report_pattern(&["map", &index, "to"], what, assembly);
                }
                rules.push(MapRule { from: table_name(from), to: to.map(table_name), columns });
            }
            (from, to) => {
                from.err().into_iter().for_each(|what| report_pattern(&["map", &index, "from"], what, assembly));
                to.err().into_iter().for_each(|what| report_pattern(&["map", &index, "to"], what, assembly));
            }
        }
    }
    rules
}

fn table_name(pattern: TablePattern) -> TableName {
    TableName::new(pattern.schema, pattern.name)
}

fn one_star_a_part(pattern: TablePattern) -> Result<TablePattern, String> {
    if stars(&pattern.schema) > 1 || stars(&pattern.name) > 1 {
        return Err("a rule of `map` has at most one `*` in each part, so that it is clear what it stands for".to_owned());
    }
    Ok(pattern)
}

fn star_from_nothing(from: &TablePattern, to: &TablePattern) -> Option<String> {
    let surplus = stars(&to.schema) > stars(&from.schema) || stars(&to.name) > stars(&from.name);
    surplus.then(|| "it has a `*` where the same part of `from` has none, so nothing can stand for it".to_owned())
}

fn column_rules(
    form: std::collections::BTreeMap<String, ColumnForm>,
    index: &str,
    assembly: &mut Assembly<'_>,
) -> Vec<(String, ColumnRule)> {
    let mut rules = Vec::with_capacity(form.len());
    for (column, what) in form {
        let name = match what {
            ColumnForm::Word(word) if word == "leave_out" => {
                rules.push((column, ColumnRule::LeaveOut));
                continue;
            }
            ColumnForm::Word(name) => name,
            ColumnForm::Fields(fields) => fields.to,
        };
        if name.is_empty() || name.chars().any(char::is_control) || column.is_empty() {
            let what = "a column's name is empty or holds a control character";
            assembly.report(&codes::TASK_VALUE, &["map", index, "columns", &column], what, "write the column's name, or `leave_out`");
        }
        rules.push((column, ColumnRule::Rename(name)));
    }
    rules
}
