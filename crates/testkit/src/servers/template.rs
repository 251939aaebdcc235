//! Where a server's data come from: a freshly initialized folder per version, made once and then copied, or a test's.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cache::{self, Installation};
use super::user::User;

/// Makes `data` a fresh data folder that belongs to `user`.
pub(super) fn copy(installation: &Installation, user: User, data: &Path) {
    copy_made(&installation.version(), user, data, |workshop| initdb(installation, user, workshop));
}

/// The same for any server. `make` gets a folder of that user's and returns the data folder that it made there.
pub(super) fn copy_made(name: &str, user: User, data: &Path, make: impl FnOnce(&Path) -> PathBuf) {
    copy_folder(&template(name, user, make), data);
}

/// Makes `data` a copy of a stopped server's folder that belongs to `user`.
pub(super) fn adopt(folder: &Path, user: User, data: &Path) {
    copy_folder(folder, data);
    run(Command::new("chown").args(["-R", &user.to_string()]).arg(data));
    let _ = fs::remove_file(data.join("postmaster.pid")); // of a server that is not this one
}

fn copy_folder(from: &Path, to: &Path) {
    run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to));
}

fn template(name: &str, user: User, make: impl FnOnce(&Path) -> PathBuf) -> PathBuf {
    let templates = cache::folder().join("templates");
    let template = templates.join(format!("{name}-{}", user.id));
    if template.exists() {
        return template;
    }
    fs::create_dir_all(&templates).expect("the cache takes templates");
    let lock = File::create(templates.join(".lock")).expect("the cache takes a lock");
    lock.lock().expect("the lock of the templates");
    if !template.exists() {
        let workshop = tempfile::Builder::new().prefix(".work").tempdir_in(&templates).expect("a folder in the cache");
        user.own(workshop.path()).expect("a folder for the server's user");
        // Under another name first: a template is complete or absent.
        fs::rename(make(workshop.path()), &template).expect("a finished template gets its name");
    }
    template
}

fn initdb(installation: &Installation, user: User, workshop: &Path) -> PathBuf {
    let data = workshop.join("data");
    let mut initdb = Command::new(installation.program("initdb"));
    initdb.env("LD_LIBRARY_PATH", installation.libraries()).current_dir("/");
    initdb.args(["-U", "postgres", "-A", "trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "-D"]);
    run(user.run(initdb.arg(&data)));
    data
}

pub(super) fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed, {}: {said}", output.status);
}
