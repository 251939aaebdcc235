//! The folder of unpacked servers and tools, and what happens when one is missing from it.

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::user::User;

/// An unpacked PostgreSQL server.
#[derive(Clone, Debug)]
pub(super) struct Installation {
    pub(super) major: u16,
    folder: PathBuf,
}

impl Installation {
    /// The server of this version, or `None` where a person's run may skip it.
    ///
    /// # Panics
    /// If it is missing and nothing allows to skip it.
    pub(super) fn find(major: u16) -> Option<Self> {
        let link = folder().join("postgresql").join(major.to_string());
        // The link leads to a folder named by the full version, which is what a template belongs to.
        match link.canonicalize() {
            Ok(folder) => Some(Self { major, folder }),
            Err(_) => missing(&format!("PostgreSQL {major}"), &link),
        }
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    pub(super) fn libraries(&self) -> PathBuf {
        self.folder.join("lib")
    }

    pub(super) fn version(&self) -> String {
        let name = self.folder.file_name().expect("a version's folder has a name");
        name.to_string_lossy().into_owned()
    }
}

/// A client program (`pg_dump`, `pg_restore`, `psql`, `pgbench` ...) of PostgreSQL 15 or 18 from the cache: an ordinary
/// executable that brings its own libraries. `None` where a person's run may skip it.
///
/// # Panics
/// If it is missing and nothing allows to skip it.
#[must_use]
pub fn tool(major: u16, program: &str) -> Option<PathBuf> {
    let path = folder().join("tools").join(major.to_string()).join("bin").join(program);
    if path.exists() { Some(path) } else { missing(&format!("{program} {major}"), &path) }
}

/// What others wrote, unpacked by `scripts/supply --long`. `None` where a person's run may skip it.
///
/// # Panics
/// If it is missing and nothing allows to skip it.
#[must_use]
pub fn foreign(name: &str) -> Option<PathBuf> {
    let path = folder().join("foreign").join(name);
    if path.exists() { Some(path) } else { missing(name, &path) }
}

/// The same rule as in `scripts/supply`.
pub(super) fn folder() -> PathBuf {
    if let Some(folder) = env::var_os("GODWIT_TEST_CACHE").filter(|value| !value.is_empty()) {
        return PathBuf::from(folder);
    }
    if User::current().is_root() {
        return PathBuf::from("/var/cache/godwit-test");
    }
    let home = env::var_os("HOME").expect("HOME is set");
    Path::new(&home).join(".cache/godwit-test")
}

pub(super) fn missing<T>(what: &str, place: &Path) -> Option<T> {
    let skips = is_on("GODWIT_TEST_SKIP_MISSING") && !is_on("CI");
    assert!(skips, "{what} is not there (looked at {}): run ./test or scripts/supply", place.display());
    // Past the test runner's capture, and with the test's name, which `./test` counts.
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what} is not there: {test}");
    None
}

fn is_on(variable: &str) -> bool {
    env::var(variable).is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"))
}
