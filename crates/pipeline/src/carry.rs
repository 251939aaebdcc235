//! Schema changes carried to the target, each at its place in the stream.
//!
//! Everything before the transaction that uses another layout is committed; then the target is altered, in one transaction
//! with the facts that say so; then that transaction is read again, under the new mapping. Where the source proves that
//! rows changed in no other way than the alteration changed them, replay stays strict. Else a convergent window opens, as
//! after a load, and the altered table is compared and read again at its end.

use std::collections::HashMap;

use godwit_model::{
    Alteration, Altered, Appearance, Checkpoint, DdlPolicy, Entry, Error, Event, Layout, MapRule, Result, Table, TableAppearance,
    TableMapping, TableName, codes, failpoint, glob_matches,
};

use crate::assemble::Altering;
use crate::coalesce::Reread;
use crate::examine::{self, Settle};
use crate::facts::{self, Ahead, Facts};
use crate::load::Route;
use crate::replay::{Outcome, Pass, Replay, new_marker};
use crate::reread;
use crate::running::Still;

/// Name and type of a layout's columns.
pub(crate) fn stated(layout: &Layout) -> Vec<(String, String)> {
    layout.columns.iter().map(|column| (column.name.clone(), column.type_name.clone())).collect()
}

/// The columns of a table that was only described: where a name is stated its type is taken for the same.
pub(crate) fn described(table: &Table, look: &Appearance) -> Vec<(String, String)> {
    let known = table.columns.iter().filter(|column| !column.generated);
    let mut columns: Vec<(String, String)> = look.columns.iter().filter(|(name, _)| table.column(name).is_some()).cloned().collect();
    let unstated = known.filter(|column| !look.columns.iter().any(|(name, _)| *name == column.name));
    columns.extend(unstated.map(|column| (column.name.clone(), column.type_name.clone())));
    columns
}

/// What happened, by names: columns that came, went, and have another type.
#[derive(Debug, Default, PartialEq)]
struct Difference<'a> {
    added: Vec<&'a str>,
    gone: Vec<&'a str>,
    retyped: Vec<&'a str>,
}

impl<'a> Difference<'a> {
    fn between(before: &'a [(String, String)], after: &'a [(String, String)]) -> Self {
        let absent = |from: &[(String, String)], name: &str| !from.iter().any(|(there, _)| there == name);
        let names = |columns: &'a [(String, String)], others: &[(String, String)]| {
            columns.iter().map(|(name, _)| name.as_str()).filter(|name| absent(others, name)).collect()
        };
        let retyped = after.iter().filter(|(name, kind)| before.iter().any(|(there, old)| there == name && old != kind));
        Difference { added: names(after, before), gone: names(before, after), retyped: retyped.map(|(name, _)| name.as_str()).collect() }
    }
}

pub(crate) fn is_only_wider(before: &Appearance, after: &[(String, String)]) -> bool {
    let difference = Difference::between(&before.columns, after);
    difference.gone.is_empty() && difference.retyped.is_empty() && !difference.added.is_empty()
}

/// The same, with names that are known to have changed.
fn described_as(before: &Appearance, after: &[(String, String)], renamed: &[(String, String)]) -> String {
    let old = |name: &String| renamed.iter().find(|(_, new)| new == name).map_or(name, |(old, _)| old).clone();
    let under_old: Vec<(String, String)> = after.iter().map(|(name, kind)| (old(name), kind.clone())).collect();
    let names: Vec<String> = renamed.iter().map(|(old, new)| format!("renamed {old} to {new}")).collect();
    match (names.is_empty(), before.columns == under_old) {
        (true, _) => describe(before, after),
        (false, true) => names.join("; "),
        (false, false) => format!("{}; {}", names.join("; "), describe(before, &under_old)),
    }
}

/// Chunks and changes of the time before have the old name, and a change of that time does not tell which it means.
fn renamed_in_load(table: &Table, renamed: &[(String, String)]) -> Error {
    let names: Vec<String> = renamed.iter().map(|(old, new)| format!("{old} to {new}")).collect();
    refusal(&table.name, format!("columns were renamed before the table was whole at the target: {}", names.join(", ")))
        .remedy("begin anew with `run --resync`: it makes the target's columns those of the source")
}

