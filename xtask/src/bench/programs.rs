//! Godwit in release, the peers' programs, and the PostgreSQL tools, all unpacked and none installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Outcome;

/// The server that everything runs on.
pub const MAJOR: u16 = 18;
/// Clients of this version come with `pgbench`, and with the C library that pgcopydb was built for.
const PEER_MAJOR: u16 = 15;

pub struct Programs {
    pub godwit: PathBuf,
    pub pgbench: PathBuf,
    /// None: could not be had here; the report says so.
    pub pgcopydb: Option<PathBuf>,
    /// `pg_dump`, `pg_restore`, `psql` of the servers' version.
    pub tools: PathBuf,
}

pub fn gather() -> Outcome<Programs> {
    let root = root();
    run(&mut Command::new(root.join("scripts/supply")))?;
    let cache = PathBuf::from(output(Command::new(root.join("scripts/supply")).arg("--where"))?);
    let godwit = build(&root)?;
    let pgcopydb = match pgcopydb(&cache) {
        Ok(program) => Some(program),
        Err(problem) => {
            eprintln!("pgcopydb could not be had, its column stays empty: {problem}");
            None
        }
    };
    let bin = |major: u16| cache.join("tools").join(major.to_string()).join("bin");
    Ok(Programs { godwit, pgbench: bin(PEER_MAJOR).join("pgbench"), pgcopydb, tools: bin(MAJOR) })
}

/// The checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}

fn build(root: &Path) -> Outcome<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--package", "godwit", "--message-format=json-render-diagnostics"]).current_dir(root);
    let messages = output(&mut cargo)?;
    let is_godwit = |message: &serde_json::Value| message["target"]["name"] == "godwit" && message["executable"].is_string();
    let built = messages.lines().filter_map(|line| serde_json::from_str(line).ok()).find(is_godwit);
    let executable = built.as_ref().and_then(|message| message["executable"].as_str());
    Ok(executable.ok_or("cargo named no executable `godwit`")?.into())
}

/// One Debian package, unpacked beside the tools and run with their C library. One that no longer runs beside them is
/// unpacked anew.
fn pgcopydb(cache: &Path) -> Outcome<PathBuf> {
    let folder = cache.join("peers/pgcopydb");
    let wrapper = folder.join("bin/pgcopydb");
    if output(Command::new(&wrapper).arg("--version")).is_ok() {
        return Ok(wrapper);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let work = tempfile::Builder::new().prefix(".work.peers-").tempdir_in(cache)?;
    fs::create_dir_all(work.path().join("pgcopydb/bin"))?;
    run(Command::new("apt-get").args(["-q", "download", "pgcopydb"]).current_dir(work.path()))?;
    let package =
        fs::read_dir(work.path())?.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "deb"));
    run(Command::new("dpkg").arg("-x").arg(package.ok_or("apt-get brought no package")?).arg(work.path().join("pgcopydb/root")))?;
    let program = find(&work.path().join("pgcopydb/root"), "pgcopydb").ok_or("no pgcopydb in its package")?;
    let inside = program.strip_prefix(work.path().join("pgcopydb"))?.display().to_string();
    let script = format!(
        "#!/bin/sh\nhere=${{0%/*}}/..\nfiles=$here/../../tools/{PEER_MAJOR}/files\n\
         exec \"$files/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2\" \
         --library-path \"$files/usr/lib/x86_64-linux-gnu:$files/lib/x86_64-linux-gnu\" \"$here/{inside}\" \"$@\"\n"
    );
    fs::write(work.path().join("pgcopydb/bin/pgcopydb"), script)?;
    run(Command::new("chmod").args(["-R", "u+rwX,go+rX,a+x"]).arg(work.path().join("pgcopydb/bin")))?;
    fs::create_dir_all(cache.join("peers"))?;
    fs::rename(work.path().join("pgcopydb"), &folder)?;
    output(Command::new(&wrapper).arg("--version"))?;
    Ok(wrapper)
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries: Vec<PathBuf> = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    let here = entries.iter().find(|path| path.is_file() && path.file_name().is_some_and(|there| there == name));
    here.cloned().or_else(|| entries.iter().filter(|path| path.is_dir()).find_map(|path| find(path, name)))
}

/// Runs a program to its end; what it said is shown only if it failed.
pub fn run(command: &mut Command) -> Outcome<()> {
    output(command).map(drop)
}

pub fn output(command: &mut Command) -> Outcome<String> {
    let done = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if !done.status.success() {
        return Err(format!("{command:?}: {}\n{}", done.status, String::from_utf8_lossy(&done.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&done.stdout).trim_end().to_owned())
}
