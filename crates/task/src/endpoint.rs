//! One endpoint: from what is written, and what its engine takes from around, to where and how to connect.

use std::path::{Path, PathBuf};

use godwit_model::{Code, EndpointConfig, Secret, Tls, TlsMode, codes};

use crate::assemble::Assembly;
use crate::dialect::{self, Dialect};
use crate::form::{EndpointFields, PortText, TlsForm, TlsModeForm};
use crate::libpq::{self, Settings};
use crate::url::{self, Url};

/// Why an endpoint was refused, at which of its keys.
pub struct Refusal {
    code: &'static Code,
    key: Option<&'static str>,
    what: String,
    remedy: String,
}

impl Refusal {
    fn new(code: &'static Code, key: impl Into<Option<&'static str>>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Refusal { code, key: key.into(), what: what.into(), remedy: remedy.into() }
    }
}

type Result<T> = std::result::Result<T, Refusal>;

/// `side` is `source` or `target`. None: refused, and reported. No program is run if anything was refused before.
pub fn assemble(side: &'static str, mut fields: EndpointFields, assembly: &mut Assembly<'_>) -> Option<(EndpointConfig, &'static Dialect)> {
    match endpoint(side, &mut fields, assembly) {
        Ok(found) => Some(found),
        Err(refusal) => {
            let path = [Some(side), refusal.key];
            let path: Vec<&str> = path.into_iter().flatten().collect();
            assembly.report(refusal.code, &path, format!("{side}: {}", refusal.what), refusal.remedy);
            None
        }
    }
}

fn endpoint(side: &str, fields: &mut EndpointFields, assembly: &mut Assembly<'_>) -> Result<(EndpointConfig, &'static Dialect)> {
    if fields.password.is_some() && fields.password_command.is_some() {
        let what = "`password` and `password_command` are both given";
        return Err(Refusal::new(&codes::TASK_CONTRADICTION, "password_command", what, "keep one of the two"));
    }
    let written = match fields.url.take() {
        Some(url) => from_url(&url, fields)?,
        None => from_fields(fields)?,
    };
    let dialect = dialect::find(&written.scheme).ok_or_else(unknown_engine)?;
    let config =
        if dialect.is_file { file(written, fields, dialect, assembly.folder)? } else { server(side, written, fields, dialect, assembly)? };
    Ok((config, dialect))
}

fn unknown_engine() -> Refusal {
    let what = "the engine is not one this version knows";
    Refusal::new(&codes::TASK_UNSUPPORTED, None, what, format!("the engines are: {}", dialect::known()))
}

fn from_url(text: &Secret, fields: &mut EndpointFields) -> Result<Url> {
    let given = [
        ("engine", fields.engine.is_some()),
        ("host", fields.host.is_some()),
        ("port", fields.port.is_some()),
        ("user", fields.user.is_some()),
        ("database", fields.database.is_some()),
    ];
    if let Some((key, _)) = given.into_iter().find(|(_, given)| *given) {
        let what = format!("`url` and `{key}` are both given");
        return Err(Refusal::new(&codes::TASK_CONTRADICTION, key, what, format!("say it in the url and remove `{key}`")));
    }
    let is_file = |scheme: &str| dialect::find(scheme).is_some_and(|dialect| dialect.is_file);
    let url = url::parse(text.expose(), is_file).map_err(|what| {
        let example = "postgres://user@host:5432/database, sqlite:///absolute/path.db or sqlite:relative.db";
        Refusal::new(&codes::TASK_VALUE, "url", what, format!("write a URL such as {example}"))
    })?;
    if url.password.is_some() && (fields.password.is_some() || fields.password_command.is_some()) {
        let what = "the password is given in the url and beside it";
        return Err(Refusal::new(&codes::TASK_CONTRADICTION, "password", what, "remove it from the url"));
    }
    Ok(url)
}

fn from_fields(fields: &mut EndpointFields) -> Result<Url> {
    let scheme = fields.engine.take().ok_or_else(|| {
        Refusal::new(
            &codes::TASK_MISSING_KEY,
            None,
            "neither `url` nor `engine` is given",
            "add `url:`, such as postgres://user@host/database",
        )
    })?;
    let port = match fields.port.take() {
        Some(PortText::Number(port)) => Some(port),
        Some(PortText::Text(text)) => {
            Some(url::port(&text).map_err(|what| Refusal::new(&codes::TASK_VALUE, "port", what, "write the port"))?)
        }
        None => None,
    };
    let path = fields.database.take().unwrap_or_default();
    Ok(Url { scheme, user: fields.user.take(), host: fields.host.take().and_then(url::given), port, path, ..Url::default() })
}