/// In words for a person.
pub(crate) fn describe(before: &Appearance, after: &[(String, String)]) -> String {
    let Difference { added, gone, retyped } = Difference::between(&before.columns, after);
    let list = |word: &str, names: &[&str]| (!names.is_empty()).then(|| format!("{word} {}", names.join(", ")));
    let words = [list("added", &added), list("dropped or renamed", &gone), list("another type for", &retyped)];
    let words: Vec<String> = words.into_iter().flatten().collect();
    if words.is_empty() { "its columns were put in another order".to_owned() } else { words.join("; ") }
}

pub(crate) fn stopped(table: &TableName, what: &str) -> Error {
    refusal(table, format!("the table was altered at the source: {what}"))
        .remedy("alter the target alike, then start anew with `run --resync`; `schema: {changes: carry}` follows such changes by itself")
}

fn refusal(table: &TableName, what: String) -> Error {
    Error::new(&codes::DDL_STOPPED, what)
        .at(format!("table {table}"))
        .effect("every transaction before the schema change is applied, none after it")
}

/// What cannot be carried, whatever the source says besides.
fn refuse(rules: &[MapRule], table: &Table, look: &Appearance, after: &[(String, String)], altered: &Altered) -> Result<()> {
    let difference = Difference::between(&look.columns, after);
    let key = table.key_names();
    let kept = |name: &&&str| !altered.renamed.iter().any(|(old, _)| old == *name);
    if let Some(column) = difference.gone.iter().filter(kept).chain(&difference.retyped).find(|name| key.contains(name)) {
        return Err(refusal(&table.name, format!("column `{column}` belongs to the key and was dropped, renamed or got another type"))
            .remedy("alter the target alike, then start anew with `run --resync`"));
    }
    let covers = |rule: &&MapRule| glob_matches(&rule.from.schema, &table.name.schema) && glob_matches(&rule.from.name, &table.name.name);
    let named = |name: &str| rules.iter().filter(covers).any(|rule| rule.columns.iter().any(|(column, _)| column == name));
    if let Some(column) = difference.gone.iter().find(|name| named(name)) {
        return Err(refusal(&table.name, format!("column `{column}`, which the task maps, was dropped or renamed"))
            .remedy("give the task up (`clean`) and begin it anew with a map that does not name the column"));
    }
    Ok(())
}

/// What the source says of the change, judged.
fn judge(table: &Table, look: &Appearance, after: &[(String, String)], altered: &Altered) -> Result<()> {
    let difference = Difference::between(&look.columns, after);
    if difference == Difference::default() && !altered.distinct {
        return Err(refusal(&table.name, "columns of the table took each other's names, or were put in another order".to_owned())
            .remedy("rename the target's columns alike, then start anew with `run --resync`"));
    }
    if !difference.added.is_empty() && !difference.gone.is_empty() && !altered.distinct {
        let (gone, added) = (difference.gone.join(", "), difference.added.join(", "));
        return Err(refusal(&table.name, format!("a column may have been renamed: {gone} went and {added} came at once"))
            .remedy("if it was renamed, rename the target's alike, else drop and add it there; then start anew with `run --resync`"));
    }
    let generated = |name: &&&str| table.column(name).is_some_and(|index| table.columns[index].generated);
    if let Some(column) = difference.added.iter().find(generated) {
        return Err(refusal(&table.name, format!("column `{column}` was generated and now holds values of its own"))
            .remedy("alter the target alike, then start anew with `run --resync`"));
    }
    if altered.table.key.is_none() && table.key.is_some() {
        return Err(refusal(&table.name, "the key is no longer there".to_owned())
            .remedy("give the table its key again, then start anew with `run --resync`"));
    }
    if !altered.proved && table.key.is_none() {
        return Err(refusal(&table.name, format!("{}: rows without a key cannot be read again", describe(look, after)))
            .remedy("alter the target alike, then start anew with `run --resync`"));
    }
    Ok(())
}

