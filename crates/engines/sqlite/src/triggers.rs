//! The triggers that log every row's change, in SQL that also old SQLite libraries of users understand.
//!
//! AFTER triggers write the log. What REPLACE displaces fires no delete trigger unless the writer's connection has
//! `recursive_triggers` on, so BEFORE triggers note each row that the new one meets in a unique index as a
//! *candidate*; the next AFTER trigger then logs those candidates that are really gone. A row that is deleted with its
//! own triggers takes its candidate along before it goes, so that with recursive triggers on nothing is logged twice;
//! one that is updated (also by a foreign key's action, in the middle of a REPLACE) leaves its new image there. So a
//! candidate, also one left by an ignored insert, always describes a row that is there or was displaced unseen. A statement's own
//! conflict clause (`INSERT OR IGNORE`) also rules the statements in its triggers: no table of ours has a constraint
//! that could then be ignored.
//!
//! Records: `i` new row · `o` old key (or row) of an update that changes it, followed by · `u` new row of an update ·
//! `d` old key (or row) · `m` marker · `b` birth of the log · `x` a row that a foreign key's action changed again before
//! its own update was logged (it refers to itself and its key changed): the order is lost, the stream stops.

use godwit_model::{Error, Result, codes};

use crate::capture::Names;
use crate::schema::{KeyPart, MAIN, RowName, Shape, UniqueIndex};
use crate::tokens::{IndexText, index_text, quoted};

/// What the triggers of one table need to know.
pub(crate) struct Capture<'a> {
    names: &'a Names,
    /// The table's number in the log.
    number: u32,
    shape: &'a Shape,
    rowid: Vec<RowPart>,
    /// The new row meets an old one; each is a condition on the table's columns.
    meetings: Vec<Meeting>,
}

/// One column of what names a row.
struct RowPart {
    name: String,
    /// ` COLLATE x` where it is needed.
    collate: String,
}

struct Meeting {
    condition: String,
    /// Whether an update may move the row to another place in this index; None: not known, so it may.
    moved: Option<String>,
}

/// One trigger.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trigger {
    pub(crate) name: String,
    pub(crate) sql: String,
}

impl<'a> Capture<'a> {
    /// Fails for a table whose rows cannot be told apart from SQL.
    pub(crate) fn new(names: &'a Names, number: u32, shape: &'a Shape) -> Result<Self> {
        let rowid = match &shape.row {
            RowName::Rowid(name) => vec![RowPart { name: name.clone(), collate: String::new() }],
            RowName::Key(parts) => parts.iter().map(|part| row_part(shape, part)).collect(),
            RowName::Hidden => return Err(refused(shape, "its columns hide every name of the rowid")),
        };
        let mut meetings = Vec::new();
        if let RowName::Rowid(name) = &shape.row {
            let moved = Some(format!("OLD.{name} IS NOT NEW.{name}"));
            meetings.push(Meeting { condition: format!("{name} = NEW.{name}"), moved });
        }
        for index in &shape.uniques {
            meetings.push(meeting(shape, index)?);
        }
        Ok(Capture { names, number, shape, rowid, meetings })
    }

    pub(crate) fn triggers(&self) -> Vec<Trigger> {
        vec![
            self.trigger("bi", "BEFORE INSERT", None, &self.before_insert()),
            self.trigger("bu", "BEFORE UPDATE", self.any_moved(), &self.before_update()),
            self.trigger("ai", "AFTER INSERT", None, &self.after_insert()),
            self.trigger("au", "AFTER UPDATE", None, &self.after_update()),
            self.trigger("bd", "BEFORE DELETE", None, &self.before_delete()),
            self.trigger("ad", "AFTER DELETE", None, &self.after_delete()),
        ]
    }

    fn trigger(&self, kind: &str, event: &str, when: Option<String>, body: &[String]) -> Trigger {
        let name = self.names.trigger(self.number, kind);
        let when = when.map(|when| format!(" WHEN {when}")).unwrap_or_default();
        let table = self.shape.quoted();
        let sql = format!("CREATE TRIGGER {} {event} ON {table} FOR EACH ROW{when} BEGIN {}; END", quoted(&name), body.join("; "));
        Trigger { name, sql }
    }

