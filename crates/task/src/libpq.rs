//! What libpq takes from around a connection string: `pg_service.conf`, the `PG*` variables, `~/.pgpass`.
//!
//! The order is libpq's: what is written, then the service, then the variables, then the defaults; the password file last.

use std::collections::BTreeMap;
use std::path::PathBuf;

use godwit_model::Secret;

use crate::environment::Environment;

/// Connection settings by libpq's names; `host`, `port`, `user`, `password`, `dbname`, `sslmode` and so on.
pub type Settings = BTreeMap<String, String>;

const VARIABLES: &[(&str, &str)] = &[
    ("host", "PGHOST"),
    ("port", "PGPORT"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("dbname", "PGDATABASE"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("passfile", "PGPASSFILE"),
];

/// Where servers of the usual packages have their socket; the password file calls such a host `localhost`.
const USUAL_SOCKET_FOLDERS: &[&str] = &["/var/run/postgresql", "/run/postgresql", "/tmp"];

/// Fills what is not there yet. The error is what happened and what to do.
pub fn complete(settings: &mut Settings, environment: &dyn Environment) -> Result<(), (String, String)> {
    let service = settings.remove("service").or_else(|| environment.variable("PGSERVICE")).filter(|name| !name.is_empty());
    if let Some(name) = service {
        for (key, value) in service_section(&name, environment)? {
            settings.entry(key).or_insert(value);
        }
    }
    for (key, variable) in VARIABLES {
        if !settings.contains_key(*key)
            && let Some(value) = environment.variable(variable).filter(|value| !value.is_empty())
        {
            settings.insert((*key).to_owned(), value);
        }
    }
    settings.entry("host".to_owned()).or_insert_with(|| "localhost".to_owned());
    if !settings.contains_key("user")
        && let Some(user) = environment.variable("USER").or_else(|| environment.variable("LOGNAME"))
    {
        settings.insert("user".to_owned(), user);
    }
    if !settings.contains_key("dbname")
        && let Some(user) = settings.get("user").cloned()
    {
        settings.insert("dbname".to_owned(), user);
    }
    Ok(())
}

fn service_section(name: &str, environment: &dyn Environment) -> Result<Vec<(String, String)>, (String, String)> {
    let remedy = || "define it in ~/.pg_service.conf or in the file PGSERVICEFILE names, or name another one".to_owned();
    let own = environment.variable("PGSERVICEFILE").map(PathBuf::from).or_else(|| Some(home(environment)?.join(".pg_service.conf")));
    let shared = environment.variable("PGSYSCONFDIR").map(|folder| PathBuf::from(folder).join("pg_service.conf"));
    for path in own.into_iter().chain(shared).filter(|path| environment.is_file(path)) {
        let text =
            environment.read(&path).map_err(|error| (format!("the service file {} cannot be read: {error}", path.display()), remedy()))?;
        if let Some(section) = section_of(&text, name).map_err(|what| (format!("{what} in {}", path.display()), remedy()))? {
            return Ok(section);
        }
    }
    Err((format!("the PostgreSQL service `{name}` is not defined"), remedy()))
}

/// None: the file has no such section. Only the first section of that name counts.
fn section_of(text: &str, name: &str) -> Result<Option<Vec<(String, String)>>, String> {
    let mut found: Option<Vec<(String, String)>> = None;
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(heading) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            if heading.strip_suffix(']') == Some(name) {
                found = Some(Vec::new());
            }
        } else if let Some(section) = &mut found {
            let (key, value) = line.split_once('=').ok_or_else(|| format!("line {number} is no `key=value`"))?;
            let (key, value) = (key.trim(), value.trim());
            if key == "service" || key.starts_with("ldap") {
                return Err(format!("line {number} refers to another service, which is not possible"));
            }
            // The first wins, as with libpq.
            if !section.iter().any(|(other, _)| other == key) {
                section.push((key.to_owned(), value.to_owned()));
            }
        }
    }
    Ok(found)
}

/// The password file's answer for completed settings, and a warning if the file was ignored.
pub fn password(settings: &Settings, environment: &dyn Environment) -> (Option<Secret>, Option<String>) {
    let named = settings.get("passfile").map(PathBuf::from);
    let Some(path) = named.or_else(|| Some(home(environment)?.join(".pgpass"))) else { return (None, None) };
    if !environment.is_file(&path) {
        return (None, None);
    }
    match environment.is_open_to_others(&path) {
        Ok(false) => {}
        Ok(true) => {
            let warning = format!("the password file {} was ignored: others may read it; run `chmod 0600` on it", path.display());
            return (None, Some(warning));
        }
        Err(error) => return (None, Some(format!("the password file {} was ignored: {error}", path.display()))),
    }
    match environment.read(&path) {
        Ok(text) => (entry_for(&text, settings), None),
        Err(error) => (None, Some(format!("the password file {} was ignored: {error}", path.display()))),
    }
}

