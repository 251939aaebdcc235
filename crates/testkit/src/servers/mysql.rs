//! A private MariaDB or MySQL server.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::mysql_installation::{MySqlInstallation, MySqlVersion};
use super::mysql_options::MySqlOptions;
use super::mysql_query::MySqlSession;
use super::processes::{self, ServerProcesses, Signal};
use super::user::User;
use super::watcher::Watcher;
use super::{mysql_query, ports};

/// Long, because a start may have to recover after a kill on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// Nothing tells when the socket is there.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// How long a greeting is waited for before the server's life is looked at again.
const GREETING_LIMIT: Duration = Duration::from_secs(1);

/// One server with data and port of its own: every change is logged by rows, MySQL's with GTIDs. `root` needs no password
/// from this machine. Methods take `&self`, block, and may be called from any thread; dropping it stops the server at
/// once and removes the data.
#[derive(Debug)]
pub struct MySqlServer {
    installation: MySqlInstallation,
    user: User,
    processes: ServerProcesses,
    port: u16,
    settings: Mutex<Vec<String>>,
    /// `None` while it is stopped.
    server: Mutex<Option<Child>>,
    watcher: Watcher,
    folder: TempDir,
}

impl MySqlServer {
    /// Starts a server of this version and returns when it takes connections. `None` if the version is not in the cache and
    /// this is a person's run that may skip it (it is said on stderr): a test then returns.
    ///
    /// # Panics
    /// If the version is missing and may not be, or the server does not start; the message has its log.
    #[must_use]
    pub fn start(version: MySqlVersion, options: &MySqlOptions) -> Option<Self> {
        let installation = MySqlInstallation::find(version)?;
        let user = User::for_servers();
        let folder = tempfile::Builder::new().prefix("godwit-my-").tempdir().expect("a temporary folder");
        let watcher = Watcher::over(folder.path());
        user.own(folder.path()).expect("a folder for the server's user");
        let name = folder.path().file_name().expect("a temporary folder has a name").to_string_lossy().into_owned();
        let settings = Mutex::new(options.arguments(version));
        let processes = ServerProcesses::named(&name);
        let mut server = Self { installation, user, processes, port: 0, settings, server: Mutex::new(None), watcher, folder };
        server.installation.copy_template(user, &server.data_dir());
        server.port = ports::on_a_free_one(version, |port| server.launch(port));
        Some(server)
    }

    /// The URL of a database for `root`, who needs no password.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("mysql://root@127.0.0.1:{}/{database}", self.port)
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    #[must_use]
    pub fn version(&self) -> MySqlVersion {
        self.installation.version
    }

