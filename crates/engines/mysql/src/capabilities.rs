//! What an endpoint of either side can do, and which server it is.

use godwit_model::Capabilities;

use crate::connect::{Endpoint, Server};

/// One dialect: what one family of servers cannot make of the other's, `adapt` takes out.
pub(crate) fn of(endpoint: &Endpoint, known: Option<&Server>) -> Capabilities {
    Capabilities {
        dialect: "mysql",
        follows_unwritten: false,
        identity: known.map_or_else(|| endpoint.display.clone(), |server| format!("{}/{}", server.instance, endpoint.database)),
        version: known.map_or_else(|| "MySQL or MariaDB".to_owned(), |server| server.text.clone()),
    }
}
