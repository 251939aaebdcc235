//! Large objects stay behind, said by name, and the command that is told moves them.

use std::process::{Command, Stdio};

use godwit_testkit::servers::tool;
use serde_json::Value as Json;

use crate::pair::Pair;

const OBJECTS: &str = "SELECT m.oid::text, encode(lo_get(m.oid), 'hex'), pg_get_userbyid(m.lomowner), m.lomacl::text, obj_description(m.oid, 'pg_largeobject')
    FROM pg_largeobject_metadata m";

#[test]
fn large_objects_are_listed_and_moved_by_what_is_told() {
    for first in [15, 18] {
        let Some(pair) = Pair::postgres_on_shared(first, 18) else { return };
        let (Some(dump), Some(psql)) = (tool(18, "pg_dump"), tool(18, "psql")) else { return };
        pair.source.run(&[
            "CREATE TABLE item (id serial PRIMARY KEY, picture oid)",
            "INSERT INTO item (picture) SELECT lo_from_bytea(0, decode(repeat(md5(g::text), g), 'hex')) FROM generate_series(1, 300) g",
            "SELECT lo_from_bytea(99999999, '\\x00ff0a5c2e0a')",
            "COMMENT ON LARGE OBJECT 99999999 IS 'it''s one'",
            "GRANT SELECT ON LARGE OBJECT 99999999 TO PUBLIC",
        ]);
        let plan = pair.godwit(&["plan"]).with(0);
        let plan: Json = serde_json::from_str(&plan.stdout).unwrap();
        let left = plan["not_carried"].as_array().unwrap().iter().find(|left| left["object"] == "301 LARGE OBJECTS");
        let reason = left.unwrap_or_else(|| panic!("{plan}"))["reason"].as_str().unwrap().to_owned();
        let run = pair.running();
        pair.source.run(&["INSERT INTO item (picture) VALUES (99999999)"]);
        pair.await_same("SELECT id, picture FROM item");
        run.kill();
        pair.finish();
        assert_eq!(pair.target.rows(OBJECTS), Vec::<Vec<Option<String>>>::new());
        let (_, command) = reason.split_once("when their writers have stopped: ").unwrap();
        let command = command.replace("pg_dump", &dump.display().to_string()).replace("psql", &psql.display().to_string());
        let command = command.replace("SOURCE", &pair.source.url()).replace("TARGET", &pair.target.url());
        let moved = Command::new("bash").args(["-o", "pipefail", "-c", &command]).stdout(Stdio::null()).output().unwrap();
        assert!(moved.status.success(), "{command}\n{}", String::from_utf8_lossy(&moved.stderr));
        pair.assert_same(OBJECTS);
        pair.assert_same("SELECT id, picture FROM item");
    }
}
