//! A table's definition with the names that a mapping gives, and what of it cannot be said with them.

use std::collections::HashMap;

use godwit_model::{Table, TableMapping, TableName};

use crate::created::{Clause, ClauseKind, ColumnText, Created, ForeignKey, KeyText};
use crate::tokens::{Piece, Token, deeper, pieces, written};
use crate::types::Kind;

/// A table on its way: its definition, and what each of its columns is called at the target.
pub(crate) struct Renaming<'a> {
    pub(crate) created: &'a Created,
    pub(crate) mapping: &'a TableMapping,
    table: &'a Table,
    /// By the source's name in small letters, as names of columns know no case; None: left out.
    names: HashMap<String, Option<String>>,
}

/// What does not arrive, and why.
pub(crate) struct Lost {
    pub(crate) what: String,
    pub(crate) reason: String,
}

const LEFT_OUT: &str = "it mentions a column that is left out";

impl<'a> Renaming<'a> {
    pub(crate) fn new(table: &'a Table, created: &'a Created, mapping: &'a TableMapping) -> Self {
        let mut names: HashMap<String, Option<String>> = HashMap::new();
        for column in &created.columns {
            let mapped = mapping.columns.iter().find(|mapped| mapped.source == column.name).map(|mapped| mapped.target.clone());
            let own = column.clause(ClauseKind::Generated).map(|_| column.name.clone());
            names.insert(column.name.to_lowercase(), mapped.or(own));
        }
        for period in &created.periods {
            if let Some(name) = period.iter().find_map(|piece| as_name(piece)) {
                names.entry(name.to_lowercase()).or_insert_with(|| Some(name.to_owned()));
            }
        }
        let mut renaming = Renaming { created, mapping, table, names };
        while renaming.drop_orphans() {}
        renaming
    }

    /// The definition as it is, under its own names: of a table of the target.
    pub(crate) fn own(table: &'a Table, created: &'a Created, mapping: &'a TableMapping) -> Self {
        let names = created.columns.iter().map(|column| (column.name.to_lowercase(), Some(column.name.clone())));
        let mut names: HashMap<String, Option<String>> = names.collect();
        for name in created.periods.iter().filter_map(|period| period.iter().find_map(as_name)) {
            names.entry(name.to_lowercase()).or_insert_with(|| Some(name.to_owned()));
        }
        Renaming { created, mapping, table, names }
    }

    /// What is computed from a column that is left out is left out too.
    fn drop_orphans(&mut self) -> bool {
        let is_orphan = |column: &&ColumnText| {
            let generated = column.clause(ClauseKind::Generated);
            self.column(&column.name).is_some() && generated.is_some_and(|clause| self.renamed(&clause.text).is_none())
        };
        let Some(orphan) = self.created.columns.iter().find(is_orphan).map(|column| column.name.to_lowercase()) else { return false };
        self.names.insert(orphan, None);
        true
    }

    /// The target's name of a column; None: it is left out, or not this table's.
    pub(crate) fn column(&self, name: &str) -> Option<&str> {
        self.names.get(&name.to_lowercase())?.as_deref()
    }

    /// An expression, or a list of columns. None: it mentions a column that is left out.
    pub(crate) fn renamed(&self, pieces: &[Piece]) -> Option<Vec<Piece>> {
        let mut result = pieces.to_vec();
        for at in 0..pieces.len() {
            let Some(name) = as_name(&pieces[at]) else { continue };
            // a sequence with its database
            let dotted = |neighbour: Option<&Piece>| neighbour.is_some_and(|piece| piece.is_word("."));
            if dotted(pieces.get(at + 1)) || (at > 0 && dotted(pieces.get(at - 1))) {
                continue;
            }
            if let Some(known) = self.names.get(&name.to_lowercase()) {
                result[at].token = Token::Name(known.clone()?);
            }
        }
        Some(result)
    }

    /// Columns that arrive, in the table's order, each with its clauses. Types are the catalog's: with their character sets,
    /// also where the table has the same, and with the members that they have in truth.
    pub(crate) fn columns(&self, lost: &mut Vec<Lost>) -> Vec<ColumnText> {
        let mut found = Vec::new();
        for column in &self.created.columns {
            match self.column(&column.name) {
                Some(name) => {
                    let mut arriving = ColumnText { name: name.to_owned(), clauses: self.clauses(column, lost) };
                    if let Some((text, at)) = arriving.clauses.first_mut().zip(self.table.column(&column.name)) {
                        text.text = typed(&self.table.columns[at].type_name);
                    }
                    found.push(arriving);
                }
                None if column.clause(ClauseKind::Generated).is_some() => {
                    lost.push(Lost { what: format!("COLUMN {}.{}", self.mapping.source, column.name), reason: LEFT_OUT.to_owned() });
                }
                None => {}
            }
        }
        found
    }

