//! A private pooler (pgbouncer) before a private server.

use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::cache;
use super::postgres::Postgres;
use super::user::User;

const START_LIMIT: Duration = Duration::from_secs(60);
/// Nothing tells when it listens.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Gives every transaction whatever connection to the server is free. Dropping it ends it; so does the end of the thread
/// that started it.
#[derive(Debug)]
pub struct Pooler {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Pooler {
    /// Returns when it takes connections. `None` as in `Postgres::start`.
    ///
    /// # Panics
    /// If the program is missing and may not be, or does not start.
    #[must_use]
    pub fn start(server: &Postgres) -> Option<Self> {
        let program = pgbouncer()?;
        let folder = tempfile::Builder::new().prefix("godwit-pool-").tempdir().expect("a temporary folder");
        let user = User::for_servers();
        user.own(folder.path()).expect("a folder for the pooler's user");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
        // with `any` everyone is the user that the database's line names
        let configuration = format!(
            "[databases]\n* = host=127.0.0.1 user=postgres port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = transaction\nignore_startup_parameters = extra_float_digits\n",
            server.port()
        );
        let file = folder.path().join("pgbouncer.ini");
        std::fs::write(&file, configuration).expect("the folder takes a file");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program).arg("-q").arg(&file).current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let child = user.run(&mut command).spawn().expect("the pooler starts");
        let mut pooler = Pooler { child, port, _folder: folder };
        pooler.await_ready();
        Some(pooler)
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    fn await_ready(&mut self) {
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.child.try_wait().expect("a child can be waited for");
            assert!(ended.is_none(), "the pooler ended: {ended:?}");
            assert!(Instant::now() < deadline, "the pooler takes no connection");
            std::thread::sleep(LOOK_INTERVAL);
        }
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pgbouncer() -> Option<PathBuf> {
    let path = cache::folder().join("tools/pgbouncer/bin/pgbouncer");
    if path.exists() { Some(path) } else { cache::missing("pgbouncer", &path) }
}