/// The mapping of an altered table; its target keeps its name.
fn remapped(rules: &[MapRule], before: &TableMapping, table: &Table) -> Result<TableMapping> {
    let mut mapping = TableMapping::resolve(rules, table).map_err(|error| {
        refusal(&table.name, error.what().to_owned()).remedy("rename the column at the source, or begin anew with another map")
    })?;
    mapping.target = before.target.clone();
    Ok(mapping)
}

/// Where in the stream a table is altered.
enum Place {
    /// Before the transaction that comes next, which the stream says.
    Before(Ahead),
    /// Here: the catalog says it, and no change has used the columns so far.
    Here,
    /// During the load, somewhere behind changes that are still to come.
    Load,
}

impl Replay {
    /// Before chunks are copied, and when one could not be: tables that were altered since they were described are altered
    /// at the target now, and up to P1 nothing is taken for granted of their layouts. False: nothing was altered.
    pub(crate) async fn follow_in_load(&self, facts: &mut Facts) -> Result<bool> {
        if self.policy == DdlPolicy::Ignore {
            return Ok(false);
        }
        let names = self.names();
        let mut is_altered = false;
        for found in self.source.appearances(&names).await? {
            let Some(known) = facts.look(&found.table)?.filter(|known| !known.fits(&found.look.columns)) else { continue };
            if self.policy == DdlPolicy::Stop {
                return Err(stopped(&found.table, &describe(&known, &found.look.columns)));
            }
            self.alter(facts, &found.table, &found.look.columns, Place::Load, false).await?;
            is_altered = true;
        }
        Ok(is_altered)
    }

    fn names(&self) -> Vec<TableName> {
        self.routes.iter().map(|route| route.table.name.clone()).collect()
    }

    /// Whether the catalog says something that the stream has not told.
    pub(crate) async fn has_news(&self, facts: &Facts) -> Result<bool> {
        let names = self.names();
        Ok(self.policy != DdlPolicy::Ignore && has_news(facts, &names, &self.source.appearances(&names).await?)?)
    }

    /// Before the transaction that comes next.
    pub(crate) async fn carry(&self, facts: &mut Facts, checkpoint: Option<&Checkpoint>, altering: &Altering) -> Result<()> {
        let position = checkpoint.map(|checkpoint| checkpoint.position.clone());
        for (name, layout) in &altering.layouts {
            let ahead = Ahead { position: position.clone(), ..Ahead::default() };
            self.alter(facts, name, &stated(layout), Place::Before(ahead), altering.several.contains(name)).await?;
        }
        for name in altering.announced.iter().filter(|name| !altering.layouts.contains_key(*name)) {
            let Some(route) = self.routes.iter().find(|route| route.table.name == *name) else { continue };
            refuse_without_key(route)?;
            let ahead = facts::ahead_entry(name, &Ahead { position: position.clone(), ..Ahead::default() });
            self.note(facts, self.window(facts, name, vec![ahead])).await?;
        }
        Ok(())
    }

    /// Gives the target's table the columns that the source's has. After `several` layouts in one transaction its rows are
    /// read again.
    async fn alter(&self, facts: &mut Facts, name: &TableName, columns: &[(String, String)], place: Place, several: bool) -> Result<()> {
        let is_loose = matches!(place, Place::Load);
        let route = self.routes.iter().find(|route| route.table.name == *name);
        let route = route.ok_or_else(|| Error::internal("a table that is not selected was altered"))?;
        let look = facts.look(name)?.ok_or_else(|| Error::internal("a table that was never seen was altered"))?;
        let mut altered = self.source.altered(&route.table, &look, columns).await?;
        altered.proved &= !several;
        refuse(&self.rules, &route.table, &look, columns, &altered)?;
        if is_loose && !altered.renamed.is_empty() {
            return Err(renamed_in_load(&route.table, &altered.renamed));
        }
        judge(&route.table, &look, columns, &altered)?;
        let mapping = remapped(&self.rules, &route.mapping, &altered.table)?;
        let what = described_as(&look, columns, &altered.renamed);
        // of an older moment where the catalog is further: then it proves nothing that it should not
        let stamp = if altered.look.fits(columns) { altered.look.stamp.clone() } else { look.stamp.clone() };
        let seen = Appearance { columns: columns.to_vec(), in_parts: altered.look.in_parts, stamp };
        let mut entries = vec![facts::table_entry(&altered.table), facts::look_entry(name, &seen)];
        entries.push(match place {
            Place::Before(ahead) => {
                let (fills, renamed) = (altered.fills.clone(), altered.renamed.clone());
                facts::ahead_entry(name, &Ahead { fills, renamed, ..ahead })
            }
            Place::Here => facts::ahead_removal(name),
            Place::Load => facts::loose_entry(name),
        });
        if !altered.proved || is_loose {
            entries = self.window(facts, name, entries);
        }
        failpoint("ddl.intent");
        let (fills, renamed) = (&altered.fills[..], &altered.renamed[..]);
        let alteration = Alteration { before: &route.mapping, after: &mapping, fills, renamed };
        self.target.alter(&self.lease, &alteration, &entries).await?;
        failpoint("ddl.done");
        facts.apply(&entries);
        tracing::info!(table = %name, what, strict = altered.proved, "schema change carried");
        self.observer.event(Event::SchemaStep { id: format!("ALTER {}: {what}", mapping.target) });
        Ok(())
    }

