//! What tables are besides their rows: compared, and what differs made alike.
//!
//! A stream of changes says nothing of constraints, defaults and indexes. So the target follows in two ways. When it
//! refuses a row, it may be that the source no longer has what refuses it, or has room where the target has none: then the
//! target gives way, and the row is written again. And at finish, behind the drain, everything is made as it is at the
//! source; what cannot be is said, with the statements that would do it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use godwit_model::{
    Appearance, Bearing, Create, DdlPolicy, Entry, Error, Event, Feature, Result, SchemaItem, Scope, Stage, Table, TableMapping, TableName,
    codes,
};

use crate::facts::{self, Facts};
use crate::load::Route;
use crate::setup::Setup;

/// Something of the target that is not as at the source, in words, and what mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// `public.item: INDEX item_a`.
    pub what: String,
    pub why: String,
    /// In the target's dialect; empty where a person must look.
    pub statements: Vec<String>,
}

/// Which differences are mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Columns, and what decides which rows a table takes: before rows are proved equal.
    OfRows,
    /// What no row depends on, defaults, and foreign keys.
    Rest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Missing,
    Other,
    Surplus,
}

/// One feature that the two sides do not share.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Difference {
    kind: Kind,
    /// As the source has it; where it does not, as the target does.
    feature: Feature,
    /// What takes the target's away.
    remove: Vec<String>,
}

impl Difference {
    fn name(&self) -> String {
        format!("{}: {}", self.feature.table, self.feature.what)
    }

    fn mends(&self) -> Vec<String> {
        match self.kind {
            Kind::Missing => self.feature.make.clone(),
            Kind::Surplus => self.remove.clone(),
            Kind::Other if !self.feature.change.is_empty() => self.feature.change.clone(),
            Kind::Other => [&self.remove[..], &self.feature.make].concat(),
        }
    }

    /// An object that the source does not have goes where the task made it: else it is the owner's own. A column that is
    /// there is never taken away, nor made anew: it may hold what others lean on.
    fn is_ours_to_mend(&self, made: &Made) -> bool {
        match self.feature.scope {
            Scope::Column => self.kind == Kind::Missing,
            Scope::OfColumn => true,
            Scope::Table => self.kind != Kind::Surplus || made.has(&self.feature),
        }
    }

    /// What makes the target take rows that it refuses now.
    fn gives_way(&self, made: &Made) -> Option<Vec<String>> {
        if !self.is_ours_to_mend(made) {
            return None;
        }
        match (self.feature.bearing, self.kind) {
            (Bearing::Refuses, Kind::Surplus | Kind::Other) => Some(self.remove.clone()),
            (Bearing::Admits, Kind::Missing | Kind::Other) => Some(self.mends()),
            _ => None,
        }
    }

    /// Defaults and identities wait: a column that is always generated refuses what is still applied.
    fn part(&self) -> Part {
        let bears = self.feature.scope == Scope::Column || self.feature.bearing != Bearing::None;
        if bears { Part::OfRows } else { Part::Rest }
    }

    /// What names another table waits for what that table gets, and goes before what that table loses.
    fn turn(&self) -> u8 {
        match (self.kind == Kind::Surplus, self.feature.leans_on.is_some()) {
            (true, true) => 0,
            (true, false) => 1,
            (false, false) => 2,
            (false, true) => 3,
        }
    }

    fn why(&self) -> &'static str {
        match self.kind {
            Kind::Missing => "the target does not have it",
            Kind::Other => "it is another at the source",
            Kind::Surplus => "the source does not have it",
        }
    }
}

/// Which objects of the target's tables came there by the task.
enum Made {
    /// Its tables were just made, and it is alone with them.
    All,
    These(HashSet<(TableName, String)>),
}

impl Made {
    fn of(facts: &Facts) -> Result<Self> {
        Ok(facts.objects()?.map_or(Made::All, Made::These))
    }

    fn has(&self, feature: &Feature) -> bool {
        feature.scope == Scope::Table
            && match self {
                Made::All => true,
                Made::These(objects) => objects.contains(&(feature.table.clone(), feature.what.clone())),
            }
    }
}

