//! Every kind of object, as docs/engines/postgres.md says: made at a source, moved, and compared definition by
//! definition; what does not come, or comes otherwise, stands under "not carried", exactly.
//!
//! All rows share one move per version and way; each is judged by a test of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::OnceLock;

use godwit_model::{ChunkMode, Create, Grants, Owners, Stage};

use super::pair::{Pair, mappings};

/// Lines `kind name: definition` of all that a schema holds.
const HOLDINGS: &str = include_str!("objects.sql");

/// One kind of object. Its schema is `o_` and its name; what no schema holds has a name that begins so too.
#[derive(Clone, Copy)]
struct Row {
    /// Statements; those behind `;;` in a transaction of their own.
    make: &'static str,
    /// Lines of what no schema holds.
    more: &'static str,
    since: u16,
    dumped: Outcome,
    own: Outcome,
}

/// What a move leaves behind: definitions that are missing (`-`), changed (`~`) or new (`+`), and what is listed.
#[derive(Clone, Copy)]
struct Outcome {
    differs: &'static [&'static str],
    listed: &'static [&'static str],
}

const SAME: Outcome = Outcome { differs: &[], listed: &[] };

const fn row(make: &'static str) -> Row {
    Row { make, more: "SELECT NULL::text WHERE false", since: 14, dumped: SAME, own: SAME }
}

impl Row {
    const fn and(self, more: &'static str) -> Row {
        Row { more, ..self }
    }

    const fn since(self, since: u16) -> Row {
        Row { since, ..self }
    }

    const fn dumped(self, differs: &'static [&'static str], listed: &'static [&'static str]) -> Row {
        Row { dumped: Outcome { differs, listed }, ..self }
    }

    const fn own(self, differs: &'static [&'static str], listed: &'static [&'static str]) -> Row {
        Row { own: Outcome { differs, listed }, ..self }
    }
}