    fn before_insert(&self) -> Vec<String> {
        let mut body = Vec::new();
        // Where another trigger inserts into this very table, it may do so between our BEFORE and AFTER triggers: then
        // what was noted for the outer statement must stay. Trimming clears what is left over.
        if !self.shape.filled_by_triggers {
            body.push(format!("DELETE FROM {} WHERE t = {}", self.candidates(), self.number));
        }
        body.extend(self.meetings.iter().map(|meeting| self.note(&meeting.condition)));
        body
    }

    fn before_update(&self) -> Vec<String> {
        let other = format!("NOT ({})", self.same_row("", "OLD."));
        self.meetings
            .iter()
            .map(|meeting| {
                let moved = meeting.moved.as_ref().map(|moved| format!("({moved}) AND ")).unwrap_or_default();
                self.note(&format!("{moved}{} AND {other}", meeting.condition))
            })
            .collect()
    }

    /// Spares plain updates the BEFORE trigger's statements.
    fn any_moved(&self) -> Option<String> {
        let moved: Option<Vec<String>> = self.meetings.iter().map(|meeting| meeting.moved.clone()).collect();
        moved.map(|moved| moved.join(" OR "))
    }

    fn after_insert(&self) -> Vec<String> {
        let gone = self.displaced();
        vec![self.log_displaced(&gone), self.forget(&gone), self.log('i', &self.all(), "NEW.")]
    }

    fn after_update(&self) -> Vec<String> {
        let own = self.same_row(&self.candidate_prefix(), "OLD.");
        let gone = format!("NOT ({own}) AND ({})", self.displaced());
        let mut body = vec![self.log_displaced(&gone), self.forget(&gone), self.refresh(&own)];
        body.extend(self.log_lost_order());
        body.push(self.log_old_of_update());
        body.push(self.log('u', &self.all(), "NEW."));
        body
    }

    /// Actions of foreign keys run before AFTER triggers: then the row no longer is what NEW says.
    fn log_lost_order(&self) -> Option<String> {
        let differs = |name: &String| format!("godwit_t.{0} IS NOT NEW.{0}", quoted(name));
        let differs = self.shape.self_updated.iter().map(differs).collect::<Vec<_>>().join(" OR ");
        let part = |part: &RowPart| format!("godwit_t.{0}{1} = NEW.{0}", part.name, part.collate);
        let same = self.rowid.iter().map(part).collect::<Vec<_>>().join(" AND ");
        let (log, number, table) = (self.log_table(), self.number, self.shape.quoted());
        (!differs.is_empty())
            .then(|| format!("INSERT INTO {log} (t, op) SELECT {number}, 'x' FROM {table} AS godwit_t WHERE {same} AND ({differs})"))
    }

    fn before_delete(&self) -> Vec<String> {
        vec![self.forget(&self.same_row(&self.candidate_prefix(), "OLD."))]
    }

    fn after_delete(&self) -> Vec<String> {
        vec![self.log('d', &self.image(), "OLD.")]
    }

    /// The row's candidate, if there is one, takes the new image.
    fn refresh(&self, own: &str) -> String {
        let carried = self.shape.carried();
        let name = self.rowid.iter().enumerate().map(|(at, part)| format!("k{at} = NEW.{}", part.name));
        let image = self.image().into_iter().map(|at| format!("c{at} = NEW.{}", self.shape.quoted_column(carried[at])));
        let set = name.chain(image).collect::<Vec<_>>().join(", ");
        format!("UPDATE {} SET {set} WHERE t = {} AND {own}", self.candidates(), self.number)
    }