/// Within one side.
fn name_of(feature: &Feature) -> (&TableName, &str) {
    (&feature.table, &feature.what)
}

/// Pure. What goes comes first, then in the source's order what is to be made.
fn differences(source: &[Feature], target: &[Feature]) -> Vec<Difference> {
    let wanted: HashSet<_> = source.iter().map(name_of).collect();
    let there: HashMap<_, _> = target.iter().map(|own| (name_of(own), own)).collect();
    let surplus = target.iter().rev().filter(|own| !wanted.contains(&name_of(own)));
    let surplus = surplus.map(|own| Difference { kind: Kind::Surplus, feature: own.clone(), remove: own.remove.clone() });
    let missing = source.iter().filter_map(|wanted| {
        let own = there.get(&name_of(wanted)).copied();
        let kind = match own {
            None => Kind::Missing,
            Some(own) if own.definition != wanted.definition => Kind::Other,
            Some(_) => return None,
        };
        Some(Difference { kind, feature: wanted.clone(), remove: own.map(|own| own.remove.clone()).unwrap_or_default() })
    });
    surplus.chain(missing).collect()
}

/// What each part of the tables found on its own, as if they had been read at once.
fn in_order(differences: &mut Vec<Difference>) {
    // what several tables share, as the labels of a type, stands at a table of each part
    let mut seen = HashSet::new();
    differences.retain(|found| seen.insert((found.feature.what.clone(), found.feature.make.clone())));
    differences.sort_by_key(Difference::turn);
}

/// Whether every column has its own name at the target: else objects that speak of columns are not compared.
fn is_whole(route: &Route) -> bool {
    let kept = |name: &str| route.mapping.columns.iter().any(|column| column.source == name && column.target == name);
    route.table.columns.iter().filter(|column| !column.generated).all(|column| kept(&column.name))
}

/// Whether a table's columns that hold rows' own values have these names still.
fn has_columns(look: &Appearance, table: &Table) -> bool {
    let stored = || table.columns.iter().filter(|column| !column.generated);
    let is_there = |name: &str| look.columns.iter().any(|(there, _)| there == name);
    look.columns.len() == stored().count() && stored().all(|column| is_there(&column.name))
}

#[derive(Default)]
struct Compared {
    differences: Vec<Difference>,
    /// Target tables whose columns at the source are others by now than those that are carried.
    moved_on: Vec<TableName>,
    /// What differs in those, as far as names tell: a column's may be another's by now.
    uncertain: Vec<Difference>,
}

/// Tables whose structures are held and compared at once: what is said of a table is far larger than what differs.
const TABLES_AT_ONCE: usize = 500;

fn mappings_of(part: &[&Route]) -> Vec<Arc<TableMapping>> {
    part.iter().map(|route| route.mapping.clone()).collect()
}

/// Tables that have another name at the target.
struct Renamed<'r> {
    sources: HashSet<&'r TableName>,
    targets: HashSet<&'r TableName>,
}

impl<'r> Renamed<'r> {
    fn of(routes: &'r [Route]) -> Self {
        let renamed = || routes.iter().map(|route| &*route.mapping).filter(|mapping| mapping.source != mapping.target);
        Renamed { sources: renamed().map(|mapping| &mapping.source).collect(), targets: renamed().map(|mapping| &mapping.target).collect() }
    }

    /// A text that names two tables says the same on both sides where both have one name.
    fn reads_alike(&self, feature: &Feature, of_side: &HashSet<&TableName>) -> bool {
        feature.leans_on.as_ref().is_none_or(|other| !self.targets.contains(&feature.table) && !of_side.contains(other))
    }
}

