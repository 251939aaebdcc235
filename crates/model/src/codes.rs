//! Every code a user can meet, in one table. Each has a page `docs/errors/GWnnnn.md`.
//!
//! 1xxx the command line and the task file · 2xxx endpoints: reaching, rights, settings · 3xxx schema and mapping ·
//! 4xxx load, capture, apply · 5xxx state and change log · 6xxx lease, verify, finish, clean · 9xxx our own mistakes.

use crate::error::{Code, Kind};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $kind:ident, $title:literal;)*) => {
        $($(#[$doc])* pub const $name: Code = Code { number: $number, kind: Kind::$kind, title: $title };)*
        /// All codes, ascending.
        pub const ALL: &[&Code] = &[$(&$name),*];
    };
}

codes! {
    // 1xxx
    TASK_UNREADABLE = 1001, Input, "the task file cannot be read";
    TASK_SYNTAX = 1002, Input, "the task file is not valid YAML";
    TASK_UNKNOWN_KEY = 1003, Input, "the task file has a key that does not exist";
    TASK_WRONG_TYPE = 1004, Input, "a value in the task file has the wrong type or unit";
    TASK_MISSING_KEY = 1005, Input, "the task file lacks a key that is needed";
    TASK_CONTRADICTION = 1006, Input, "two settings of the task file contradict each other";
    TASK_TOO_LARGE = 1007, Input, "the task file exceeds what a task file may hold";
    TASK_REFERENCE = 1008, Input, "a reference in the task file cannot be resolved";
    TASK_UNSUPPORTED = 1009, Input, "the task asks for what this version does not do";
    USAGE = 1010, Input, "the command line is wrong";
    SAME_STORE = 1011, Input, "source and target are the same store";
    TASK_VALUE = 1012, Input, "a value in the task file is not one it may have";
    // 2xxx
    UNREACHABLE = 2001, Transient, "an endpoint cannot be reached";
    AUTHENTICATION = 2002, Input, "an endpoint refused the credentials";
    TLS_FAILED = 2003, Input, "the encrypted connection could not be made as asked";
    CONNECTION_LOST = 2004, Transient, "a connection was lost";
    RIGHTS_MISSING = 2005, Input, "the role lacks a right";
    SETTING_UNSUITABLE = 2006, Input, "a server setting does not allow this";
    VERSION_UNSUPPORTED = 2007, Input, "this server version is not supported";
    RETRYABLE = 2008, Transient, "the server asked to try again";
    SERVER_REFUSED = 2009, Person, "the server refused a statement";
    CHECK_FAILED = 2010, No, "the check found what must be mended first";
    NOT_A_DATABASE = 2011, Input, "the file is not such a database";
    BUSY = 2012, Transient, "the store is busy or locked";
    FULL = 2013, Transient, "there is no space left";
    DATABASE_MISSING = 2014, Input, "the database is not there";
    // 3xxx
    TABLE_MISSING = 3001, Person, "a selected table is not there";
    TARGET_NOT_EMPTY = 3002, Input, "a target table already holds rows";
    TARGET_REFERENCED = 3003, Input, "a target table is referenced by others";
    NAMES_COLLIDE = 3004, Input, "two names become one";
    COLUMN_UNKNOWN = 3005, Input, "a mapped column does not exist";
    TYPE_UNSUPPORTED = 3006, Input, "a column's type cannot be carried";
    KEY_LEFT_OUT = 3007, Input, "a key column cannot be left out";
    SCHEMA_MISMATCH = 3008, Person, "the target table does not fit the source table";
    NOTHING_SELECTED = 3009, Input, "no table is selected";
    DDL_STOPPED = 3010, Person, "a schema change stopped the task";
    NO_KEY = 3011, Input, "a table has no key";
    // 4xxx
    POSITION_LOST = 4001, Person, "the source no longer keeps the log from the checkpoint on";
    CONFLICT = 4002, Person, "the target does not hold the row a change needs";
    VALUE_REFUSED = 4003, Person, "the target refused a value";
    SOURCE_CHANGED = 4004, Person, "the source is not the server it was";
    TARGET_CHANGED = 4005, Person, "the target came back behind what was applied";
    LOG_UNDECODABLE = 4006, Person, "the source's log holds something that cannot be decoded";
    OUT_OF_SIGHT = 4007, Person, "rows were changed in a way the log does not show";
    VALUE_TOO_LARGE = 4008, Person, "a value exceeds the memory limit";
    SOURCE_BUDGET = 4009, Person, "the source's log reached its budget";
    KEY_EXISTS = 4010, Person, "a key that is loaded is already in the target";
    LOAD_TORN = 4011, Person, "a copy was interrupted and cannot be continued";
    // 5xxx
    STATE_LOST = 5001, Person, "the state of this task is not where it should be";
    STATE_OTHER = 5002, Input, "the state belongs to a task that differs";
    LOG_DAMAGED = 5003, Person, "the change log is damaged";
    LOG_FULL = 5004, Transient, "the change log cannot grow";
    STATE_IO = 5005, Person, "the state folder cannot be read or written";
    STATE_VERSION = 5006, Person, "the state was written by another version";
    // 6xxx
    HELD = 6001, Transient, "another process runs this task";
    LEASE_LOST = 6002, Transient, "another process took this task over";
    DIFFERENT = 6003, No, "source and target differ";
    NOT_CONSISTENT = 6004, Transient, "the target is not consistent yet";
    DRAIN_TIMEOUT = 6005, Transient, "the target did not catch up in time";
    INTERRUPTED = 6006, Interrupted, "stopped by a signal";
    NOT_CONFIRMED = 6007, Input, "a question was not answered";
    FINISHED = 6008, Input, "this task is finished";
    UNSETTLED = 6009, No, "rows changed too often to be compared";
    WRITERS_LEFT = 6010, No, "users still write to the source";
    // 9xxx
    INTERNAL = 9001, Person, "an invariant of Godwit's own is broken";
}

/// The code with that number.
pub fn find(number: u16) -> Option<&'static Code> {
    ALL.iter().copied().find(|code| code.number == number)
}

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn codes_ascend_and_are_unique() {
        assert!(ALL.windows(2).all(|pair| pair[0].number < pair[1].number));
    }
}