    /// Binary logs lie here too: `bin.000001` and so on.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// All that the server has logged.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    /// A program of this server's own version (`mariadb`, `mariadb-binlog`, `mysqldump` ...).
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.installation.program(name)
    }

    /// Makes a database and returns its URL.
    ///
    /// # Panics
    /// If the server refuses.
    pub fn create_database(&self, name: &str) -> String {
        self.run("", &format!("CREATE DATABASE `{}`", name.replace('`', "``")));
        self.url(name)
    }

    /// Runs statements, divided by semicolons, one after the other in one session as `root`.
    ///
    /// # Panics
    /// If the server refuses one; those before it are done.
    pub fn run(&self, database: &str, sql: &str) {
        let _ = self.query(database, sql);
    }

    /// As `run`, and returns all rows as the server prints them.
    ///
    /// # Panics
    /// As `run`, and if a value is no text.
    #[must_use]
    pub fn query(&self, database: &str, sql: &str) -> Vec<Vec<Option<String>>> {
        self.attempt(database, sql).unwrap_or_else(|problem| panic!("{sql}: {problem}"))
    }

    /// As `query`, with the server's refusal.
    ///
    /// # Errors
    /// What the server says, or why it cannot be asked.
    pub fn attempt(&self, database: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>, String> {
        mysql_query::run(self.port, database, sql)
    }

    /// A user's own connection, as `root`.
    ///
    /// # Errors
    /// What the server says, or why it cannot be reached.
    pub fn session(&self, database: &str) -> Result<MySqlSession, String> {
        MySqlSession::open(self.port, database)
    }

    /// Adds an option (`name`, not `--name`) that is in force from the next start on; later ones win.
    pub fn set(&self, name: &str, value: &str) {
        self.settings().push(format!("--{name}={value}"));
    }

    /// SIGKILL, and the wait for the end. `restart` starts it again.
    pub fn kill(&self) {
        self.end(&mut self.lock());
    }

    /// SIGKILL, and at once a start that recovers.
    ///
    /// # Panics
    /// If it does not start; the message has its log.
    pub fn crash(&self) {
        self.kill();
        self.restart();
    }

    /// Stops the server if it runs (open transactions are rolled back, clients are cut off).
    ///
    /// # Panics
    /// If it does not stop in a minute.
    pub fn stop(&self) {
        let mut server = self.lock();
        let Some(mut child) = server.take() else { return };
        processes::signal(Signal::Terminate, &[child.id()]);
        self.processes.signal_all(Signal::Continue);
        assert!(processes::wait(&mut child, STOP_LIMIT).is_some(), "{} does not stop: {}", self.version(), self.log_tail());
    }

    /// Stops the server if it runs, and starts it on the same port.
    ///
    /// # Panics
    /// If it does not stop or start; the message has its log.
    pub fn restart(&self) {
        self.stop();
        self.launch(self.port).unwrap_or_else(|problem| panic!("{} does not start again: {problem}", self.version()));
    }

    /// Freezes the server (SIGSTOP): connections stay open and nothing answers, as with a dead network.
    pub fn pause(&self) {
        let _server = self.lock();
        self.processes.signal_all(Signal::Stop);
    }

    /// Ends a `pause`.
    pub fn resume(&self) {
        let _server = self.lock();
        self.processes.signal_all(Signal::Continue);
    }

    fn launch(&self, port: u16) -> Result<(), String> {
        let mut server = self.lock();
        // a killed server leaves its socket behind
        let _ = fs::remove_file(self.socket());
        let child = server.insert(self.spawn(port));
        let problem = self.await_greeting(child);
        if problem.is_err() {
            self.end(&mut server);
        }
        problem
    }

    fn spawn(&self, port: u16) -> Child {
        let log = OpenOptions::new().create(true).append(true).open(self.log_file()).expect("a log");
        let log_too: File = log.try_clone().expect("a second handle of the log");
        let mut command = self.installation.server();
        // The port makes a server id that no other server of this machine has.
        command.args([format!("--port={port}"), format!("--server-id={port}")]);
        let folder = self.folder.path();
        // a MariaDB that starts deletes what others have left in their folder for temporary tables, and may still use
        let places = [("datadir", self.data_dir()), ("socket", self.socket()), ("pid-file", folder.join("pid")), ("tmpdir", folder.into())];
        for (option, place) in places {
            command.arg(format!("--{option}={}", place.display()));
        }
        command.args(&*self.settings()).current_dir(self.folder.path()).env_clear().env("PATH", "/usr/bin:/bin");
        // In a process group of its own: a Ctrl-C is for the test, whose end the watcher sees.
        command.stdin(Stdio::null()).stdout(log).stderr(log_too).process_group(0);
        self.user.run(&mut command).spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"))
    }

    /// Until it greets whoever connects. By its own socket: behind the port another server could be.
    fn await_greeting(&self, child: &mut Child) -> Result<(), String> {
        let deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("it ended with {status}; its log:\n{}", self.log_tail()));
            }
            if self.greets() {
                return Ok(());
            }
            thread::sleep(LOOK_INTERVAL);
        }
        Err(format!("not ready after {START_LIMIT:?}; its log:\n{}", self.log_tail()))
    }

    fn greets(&self) -> bool {
        let Ok(mut stream) = UnixStream::connect(self.socket()) else { return false };
        let mut head = [0; 5];
        // a packet's length and number, then the version of the protocol, or what marks an error
        stream.set_read_timeout(Some(GREETING_LIMIT)).is_ok() && stream.read_exact(&mut head).is_ok() && head[4] == 10
    }

    fn end(&self, server: &mut Option<Child>) {
        if let Some(mut child) = server.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.processes.kill();
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settings(&self) -> MutexGuard<'_, Vec<String>> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for MySqlServer {
    fn drop(&mut self) {
        self.kill();
        self.watcher.dismiss();
    }
}
