//! The settings every session of ours has, whatever a role, a database or the server says.
//!
//! They are SET once after login, not sent as startup options: connection poolers refuse or drop options they do not
//! know, and drop them in silence, while a SET either holds for the session or fails. Values must read and print the same in load, stream
//! and apply, and no timeout made for people's sessions may end ours.

/// For every supported version.
const SETTINGS: &str = "\
SET client_encoding = 'UTF8'; SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; \
SET extra_float_digits = 3; SET bytea_output = 'hex'; SET lc_monetary = 'C'; SET xmloption = 'content'; \
SET standard_conforming_strings = on; SET search_path = pg_catalog; SET row_security = off; \
SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET idle_session_timeout = 0; \
SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off; \
SET default_transaction_deferrable = off";

const TRANSACTION_TIMEOUT_SINCE: u32 = 17;

/// One statement list for a server of this major version.
pub(crate) fn settings_for(major: u32) -> String {
    if major >= TRANSACTION_TIMEOUT_SINCE { format!("{SETTINGS}; SET transaction_timeout = 0") } else { SETTINGS.to_owned() }
}