macro_rules! objects {
    ($($name:ident: $row:expr;)*) => {
        static ROWS: &[(&str, Row)] = &[$((stringify!($name), $row)),*];
        mod with_pg_dump {
            $(#[test] fn $name() { super::judge(super::Way::Dump, stringify!($name)); })*
        }
        mod by_our_own_ddl {
            $(#[test] fn $name() { super::judge(super::Way::Own, stringify!($name)); })*
        }
    };
}

objects! {
    schemas: row("CREATE SCHEMA o_schemas; COMMENT ON SCHEMA o_schemas IS 'one'; CREATE TABLE o_schemas.t (id int PRIMARY KEY);
        CREATE SCHEMA o_schemas_bare").and("SELECT nspname::text FROM pg_namespace WHERE nspname = 'o_schemas_bare'")
        .own(&["-comment schema o_schemas", "-o_schemas_bare"], &["COMMENT of schema o_schemas", "SCHEMA o_schemas_bare"]);
    extensions: row("CREATE SCHEMA o_extensions; CREATE EXTENSION hstore SCHEMA o_extensions VERSION '1.7';
        CREATE EXTENSION citext SCHEMA o_extensions;
        CREATE TABLE o_extensions.t (id int PRIMARY KEY, h o_extensions.hstore); INSERT INTO o_extensions.t VALUES (1, 'a=>1')")
        .and("SELECT 'extension ' || extname || ': ' || extversion || extnamespace::regnamespace FROM pg_extension WHERE extnamespace = 'o_extensions'::regnamespace")
        .own(&["-extension citext"], &[]);
    enums: row("CREATE SCHEMA o_enums; CREATE TYPE o_enums.mood AS ENUM ('fine', 'it''s', ''); ALTER TYPE o_enums.mood ADD VALUE 'first' BEFORE 'fine';
        CREATE TABLE o_enums.t (id int PRIMARY KEY, m o_enums.mood DEFAULT 'fine'); CREATE TYPE o_enums.unused AS ENUM ('a')")
        .own(&["-type unused"], &["TYPE o_enums.unused"]);
    domains: row("CREATE SCHEMA o_domains; CREATE DOMAIN o_domains.code AS varchar(8) COLLATE \"C\" DEFAULT 'x' NOT NULL CONSTRAINT up CHECK (VALUE = upper(VALUE) OR VALUE = 'x');
        CREATE DOMAIN o_domains.outer AS o_domains.code CHECK (VALUE <> ''); CREATE TABLE o_domains.t (id int PRIMARY KEY, c o_domains.outer);
        CREATE DOMAIN o_domains.unused AS int")
        .own(&["-type unused"], &["TYPE o_domains.unused"]);
    composites: row("CREATE SCHEMA o_composites; CREATE TYPE o_composites.point AS (x int, y numeric(4,1)); CREATE TYPE o_composites.line AS (a o_composites.point, b o_composites.point[]);
        CREATE TABLE o_composites.t (id int PRIMARY KEY, l o_composites.line); INSERT INTO o_composites.t VALUES (1, ROW(ROW(1, 2.5), ARRAY[ROW(1, 2)::o_composites.point]))");
    ranges: row("CREATE SCHEMA o_ranges; CREATE TYPE o_ranges.span AS RANGE (subtype = float8, subtype_diff = float8mi);
        CREATE TYPE o_ranges.texts AS RANGE (subtype = text, collation = \"C\", multirange_type_name = o_ranges.many);
        CREATE TABLE o_ranges.t (id int PRIMARY KEY, s o_ranges.texts, m o_ranges.many); INSERT INTO o_ranges.t VALUES (1, '[a,b)', '{[a,b)}')")
        .own(&["-function o_ranges.span(double precision,double precision)", "-function o_ranges.span(double precision,double precision,text)", "-function o_ranges.span_multirange()", "-function o_ranges.span_multirange(o_ranges.span)", "-function o_ranges.span_multirange(o_ranges.span[])", "-type span"], &["TYPE o_ranges.span"]);
    base_types: row("CREATE SCHEMA o_base_types; CREATE TYPE o_base_types.raw;
        CREATE FUNCTION o_base_types.raw_in(cstring) RETURNS o_base_types.raw LANGUAGE internal IMMUTABLE STRICT AS 'textin';
        CREATE FUNCTION o_base_types.raw_out(o_base_types.raw) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
        CREATE TYPE o_base_types.raw (INPUT = o_base_types.raw_in, OUTPUT = o_base_types.raw_out, LIKE = text)")
        .own(&["-function o_base_types.raw_in(cstring)", "-function o_base_types.raw_out(o_base_types.raw)", "-schema o_base_types", "-type raw"], &["FUNCTION o_base_types.raw_in(cstring)", "FUNCTION o_base_types.raw_out(o_base_types.raw)", "SCHEMA o_base_types", "TYPE o_base_types.raw"]);
    casts: row("CREATE SCHEMA o_casts; CREATE TYPE o_casts.pair AS (a int); CREATE FUNCTION o_casts.to_int(o_casts.pair) RETURNS int LANGUAGE sql AS 'SELECT $1.a';
        CREATE CAST (o_casts.pair AS int) WITH FUNCTION o_casts.to_int(o_casts.pair) AS ASSIGNMENT")
        .and("SELECT 'cast ' || castsource::regtype || ': ' || casttarget::regtype || castfunc::regprocedure || castcontext::text FROM pg_cast WHERE castsource::regtype::text LIKE 'o_casts.%'")
        .own(&["-cast o_casts.pair", "-column pair.a", "-composite pair", "-function o_casts.to_int(o_casts.pair)", "-schema o_casts", "-type pair"], &["CAST (o_casts.pair AS integer)", "FUNCTION o_casts.to_int(o_casts.pair)", "SCHEMA o_casts", "TYPE o_casts.pair"]);
    operators: row("CREATE SCHEMA o_operators; CREATE FUNCTION o_operators.same(int, int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 = $2';
        CREATE FUNCTION o_operators.cmp(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT btint4cmp($1, $2)';
        CREATE OPERATOR o_operators.=== (FUNCTION = o_operators.same, LEFTARG = int, RIGHTARG = int, COMMUTATOR = OPERATOR(o_operators.===), RESTRICT = eqsel, JOIN = eqjoinsel);
        CREATE OPERATOR CLASS o_operators.mine FOR TYPE int USING btree AS OPERATOR 3 o_operators.===, FUNCTION 1 o_operators.cmp(int, int)")
        .own(&["-function o_operators.cmp(integer,integer)", "-function o_operators.same(integer,integer)", "-opclass mine", "-operator o_operators.===(integer,integer)", "-schema o_operators"], &["FUNCTION o_operators.cmp(integer, integer)", "FUNCTION o_operators.same(integer, integer)", "OPERATOR CLASS o_operators.mine USING btree", "OPERATOR FAMILY o_operators.mine USING btree", "OPERATOR o_operators.===(integer,integer)", "SCHEMA o_operators"]);
    text_search: row("CREATE SCHEMA o_text_search; CREATE TEXT SEARCH DICTIONARY o_text_search.plain (TEMPLATE = pg_catalog.simple, STOPWORDS = english);
        CREATE TEXT SEARCH CONFIGURATION o_text_search.conf (COPY = pg_catalog.english); ALTER TEXT SEARCH CONFIGURATION o_text_search.conf ALTER MAPPING FOR asciiword WITH o_text_search.plain")
        .own(&["-configuration conf", "-dictionary plain", "-schema o_text_search"], &["SCHEMA o_text_search", "TEXT SEARCH CONFIGURATION o_text_search.conf", "TEXT SEARCH DICTIONARY o_text_search.plain"]);
    collations: row("CREATE SCHEMA o_collations; CREATE COLLATION o_collations.folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
        CREATE COLLATION o_collations.plain FROM \"C\"; CREATE TABLE o_collations.t (id int PRIMARY KEY, v text COLLATE o_collations.folded, w text COLLATE \"C\")")
        .own(&["-collation folded", "-collation plain", "~column t.v"], &["COLLATION o_collations.folded", "COLLATION o_collations.folded of o_collations.t.v", "COLLATION o_collations.plain"]);
    aggregates: row("CREATE SCHEMA o_aggregates; CREATE AGGREGATE o_aggregates.total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
        CREATE CONVERSION o_aggregates.conv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8")
        .own(&["-aggregate o_aggregates.total(integer)", "-conversion conv", "-schema o_aggregates"], &["AGGREGATE o_aggregates.total(integer)", "CONVERSION o_aggregates.conv", "SCHEMA o_aggregates"]);
    tables: row("CREATE SCHEMA o_tables; CREATE TABLE o_tables.\"Odd \"\" name\" (\"the id\" bigint PRIMARY KEY, v varchar(5) NOT NULL DEFAULT 'a''b', n numeric(8,2) DEFAULT 1.50,
        at timestamptz DEFAULT now(), a int[] DEFAULT '{1,2}', j jsonb DEFAULT '{\"a\": 1}', u uuid DEFAULT gen_random_uuid()); INSERT INTO o_tables.\"Odd \"\" name\" VALUES (1);
        CREATE TABLE o_tables.none (); CREATE TYPE o_tables.rowtype AS (id int, v text); CREATE TABLE o_tables.typed OF o_tables.rowtype (PRIMARY KEY (id))")
        .own(&["-column rowtype.id", "-column rowtype.v", "-composite rowtype", "~table typed", "-type rowtype"], &["OF o_tables.rowtype of o_tables.typed", "TYPE o_tables.rowtype"]);
    defaults: row("CREATE SCHEMA o_defaults; CREATE FUNCTION o_defaults.next() RETURNS int LANGUAGE sql AS 'SELECT 7'; CREATE SEQUENCE o_defaults.shared;
        CREATE TABLE o_defaults.t (id int PRIMARY KEY DEFAULT nextval('o_defaults.shared'), f int DEFAULT o_defaults.next())")
        .own(&["~column t.f", "-function o_defaults.next()"], &["DEFAULT of o_defaults.t.f", "FUNCTION o_defaults.next()"]);
    identity: row("CREATE SCHEMA o_identity; CREATE TABLE o_identity.t (id int GENERATED ALWAYS AS IDENTITY (START 5 INCREMENT 5) PRIMARY KEY, b bigint GENERATED BY DEFAULT AS IDENTITY);
        INSERT INTO o_identity.t DEFAULT VALUES");
    generated: row("CREATE SCHEMA o_generated; CREATE TABLE o_generated.t (id int PRIMARY KEY, n int, g int GENERATED ALWAYS AS (n * 2) STORED NOT NULL, CHECK (g > 0)); INSERT INTO o_generated.t VALUES (1, 2)");
    generated_virtual: row("CREATE SCHEMA o_generated_virtual; CREATE TABLE o_generated_virtual.t (id int PRIMARY KEY, n int, g int GENERATED ALWAYS AS (n * 2)); INSERT INTO o_generated_virtual.t VALUES (1, 2)").since(18);
    sequences: row("CREATE SCHEMA o_sequences; CREATE SEQUENCE o_sequences.free AS smallint INCREMENT -2 MINVALUE -100 MAXVALUE 50 START 50 CACHE 3 CYCLE;
        CREATE TABLE o_sequences.t (id serial PRIMARY KEY, s bigserial); INSERT INTO o_sequences.t DEFAULT VALUES; SELECT nextval('o_sequences.free')")
        .own(&["-sequence free"], &["SEQUENCE o_sequences.free"]);
    keys: row("CREATE SCHEMA o_keys; CREATE TABLE o_keys.a (x int, y int, CONSTRAINT \"the key\" PRIMARY KEY (y, x)); CREATE TABLE o_keys.b (x int NOT NULL, v text); CREATE UNIQUE INDEX by_x ON o_keys.b (x);
        CREATE TABLE o_keys.c (x int NOT NULL UNIQUE); CREATE TABLE o_keys.d (x int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, y int); CREATE TABLE o_keys.e (x int, y text, PRIMARY KEY (x) INCLUDE (y) WITH (fillfactor = 70))");
    uniques: row("CREATE SCHEMA o_uniques; CREATE TABLE o_uniques.t (id int PRIMARY KEY, a int, b text, UNIQUE (b, a), CONSTRAINT late UNIQUE (a) DEFERRABLE INITIALLY DEFERRED); CREATE UNIQUE INDEX lower_b ON o_uniques.t (lower(b)) WHERE a > 1");
    uniques_of_nulls: row("CREATE SCHEMA o_uniques_of_nulls; CREATE TABLE o_uniques_of_nulls.t (id int PRIMARY KEY, a int UNIQUE NULLS NOT DISTINCT)").since(15);
    exclusions: row("CREATE SCHEMA o_exclusions; CREATE TABLE o_exclusions.t (id int PRIMARY KEY, r int4range, EXCLUDE USING gist (r WITH &&) WHERE (id > 0) DEFERRABLE)");
    periods: row("CREATE SCHEMA o_periods; CREATE EXTENSION btree_gist SCHEMA o_periods; CREATE TABLE o_periods.t (id int, r int4range, PRIMARY KEY (id, r WITHOUT OVERLAPS))").since(18);
    indexes: row("CREATE SCHEMA o_indexes; CREATE TABLE o_indexes.t (id int PRIMARY KEY, a int, b text, c int[], d tsvector, p point);
        CREATE INDEX i_expression ON o_indexes.t (lower(b), (a + 1)); CREATE INDEX i_partial ON o_indexes.t (a) WHERE b IS NOT NULL; CREATE INDEX i_covering ON o_indexes.t (a) INCLUDE (b);
        CREATE INDEX i_order ON o_indexes.t (a DESC NULLS LAST, b ASC NULLS FIRST); CREATE INDEX i_class ON o_indexes.t (b text_pattern_ops); CREATE INDEX i_collation ON o_indexes.t (b COLLATE \"C\");
        CREATE INDEX i_gin ON o_indexes.t USING gin (c) WITH (fastupdate = off); CREATE INDEX i_gist ON o_indexes.t USING gist (p); CREATE INDEX i_spgist ON o_indexes.t USING spgist (p);
        CREATE INDEX i_brin ON o_indexes.t USING brin (a) WITH (pages_per_range = 8); CREATE INDEX i_hash ON o_indexes.t USING hash (b); ALTER INDEX o_indexes.i_expression ALTER COLUMN 1 SET STATISTICS 500");
    checks: row("CREATE SCHEMA o_checks; CREATE FUNCTION o_checks.fits(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 < 100';
        CREATE TABLE o_checks.t (id int PRIMARY KEY, a int CHECK (a > 0), b int, CONSTRAINT pair CHECK (a < b) NO INHERIT, CONSTRAINT called CHECK (o_checks.fits(a)));
        INSERT INTO o_checks.t VALUES (1, 5, 9); ALTER TABLE o_checks.t ADD CONSTRAINT later CHECK (b > 10) NOT VALID")
        .own(&["-constraint t.called", "-function o_checks.fits(integer)"], &["CONSTRAINT called of o_checks.t", "FUNCTION o_checks.fits(integer)"]);
    checks_not_enforced: row("CREATE SCHEMA o_checks_not_enforced; CREATE TABLE o_checks_not_enforced.t (id int PRIMARY KEY, a int CHECK (a > 0) NOT ENFORCED, n int CONSTRAINT named NOT NULL);
        INSERT INTO o_checks_not_enforced.t VALUES (1, -1, 1)").since(18)
        .own(&["-constraint t.named"], &["NAME named of a NOT NULL of o_checks_not_enforced.t"]);
    foreign_keys: row("CREATE SCHEMA o_foreign_keys; CREATE TABLE o_foreign_keys.p (a int, b int, PRIMARY KEY (a, b), s int UNIQUE); CREATE TABLE o_foreign_keys.c (id int PRIMARY KEY, a int, b int, s int DEFAULT 0,
        FOREIGN KEY (a, b) REFERENCES o_foreign_keys.p MATCH FULL ON DELETE CASCADE ON UPDATE SET NULL, up int REFERENCES o_foreign_keys.c DEFERRABLE INITIALLY DEFERRED);
        INSERT INTO o_foreign_keys.c (id, s) VALUES (1, 99);; ALTER TABLE o_foreign_keys.c ADD CONSTRAINT later FOREIGN KEY (s) REFERENCES o_foreign_keys.p (s) ON DELETE SET DEFAULT NOT VALID");
    foreign_keys_not_enforced: row("CREATE SCHEMA o_foreign_keys_not_enforced; CREATE TABLE o_foreign_keys_not_enforced.p (id int PRIMARY KEY); CREATE TABLE o_foreign_keys_not_enforced.c (id int PRIMARY KEY REFERENCES o_foreign_keys_not_enforced.p NOT ENFORCED);
        INSERT INTO o_foreign_keys_not_enforced.c VALUES (5)").since(18);
    storage: row("CREATE SCHEMA o_storage; CREATE TABLE o_storage.t (id int PRIMARY KEY, a text STORAGE MAIN, b text COMPRESSION pglz, c int) WITH (fillfactor = 60, autovacuum_enabled = false, toast.autovacuum_enabled = false);
        ALTER TABLE o_storage.t ALTER c SET STATISTICS 77, ALTER c SET (n_distinct = -0.5)").since(16);
    replica_identity: row("CREATE SCHEMA o_replica_identity; CREATE TABLE o_replica_identity.f (id int PRIMARY KEY); ALTER TABLE o_replica_identity.f REPLICA IDENTITY FULL;
        CREATE TABLE o_replica_identity.i (id int PRIMARY KEY, a int NOT NULL); CREATE UNIQUE INDEX by_a ON o_replica_identity.i (a); ALTER TABLE o_replica_identity.i REPLICA IDENTITY USING INDEX by_a")
        .own(&["~index by_a", "~table i"], &["REPLICA IDENTITY of o_replica_identity.i"]);
    cluster_marks: row("CREATE SCHEMA o_cluster_marks; CREATE TABLE o_cluster_marks.t (id int PRIMARY KEY, a int); CREATE INDEX by_a ON o_cluster_marks.t (a); ALTER TABLE o_cluster_marks.t CLUSTER ON by_a")
        .own(&["~index by_a"], &["CLUSTER mark of o_cluster_marks.t"]);
    access_methods: row("CREATE SCHEMA o_access_methods; CREATE ACCESS METHOD o_access_methods_heap TYPE TABLE HANDLER heap_tableam_handler; CREATE TABLE o_access_methods.t (id int PRIMARY KEY) USING o_access_methods_heap; CREATE TABLE o_access_methods.u (id int PRIMARY KEY)")
        .and("SELECT 'method ' || amname || ': ' || amhandler FROM pg_am WHERE amname LIKE 'o_access%'")
        .own(&["-method o_access_methods_heap", "~table t"], &["ACCESS METHOD o_access_methods_heap", "ACCESS METHOD o_access_methods_heap of o_access_methods.t"]);
    partitions: row("CREATE SCHEMA o_partitions; CREATE TABLE o_partitions.t (a int, b int, v text, PRIMARY KEY (a, b)) PARTITION BY RANGE (a);
        CREATE TABLE o_partitions.t_low PARTITION OF o_partitions.t FOR VALUES FROM (MINVALUE) TO (10) PARTITION BY HASH (b);
        CREATE TABLE o_partitions.t_low_0 PARTITION OF o_partitions.t_low FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE o_partitions.t_low_1 PARTITION OF o_partitions.t_low FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        CREATE TABLE o_partitions.odd (v text, b int NOT NULL, gone int, a int NOT NULL); ALTER TABLE o_partitions.odd DROP gone; ALTER TABLE o_partitions.t ATTACH PARTITION o_partitions.odd DEFAULT;
        CREATE INDEX by_v ON o_partitions.t (v); CREATE INDEX own_v ON o_partitions.odd (lower(v)); INSERT INTO o_partitions.t VALUES (1, 1, 'x'), (2, 2, 'y'), (50, 1, 'z');
        CREATE TABLE o_partitions.listed (k text, n int) PARTITION BY LIST (lower(k)); CREATE TABLE o_partitions.listed_a PARTITION OF o_partitions.listed FOR VALUES IN ('a', NULL)")
        .own(&["-column listed_a.k", "-column listed_a.n", "-column odd.a", "-column odd.b", "-column odd.v", "-column t_low.a", "-column t_low.b", "-column t_low.v", "-column t_low_0.a", "-column t_low_0.b", "-column t_low_0.v", "-column t_low_1.a", "-column t_low_1.b", "-column t_low_1.v", "-constraint odd.odd_pkey", "-constraint t_low.t_low_pkey", "-constraint t_low_0.t_low_0_pkey", "-constraint t_low_1.t_low_1_pkey", "~index by_v", "-index odd_pkey", "-index odd_v_idx", "-index own_v", "-index t_low_0_pkey", "-index t_low_0_v_idx", "-index t_low_1_pkey", "-index t_low_1_v_idx", "-index t_low_pkey", "-index t_low_v_idx", "~index t_pkey", "~table listed", "-table listed_a", "-table odd", "~table t", "-table t_low", "-table t_low_0", "-table t_low_1"], &["PARTITIONS of o_partitions.listed (LIST (lower(k)))", "PARTITIONS of o_partitions.t (RANGE (a))"]);
    inheritance: row("CREATE SCHEMA o_inheritance; CREATE TABLE o_inheritance.a (id int PRIMARY KEY, v int CHECK (v > 0)); CREATE TABLE o_inheritance.b (w text) INHERITS (o_inheritance.a); ALTER TABLE o_inheritance.b ADD PRIMARY KEY (id);
        CREATE TABLE o_inheritance.x (z int); ALTER TABLE o_inheritance.b ADD z int; ALTER TABLE o_inheritance.b INHERIT o_inheritance.x; INSERT INTO o_inheritance.a VALUES (1, 1); INSERT INTO o_inheritance.b VALUES (2, 2, 'w', 3)")
        .own(&["~column b.id", "~column b.v", "~constraint b.a_v_check", "~table b"], &["INHERITANCE of o_inheritance.a", "INHERITANCE of o_inheritance.b", "INHERITANCE of o_inheritance.x"]);
    unlogged: row("CREATE SCHEMA o_unlogged; CREATE UNLOGGED TABLE o_unlogged.t (id int PRIMARY KEY); INSERT INTO o_unlogged.t VALUES (1)")
        .dumped(&[], &["CHANGES of o_unlogged.t"]).own(&[], &["CHANGES of o_unlogged.t"]);
    foreign_tables: row("CREATE SCHEMA o_foreign_tables; CREATE FOREIGN DATA WRAPPER o_foreign_tables_wrapper; CREATE SERVER o_foreign_tables_server FOREIGN DATA WRAPPER o_foreign_tables_wrapper OPTIONS (host 'a');
        CREATE USER MAPPING FOR CURRENT_USER SERVER o_foreign_tables_server OPTIONS (password 'secret'); CREATE FOREIGN TABLE o_foreign_tables.t (id int OPTIONS (name 'x')) SERVER o_foreign_tables_server OPTIONS (t 'y')")
        .and("SELECT 'server ' || srvname || ': ' || srvoptions::text || fdwname FROM pg_foreign_server JOIN pg_foreign_data_wrapper w ON w.oid = srvfdw
            UNION ALL SELECT 'mapping ' || srvname || ': there' FROM pg_user_mappings WHERE srvname LIKE 'o_foreign%'")
        .own(&["-column t.id", "-foreign t", "-mapping o_foreign_tables_server", "-schema o_foreign_tables", "-server o_foreign_tables_server"], &["FOREIGN DATA WRAPPER o_foreign_tables_wrapper", "FOREIGN SERVER o_foreign_tables_server", "FOREIGN TABLE o_foreign_tables.t", "SCHEMA o_foreign_tables", "USER MAPPING postgres SERVER o_foreign_tables_server"])
        .dumped(&["-mapping o_foreign_tables_server"], &["FOREIGN TABLE o_foreign_tables.t", "USER MAPPING USER MAPPING postgres SERVER o_foreign_tables_server"]);
    statistics: row("CREATE SCHEMA o_statistics; CREATE TABLE o_statistics.t (id int PRIMARY KEY, a int, b int); CREATE STATISTICS o_statistics.st (ndistinct, mcv) ON a, b FROM o_statistics.t; CREATE STATISTICS o_statistics.ex ON (a + b), (a * b) FROM o_statistics.t;
        ALTER STATISTICS o_statistics.st SET STATISTICS 33")
        .own(&["-statistics ex", "-statistics st"], &["STATISTICS o_statistics.ex of o_statistics.t", "STATISTICS o_statistics.st of o_statistics.t"]);
    views: row("CREATE SCHEMA o_views; CREATE TABLE o_views.t (id int PRIMARY KEY, v text); CREATE VIEW o_views.plain AS SELECT * FROM o_views.t; CREATE VIEW o_views.over WITH (security_barrier) AS SELECT id FROM o_views.plain WHERE id > 1 WITH LOCAL CHECK OPTION;
        CREATE RECURSIVE VIEW o_views.deep (n) AS SELECT 1 UNION ALL SELECT n + 1 FROM deep WHERE n < 5; CREATE VIEW o_views.grouped AS SELECT t.*, count(*) FROM o_views.t GROUP BY t.id; ALTER VIEW o_views.plain ALTER v SET DEFAULT 'x'")
        .own(&["-view deep", "-view grouped", "-view over", "-view plain"], &["VIEW o_views.deep", "VIEW o_views.grouped", "VIEW o_views.over", "VIEW o_views.plain"]);
    materialized_views: row("CREATE SCHEMA o_materialized_views; CREATE TABLE o_materialized_views.t (id int PRIMARY KEY, v int); INSERT INTO o_materialized_views.t VALUES (1, 2);
        CREATE MATERIALIZED VIEW o_materialized_views.m AS SELECT sum(v) AS s FROM o_materialized_views.t; CREATE MATERIALIZED VIEW o_materialized_views.n WITH (fillfactor = 50) AS SELECT s FROM o_materialized_views.m; CREATE UNIQUE INDEX by_s ON o_materialized_views.m (s);
        CREATE MATERIALIZED VIEW o_materialized_views.empty AS SELECT 1 AS x WITH NO DATA")
        .own(&["-index by_s", "-matview empty", "-matview m", "-matview n"], &["MATERIALIZED VIEW o_materialized_views.empty", "MATERIALIZED VIEW o_materialized_views.m", "MATERIALIZED VIEW o_materialized_views.n"]);
    functions: row("CREATE SCHEMA o_functions; CREATE FUNCTION o_functions.f(a int, OUT b int, VARIADIC c int[] DEFAULT '{}') LANGUAGE sql STABLE SECURITY DEFINER COST 7 SET work_mem = '1MB' AS 'SELECT a';
        CREATE FUNCTION o_functions.g(i int) RETURNS int BEGIN ATOMIC SELECT i + 1; SELECT i; END; CREATE PROCEDURE o_functions.p(INOUT x int) LANGUAGE plpgsql AS $b$ BEGIN x := x + 1; END $b$;
        CREATE FUNCTION o_functions.s() RETURNS SETOF int LANGUAGE sql ROWS 5 PARALLEL SAFE AS 'SELECT 1'")
        .own(&["-function o_functions.f(integer,integer[])", "-function o_functions.g(integer)", "-function o_functions.p(integer)", "-function o_functions.s()", "-schema o_functions"], &["FUNCTION o_functions.f(a integer, OUT b integer, VARIADIC c integer[])", "FUNCTION o_functions.g(i integer)", "FUNCTION o_functions.s()", "PROCEDURE o_functions.p(INOUT x integer)", "SCHEMA o_functions"]);
    triggers: row("CREATE SCHEMA o_triggers; CREATE TABLE o_triggers.t (id int PRIMARY KEY, v int); CREATE FUNCTION o_triggers.fire() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER first BEFORE INSERT OR UPDATE OF v ON o_triggers.t FOR EACH ROW WHEN (NEW.v > 1) EXECUTE FUNCTION o_triggers.fire('a'); CREATE TRIGGER off AFTER DELETE ON o_triggers.t REFERENCING OLD TABLE AS gone EXECUTE FUNCTION o_triggers.fire(); ALTER TABLE o_triggers.t DISABLE TRIGGER off;
        CREATE CONSTRAINT TRIGGER late AFTER INSERT ON o_triggers.t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION o_triggers.fire(); ALTER TABLE o_triggers.t ENABLE ALWAYS TRIGGER late")
        .own(&["-function o_triggers.fire()", "-trigger t.first", "-trigger t.late", "-trigger t.off"], &["FUNCTION o_triggers.fire()", "TRIGGER o_triggers.first of o_triggers.t", "TRIGGER o_triggers.late of o_triggers.t", "TRIGGER o_triggers.off of o_triggers.t"]);
    rules: row("CREATE SCHEMA o_rules; CREATE TABLE o_rules.t (id int PRIMARY KEY); CREATE RULE quiet AS ON DELETE TO o_rules.t WHERE OLD.id = 1 DO INSTEAD NOTHING; CREATE RULE off AS ON INSERT TO o_rules.t DO ALSO NOTHING; ALTER TABLE o_rules.t DISABLE RULE off")
        .own(&["-rule t.off", "-rule t.quiet"], &["RULE o_rules.off of o_rules.t", "RULE o_rules.quiet of o_rules.t"]);
    policies: row("CREATE SCHEMA o_policies; CREATE TABLE o_policies.t (id int PRIMARY KEY, who name); ALTER TABLE o_policies.t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE POLICY own ON o_policies.t AS RESTRICTIVE FOR SELECT TO PUBLIC USING (who = current_user);
        CREATE POLICY write ON o_policies.t FOR INSERT WITH CHECK (id > 0)")
        .own(&["-policy t.own", "-policy t.write", "~table t"], &["POLICY o_policies.own of o_policies.t", "POLICY o_policies.write of o_policies.t", "ROW SECURITY of o_policies.t"]);
    event_triggers: row("CREATE SCHEMA o_event_triggers; CREATE FUNCTION o_event_triggers.seen() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER o_event_triggers_watch ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION o_event_triggers.seen()")
        .and("SELECT 'watch ' || evtname || ': ' || evtevent || evtfoid::regprocedure || evtenabled::text || evttags::text FROM pg_event_trigger WHERE evtname LIKE 'o_event%'")
        .own(&["-function o_event_triggers.seen()", "-schema o_event_triggers", "-watch o_event_triggers_watch"], &["EVENT TRIGGER o_event_triggers_watch", "FUNCTION o_event_triggers.seen()", "SCHEMA o_event_triggers"]);
    comments: row("CREATE SCHEMA o_comments; CREATE TABLE o_comments.t (id int PRIMARY KEY, v int CONSTRAINT pos CHECK (v > 0)); CREATE INDEX by_v ON o_comments.t (v); CREATE TYPE o_comments.e AS ENUM ('a'); ALTER TABLE o_comments.t ADD e o_comments.e; CREATE VIEW o_comments.w AS SELECT 1 AS one;
        COMMENT ON TABLE o_comments.t IS 'it''s'; COMMENT ON COLUMN o_comments.t.v IS E'two\\nlines'; COMMENT ON INDEX o_comments.by_v IS 'index'; COMMENT ON CONSTRAINT pos ON o_comments.t IS 'check'; COMMENT ON TYPE o_comments.e IS 'type'; COMMENT ON VIEW o_comments.w IS 'view'; COMMENT ON COLUMN o_comments.w.one IS 'its column'")
        .own(&["-comment index o_comments.by_v", "-comment table constraint pos on o_comments.t", "-comment type o_comments.e", "-comment view column o_comments.w.one", "-comment view o_comments.w", "-view w"], &["COMMENT of constraint pos on table o_comments.t", "COMMENT of index o_comments.by_v", "COMMENT of type o_comments.e", "VIEW o_comments.w"]);
    security_labels: row("CREATE SCHEMA o_security_labels; CREATE TABLE o_security_labels.t (id int PRIMARY KEY); INSERT INTO pg_seclabel VALUES ('o_security_labels.t'::regclass, 'pg_class'::regclass, 0, 'o_security_labels_provider', 'secret')")
        .and("SELECT 'label ' || objoid::regclass || ': ' || label FROM pg_seclabel")
        .own(&["-label o_security_labels.t"], &["SECURITY LABEL (o_security_labels_provider) of table o_security_labels.t"])
        .dumped(&["-label o_security_labels.t"], &["SECURITY LABEL o_security_labels.TABLE t"]);
    owners: row("DO $$ BEGIN CREATE ROLE o_owners_one; EXCEPTION WHEN duplicate_object THEN NULL; END $$; CREATE SCHEMA o_owners AUTHORIZATION o_owners_one; CREATE TABLE o_owners.t (id serial PRIMARY KEY); ALTER TABLE o_owners.t OWNER TO o_owners_one;
        CREATE FUNCTION o_owners.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION o_owners.f() OWNER TO o_owners_one; CREATE TYPE o_owners.e AS ENUM ('a'); ALTER TYPE o_owners.e OWNER TO o_owners_one")
        .own(&["-function o_owners.f()", "~schema o_owners", "~sequence t_id_seq", "~table t", "-type e"], &["FUNCTION o_owners.f()", "OWNER o_owners_one of o_owners.t", "OWNER o_owners_one of schema o_owners", "TYPE o_owners.e"]);
    grants: row("DO $$ BEGIN CREATE ROLE o_grants_one; EXCEPTION WHEN duplicate_object THEN NULL; END $$; CREATE SCHEMA o_grants; CREATE TABLE o_grants.t (id serial PRIMARY KEY, v text); GRANT SELECT, UPDATE ON o_grants.t TO o_grants_one WITH GRANT OPTION; GRANT INSERT (v) ON o_grants.t TO PUBLIC; GRANT USAGE ON SCHEMA o_grants TO o_grants_one;
        GRANT USAGE ON SEQUENCE o_grants.t_id_seq TO o_grants_one; CREATE FUNCTION o_grants.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; REVOKE ALL ON FUNCTION o_grants.f() FROM PUBLIC; ALTER DEFAULT PRIVILEGES IN SCHEMA o_grants GRANT SELECT ON TABLES TO o_grants_one")
        .and("SELECT 'default ' || defaclnamespace::regnamespace || ': ' || defaclacl::text FROM pg_default_acl")
        .own(&["~column t.v", "-default o_grants", "-function o_grants.f()", "~schema o_grants", "~sequence t_id_seq", "~table t"], &["DEFAULT ACL for role postgres in schema o_grants on tables", "FUNCTION o_grants.f()", "GRANT SELECT, UPDATE ON o_grants.t TO o_grants_one", "RIGHTS on column v of table o_grants.t: {=a/postgres}", "RIGHTS on schema o_grants: {postgres=UC/postgres,o_grants_one=U/postgres}", "RIGHTS on sequence o_grants.t_id_seq: {postgres=rwU/postgres,o_grants_one=U/postgres}"]);
    publications: row("CREATE SCHEMA o_publications; CREATE TABLE o_publications.t (id int PRIMARY KEY); CREATE PUBLICATION o_publications_all FOR TABLE o_publications.t")
        .and("SELECT 'publication ' || pubname || ': there' FROM pg_publication WHERE pubname LIKE 'o_pub%'")
        .own(&["-publication o_publications_all"], &["PUBLICATION o_publications_all"])
        .dumped(&["-publication o_publications_all"], &["PUBLICATION o_publications_all"]);
    subscriptions: row("CREATE SCHEMA o_subscriptions; CREATE SUBSCRIPTION o_subscriptions_in CONNECTION 'host=127.0.0.1 port=1 password=secret' PUBLICATION x WITH (connect = false, slot_name = NONE, enabled = false)")
        .and("SELECT 'subscription ' || subname || ': there' FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())")
        .own(&["-schema o_subscriptions", "-subscription o_subscriptions_in"], &["SCHEMA o_subscriptions", "SUBSCRIPTION o_subscriptions_in"])
        .dumped(&["-subscription o_subscriptions_in"], &["SUBSCRIPTION o_subscriptions_in"]);
    large_objects: row("CREATE SCHEMA o_large_objects; SELECT lo_from_bytea(4711, 'abc'); SELECT lo_from_bytea(4712, 'def'); COMMENT ON LARGE OBJECT 4711 IS 'o_large_objects'")
        .and("SELECT 'large ' || oid || ': ' || lo_get(oid)::text FROM pg_largeobject_metadata")
        .own(&["-large 4711", "-large 4712", "-schema o_large_objects"], &["SCHEMA o_large_objects"])
        .dumped(&["-large 4711", "-large 4712"], &[]);
    settings: row("CREATE SCHEMA o_settings; DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET o_settings.level = ''8''', current_database()); END $$")
        .own(&["-schema o_settings"], &["SCHEMA o_settings", "SETTING o_settings.level of the database"])
        .dumped(&[], &["SETTING o_settings.level of the database"]);
    languages: row("CREATE SCHEMA o_languages; CREATE FUNCTION o_languages.handler() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler'; CREATE LANGUAGE o_languages_mine HANDLER o_languages.handler; CREATE TYPE o_languages.t AS (a int);
        CREATE FUNCTION o_languages.from_sql(internal) RETURNS internal LANGUAGE internal AS 'textin'; CREATE FUNCTION o_languages.f() RETURNS int LANGUAGE o_languages_mine AS 'BEGIN RETURN 1; END'")
        .and("SELECT 'language ' || lanname || ': ' || lanplcallfoid::regproc FROM pg_language WHERE lanname LIKE 'o_lang%'")
        .own(&["-column t.a", "-composite t", "-function o_languages.f()", "-function o_languages.from_sql(internal)", "-function o_languages.handler()", "-language o_languages_mine", "-schema o_languages", "-type t"], &["FUNCTION o_languages.f()", "FUNCTION o_languages.from_sql(internal)", "FUNCTION o_languages.handler()", "LANGUAGE o_languages_mine", "SCHEMA o_languages", "TYPE o_languages.t"]);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Way {
    /// `schema.create: all` with a `pg_dump`.
    Dump,
    /// `schema.create: tables`; without a `pg_dump` it is the same.
    Own,
}

/// What one move of all rows left on both sides.
struct Moved {
    sides: HashMap<&'static str, [Vec<String>; 2]>,
    listed: Vec<String>,
}

fn majors(way: Way) -> &'static [u16] {
    // a pg_dump that is newer than Debian's is named by the environment
    if way == Way::Own || std::env::var_os("GODWIT_PG_DUMP").is_some() { &[15, 18] } else { &[15] }
}

fn judge(way: Way, name: &str) {
    let (_, row) = ROWS.iter().find(|(known, _)| *known == name).unwrap();
    let outcome = if way == Way::Dump { row.dumped } else { row.own };
    for major in majors(way).iter().filter(|major| **major >= row.since) {
        let Some(moved) = moved(way, *major) else { return };
        let [source, target] = &moved.sides[name];
        let listed: Vec<&str> = moved.listed.iter().map(String::as_str).filter(|object| is_of(object, name)).collect();
        assert_eq!(
            differences(source, target),
            outcome.differs,
            "{way:?} {major}\nsource: {source:#?}\ntarget: {target:#?}\nlisted: {listed:#?}"
        );
        assert_eq!(listed, outcome.listed, "{way:?} {major}");
    }
}

/// Whether the object's name speaks of this row's schema, or of what begins with its name.
fn is_of(object: &str, name: &str) -> bool {
    let own = format!("o_{name}");
    let longest = |at: usize| {
        let rest = &object[at + 2..];
        let known = ROWS.iter().map(|(known, _)| *known).filter(|known| rest.starts_with(known));
        known.max_by_key(|known| known.len()) == Some(name)
    };
    object.match_indices(&own).any(|(at, _)| longest(at))
}

fn differences(source: &[String], target: &[String]) -> Vec<String> {
    let (source, target) = (by_name(source), by_name(target));
    let names: BTreeSet<&str> = source.keys().chain(target.keys()).copied().collect();
    let sign = |name: &&str| match (source.get(name), target.get(name)) {
        (Some(one), Some(other)) if one == other => None,
        (Some(_), Some(_)) => Some('~'),
        (Some(_), None) => Some('-'),
        (None, _) => Some('+'),
    };
    names.iter().filter_map(|name| Some(format!("{}{name}", sign(name)?))).collect()
}

fn by_name(lines: &[String]) -> BTreeMap<&str, &str> {
    lines.iter().map(|line| line.split_once(": ").unwrap_or((line, ""))).collect()
}

fn moved(way: Way, major: u16) -> Option<&'static Moved> {
    static DUMPED: [OnceLock<Option<Moved>>; 2] = [const { OnceLock::new() }; 2];
    static OWN: [OnceLock<Option<Moved>>; 2] = [const { OnceLock::new() }; 2];
    let place = usize::from(major > 15);
    let cell = if way == Way::Dump { &DUMPED[place] } else { &OWN[place] };
    cell.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(move_all(way, major))
    })
    .as_ref()
}

async fn move_all(way: Way, major: u16) -> Option<Moved> {
    let pair = Pair::new(major, |task| {
        (task.schema.owners, task.schema.grants) = (Owners::Keep, Grants::Keep);
        task.phases.changes = false;
        if way == Way::Own {
            task.schema.create = Create::Tables;
        }
    })?;
    let rows: Vec<&(&str, Row)> = ROWS.iter().filter(|(_, row)| row.since <= major).collect();
    for (_, row) in &rows {
        for alone in row.make.split(";;") {
            pair.at_source(alone).await;
        }
    }
    let description = pair.source.describe(&pair.task).await.unwrap_or_else(|error| panic!("{error} {:?}", error.detail_text()));
    let description = pair.target.adapt(description).await.unwrap();
    let mappings = mappings(&pair.task, &description);
    let lease = pair.lease().await;
    pair.perform_together(&lease, &description, Stage::BeforeLoad).await;
    pair.load(&lease, &mappings, &description, ChunkMode::Insert).await;
    pair.perform_together(&lease, &description, Stage::AfterLoad).await;
    pair.perform_together(&lease, &description, Stage::AtFinish).await;
    pair.target.set_sequences(&lease, &pair.source.sequences(&pair.task).await.unwrap()).await.unwrap();
    pair.assert_equal(&mappings).await;
    let mut sides = HashMap::new();
    for (name, row) in rows {
        let asked = format!("SELECT line FROM ({}) holdings UNION ALL ({})", HOLDINGS.replace("$SCHEMA$", &format!("o_{name}")), row.more);
        sides.insert(*name, [pair.all_of_source(&asked).await, pair.all_of_target(&asked).await]);
    }
    let mut listed: Vec<String> = description.not_carried.iter().map(|left| left.object.clone()).collect();
    listed.sort();
    Some(Moved { sides, listed })
}
