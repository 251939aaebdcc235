//! How a test wants its MariaDB or MySQL server.

use super::mysql_installation::MySqlVersion;

/// Settings of one server. The default suits most tests: a binary log by rows, small memory, commits that survive the end
/// of the server but not that of the machine, and no encryption with MariaDB (`ssl` = `ON` brings it from 11.4 on).
#[derive(Clone, Debug, Default)]
pub struct MySqlOptions {
    fsync: bool,
    settings: Vec<String>,
}

impl MySqlOptions {
    /// Makes commits durable, as tests that kill the server need.
    #[must_use]
    pub fn with_fsync(mut self) -> Self {
        self.fsync = true;
        self
    }

    /// An option as on the command line, without its dashes; later ones win, also over the defaults of the testkit.
    #[must_use]
    pub fn with_setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push(format!("--{name}={value}"));
        self
    }

    pub(super) fn arguments(&self, version: MySqlVersion) -> Vec<String> {
        let all = [
            "--bind-address=127.0.0.1",
            // so that `root` comes from 127.0.0.1 on every machine
            "--skip-name-resolve",
            "--log-bin=bin",
            "--character-set-server=utf8mb4",
            "--default-time-zone=+00:00",
            "--max-connections=200",
            "--innodb-buffer-pool-size=32M",
            // the kernel has few places for it, and a server takes thousands of them
            "--innodb-use-native-aio=OFF",
        ];
        let family: &[&str] = match version.is_mariadb() {
            // an encrypted server of 11.8 makes itself a key at every start, which takes up to a second
            true => &["--binlog-format=ROW", "--innodb-log-file-size=16M", "--ssl=OFF"],
            false => &[
                // rows are what it logs unless told otherwise
                "--gtid-mode=ON",
                "--enforce-gtid-consistency=ON",
                "--innodb-redo-log-capacity=16M",
                // of what is sized for large servers
                "--innodb-log-buffer-size=4M",
                "--table-open-cache=400",
                "--table-definition-cache=400",
                "--mysqlx=OFF",
            ],
        };
        let durability = match self.fsync {
            true => ["--innodb-flush-log-at-trx-commit=1", "--sync-binlog=1"].as_slice(),
            false => &["--innodb-flush-log-at-trx-commit=2", "--sync-binlog=0", "--innodb-flush-method=nosync"],
        };
        let defaults = all.iter().chain(family).chain(durability).map(|setting| (*setting).to_owned());
        defaults.chain(self.settings.iter().cloned()).collect()
    }
}
