//! The modes of TLS, for the SQL and the replication connection alike.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use godwit_model::{Code, EndpointConfig, Task, TlsMode, codes};
use godwit_testkit::servers::{Postgres, PostgresOptions};

struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    /// An authority, a server of the name `localhost`, and a client.
    fn make() -> Self {
        let certificates = Certificates { folder: tempfile::tempdir().unwrap() };
        certificates.openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt");
        std::fs::write(certificates.path("names"), "subjectAltName=DNS:localhost\n").unwrap();
        for (name, subject) in [("server", "/CN=localhost"), ("client", "/CN=postgres")] {
            certificates.openssl(&format!("req -newkey rsa:2048 -nodes -subj {subject} -keyout {name}.key -out {name}.csr"));
            certificates.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out {name}.crt"
            ));
        }
        certificates
    }

    fn openssl(&self, arguments: &str) {
        let run = Command::new("openssl").args(arguments.split(' ')).current_dir(self.folder.path()).output().unwrap();
        assert!(run.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&run.stderr));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn task(server: &Postgres, host: &str, mode: TlsMode, ca: Option<&Path>) -> Task {
    let mut task = godwit_testkit::task::task("encrypted");
    task.source = EndpointConfig {
        engine: "postgres".to_owned(),
        host: host.to_owned(),
        port: Some(server.port()),
        user: Some("postgres".to_owned()),
        database: "encrypted".to_owned(),
        ..task.source
    };
    task.source.tls.mode = mode;
    task.source.tls.ca = ca.map(Path::to_owned);
    task
}

/// Makes a slot, which takes a connection of each kind.
async fn establish(task: &Task) -> Result<(), &'static Code> {
    let source = godwit_postgres::source(task).map_err(|error| error.code())?;
    let tables: Vec<_> = source.describe(task).await.map_err(|error| error.code())?.tables.into_iter().map(Arc::new).collect();
    source.establish(&tables, None).await.map_err(|error| error.code())?;
    source.remove_traces().await.map_err(|error| error.code())
}

#[tokio::test]
async fn every_mode_checks_what_it_says() {
    let rules =
        "host postgres postgres 127.0.0.1/32 trust\nhostssl encrypted all 127.0.0.1/32 trust\nhostnossl plain all 127.0.0.1/32 trust\n";
    let Some(server) = Postgres::start(18, &PostgresOptions::default().with_access_rules(rules)) else { return };
    let certificates = Certificates::make();
    for name in ["server.crt", "server.key"] {
        server.write_file(name, &std::fs::read(certificates.path(name)).unwrap());
    }
    let url = server.url("postgres");
    let (sql, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    sql.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    sql.batch_execute("CREATE DATABASE encrypted TEMPLATE postgres").await.unwrap();
    sql.batch_execute("CREATE DATABASE plain TEMPLATE postgres").await.unwrap();

    let plain = task(&server, "127.0.0.1", TlsMode::Require, None);
    assert_eq!(establish(&plain).await, Err(&codes::TLS_FAILED), "the server has no TLS yet");
    server.set("ssl", "on");
    server.restart();

    let (sql, connection) = tokio_postgres::connect(&format!("{url}?sslmode=disable"), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    sql.batch_execute("SELECT 1").await.unwrap();
    let ca = certificates.path("ca.crt");
    let other = certificates.path("client.crt");
    let cases = [
        ("127.0.0.1", TlsMode::Disable, None, Err(&codes::AUTHENTICATION)),
        ("127.0.0.1", TlsMode::Prefer, None, Ok(())),
        ("127.0.0.1", TlsMode::Require, None, Ok(())),
        ("127.0.0.1", TlsMode::Require, Some(other.as_path()), Err(&codes::TLS_FAILED)),
        ("127.0.0.1", TlsMode::VerifyCa, Some(ca.as_path()), Ok(())),
        ("127.0.0.1", TlsMode::VerifyCa, None, Err(&codes::TLS_FAILED)),
        ("127.0.0.1", TlsMode::VerifyFull, Some(ca.as_path()), Err(&codes::TLS_FAILED)),
        ("localhost", TlsMode::VerifyFull, Some(ca.as_path()), Ok(())),
        ("localhost", TlsMode::VerifyFull, Some(Path::new("/nowhere")), Err(&codes::TLS_FAILED)),
    ];
    for (host, mode, ca, expected) in cases {
        assert_eq!(establish(&task(&server, host, mode, ca)).await, expected, "{host} {mode:?} {ca:?}");
    }

    // a server that has encryption and lets this one in without it only
    for (mode, expected) in [(TlsMode::Prefer, Ok(())), (TlsMode::Require, Err(&codes::AUTHENTICATION)), (TlsMode::Disable, Ok(()))] {
        let mut unencrypted = task(&server, "127.0.0.1", mode, None);
        unencrypted.source.database = "plain".to_owned();
        assert_eq!(establish(&unencrypted).await, expected, "{mode:?}");
    }

    server.write_file("root.crt", &std::fs::read(&ca).unwrap());
    server.set("ssl_ca_file", "root.crt");
    server.write_file("pg_hba.conf", b"host postgres postgres 127.0.0.1/32 trust\nhostssl encrypted all 127.0.0.1/32 cert\n");
    server.restart();
    let mut with_certificate = task(&server, "localhost", TlsMode::VerifyFull, Some(&ca));
    assert!(establish(&with_certificate).await.is_err(), "the server asks for a certificate");
    with_certificate.source.tls.certificate = Some(certificates.path("client.crt"));
    with_certificate.source.tls.key = Some(certificates.path("client.key"));
    assert_eq!(establish(&with_certificate).await, Ok(()));
}