impl Setup<'_> {
    /// Makes this part of the target's tables what it is at the source; gives what the target refused.
    pub async fn settle(&self, facts: &Facts, routes: &[Route], part: Part) -> Result<Vec<Leftover>> {
        let made = Made::of(facts)?;
        let mut refused = Vec::new();
        let compared = self.compared(facts, routes).await?;
        for difference in compared.differences.iter().filter(|found| found.part() == part && found.is_ours_to_mend(&made)) {
            match self.mend(difference, difference.mends()).await {
                Ok(()) => {}
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => {
                    let why = format!("{}, and the target refused: {}", difference.why(), error.what());
                    refused.push(Leftover { what: difference.name(), why, statements: difference.mends() });
                }
            }
        }
        Ok(refused)
    }

    /// Everything that is not alike, beside what was refused of objects that no table has.
    pub async fn leftovers(&self, facts: &Facts, routes: &[Route], refused: Vec<Leftover>) -> Result<Vec<Leftover>> {
        let compared = self.compared(facts, routes).await?;
        let found = compared.differences;
        let of_tables: Vec<String> = found.iter().map(Difference::name).collect();
        let leftover = |difference: &Difference| {
            let answer = refused.iter().find(|refused| refused.what == difference.name());
            let why = answer.map_or_else(|| difference.why().to_owned(), |refused| refused.why.clone());
            Leftover { what: difference.name(), why, statements: difference.mends() }
        };
        let mut left: Vec<Leftover> = found.iter().map(leftover).collect();
        // what was refused of a table and is alike by now is settled
        let names: Vec<String> = routes.iter().map(|route| format!("{}: ", route.mapping.target)).collect();
        let of_table = |what: &str| of_tables.iter().any(|name| name == what) || names.iter().any(|name| what.starts_with(name.as_str()));
        left.extend(refused.iter().filter(|refused| !of_table(&refused.what)).cloned());
        left.extend(compared.moved_on.into_iter().map(|table| Leftover {
            what: table.to_string(),
            why: "its columns are others at the source by now, so that what it is besides was not compared".to_owned(),
            statements: Vec::new(),
        }));
        Ok(left)
    }

    /// After the target refused a row: takes from its tables what the source's no longer have, and makes room where they
    /// have it. Says whether anything was altered.
    pub async fn give_way(&self, facts: &Facts, routes: &[Route], refused: &Error) -> Result<bool> {
        if self.task.schema.changes != DdlPolicy::Carry {
            return Ok(false);
        }
        let made = Made::of(facts)?;
        for ways in [certain_ways, last_ways] {
            let before = ways(&self.compared(facts, routes).await?, &made, refused);
            for (difference, statements) in &before {
                match self.mend(difference, statements.clone()).await {
                    Ok(()) => {}
                    Err(error) if error.is_transient() => return Err(error),
                    // then what the target said of the row is the last word
                    Err(error) => tracing::info!(%error, feature = difference.name(), "the target does not give way"),
                }
            }
            // statements that change nothing would have the row tried for ever
            if !before.is_empty() && ways(&self.compared(facts, routes).await?, &made, refused) != before {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The fact that says which objects the task made, once all of them are there.
    pub async fn objects(&self, facts: &Facts, routes: &[Route]) -> Result<Entry> {
        let mut objects = HashSet::new();
        for part in self.made_by_task(facts, routes)?.chunks(TABLES_AT_ONCE) {
            let found = self.target.structure(&mappings_of(part), &[]).await?;
            let of_tables = found.into_iter().filter(|feature| feature.scope == Scope::Table);
            objects.extend(of_tables.map(|feature| (feature.table, feature.what)));
        }
        Ok(facts::objects_entry(&objects))
    }

    async fn mend(&self, difference: &Difference, sql: Vec<String>) -> Result<()> {
        let table = Some(difference.feature.table.clone());
        let item = SchemaItem { id: difference.name(), stage: Stage::AtFinish, table, sql };
        // it is compared again whenever that is asked: nothing is to be remembered
        let done = facts::removal(&facts::step_key(&item.id));
        self.target.perform(self.lease, &[&item], &[done]).await?;
        tracing::info!(feature = item.id, why = difference.why(), "the target's structure was altered");
        self.observer.event(Event::SchemaStep { id: format!("ALTER {}: {}", item.id, difference.why()) });
        Ok(())
    }

    /// Of tables whose structure is the task's, and whose columns at the source are those that are carried: of others it
    /// cannot be said what belongs to which column.
    async fn compared(&self, facts: &Facts, routes: &[Route]) -> Result<Compared> {
        let ours = self.made_by_task(facts, routes)?;
        let renamed = Renamed::of(routes);
        let mut compared = Compared::default();
        for part in ours.chunks(TABLES_AT_ONCE) {
            self.compare(part, &renamed, &mut compared).await?;
        }
        in_order(&mut compared.differences);
        in_order(&mut compared.uncertain);
        Ok(compared)
    }

    async fn compare(&self, part: &[&Route], renamed: &Renamed<'_>, compared: &mut Compared) -> Result<()> {
        let mappings = mappings_of(part);
        let mut wanted = self.source.structure(&mappings).await?;
        wanted.retain(|feature| renamed.reads_alike(feature, &renamed.sources));
        // behind the structure: a column that came before it was read is seen
        let names: Vec<TableName> = part.iter().map(|route| route.table.name.clone()).collect();
        let looks = self.source.appearances(&names).await?;
        let looks: HashMap<&TableName, &Appearance> = looks.iter().map(|found| (&found.table, &found.look)).collect();
        let is_as_carried = |route: &&&Route| looks.get(&route.table.name).is_some_and(|look| has_columns(look, &route.table));
        let moved_on: HashSet<&TableName> = part.iter().filter(|route| !is_as_carried(route)).map(|route| &route.mapping.target).collect();
        let mut found = self.target.structure(&mappings, &wanted).await?;
        found.retain(|feature| renamed.reads_alike(feature, &renamed.targets));
        let cut: HashSet<&TableName> = part.iter().filter(|route| !is_whole(route)).map(|route| &route.mapping.target).collect();
        let is_compared = |difference: &Difference| match difference.feature.scope {
            Scope::OfColumn => true,
            // what is left out, or the target's own
            Scope::Column => !(cut.contains(&difference.feature.table) && difference.kind == Kind::Surplus),
            Scope::Table => !cut.contains(&difference.feature.table),
        };
        let differences = differences(&wanted, &found).into_iter().filter(is_compared);
        let (uncertain, certain): (Vec<_>, Vec<_>) = differences.partition(|difference| moved_on.contains(&difference.feature.table));
        compared.differences.extend(certain);
        compared.uncertain.extend(uncertain);
        compared.moved_on.extend(part.iter().map(|route| &route.mapping.target).filter(|table| moved_on.contains(table)).cloned());
        Ok(())
    }

    /// Without target tables that were there before the task, or that a person makes: they keep their owner's structure.
    fn made_by_task<'r>(&self, facts: &Facts, routes: &'r [Route]) -> Result<Vec<&'r Route>> {
        if !self.task.phases.schema || !matches!(self.task.schema.create, Create::All | Create::Tables) {
            return Ok(Vec::new());
        }
        let kept = facts.existing()?.unwrap_or_default();
        Ok(routes.iter().filter(|route| !kept.contains(&route.mapping.target)).collect())
    }

    /// How many tables were not compared.
    pub fn owned_by_others(&self, facts: &Facts, routes: &[Route]) -> Result<usize> {
        Ok(routes.len() - self.made_by_task(facts, routes)?.len())
    }
}

