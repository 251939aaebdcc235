//! A private PostgreSQL server.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::cache::Installation;
use super::postgres_options::PostgresOptions;
use super::processes::{self, ServerProcesses, Signal};
use super::user::User;
use super::watcher::Watcher;
use super::{ports, simple_query, template};

/// Long, because a start may have to recover after a kill on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const IMMEDIATE_STOP_LIMIT: Duration = Duration::from_secs(5);
const STILL_HELD_LIMIT: Duration = Duration::from_secs(10);
/// A file shows when a server is ready, and a file is looked at, not awaited.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// One server with data and port of its own. Methods take `&self`, block, and may be called from any thread; dropping
/// it stops the server at once and removes the data.
#[derive(Debug)]
pub struct Postgres {
    installation: Installation,
    user: User,
    processes: ServerProcesses,
    port: u16,
    /// `None` while it is stopped.
    postmaster: Mutex<Option<Child>>,
    watcher: Watcher,
    folder: TempDir,
}

impl Postgres {
    /// Starts a server of this major version (14 to 18) and returns when it takes connections. `None` if the version is
    /// not in the cache and this is a person's run that may skip it (it is said on stderr): a test then returns.
    ///
    /// # Panics
    /// If the version is missing and may not be, or the server does not start; the message has its log.
    #[must_use]
    pub fn start(major: u16, options: &PostgresOptions) -> Option<Self> {
        let installation = Installation::find(major)?;
        let user = User::for_servers();
        let folder = tempfile::Builder::new().prefix("godwit-pg-").tempdir().expect("a temporary folder");
        let watcher = Watcher::over(folder.path());
        user.own(folder.path()).expect("a folder for the server's user");
        let name = folder.path().file_name().expect("a temporary folder has a name").to_string_lossy().into_owned();
        let processes = ServerProcesses::named(&name);
        let mut server = Self { installation, user, processes, port: 0, postmaster: Mutex::new(None), watcher, folder };
        match options.data() {
            Some(data) => template::adopt(data, user, &server.data_dir()),
            None => template::copy(&server.installation, user, &server.data_dir()),
        }
        server.configure(&name, options);
        server.port = ports::on_a_free_one(format!("PostgreSQL {major}"), |port| server.launch(port));
        Some(server)
    }

    /// The URL of a database for the superuser `postgres`, who needs no password.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    #[must_use]
    pub fn major(&self) -> u16 {
        self.installation.major
    }

