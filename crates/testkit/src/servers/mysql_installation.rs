//! The versions of MariaDB and MySQL that are in the cache, and how their servers and templates are made.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::user::User;
use super::{cache, template};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MySqlVersion {
    MariaDb10_11,
    MariaDb11_8,
    MySql9,
}

impl MySqlVersion {
    pub const ALL: [Self; 3] = [Self::MariaDb10_11, Self::MariaDb11_8, Self::MySql9];

    #[must_use]
    pub fn is_mariadb(self) -> bool {
        self != Self::MySql9
    }

    fn place(self) -> &'static str {
        match self {
            Self::MariaDb10_11 => "mariadb/10.11",
            Self::MariaDb11_8 => "mariadb/11.8",
            Self::MySql9 => "mysql/9",
        }
    }
}

impl fmt::Display for MySqlVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::MariaDb10_11 => "MariaDB 10.11",
            Self::MariaDb11_8 => "MariaDB 11.8",
            Self::MySql9 => "MySQL 9",
        })
    }
}

/// An unpacked server.
#[derive(Clone, Debug)]
pub(super) struct MySqlInstallation {
    pub(super) version: MySqlVersion,
    /// What the server calls its base directory.
    folder: PathBuf,
}

impl MySqlInstallation {
    /// The server of this version, or `None` where a person's run may skip it.
    ///
    /// # Panics
    /// If it is missing and nothing allows to skip it.
    pub(super) fn find(version: MySqlVersion) -> Option<Self> {
        let link = cache::folder().join(version.place());
        // The link leads to a folder named by the full version, which is what a template belongs to.
        match link.canonicalize() {
            Ok(folder) => Some(Self { version, folder }),
            Err(_) => cache::missing(&version.to_string(), &link),
        }
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    /// Knows where it lies, and nothing of the machine's own configuration.
    pub(super) fn server(&self) -> Command {
        let program = if self.version.is_mariadb() { "sbin/mariadbd" } else { "sbin/mysqld" };
        let mut command = Command::new(self.folder.join(program));
        command.arg("--no-defaults").arg(option("basedir", &self.folder));
        command.arg(option("plugin-dir", &self.folder.join("lib/mysql/plugin")));
        if !self.version.is_mariadb() {
            // what is compiled in for both is not there
            command.arg(option("lc-messages-dir", &self.folder.join("share/mysql"))).arg("--secure-file-priv=NULL");
        }
        command
    }

    /// Makes `data` a fresh data folder that belongs to `user`, whose temporary files lie in the workshop: the test's own
    /// folder for them may be closed to that user.
    pub(super) fn copy_template(&self, user: User, data: &Path) {
        let family = if self.version.is_mariadb() { "mariadb" } else { "mysql" };
        let full = self.folder.file_name().expect("a version's folder has a name").to_string_lossy();
        template::copy_made(&format!("{family}-{full}"), user, data, |workshop| {
            if self.version.is_mariadb() { self.initialize_mariadb(user, workshop) } else { self.initialize_mysql(user, workshop) }
        });
    }

    fn initialize_mariadb(&self, user: User, workshop: &Path) -> PathBuf {
        let data = workshop.join("data");
        let mut install = Command::new(self.program("mariadb-install-db"));
        install.arg("--no-defaults").arg(option("basedir", &self.folder)).arg(option("datadir", &data));
        // The last but one: no account for the name that this machine has today.
        install.args(["--auth-root-authentication-method=normal", "--skip-test-db", "--cross-bootstrap", "--innodb-log-file-size=16M"]);
        template::run(user.run(install.current_dir("/").env("TMPDIR", workshop)));
        data
    }

    /// With `root` for both ways to connect, as MariaDB makes it.
    fn initialize_mysql(&self, user: User, workshop: &Path) -> PathBuf {
        let (data, accounts) = (workshop.join("data"), workshop.join("accounts.sql"));
        let text = "CREATE USER root@'127.0.0.1';\nGRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;\n\
                    GRANT PROXY ON ``@`` TO root@'127.0.0.1' WITH GRANT OPTION;\n";
        fs::write(&accounts, text).expect("the cache takes a file");
        let mut server = self.server();
        server.arg("--initialize-insecure").arg(option("datadir", &data)).arg(option("init-file", &accounts));
        server.args(["--innodb-redo-log-capacity=16M", "--skip-log-bin"]);
        template::run(user.run(server.current_dir("/").env("TMPDIR", workshop)));
        // Every server makes an identity of its own at its first start.
        fs::remove_file(data.join("auto.cnf")).expect("a data folder has an identity");
        data
    }
}

fn option(name: &str, place: &Path) -> String {
    format!("--{name}={}", place.display())
}