/// What makes the target take rows that it refuses now.
type Ways = Vec<(Difference, Vec<String>)>;

fn way(found: &Difference, made: &Made) -> Option<(Difference, Vec<String>)> {
    Some((found.clone(), found.gives_way(made)?))
}

/// A table whose columns have moved on at the source is the very one whose older rows wait: it gets room for them.
fn certain_ways(compared: &Compared, made: &Made, _refused: &Error) -> Ways {
    let room = |found: &&Difference| found.feature.bearing == Bearing::Admits && found.kind == Kind::Missing;
    let certain = compared.differences.iter().chain(compared.uncertain.iter().filter(room));
    certain.filter_map(|found| way(found, made)).collect()
}

/// If that does not help: of a table that has moved on, what refused the row by its name, and is not known to be the source's.
/// Finish makes it again where the source has it.
fn last_ways(compared: &Compared, made: &Made, refused: &Error) -> Ways {
    let place = |found: &&Difference| refused.place().is_some_and(|place| place == format!("table {}", found.feature.table));
    let surplus = |found: &&Difference| found.feature.bearing == Bearing::Refuses && found.kind != Kind::Missing;
    let named = |found: &&Difference| {
        let what = &found.feature.what;
        let name = what.split_once(" of ").or_else(|| what.split_once(' ')).map(|(_, name)| name);
        // `..., column total, constraint item_total_check`
        refused.what().split(", ").skip(1).any(|part| name.is_some() && part.split_once(' ').map(|(_, name)| name) == name)
    };
    compared.uncertain.iter().filter(place).filter(surplus).filter(named).filter_map(|found| way(found, made)).collect()
}