    /// Also the folder of the unix socket.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// All that the server has logged.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    /// Makes a database and returns its URL.
    ///
    /// # Panics
    /// If the server refuses.
    pub fn create_database(&self, name: &str) -> String {
        let statement = format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""));
        if let Err(message) = simple_query::run(self.port, &statement) {
            panic!("{statement}: {message}");
        }
        self.url(name)
    }

    /// Writes a file into the data folder so that the server may read it and no other user may (certificates, keys).
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn write_file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.data_dir().join(name);
        fs::write(&path, content).expect("the data folder takes a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a file for the server only");
        self.user.own(&path).expect("a file for the server's user");
        path
    }

    /// Adds a line to `postgresql.conf`; a `restart` or `reload` puts it in force.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn set(&self, name: &str, value: &str) {
        let line = format!("{name} = '{}'\n", value.replace('\'', "''"));
        append(&self.data_dir().join("postgresql.conf"), &line);
    }

    /// Makes the server read its configuration again (which it does soon, not at once).
    ///
    /// # Panics
    /// If the server refuses.
    pub fn reload(&self) {
        simple_query::run(self.port, "SELECT pg_reload_conf()").expect("the server reloads");
    }

    /// SIGKILL to the postmaster and all its children, and the wait for their end. `restart` starts it again.
    pub fn kill9(&self) {
        let mut postmaster = self.lock();
        if let Some(mut child) = postmaster.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.processes.kill();
    }

    /// Stops the server if it runs (fast: open transactions are rolled back), and starts it on the same port.
    ///
    /// # Panics
    /// If it does not stop or start; the message has its log.
    pub fn restart(&self) {
        self.stop();
        let deadline = Instant::now() + STILL_HELD_LIMIT;
        while let Err(problem) = self.launch(self.port) {
            // a killed process is out of the list a moment before it lets the shared memory go
            let held = problem.contains("pre-existing shared memory block") && Instant::now() < deadline;
            assert!(held, "PostgreSQL {} does not start again: {problem}", self.major());
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// An immediate shutdown: every process ends at once, nothing is written; the next start recovers.
    pub fn stop_at_once(&self) {
        self.stop_immediately();
    }

    /// Stops the server if it runs (fast: open transactions are rolled back, clients are cut off).
    ///
    /// # Panics
    /// If it does not stop in a minute.
    pub fn stop(&self) {
        let mut postmaster = self.lock();
        let Some(mut child) = postmaster.take() else { return };
        processes::signal(Signal::Interrupt, &[child.id()]);
        self.processes.signal_all(Signal::Continue);
        assert!(processes::wait(&mut child, STOP_LIMIT).is_some(), "PostgreSQL does not stop: {}", self.log_tail());
    }

    /// Freezes the whole server (SIGSTOP): connections stay open and nothing answers, as with a dead network.
    pub fn pause(&self) {
        let postmaster = self.lock();
        // The postmaster first, so that no new process escapes.
        processes::signal(Signal::Stop, postmaster.as_ref().map(Child::id).as_slice());
        self.processes.signal_all(Signal::Stop);
    }

    /// Ends a `pause`.
    pub fn resume(&self) {
        let _postmaster = self.lock();
        self.processes.signal_all(Signal::Continue);
    }

    fn configure(&self, name: &str, options: &PostgresOptions) {
        let data = self.data_dir();
        append(&data.join("postgresql.conf"), &options.configuration(name, &data.to_string_lossy()));
        if let Some(rules) = options.access_rules() {
            self.write_file("pg_hba.conf", rules.as_bytes());
        }
    }

    fn launch(&self, port: u16) -> Result<(), String> {
        let mut postmaster = self.lock();
        let mut child = self.spawn(port);
        let problem = self.await_ready(&mut child);
        if problem.is_err() {
            let _ = child.kill();
            let _ = child.wait();
            self.processes.kill();
        } else {
            *postmaster = Some(child);
        }
        problem
    }

    fn spawn(&self, port: u16) -> Child {
        let log = OpenOptions::new().create(true).append(true).open(self.log_file()).expect("a log");
        let log_too: File = log.try_clone().expect("a second handle of the log");
        let mut command = Command::new(self.installation.program("postgres"));
        command.arg("-D").arg(self.data_dir()).args(["-p", &port.to_string()]).current_dir(self.folder.path());
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LD_LIBRARY_PATH", self.installation.libraries());
        // In a process group of its own: a Ctrl-C is for the test, whose end the watcher sees.
        command.stdin(Stdio::null()).stdout(log).stderr(log_too).process_group(0);
        self.user.run(&mut command).spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"))
    }

    /// Until the postmaster's own pid file says that it takes connections.
    fn await_ready(&self, child: &mut Child) -> Result<(), String> {
        let deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("it ended with {status}; its log:\n{}", self.log_tail()));
            }
            if self.says_ready(child.id()) {
                return Ok(());
            }
            thread::sleep(LOOK_INTERVAL);
        }
        Err(format!("not ready after {START_LIMIT:?}; its log:\n{}", self.log_tail()))
    }

    fn says_ready(&self, id: u32) -> bool {
        let file = fs::read_to_string(self.data_dir().join("postmaster.pid")).unwrap_or_default();
        let mut lines = file.lines();
        let is_ours = lines.next().is_some_and(|line| line == id.to_string());
        // The eighth line is the state; those before it are filled in as the start goes on.
        is_ours && lines.nth(6).is_some_and(|line| matches!(line.trim(), "ready" | "standby"))
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
        self.postmaster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An immediate shutdown gives back the shared memory, which a kill leaves behind.
    fn stop_immediately(&self) {
        if let Some(mut child) = self.lock().take() {
            processes::signal(Signal::Quit, &[child.id()]);
            self.processes.signal_all(Signal::Continue);
            if processes::wait(&mut child, IMMEDIATE_STOP_LIMIT).is_none() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        self.processes.kill();
        self.release_shared_memory();
    }

    /// A pid file that is still there is that of a killed postmaster; its seventh line names the segment it left.
    fn release_shared_memory(&self) {
        let file = fs::read_to_string(self.data_dir().join("postmaster.pid")).unwrap_or_default();
        let Some(segment) = file.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) else { return };
        let _ = Command::new("ipcrm").args(["-m", segment]).stderr(Stdio::null()).status();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop_immediately();
        self.watcher.dismiss();
    }
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).open(path).expect("a file of the server");
    file.write_all(text.as_bytes()).expect("the server's file takes text");
}
