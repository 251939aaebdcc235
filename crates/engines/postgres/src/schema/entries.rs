//! The plain text of `pg_dump`, cut into its entries.
//!
//! Every entry has a header between two lines `--`. Its last line is `-- Name: n; Type: t; Schema: s; Owner: o`; before
//! it a verbose dump says which object of the catalog the entry makes and which entries it leans on. What stands before
//! the first entry is settings, which the session that performs a step makes itself; what stands between entries are
//! storage defaults of those that follow, of which the access method is kept.

use std::collections::HashMap;

/// One entry: its header and its SQL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DumpEntry {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) schema: String,
    pub(crate) sql: String,
    /// The entry's number in its dump; None unless the dump is verbose.
    pub(crate) number: Option<u32>,
    /// Class and object number in the catalog; a class of 0 where the entry only speaks of another's object.
    pub(crate) object: (u32, u32),
    /// Numbers of entries it names itself; a dump as text tells those of comments, rights and the like alone.
    pub(crate) leans_on: Vec<u32>,
    /// Where it is not the heap.
    pub(crate) access_method: Option<String>,
    /// How many entries before it have its name (a view made in two steps has two).
    pub(crate) twins: usize,
}

impl DumpEntry {
    /// `TABLE shop.orders`; an object of no schema by its name alone.
    pub(crate) fn id(&self) -> String {
        let schema = if self.schema == "-" { String::new() } else { format!("{}.", self.schema) };
        let number = if self.twins == 0 { String::new() } else { format!(" ({})", self.twins + 1) };
        format!("{} {schema}{}{number}", self.kind, self.name)
    }
}

pub(crate) fn split(text: &str) -> Vec<DumpEntry> {
    // never by `lines`: a carriage return may belong to a function's text
    let lines: Vec<&str> = text.split('\n').collect();
    let mut entries: Vec<DumpEntry> = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        if let Some((entry, length)) = header(&lines[at..]) {
            entries.push(entry);
            at += length;
            continue;
        }
        if let Some(entry) = entries.last_mut() {
            entry.sql.push_str(lines[at]);
            entry.sql.push('\n');
        }
        at += 1;
    }
    let (mut access_method, mut named) = (None, HashMap::new());
    for entry in &mut entries {
        let twins: &mut usize = named.entry(entry.id()).or_default();
        entry.twins = *twins;
        *twins += 1;
        entry.access_method.clone_from(&access_method);
        let (sql, next) = tidy(&entry.sql);
        entry.sql = sql;
        if let Some(next) = next {
            access_method = (next != "heap").then_some(next);
        }
    }
    entries
}

/// The entry that a header begins, and how many lines it has.
fn header(lines: &[&str]) -> Option<(DumpEntry, usize)> {
    const LONGEST: usize = 5;
    if lines.first() != Some(&"--") {
        return None;
    }
    let mut entry = DumpEntry::default();
    for (at, line) in lines.iter().enumerate().take(LONGEST).skip(1) {
        if let Some(rest) = line.strip_prefix("-- TOC entry ") {
            let mut numbers = rest.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
            entry.number = numbers.next();
            entry.object = (numbers.next()?, numbers.next()?);
        } else if let Some(rest) = line.strip_prefix("-- Dependencies:") {
            entry.leans_on = rest.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        } else {
            name(line, &mut entry)?;
            return (lines.get(at + 1) == Some(&"--")).then_some((entry, at + 2));
        }
    }
    None
}

fn name(line: &str, entry: &mut DumpEntry) -> Option<()> {
    let rest = line.strip_prefix("-- Name: ")?;
    // Names may hold anything, so the header is read from its end.
    let (rest, _owner) = rest.rsplit_once("; Owner:")?;
    let (rest, schema) = rest.rsplit_once("; Schema: ")?;
    let (name, kind) = rest.rsplit_once("; Type: ")?;
    (entry.name, entry.kind, entry.schema) = (name.to_owned(), kind.to_owned(), schema.to_owned());
    Some(())
}

/// Drops what trails an entry: empty lines, the next tables' storage defaults, the dump's last words. Gives the access
/// method that holds from here on, where one is named.
fn tidy(sql: &str) -> (String, Option<String>) {
    let mut lines: Vec<&str> = sql.split('\n').collect();
    let mut access_method = None;
    while let Some(last) = lines.last() {
        let method = last.strip_prefix("SET default_table_access_method = ").map(|rest| rest.trim_end_matches(';'));
        if last.is_empty()
            || *last == "--"
            || method.is_some()
            || last.starts_with("SET default_tablespace = ")
            || last.starts_with("-- PostgreSQL database dump complete")
            || last.starts_with("-- Completed on ")
            || last.starts_with("\\unrestrict ")
        {
            access_method = access_method.or(method);
            lines.pop();
        } else {
            break;
        }
    }
    let start = lines.iter().take_while(|line| line.is_empty()).count();
    (lines[start..].join("\n"), access_method.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "--\n-- PostgreSQL database dump\n--\n\n\\restrict abc\n\nSET statement_timeout = 0;\n\n--\n-- Name: mood; Type: TYPE; Schema: public; Owner: -\n--\n\nCREATE TYPE public.mood AS ENUM (\n    'a'\n);\n\n\nSET default_tablespace = '';\n\nSET default_table_access_method = heap;\n\n--\n-- Name: a; Type: b; Type: TABLE; Schema: public; Owner: -\n--\n\nCREATE TABLE public.\"a; Type: b\" (\n);\n\n\n--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict abc\n\n";

    #[test]
    fn entries_end_where_the_next_begins() {
        let entries = split(DUMP);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].sql, "CREATE TYPE public.mood AS ENUM (\n    'a'\n);");
        assert_eq!((entries[1].name.as_str(), entries[1].kind.as_str()), ("a; Type: b", "TABLE"));
        assert_eq!(entries[1].sql, "CREATE TABLE public.\"a; Type: b\" (\n);");
    }

    #[test]
    fn text_without_headers_has_no_entries() {
        assert_eq!(split("CREATE TABLE a ();\n"), []);
    }

    #[test]
    fn a_verbose_header_names_the_object() {
        let text = "--\n-- TOC entry 7416 (class 1259 OID 25686)\n-- Dependencies: 4033 12\n-- Name: t; Type: COMMENT; Schema: s; Owner: -\n--\n\nCOMMENT ON\r\nx;\n\n\n-- Completed on 2026-01-01\n\n--\n-- PostgreSQL database dump complete\n--\n";
        let entries = split(text);
        assert_eq!((entries[0].number, entries[0].object, &entries[0].leans_on), (Some(7416), (1259, 25686), &vec![4033, 12]));
        assert_eq!(entries[0].sql, "COMMENT ON\r\nx;");
        assert_eq!(entries[0].id(), "COMMENT s.t");
    }

    #[test]
    fn an_access_method_holds_until_the_next_is_named() {
        let table = |name: &str| format!("--\n-- Name: {name}; Type: TABLE; Schema: s; Owner: -\n--\n\nCREATE TABLE {name};\n\n\n");
        let set = |method: &str| format!("SET default_table_access_method = {method};\n\n");
        let text = [table("a"), set("heap2"), table("b"), table("c"), set("heap"), table("d")].concat();
        let methods: Vec<Option<String>> = split(&text).into_iter().map(|entry| entry.access_method).collect();
        assert_eq!(methods, [None, Some("heap2".to_owned()), Some("heap2".to_owned()), None]);
    }
}