fn file(written: Url, fields: &EndpointFields, dialect: &Dialect, folder: &Path) -> Result<EndpointConfig> {
    let given = [
        ("host", written.host.is_some()),
        ("port", written.port.is_some()),
        ("user", written.user.is_some()),
        ("password", fields.password.is_some()),
        ("password_command", fields.password_command.is_some()),
        ("tls", fields.tls.is_some()),
    ];
    if let Some((key, _)) = given.into_iter().find(|(_, given)| *given) {
        let what = format!("a file has no `{key}`");
        return Err(Refusal::new(&codes::TASK_CONTRADICTION, key, what, "remove it"));
    }
    if written.path.is_empty() {
        return Err(Refusal::new(
            &codes::TASK_MISSING_KEY,
            None,
            "the path of the file is not given",
            "add `database:` with the path of the file",
        ));
    }
    let path: PathBuf = folder.join(&written.path).components().collect();
    Ok(EndpointConfig {
        engine: dialect.engine.to_owned(),
        host: String::new(),
        port: None,
        user: None,
        password: None,
        database: path.to_string_lossy().into_owned(),
        tls: Tls { mode: TlsMode::Disable, ..Tls::default() },
        options: written.options,
    })
}

fn server(side: &str, written: Url, fields: &mut EndpointFields, dialect: &Dialect, assembly: &mut Assembly<'_>) -> Result<EndpointConfig> {
    let mut settings = as_settings(written, fields)?;
    let named = fields.tls.take();
    if let Some(tls) = &named {
        coherent(tls, &settings)?;
    }
    if dialect.follows_libpq {
        libpq::complete(&mut settings, assembly.environment)
            .map_err(|(what, remedy)| Refusal::new(&codes::TASK_REFERENCE, None, what, remedy))?;
    }
    let password = password(side, &mut settings, fields, dialect, assembly)?;
    if named.is_some() {
        // A variable or a service must not weaken or strengthen what the task says of encryption.
        settings.retain(|key, _| !TLS_SETTINGS.contains(&key.as_str()));
    }
    let tls = match named {
        Some(tls) => self::tls(&tls, assembly.folder),
        None => tls_of(&mut settings, assembly.folder)?,
    };
    let missing = [&tls.ca, &tls.certificate, &tls.key].into_iter().flatten().find(|path| !assembly.environment.is_file(path));
    if let Some(path) = missing {
        let what = format!("the file {} is not there", path.display());
        return Err(Refusal::new(&codes::TASK_REFERENCE, "tls", what, "check the path; it is relative to the task file"));
    }
    config(dialect, settings, password, tls)
}

fn config(dialect: &Dialect, mut settings: Settings, password: Option<Secret>, tls: Tls) -> Result<EndpointConfig> {
    let missing = |key, what: &str| {
        Refusal::new(&codes::TASK_MISSING_KEY, None, format!("{what} is not given"), format!("add it to the url, or add `{key}:`"))
    };
    settings.remove("passfile");
    let port = settings.remove("port").map(|text| url::port(&text)).transpose();
    let port = port.map_err(|what| Refusal::new(&codes::TASK_VALUE, None, what, "check the port in the url, the service and PGPORT"))?;
    Ok(EndpointConfig {
        engine: dialect.engine.to_owned(),
        host: settings.remove("host").ok_or_else(|| missing("host", "the host"))?,
        port,
        user: settings.remove("user"),
        password,
        database: settings.remove("dbname").ok_or_else(|| missing("database", "the database"))?,
        tls,
        options: settings.into_iter().collect(),
    })
}

/// What is written, by libpq's names.
fn as_settings(written: Url, fields: &mut EndpointFields) -> Result<Settings> {
    let parts = [
        ("host", written.host),
        ("port", written.port.map(|port| port.to_string())),
        ("user", written.user),
        ("password", fields.password.take().map(|secret| secret.expose().to_owned()).or(written.password)),
        ("dbname", url::given(written.path)),
    ];
    let mut settings: Settings = parts.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    for (name, value) in written.options {
        let asks_for_password = name == "password" && fields.password_command.is_some();
        if settings.contains_key(&name) || asks_for_password {
            let what = "an option of the url says again what is said elsewhere";
            return Err(Refusal::new(&codes::TASK_CONTRADICTION, "url", what, "keep one of the two"));
        }
        settings.insert(name, value);
    }
    Ok(settings)
}