/// Whether a refusal, of a row or of an alteration, may come from a structure that the source has left behind.
pub(crate) fn may_give_way(error: &Error) -> bool {
    [&codes::VALUE_REFUSED, &codes::CONFLICT, &codes::KEY_EXISTS, &codes::DDL_STOPPED].into_iter().any(|code| error.is(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feature(what: &str, definition: &str, bearing: Bearing, scope: Scope) -> Feature {
        Feature {
            table: TableName::new("shop", "item"),
            what: what.to_owned(),
            definition: definition.to_owned(),
            make: vec![format!("make {what} {definition}")],
            remove: vec![format!("remove {what}")],
            change: Vec::new(),
            bearing,
            scope,
            leans_on: None,
        }
    }

    #[test]
    fn parts_of_the_tables_are_as_if_compared_at_once() {
        let table = |name: &str, feature: Feature| Feature { table: TableName::new("shop", name), ..feature };
        let lean = |name: &str| {
            let other = Some(TableName::new("shop", name));
            Feature { leans_on: other, ..feature("CONSTRAINT ref", "", Bearing::None, Scope::Table) }
        };
        let label = feature("LABEL 'x' of type mood", "", Bearing::Admits, Scope::Table);
        let unique = |of: &str| table(of, feature("CONSTRAINT key", of, Bearing::Refuses, Scope::Table));
        let mut found = differences(&[label.clone(), table("a", lean("b"))], &[table("a", lean("c"))]);
        found.extend(differences(&[table("b", label), unique("b")], &[unique("c"), table("d", lean("c"))]));
        in_order(&mut found);
        let told: Vec<String> = found.iter().map(|found| format!("{:?} {}", found.kind, found.name())).collect();
        let expected = [
            "Surplus shop.d: CONSTRAINT ref",
            "Surplus shop.c: CONSTRAINT key",
            "Missing shop.item: LABEL 'x' of type mood",
            "Missing shop.b: CONSTRAINT key",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_text_that_names_a_renamed_table_is_not_compared() {
        let (old, new, kept) = (TableName::new("shop", "old"), TableName::new("shop", "new"), TableName::new("shop", "kept"));
        let renamed = Renamed { sources: HashSet::from([&old]), targets: HashSet::from([&new]) };
        let of = |table: &TableName, other: &TableName| Feature {
            table: table.clone(),
            leans_on: Some(other.clone()),
            ..feature("CONSTRAINT ref", "", Bearing::None, Scope::Table)
        };
        assert!(renamed.reads_alike(&of(&kept, &kept), &renamed.sources));
        assert!(!renamed.reads_alike(&of(&kept, &old), &renamed.sources) && !renamed.reads_alike(&of(&kept, &new), &renamed.targets));
        assert!(!renamed.reads_alike(&of(&new, &kept), &renamed.sources), "the table itself");
        assert!(renamed.reads_alike(&feature("INDEX a", "", Bearing::None, Scope::Table), &renamed.sources));
    }

    #[test]
    fn what_goes_comes_before_what_is_made() {
        let index = |definition: &str| feature("INDEX a", definition, Bearing::None, Scope::Table);
        let (null, default) =
            (feature("NOT NULL of a", "", Bearing::Refuses, Scope::OfColumn), feature("DEFAULT of a", "1", Bearing::None, Scope::OfColumn));
        let found = differences(&[default.clone(), index("x")], &[null.clone(), index("y")]);
        let kinds: Vec<(Kind, &str)> = found.iter().map(|found| (found.kind, found.feature.what.as_str())).collect();
        assert_eq!(kinds, [(Kind::Surplus, "NOT NULL of a"), (Kind::Missing, "DEFAULT of a"), (Kind::Other, "INDEX a")]);
        assert_eq!(found[2].mends(), ["remove INDEX a", "make INDEX a x"]);
        assert_eq!(differences(&[index("x")], &[index("x")]), []);
    }

    #[test]
    fn an_object_of_the_targets_own_is_only_named() {
        let index = feature("INDEX a", "x", Bearing::None, Scope::Table);
        let found = differences(&[], std::slice::from_ref(&index));
        assert!(!found[0].is_ours_to_mend(&Made::These(HashSet::new())));
        assert!(found[0].is_ours_to_mend(&Made::These(HashSet::from([(index.table, index.what)]))));
        let found = differences(&[], &[feature("NOT NULL of a", "", Bearing::Refuses, Scope::OfColumn)]);
        assert!(found[0].is_ours_to_mend(&Made::These(HashSet::new())));
        let column = |source: &[Feature], target: &[Feature]| differences(source, target)[0].is_ours_to_mend(&Made::All);
        let (one, other) =
            (feature("COLUMN a", "int", Bearing::None, Scope::Column), feature("COLUMN a", "text", Bearing::None, Scope::Column));
        assert!(!column(&[], std::slice::from_ref(&one)) && !column(std::slice::from_ref(&one), std::slice::from_ref(&other)));
        assert!(column(std::slice::from_ref(&one), &[]), "a generated column that came");
    }

    #[test]
    fn of_a_table_that_has_moved_on_only_what_refused_goes() {
        let surplus = [
            feature("NOT NULL of a", "", Bearing::Refuses, Scope::OfColumn),
            feature("CONSTRAINT my check", "", Bearing::Refuses, Scope::Table),
            feature("CONSTRAINT check", "", Bearing::Refuses, Scope::Table),
        ];
        let compared = Compared { uncertain: differences(&[], &surplus), ..Compared::default() };
        let gone = |what: &str, place: &str| {
            let refused = Error::new(&codes::VALUE_REFUSED, what).at(place);
            last_ways(&compared, &Made::All, &refused).into_iter().map(|(found, _)| found.feature.what).collect::<Vec<_>>()
        };
        let refused = "the target refused a write (SQLSTATE 23514)";
        assert_eq!(gone(&format!("{refused}, constraint my check"), "table shop.item"), ["CONSTRAINT my check"]);
        assert_eq!(gone(&format!("{refused}, column a"), "table shop.item"), ["NOT NULL of a"]);
        assert_eq!(gone(&format!("{refused}, constraint my check"), "table shop.other"), [""; 0]);
        assert_eq!(gone(refused, "table shop.item"), [""; 0], "no word of the sentence is a name");
    }

    #[test]
    fn the_target_gives_way_only_where_rows_are_in_question() {
        let way = |source: &[Feature], target: &[Feature]| differences(source, target)[0].gives_way(&Made::All);
        let unique = feature("UNIQUE a", "a", Bearing::Refuses, Scope::Table);
        assert_eq!(way(&[], std::slice::from_ref(&unique)), Some(vec!["remove UNIQUE a".to_owned()]));
        assert_eq!(way(std::slice::from_ref(&unique), &[]), None, "it comes at finish");
        let room = feature("PARTITION p", "1", Bearing::Admits, Scope::Table);
        assert_eq!(way(std::slice::from_ref(&room), &[]), Some(vec!["make PARTITION p 1".to_owned()]));
        assert_eq!(way(&[], &[room]), None);
        assert_eq!(way(&[], &[feature("INDEX a", "x", Bearing::None, Scope::Table)]), None);
    }
}
