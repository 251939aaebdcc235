//! What the task file must know of each engine; the one place of this crate that names engines.

/// How endpoints of one engine are written.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    /// The engine's name in `EndpointConfig::engine`.
    pub engine: &'static str,
    /// What a URL may begin with.
    schemes: &'static [&'static str],
    /// The store is a file: no host, no login; the database is its path.
    pub is_file: bool,
    /// The schema of a table that is named without one; None: such a name is refused.
    pub default_schema: Option<&'static str>,
    /// What is not said comes from where libpq takes it.
    pub follows_libpq: bool,
    /// Two endpoints that differ only in saying it or not are the same store.
    pub usual_port: Option<u16>,
}

const DIALECTS: &[Dialect] = &[
    Dialect {
        engine: "postgres",
        schemes: &["postgres", "postgresql"],
        is_file: false,
        default_schema: None,
        follows_libpq: true,
        usual_port: Some(5432),
    },
    Dialect {
        engine: "mysql",
        schemes: &["mysql", "mariadb"],
        is_file: false,
        default_schema: None,
        follows_libpq: false,
        usual_port: Some(3306),
    },
    Dialect { engine: "sqlite", schemes: &["sqlite"], is_file: true, default_schema: Some("main"), follows_libpq: false, usual_port: None },
];

/// The engine a URL's scheme or the key `engine` names.
pub fn find(scheme: &str) -> Option<&'static Dialect> {
    DIALECTS.iter().find(|dialect| dialect.schemes.contains(&scheme))
}

pub fn known() -> String {
    DIALECTS.iter().map(|dialect| dialect.engine).collect::<Vec<_>>().join(", ")
}