    fn clauses(&self, column: &ColumnText, lost: &mut Vec<Lost>) -> Vec<Clause> {
        let mut found = Vec::new();
        for clause in &column.clauses {
            let (word, reason) = match (self.clause(clause), clause.kind) {
                (Ok(text), kind) => {
                    found.push(Clause { kind, text });
                    continue;
                }
                (Err(reason), ClauseKind::Default) => {
                    let is_open = column.clause(ClauseKind::NotNull).is_none();
                    found.extend(is_open.then(|| Clause { kind: ClauseKind::Default, text: pieces(b"DEFAULT NULL") }));
                    ("DEFAULT", reason)
                }
                (Err(reason), ClauseKind::Check) => ("CHECK", reason),
                (Err(reason), _) => ("CLAUSE", reason),
            };
            lost.push(Lost { what: format!("{word} of {}.{}", self.mapping.source, column.name), reason: reason.to_owned() });
        }
        found
    }

    fn clause(&self, clause: &Clause) -> Result<Vec<Piece>, &'static str> {
        let calls = |name: &str| clause.text.iter().any(|piece| piece.is_word(name));
        if clause.kind == ClauseKind::Default && (calls("nextval") || calls("lastval")) {
            return Err("it asks a sequence, and sequences are not carried");
        }
        if matches!(clause.kind, ClauseKind::Other | ClauseKind::Type) {
            return Ok(clause.text.clone());
        }
        self.renamed(&clause.text).ok_or(LEFT_OUT)
    }

    /// A key's definition, from its kind on.
    pub(crate) fn key(&self, key: &KeyText) -> Option<String> {
        let parts: Option<Vec<String>> = key.parts.iter().map(|part| self.renamed(part).map(|part| written(&part))).collect();
        let name = key.name.as_ref().map(|name| format!(" {}", crate::quote::identifier(name))).unwrap_or_default();
        let options = if key.options.is_empty() { String::new() } else { format!(" {}", written(&key.options)) };
        Some(format!("{}{name} ({}){options}", key.kind, parts?.join(",")))
    }

    /// The partitions' text: names of columns stand in the rules by which rows are dealt out, not in the list of parts.
    pub(crate) fn partitions(&self) -> Option<Vec<Piece>> {
        let all = &self.created.partitions;
        let (mut depth, mut of_parts) = (0, false);
        let mut result = Vec::new();
        for (at, piece) in all.iter().enumerate() {
            if depth == 0 && piece.is(&Token::Open) {
                of_parts = all.get(at + 1).is_some_and(|next| next.is_word("PARTITION"));
            }
            depth = deeper(depth, piece);
            if of_parts {
                result.push(piece.clone());
            } else {
                result.extend(self.renamed(std::slice::from_ref(piece))?);
            }
        }
        Some(result)
    }

    /// From `FOREIGN KEY` on. `other`: the table referred to, on its way.
    pub(crate) fn foreign_key(&self, key: &ForeignKey, target: &TableName, other: Option<&Renaming<'_>>) -> Option<String> {
        let list = |names: &[String], named: &dyn Fn(&str) -> Option<String>| {
            let names: Option<Vec<String>> = names.iter().map(|name| named(name).map(|name| crate::quote::identifier(&name))).collect();
            names.map(|names| names.join(","))
        };
        let own = list(&key.columns, &|name| self.column(name).map(str::to_owned))?;
        let theirs = list(&key.referred, &|name| match other {
            Some(other) => other.column(name).map(str::to_owned),
            None => Some(name.to_owned()),
        })?;
        let actions = if key.actions.is_empty() { String::new() } else { format!(" {}", written(&key.actions)) };
        Some(format!("FOREIGN KEY ({own}) REFERENCES {} ({theirs}){actions}", crate::quote::table(target)))
    }
}

/// A column that is open to NULL and has not even NULL as its default can be made in no other way than by taking that
/// default away: what is said behind ALTER TABLE.
pub(crate) fn without_default(column: &ColumnText) -> Option<String> {
    let has = |kind| column.clause(kind).is_some();
    let is_plain = !has(ClauseKind::Default) && !has(ClauseKind::NotNull) && !has(ClauseKind::Generated) && !column.counts_up();
    // MySQL's large values have none to show
    let type_name = column.clauses.first().and_then(|clause| clause.text.first()).map(|piece| written(std::slice::from_ref(piece)));
    let may_have = |name: String| {
        !name.ends_with("text")
            && !name.ends_with("blob")
            && Kind::parse(&name).is_ok_and(|kind| !matches!(kind, Kind::Json | Kind::Geometry))
    };
    (is_plain && type_name.is_some_and(may_have)).then(|| format!("ALTER COLUMN {} DROP DEFAULT", crate::quote::identifier(&column.name)))
}

/// Our own text, in which a backslash is a backslash.
fn typed(type_name: &str) -> Vec<Piece> {
    pieces(type_name.replace('\\', "\\\\").as_bytes())
}

fn as_name(piece: &Piece) -> Option<&str> {
    match &piece.token {
        Token::Name(name) => Some(name),
        _ => None,
    }
}

/// A column's definition: its name and all its clauses, but for those of these kinds.
pub(crate) fn definition(column: &ColumnText, without: &[ClauseKind]) -> String {
    let mut text = crate::quote::identifier(&column.name);
    for clause in column.clauses.iter().filter(|clause| !without.contains(&clause.kind)) {
        text.push(' ');
        text.push_str(&written(&clause.text));
    }
    text
}