    /// Notes the rows for which the condition holds.
    fn note(&self, condition: &str) -> String {
        let names = (0..self.rowid.len()).map(|at| format!("k{at}")).chain(self.image().into_iter().map(|at| format!("c{at}")));
        let names = names.collect::<Vec<_>>().join(", ");
        let rowid = self.rowid.iter().map(|part| part.name.clone());
        let image = self.image().into_iter().map(|at| self.shape.quoted_column(self.shape.carried()[at]));
        let values = rowid.chain(image).collect::<Vec<_>>().join(", ");
        let table = self.shape.quoted();
        format!("INSERT INTO {} (t, {names}) SELECT {}, {values} FROM {table} WHERE {condition}", self.candidates(), self.number)
    }

    /// Of a candidate: its row is not there any more, or it is another row of the same name.
    fn displaced(&self) -> String {
        let candidate = self.candidate_prefix();
        let still = self
            .rowid
            .iter()
            .enumerate()
            .map(|(at, part)| format!("godwit_t.{}{} = {candidate}k{at}", part.name, part.collate))
            .collect::<Vec<_>>()
            .join(" AND ");
        let replaced = self.same_row(&candidate, "NEW.");
        format!("({replaced}) OR NOT EXISTS (SELECT 1 FROM {} AS godwit_t WHERE {still})", self.shape.quoted())
    }

    /// `left` is empty for the table's own columns, the candidate table for its `k` columns.
    fn same_row(&self, left: &str, right: &str) -> String {
        let compare = |(at, part): (usize, &RowPart)| {
            let column = if left.is_empty() { part.name.clone() } else { format!("{left}k{at}") };
            format!("{right}{}{} = {column}", part.name, part.collate)
        };
        self.rowid.iter().enumerate().map(compare).collect::<Vec<_>>().join(" AND ")
    }

    fn log_displaced(&self, gone: &str) -> String {
        let columns = self.image().into_iter().map(|at| format!("c{at}")).collect::<Vec<_>>().join(", ");
        let (log, candidates, number) = (self.log_table(), self.candidates(), self.number);
        // A row met in two indexes was noted twice. DISTINCT would say the same and builds a sorter for every row that is
        // written, which doubles what capture costs; this is only looked at where there is a candidate.
        let same = (0..self.rowid.len()).map(|at| format!("godwit_o.k{at} IS {candidates}.k{at}")).collect::<Vec<_>>().join(" AND ");
        let earlier = format!(
            "SELECT 1 FROM {candidates} AS godwit_o WHERE godwit_o.t = {number} AND {same} AND godwit_o.rowid < {candidates}.rowid"
        );
        format!(
            "INSERT INTO {log} (t, op, {columns}) SELECT {number}, 'd', {columns} FROM {candidates} \
             WHERE t = {number} AND ({gone}) AND NOT EXISTS ({earlier})"
        )
    }

    fn forget(&self, condition: &str) -> String {
        format!("DELETE FROM {} WHERE t = {} AND ({condition})", self.candidates(), self.number)
    }

    fn log(&self, operation: char, columns: &[usize], image: &str) -> String {
        let (names, values) = self.logged(columns, image);
        format!("INSERT INTO {} (t, op, {names}) VALUES ({}, '{operation}', {values})", self.log_table(), self.number)
    }

    /// Only where the key changed by a single byte or by its storage class; always without a key.
    fn log_old_of_update(&self) -> String {
        let Some(key) = &self.shape.key else { return self.log('o', &self.image(), "OLD.") };
        let changed = |part: &KeyPart| {
            let name = self.shape.quoted_column(part.column);
            if self.shape.integer_key == Some(part.column) {
                return format!("OLD.{name} IS NOT NEW.{name}");
            }
            format!("OLD.{name} COLLATE BINARY IS NOT NEW.{name} OR typeof(OLD.{name}) <> typeof(NEW.{name})")
        };
        let changed = key.iter().map(changed).collect::<Vec<_>>().join(" OR ");
        let (names, values) = self.logged(&self.image(), "OLD.");
        format!("INSERT INTO {} (t, op, {names}) SELECT {}, 'o', {values} WHERE {changed}", self.log_table(), self.number)
    }