fn password(
    side: &str,
    settings: &mut Settings,
    fields: &mut EndpointFields,
    dialect: &Dialect,
    assembly: &mut Assembly<'_>,
) -> Result<Option<Secret>> {
    if let Some(command) = fields.password_command.take() {
        settings.remove("password");
        return if assembly.is_sound() { ask(&command, assembly).map(Some) } else { Ok(None) };
    }
    if let Some(password) = settings.remove("password") {
        return Ok(Some(Secret::new(password)));
    }
    if !dialect.follows_libpq {
        return Ok(None);
    }
    let (password, warning) = libpq::password(settings, assembly.environment);
    assembly.warnings.extend(warning.map(|warning| format!("{side}: {warning}")));
    Ok(password)
}

fn ask(command: &[String], assembly: &Assembly<'_>) -> Result<Secret> {
    let refusal = |what: String, remedy: &str| Refusal::new(&codes::TASK_REFERENCE, "password_command", what, remedy);
    let Some((program, arguments)) = command.split_first().filter(|(program, _)| !program.is_empty()) else {
        return Err(refusal("`password_command` names no program".to_owned(), "write [program, argument, ...]"));
    };
    let output = assembly.environment.run(program, arguments).map_err(|error| {
        refusal(
            format!("`password_command` failed: {error}"),
            "run the program by hand as the user godwit runs as; it must print the password",
        )
    })?;
    match output.lines().next().filter(|line| !line.is_empty()) {
        Some(line) => Ok(Secret::new(line)),
        None => {
            Err(refusal("the first line of what `password_command` printed is empty".to_owned(), "the password must be the first line"))
        }
    }
}

const TLS_SETTINGS: &[&str] = &["sslmode", "sslrootcert", "sslcert", "sslkey"];

fn coherent(tls: &TlsForm, settings: &Settings) -> Result<()> {
    if TLS_SETTINGS.iter().any(|key| settings.contains_key(*key)) {
        let what = "encryption is given in the url and in `tls`";
        return Err(Refusal::new(&codes::TASK_CONTRADICTION, "tls", what, "keep one of the two"));
    }
    if tls.certificate.is_some() != tls.key.is_some() {
        let what = "`tls.certificate` and `tls.key` belong together";
        return Err(Refusal::new(&codes::TASK_CONTRADICTION, "tls", what, "give both or none"));
    }
    if tls.mode == TlsModeForm::Disable && (tls.ca.is_some() || tls.certificate.is_some()) {
        let what = "`tls` names certificates and `mode: disable`";
        return Err(Refusal::new(&codes::TASK_CONTRADICTION, "tls", what, "choose another mode, or remove the certificates"));
    }
    Ok(())
}

fn tls(form: &TlsForm, folder: &Path) -> Tls {
    let mode = match form.mode {
        TlsModeForm::Disable => TlsMode::Disable,
        TlsModeForm::Prefer => TlsMode::Prefer,
        TlsModeForm::Require => TlsMode::Require,
        TlsModeForm::VerifyCa => TlsMode::VerifyCa,
        TlsModeForm::VerifyFull => TlsMode::VerifyFull,
    };
    let path = |path: &Option<String>| path.as_ref().map(|path| folder.join(path));
    Tls { mode, ca: path(&form.ca), certificate: path(&form.certificate), key: path(&form.key) }
}

/// libpq's words, in a URL, a service or a variable.
fn tls_of(settings: &mut Settings, folder: &Path) -> Result<Tls> {
    let mode = match settings.remove("sslmode").as_deref() {
        None | Some("prefer" | "allow") => TlsMode::Prefer,
        Some("disable") => TlsMode::Disable,
        Some("require") => TlsMode::Require,
        Some("verify-ca") => TlsMode::VerifyCa,
        Some("verify-full") => TlsMode::VerifyFull,
        Some(_) => {
            let words = "disable, prefer, require, verify-ca, verify-full";
            return Err(Refusal::new(&codes::TASK_VALUE, None, "`sslmode` is not one of its words", format!("the words are: {words}")));
        }
    };
    // `system` is libpq's word for the authorities of the system, which are our default.
    settings.retain(|key, value| key != "sslrootcert" || value != "system");
    let mut path = |key: &str| settings.remove(key).map(|path| folder.join(path));
    let ca = path("sslrootcert");
    let (certificate, key) = (path("sslcert"), path("sslkey"));
    if certificate.is_some() != key.is_some() {
        let what = "`sslcert` and `sslkey` belong together";
        return Err(Refusal::new(&codes::TASK_CONTRADICTION, None, what, "give both or none"));
    }
    Ok(Tls { mode, ca, certificate, key })
}
