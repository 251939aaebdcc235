//! The plain text of `pg_dump`, cut into its entries.
//!
//! Every entry has a header of three lines, `--`, `-- Name: n; Type: t; Schema: s; Owner: o`, `--`. What stands before the
//! first is settings, which the session that performs a step makes itself; what stands between entries and sets
//! defaults for storage is dropped with them.

/// One entry: its header and its SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DumpEntry {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) schema: String,
    pub(crate) sql: String,
}

pub(crate) fn split(text: &str) -> Vec<DumpEntry> {
    let lines: Vec<&str> = text.lines().collect();
    let mut entries: Vec<DumpEntry> = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        if let Some((name, kind, schema)) = header(&lines, at) {
            entries.push(DumpEntry { name, kind, schema, sql: String::new() });
            at += 3;
            continue;
        }
        if let Some(entry) = entries.last_mut() {
            entry.sql.push_str(lines[at]);
            entry.sql.push('\n');
        }
        at += 1;
    }
    for entry in &mut entries {
        entry.sql = tidy(&entry.sql);
    }
    entries
}

fn header(lines: &[&str], at: usize) -> Option<(String, String, String)> {
    if lines.get(at) != Some(&"--") || lines.get(at + 2) != Some(&"--") {
        return None;
    }
    let rest = lines[at + 1].strip_prefix("-- Name: ")?;
    // Names may hold anything, so the header is read from its end.
    let (rest, _owner) = rest.rsplit_once("; Owner:")?;
    let (rest, schema) = rest.rsplit_once("; Schema: ")?;
    let (name, kind) = rest.rsplit_once("; Type: ")?;
    Some((name.to_owned(), kind.to_owned(), schema.to_owned()))
}

/// Drops what trails an entry: empty lines, the next tables' storage defaults, the dump's last words.
fn tidy(sql: &str) -> String {
    let mut lines: Vec<&str> = sql.lines().collect();
    while let Some(last) = lines.last() {
        let setting = last.starts_with("SET default_tablespace = ") || last.starts_with("SET default_table_access_method = ");
        if last.is_empty()
            || *last == "--"
            || setting
            || last.starts_with("-- PostgreSQL database dump complete")
            || last.starts_with("\\unrestrict ")
        {
            lines.pop();
        } else {
            break;
        }
    }
    let start = lines.iter().take_while(|line| line.is_empty()).count();
    lines[start..].join("\n")
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
}