    fn logged(&self, columns: &[usize], image: &str) -> (String, String) {
        let carried = self.shape.carried();
        let names = columns.iter().map(|at| format!("c{at}")).collect::<Vec<_>>().join(", ");
        let value = |at: &usize| format!("{image}{}", self.shape.quoted_column(carried[*at]));
        (names, columns.iter().map(value).collect::<Vec<_>>().join(", "))
    }

    /// Places of all columns in a record.
    fn all(&self) -> Vec<usize> {
        (0..self.shape.carried().len()).collect()
    }

    /// Places of the columns of an old image: the key, or the whole row.
    fn image(&self) -> Vec<usize> {
        old_image(self.shape)
    }

    fn log_table(&self) -> String {
        quoted(&self.names.log)
    }

    fn candidates(&self) -> String {
        quoted(&self.names.candidates)
    }

    fn candidate_prefix(&self) -> String {
        format!("{}.", self.candidates())
    }
}

/// Places (among the carried columns) of what an old image holds.
pub(crate) fn old_image(shape: &Shape) -> Vec<usize> {
    let carried = shape.carried();
    match &shape.key {
        Some(key) => key.iter().filter_map(|part| carried.iter().position(|column| *column == part.column)).collect(),
        None => (0..carried.len()).collect(),
    }
}

fn row_part(shape: &Shape, part: &KeyPart) -> RowPart {
    RowPart { name: shape.quoted_column(part.column), collate: shape.collate(part.column, &part.collation) }
}

fn meeting(shape: &Shape, index: &UniqueIndex) -> Result<Meeting> {
    let text = match shape.text_of(index) {
        Some(sql) => Some(index_text(sql).ok_or_else(|| refused(shape, &format!("its index `{}` is not understood", index.name)))?),
        None => None,
    };
    let mut conditions = Vec::new();
    let mut moved = Some(Vec::new());
    for (at, part) in index.parts.iter().enumerate() {
        if let Some(column) = part.column {
            let name = shape.quoted_column(column);
            let collation = shape.collate(column, &part.collation);
            conditions.push(format!("{name}{collation} = {}", new_value(shape, column)));
            if let Some(moved) = &mut moved {
                moved.push(format!("OLD.{name}{collation} IS NOT NEW.{name}"));
            }
        } else {
            let expression =
                expression(text.as_ref(), at).ok_or_else(|| refused(shape, &format!("its index `{}` is not understood", index.name)))?;
            conditions.push(format!("({expression}) COLLATE {} = ({})", quoted(&part.collation), of_new_row(shape, expression)));
            moved = None;
        }
    }
    if let Some(filter) = text.as_ref().and_then(|text| text.filter.as_ref()) {
        conditions.push(format!("({filter})"));
        // A change of the filter's columns may bring the row into the index.
        moved = None;
    }
    Ok(Meeting { condition: conditions.join(" AND "), moved: moved.map(|moved| moved.join(" OR ")) })
}

fn expression(text: Option<&IndexText>, at: usize) -> Option<&str> {
    text?.parts.get(at).map(String::as_str)
}

/// REPLACE puts the default in the place of a NULL that must not be, after the BEFORE triggers have run.
fn new_value(shape: &Shape, column: usize) -> String {
    let name = shape.quoted_column(column);
    match (&shape.columns[column].default, shape.columns[column].not_null) {
        (Some(default), true) => format!("ifnull(NEW.{name}, ({default}))"),
        _ => format!("NEW.{name}"),
    }
}

fn of_new_row(shape: &Shape, expression: &str) -> String {
    let columns = (0..shape.columns.len()).map(|column| format!("NEW.{0} AS {0}", shape.quoted_column(column)));
    let columns = columns.collect::<Vec<_>>().join(", ");
    format!("SELECT {expression} FROM (SELECT {columns}) AS {}", shape.quoted())
}

fn refused(shape: &Shape, why: &str) -> Error {
    Error::new(&codes::TYPE_UNSUPPORTED, format!("changes of table `{}` cannot be captured: {why}", shape.name))
        .at(format!("table {MAIN}.{}", shape.name))
        .remedy("leave the table out with `select.except`, or change it")
}
