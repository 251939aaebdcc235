//! Who a server is.

use godwit_model::{Capabilities, EndpointConfig, Result};
use tokio_postgres::Client;

use crate::error;

/// Tasks between two endpoints of this dialect exchange native values, native load blocks and DDL.
pub(crate) const DIALECT: &str = "postgres";

/// What is known before the server was asked: the address stands for the identity.
pub(crate) fn before_connecting(endpoint: &EndpointConfig) -> Capabilities {
    let port = endpoint.port.unwrap_or(5432);
    capabilities(format!("{}:{port}/{}", endpoint.host, endpoint.database), "PostgreSQL".to_owned())
}

/// What no two databases share, whatever address leads to them: the cluster's system identifier (where the role may read
/// it), when its server started, and the database's number. The start tells a server from a copy of it, which has the
/// same identifier and numbers; it changes, so an identity says nothing beyond this process.
pub(crate) async fn ask(client: &Client) -> Result<Capabilities> {
    let sql = "SELECT current_setting('server_version'),
        extract(epoch FROM pg_postmaster_start_time())::text || '/' || (SELECT oid FROM pg_database WHERE datname = current_database()),
        has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')";
    let row = client.query_one(sql, &[]).await.map_err(error::from_server)?;
    let (version, database): (String, String) = (row.get(0), row.get(1));
    let system = if row.get(2) {
        let sql = "SELECT system_identifier::text FROM pg_control_system()";
        client.query_one(sql, &[]).await.map_err(error::from_server)?.get(0)
    } else {
        String::new()
    };
    Ok(capabilities(format!("{system}/{database}"), format!("PostgreSQL {version}")))
}

fn capabilities(identity: String, version: String) -> Capabilities {
    Capabilities { dialect: DIALECT, follows_unwritten: true, identity, version }
}
