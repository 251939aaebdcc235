//! A server with `synchronous_standby_names` takes any reader of that name for a standby, and lets users' commits wait for it.

use godwit_model::{Error, Result, codes};
use tokio_postgres::Client;

use crate::error;

/// Refuses a setting that names the session which streams.
pub(crate) async fn no_standby_of_ours(client: &Client, application: &str) -> Result<()> {
    let row = client.query_one("SELECT current_setting('synchronous_standby_names')", &[]).await.map_err(error::from_server)?;
    let setting: String = row.get(0);
    if !names_us(&setting, application) {
        return Ok(());
    }
    Err(Error::new(
        &codes::SETTING_UNSUITABLE,
        format!("`synchronous_standby_names` is `{setting}`, so that commits would wait for the session `{application}` as for a standby"),
    )
    .remedy("name the standbys one by one, without `*`"))
}

/// `FIRST 2 (a, "b")`, `ANY 1 (*)`, `2 (a, b)`, `a, b`.
fn names_us(setting: &str, application: &str) -> bool {
    let list = setting.split_once('(').map_or(setting, |(_, list)| list.trim_end().trim_end_matches(')'));
    list.split(',').map(|name| name.trim().trim_matches('"')).any(|name| name == "*" || name.eq_ignore_ascii_case(application))
}

#[cfg(test)]
mod tests {
    use super::names_us;

    #[test]
    fn every_form_of_the_setting_is_read() {
        for setting in ["*", "FIRST 1 (a, *)", "ANY 2 (a, \"Godwit_t\", b)", "godwit_t", "1 ( godwit_t )"] {
            assert!(names_us(setting, "godwit_t"), "{setting}");
        }
        for setting in ["", "a, b", "FIRST 1 (godwit_t2)", "ANY 1 (a)"] {
            assert!(!names_us(setting, "godwit_t"), "{setting}");
        }
    }
}