fn entry_for(text: &str, settings: &Settings) -> Option<Secret> {
    let setting = |key: &str| settings.get(key).map_or("", String::as_str);
    let host = if USUAL_SOCKET_FOLDERS.contains(&setting("host")) { "localhost" } else { setting("host") };
    let port = settings.get("port").map_or("5432", String::as_str);
    let wanted = [host, port, setting("dbname"), setting("user")];
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let (fields, password) = four_fields(line)?;
        let matches = fields.iter().zip(wanted).all(|(field, wanted)| field.raw == "*" || field.text == wanted);
        (matches && !password.is_empty()).then(|| Secret::new(password))
    })
}

struct Field<'a> {
    raw: &'a str,
    text: String,
}

/// The four fields before the password, and the password. Colons and backslashes are escaped with a backslash.
fn four_fields(line: &str) -> Option<(Vec<Field<'_>>, String)> {
    let mut fields = Vec::with_capacity(4);
    let mut rest = line;
    for _ in 0..4 {
        let (raw, after) = rest.split_at(unescaped_colon(rest)?);
        fields.push(Field { raw, text: unescaped(raw) });
        rest = &after[1..];
    }
    // libpq ends the password at a colon of its own, too.
    let end = unescaped_colon(rest).unwrap_or(rest.len());
    Some((fields, unescaped(&rest[..end])))
}

fn unescaped_colon(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let found = c == ':' && !escaped;
        escaped = c == '\\' && !escaped;
        found.then_some(at)
    })
}

fn unescaped(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        if c == '\\' { result.extend(characters.next()) } else { result.push(c) }
    }
    result
}

fn home(environment: &dyn Environment) -> Option<PathBuf> {
    environment.variable("HOME").filter(|home| !home.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::Fake;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_is_written_wins_over_the_service_and_that_over_variables() {
        let fake = Fake::default()
            .with_variable("HOME", "/home/u")
            .with_variable("PGSERVICE", "shop")
            .with_variable("PGPORT", "1")
            .with_variable("PGUSER", "variable")
            .with_file("/home/u/.pg_service.conf", "# c\n[other]\nhost=x\n[shop]\nhost=db1\nport=5433\ndbname=shop\n[shop]\nhost=y\n");
        let mut found = settings(&[("host", "written")]);
        complete(&mut found, &fake).unwrap();
        assert_eq!(found, settings(&[("host", "written"), ("port", "5433"), ("dbname", "shop"), ("user", "variable")]));
    }

    #[test]
    fn a_service_that_is_not_there_is_named() {
        let mut found = settings(&[("service", "none")]);
        assert!(complete(&mut found, &Fake::default()).unwrap_err().0.contains("`none`"));
    }

    #[test]
    fn the_password_file_is_read_as_libpq_reads_it() {
        let lines = "# c\nh:5432:d\\:b:u:pa\\:ss\\\\\n*:*:*:u:second\nlocalhost:5433:*:v:third\n";
        let fake = Fake::default().with_variable("HOME", "/home/u").with_file("/home/u/.pgpass", lines);
        let ask = |pairs: &[(&str, &str)]| password(&settings(pairs), &fake).0.map(|secret| secret.expose().to_owned());
        assert_eq!(ask(&[("host", "h"), ("dbname", "d:b"), ("user", "u")]).as_deref(), Some("pa:ss\\"));
        assert_eq!(ask(&[("host", "h"), ("dbname", "x"), ("user", "u")]).as_deref(), Some("second"));
        assert_eq!(ask(&[("host", "/tmp"), ("port", "5433"), ("dbname", "x"), ("user", "v")]).as_deref(), Some("third"));
        assert_eq!(ask(&[("host", "h"), ("user", "w")]), None);
    }

    #[test]
    fn a_password_file_that_others_may_read_is_ignored_with_a_warning() {
        let fake = Fake::default().with_variable("HOME", "/home/u").with_file("/home/u/.pgpass", "*:*:*:*:hunter2").open("/home/u/.pgpass");
        let (found, warning) = password(&settings(&[("host", "h")]), &fake);
        assert!(found.is_none() && warning.unwrap().contains("0600"));
    }
}