    /// Whether these tables have the columns at the source with which their changes come.
    pub(crate) async fn agrees(&self, facts: &Facts, names: &[TableName]) -> Result<bool> {
        if self.policy == DdlPolicy::Ignore {
            return Ok(true);
        }
        for found in self.source.appearances(names).await? {
            if facts.look(&found.table)?.is_some_and(|look| !look.fits(&found.look.columns)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A schema change that no change follows, and rows that moved outside of the log, show in the catalog alone. It is read,
    /// then a marker is written: what the stream has not told when it reaches that marker happened before it. Says whether
    /// something was altered or is to be read again.
    pub(crate) async fn follow_catalog(&self, facts: &mut Facts, checkpoint: &mut Option<Checkpoint>) -> Result<bool> {
        let names = self.names();
        let looks = self.source.appearances(&names).await?;
        if self.policy == DdlPolicy::Ignore || !has_news(facts, &names, &looks)? {
            return Ok(false);
        }
        let marker = new_marker(&self.origin);
        crate::patience::answered(self.source.mark(&marker)).await?;
        let convergent = facts.is_done("inexact") && (!facts.is_done("passed") || facts.has_sweeps());
        let pass = Pass { convergent, until: Some(marker), closes: false };
        if self.run(facts, checkpoint, pass).await? == Outcome::Altered {
            return Ok(true);
        }
        let (mut is_altered, mut moved) = (false, Vec::new());
        for found in looks {
            let Some(known) = facts.look(&found.table)? else { continue };
            if !known.fits(&found.look.columns) {
                if self.policy == DdlPolicy::Stop {
                    return Err(stopped(&found.table, &describe(&known, &found.look.columns)));
                }
                self.alter(facts, &found.table, &found.look.columns, Place::Here, false).await?;
                is_altered = true;
            } else if known.stamp.is_empty() || found.look.stamp.is_empty() {
                self.note(facts, vec![facts::look_entry(&found.table, &found.look)]).await?;
            } else if known.stamp != found.look.stamp {
                moved.push(found);
            }
        }
        // where an alteration or a window is under way, the routes are made anew or the target is not yet one state
        if is_altered || convergent {
            return Ok(is_altered);
        }
        for found in moved {
            is_altered |= self.compare_moved(facts, checkpoint, &found).await?;
        }
        Ok(is_altered)
    }

    /// The table was rewritten, or parts of it came or went: what it holds is compared, and read again where it differs.
    async fn compare_moved(&self, facts: &mut Facts, checkpoint: &mut Option<Checkpoint>, found: &TableAppearance) -> Result<bool> {
        let Some(route) = self.routes.iter().find(|route| route.table.name == found.table) else { return Ok(false) };
        tracing::info!(table = %found.table, "the table was rewritten or its parts changed, comparing it");
        let mut settle = UpTo { replay: self, facts, checkpoint };
        let report = match examine::verify(&*self.source, &*self.target, std::slice::from_ref(route), &mut settle).await {
            Err(error) if !error.is_transient() && !self.agrees(settle.facts, std::slice::from_ref(&found.table)).await? => {
                tracing::info!(%error, table = %found.table, "the table was altered while it was compared");
                return Err(altered_meanwhile().caused_by(error));
            }
            report => report?,
        };
        let mut entries = vec![facts::look_entry(&found.table, &found.look)];
        // rows without a key that never held still say nothing
        let moving = !route.mapping.has_key() && report.tables.iter().all(|table| table.differences.is_empty());
        let differs = !report.is_equal() && !moving;
        if differs {
            refuse_without_key(route)?;
            let keys = report.tables.iter().flat_map(|table| &table.differences);
            let list: Vec<Reread> = keys.map(|found| Reread { mapping: route.mapping.clone(), key: found.key.clone() }).collect();
            entries.extend(reread::more(facts, &self.routes, list)?);
            entries = self.window(facts, &found.table, entries);
        }
        self.note(facts, entries).await?;
        Ok(differs)
    }

    /// With what opens a convergent window at whose end the table is swept.
    pub(crate) fn window(&self, facts: &Facts, name: &TableName, mut entries: Vec<Entry>) -> Vec<Entry> {
        entries.extend([facts::done_entry("inexact"), facts::sweep_entry(name)]);
        if facts.is_done("passed") {
            self.observer.event(Event::Reopened { table: name.clone() });
            entries.extend([facts::marker_entry(&new_marker(&self.origin)), facts::removal("passed")]);
        }
        entries
    }

    async fn note(&self, facts: &mut Facts, entries: Vec<Entry>) -> Result<()> {
        self.target.record(&self.lease, &entries).await?;
        facts.apply(&entries);
        Ok(())
    }
}

/// Whether the catalog says of these tables what is not known yet.
pub(crate) fn has_news(facts: &Facts, names: &[TableName], looks: &[TableAppearance]) -> Result<bool> {
    let looks: HashMap<&TableName, &TableAppearance> = looks.iter().map(|found| (&found.table, found)).collect();
    for name in names {
        let Some(known) = facts.look(name)? else { continue };
        let Some(found) = looks.get(name) else {
            return Err(Error::new(&codes::OUT_OF_SIGHT, "the table is no longer there")
                .at(format!("table {name}"))
                .remedy("it was renamed or dropped: `run --resync` when it is back, or begin a task that does not select it"));
        };
        if !known.fits(&found.look.columns) || known.stamp != found.look.stamp {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Replays strictly up to a marker written now.
struct UpTo<'a> {
    replay: &'a Replay,
    facts: &'a mut Facts,
    checkpoint: &'a mut Option<Checkpoint>,
}

impl Settle for UpTo<'_> {
    async fn settle(&mut self) -> Result<()> {
        let marker = new_marker(&self.replay.origin);
        crate::patience::answered(self.replay.source.mark(&marker)).await?;
        let pass = Pass { convergent: false, until: Some(marker), closes: false };
        match self.replay.run(self.facts, self.checkpoint, pass).await? {
            Outcome::Reached => Ok(()),
            _ => Err(altered_meanwhile()),
        }
    }

    /// Replay runs in here and nowhere else: it cannot stand still beside a look.
    async fn still(&mut self) -> Result<Option<Still>> {
        Ok(None)
    }
}

fn altered_meanwhile() -> Error {
    Error::new(&codes::RETRYABLE, "a table was altered while tables were compared")
}

pub(crate) fn refuse_without_key(route: &Route) -> Result<()> {
    if route.mapping.has_key() {
        return Ok(());
    }
    Err(Error::new(&codes::OUT_OF_SIGHT, "rows were changed outside of the log, and without a key they cannot be read again")
        .at(format!("table {}", route.table.name))
        .remedy("`run --resync` makes the target equal again")
        .effect("every transaction before that is applied, none after it"))
}

#[cfg(test)]
mod tests {
    use godwit_model::{Column, ColumnRule, Key};

    use super::*;

    fn columns(text: &str) -> Vec<(String, String)> {
        let pair = |word: &str| word.split_once(':').map(|(name, kind)| (name.to_owned(), kind.to_owned())).unwrap();
        text.split(' ').map(pair).collect()
    }

    fn look(text: &str) -> Appearance {
        Appearance { columns: columns(text), ..Appearance::default() }
    }

    fn table(look: &Appearance) -> Table {
        let column =
            |(name, kind): &(String, String)| Column { name: name.clone(), type_name: kind.clone(), nullable: true, generated: false };
        Table {
            name: TableName::new("shop", "item"),
            columns: look.columns.iter().map(column).collect(),
            key: Some(Key { columns: vec![0] }),
            uniques: vec![],
            estimated_rows: 0,
            estimated_bytes: 0,
            key_is_exact: true,
        }
    }

    fn altered(after: &Appearance, distinct: bool) -> Altered {
        Altered { table: table(after), fills: vec![], renamed: vec![], proved: false, distinct, look: after.clone() }
    }

    #[test]
    fn what_happened_is_said_in_words() {
        let before = look("id:int a:text b:text");
        assert_eq!(describe(&before, &columns("id:int a:text b:text c:int")), "added c");
        assert_eq!(describe(&before, &columns("id:int a:int b:text")), "another type for a");
        assert_eq!(describe(&before, &columns("id:int c:text b:text")), "added c; dropped or renamed a");
        assert_eq!(describe(&before, &columns("id:int b:text a:text")), "its columns were put in another order");
        let renamed = [("a".to_owned(), "z".to_owned())];
        assert_eq!(described_as(&before, &columns("id:int z:text b:text"), &renamed), "renamed a to z");
        assert_eq!(described_as(&before, &columns("id:int z:text b:text c:int"), &renamed), "renamed a to z; added c");
    }

    #[test]
    fn only_added_columns_may_be_ignored() {
        let before = look("id:int a:text");
        assert!(is_only_wider(&before, &columns("id:int a:text b:int")));
        assert!(!is_only_wider(&before, &columns("id:int b:int")));
        assert!(!is_only_wider(&before, &columns("id:int a:int")));
    }

    #[test]
    fn keys_mapped_columns_and_swapped_names_are_refused() {
        let before = look("id:int a:text b:text");
        let judged =
            |rules: &[MapRule], after: &str| refuse(rules, &table(&before), &before, &columns(after), &altered(&look(after), true));
        let refused = |rules: &[MapRule], after: &str| judged(rules, after).unwrap_err();
        assert!(refused(&[], "id:bigint a:text b:text").what().contains("`id`"));
        let swapped = look("id:int b:text a:text");
        let error = judge(&table(&before), &before, &swapped.columns, &altered(&swapped, false)).unwrap_err();
        assert!(error.what().contains("each other's names"));
        let rule = MapRule {
            from: TableName::new("shop", "*"),
            to: None,
            columns: [("a".to_owned(), ColumnRule::Rename("z".into()))].into_iter().collect(),
        };
        assert!(refused(&[rule], "id:int b:text").what().contains("the task maps"));
        judged(&[], "id:int b:int c:text").unwrap();
        let renamed = Altered { renamed: vec![("id".into(), "number".into())], ..altered(&look("number:int a:text b:text"), true) };
        refuse(&[], &table(&before), &before, &columns("number:int a:text b:text"), &renamed).unwrap();
    }

    #[test]
    fn a_rename_is_carried_only_where_it_surely_is_none() {
        let (before, after) = (look("id:int a:text"), look("id:int b:text"));
        let error = judge(&table(&before), &before, &after.columns, &altered(&after, false)).unwrap_err();
        assert!(error.is(&codes::DDL_STOPPED) && error.what().contains("a went and b came"), "{error}");
        judge(&table(&before), &before, &after.columns, &altered(&after, true)).unwrap();
    }

    #[test]
    fn without_a_key_only_what_is_proved_is_carried() {
        let (before, after) = (look("id:int a:text"), look("id:int a:text b:text"));
        let keyless = Table { key: None, ..table(&before) };
        let said = |proved| {
            let altered = Altered { proved, table: Table { key: None, ..table(&after) }, ..altered(&after, true) };
            judge(&keyless, &before, &after.columns, &altered)
        };
        said(true).unwrap();
        assert!(said(false).unwrap_err().is(&codes::DDL_STOPPED));
    }
}
