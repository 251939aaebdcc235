-- Everything that one schema holds, as lines `kind name: what it is`; the schema's name stands where $SCHEMA$ is.
WITH s AS (SELECT oid, nspname FROM pg_namespace WHERE nspname = '$SCHEMA$'),
relations AS (SELECT c.* FROM pg_class c JOIN s ON c.relnamespace = s.oid WHERE c.relkind <> 't' AND c.relname NOT LIKE 'pg_toast%')
SELECT 'schema ' || n.nspname || ': ' || pg_get_userbyid(n.nspowner) || coalesce(' ' || n.nspacl::text, '') AS line
FROM pg_namespace n JOIN s USING (oid)
UNION ALL
SELECT CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' WHEN 'v' THEN 'view' WHEN 'm' THEN 'matview' WHEN 'S' THEN 'sequence'
           WHEN 'f' THEN 'foreign' WHEN 'c' THEN 'composite' END || ' ' || c.relname || ': '
       || concat_ws(' ', c.relkind, c.relpersistence, pg_get_userbyid(c.relowner), c.relacl::text, c.reloptions::text, (SELECT 'toast ' || t.reloptions::text FROM pg_class t WHERE t.oid = c.reltoastrelid), 'rls', c.relrowsecurity,
              c.relforcerowsecurity, 'identity', c.relreplident, 'method', (SELECT amname FROM pg_am WHERE oid = c.relam),
              pg_get_expr(c.relpartbound, c.oid), CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END,
              'populated', c.relispopulated, CASE WHEN c.reloftype <> 0 THEN 'of ' || c.reloftype::regtype::text END,
              (SELECT 'child of ' || string_agg(i.inhparent::regclass::text, ',' ORDER BY i.inhseqno) FROM pg_inherits i WHERE i.inhrelid = c.oid),
              CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END,
              (SELECT concat_ws(' ', q.seqtypid::regtype::text, q.seqstart, q.seqincrement, q.seqmax, q.seqmin, q.seqcache, q.seqcycle)
               FROM pg_sequence q WHERE q.seqrelid = c.oid),
              (SELECT 'owned by ' || d.refobjid::regclass::text || '.' || a.attname FROM pg_depend d
               JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
               WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') AND c.relkind = 'S'),
              (SELECT concat_ws(' ', v.srvname, f.ftoptions::text) FROM pg_foreign_table f JOIN pg_foreign_server v ON v.oid = f.ftserver WHERE f.ftrelid = c.oid))
FROM relations c WHERE c.relkind NOT IN ('i', 'I')
UNION ALL
SELECT 'column ' || c.relname || '.' || a.attname || ': '
       || concat_ws(' ', format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN 'not null' END, pg_get_expr(d.adbin, d.adrelid),
              'identity=' || nullif(a.attidentity::text, ''), 'generated=' || nullif(a.attgenerated::text, ''),
              (SELECT 'collate ' || n.nspname || '.' || l.collname FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace
               WHERE l.oid = a.attcollation AND l.collname <> 'default'),
              'storage', a.attstorage, 'compression=' || nullif(a.attcompression::text, ''), 'target=' || nullif(a.attstattarget::int, -1)::text,
              a.attoptions::text, a.attacl::text, a.attfdwoptions::text, CASE WHEN NOT a.attislocal THEN 'inherited' END)
FROM relations c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum WHERE c.relkind NOT IN ('S', 'v', 'm', 'i', 'I')
UNION ALL
SELECT 'constraint ' || coalesce(c.relname, t.typname) || '.' || k.conname || ': ' || concat_ws(' ', pg_get_constraintdef(k.oid), 'validated', k.convalidated,
              CASE WHEN k.contype = 'c' AND k.connoinherit THEN 'no inherit' END, CASE WHEN k.coninhcount > 0 AND k.contype <> 'n' THEN 'from above' END)
FROM pg_constraint k JOIN s ON k.connamespace = s.oid LEFT JOIN pg_class c ON c.oid = k.conrelid LEFT JOIN pg_type t ON t.oid = k.contypid
WHERE k.contype <> 't' AND NOT (k.contype = 'n' AND k.conname LIKE '%\_not\_null')
UNION ALL
SELECT 'index ' || c.relname || ': ' || concat_ws(' ', pg_get_indexdef(c.oid), 'options', c.reloptions::text, 'clustered', i.indisclustered, 'identity', i.indisreplident,
              'valid', i.indisvalid, (SELECT 'part of ' || h.inhparent::regclass::text FROM pg_inherits h WHERE h.inhrelid = c.oid),
              (SELECT 'targets ' || string_agg(a.attnum || '=' || a.attstattarget::int, ',' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attstattarget >= 0))
FROM relations c JOIN pg_index i ON i.indexrelid = c.oid
UNION ALL
SELECT 'trigger ' || c.relname || '.' || t.tgname || ': ' || pg_get_triggerdef(t.oid) || ' ' || t.tgenabled::text
FROM pg_trigger t JOIN relations c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal
UNION ALL
SELECT 'rule ' || c.relname || '.' || r.rulename || ': ' || pg_get_ruledef(r.oid) || ' ' || r.ev_enabled::text
FROM pg_rewrite r JOIN relations c ON c.oid = r.ev_class WHERE r.rulename <> '_RETURN'
UNION ALL
SELECT 'policy ' || c.relname || '.' || p.polname || ': ' || concat_ws(' ', p.polcmd, p.polpermissive,
              (SELECT string_agg(coalesce(pg_get_userbyid(nullif(r, 0))::text, 'public'), ',') FROM unnest(p.polroles) r),
              pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
FROM pg_policy p JOIN relations c ON c.oid = p.polrelid
UNION ALL
SELECT 'statistics ' || x.stxname || ': ' || pg_get_statisticsobjdef(x.oid) || ' ' || coalesce(x.stxstattarget::int, -1)
FROM pg_statistic_ext x JOIN s ON x.stxnamespace = s.oid
UNION ALL
SELECT 'function ' || p.oid::regprocedure::text || ': ' || pg_get_functiondef(p.oid) || concat_ws(' ', pg_get_userbyid(p.proowner), p.proacl::text)
FROM pg_proc p JOIN s ON p.pronamespace = s.oid WHERE p.prokind <> 'a' AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e')
UNION ALL
SELECT 'aggregate ' || p.oid::regprocedure::text || ': ' || concat_ws(' ', a.aggtransfn, a.aggfinalfn, a.aggtranstype::regtype::text, a.agginitval, a.aggkind)
FROM pg_proc p JOIN s ON p.pronamespace = s.oid JOIN pg_aggregate a ON a.aggfnoid = p.oid WHERE NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e')
UNION ALL
SELECT 'type ' || t.typname || ': ' || concat_ws(' ', t.typtype, pg_get_userbyid(t.typowner), t.typacl::text,
              CASE WHEN t.typtype = 'd' THEN concat_ws(' ', format_type(t.typbasetype, t.typtypmod), t.typnotnull, t.typdefault, (SELECT collname FROM pg_collation l WHERE l.oid = t.typcollation)) END,
              (SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid),
              (SELECT concat_ws(' ', r.rngsubtype::regtype::text, r.rngmultitypid::regtype::text, r.rngcanonical, r.rngsubdiff) FROM pg_range r WHERE r.rngtypid = t.oid),
              CASE WHEN t.typtype = 'b' THEN concat_ws(' ', t.typinput, t.typoutput, t.typlen, t.typbyval, t.typstorage) END)
FROM pg_type t JOIN s ON t.typnamespace = s.oid LEFT JOIN pg_class c ON c.oid = t.typrelid
WHERE NOT (t.typcategory = 'A' AND t.typelem <> 0) AND coalesce(c.relkind, 'c') = 'c' AND t.typtype <> 'm' AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_type'::regclass AND e.objid = t.oid AND e.deptype = 'e')
UNION ALL
SELECT 'operator ' || o.oid::regoperator::text || ': ' || concat_ws(' ', o.oprcode, o.oprrest, o.oprjoin, o.oprcom::regoperator::text, o.oprnegate::regoperator::text)
FROM pg_operator o JOIN s ON o.oprnamespace = s.oid WHERE NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_operator'::regclass AND e.objid = o.oid AND e.deptype = 'e')
UNION ALL
SELECT 'opclass ' || o.opcname || ': ' || concat_ws(' ', o.opcintype::regtype::text, o.opcdefault, (SELECT opfname FROM pg_opfamily f WHERE f.oid = o.opcfamily),
              (SELECT string_agg(m.amopstrategy || ' ' || m.amopopr::regoperator::text, ',' ORDER BY m.amopstrategy) FROM pg_amop m WHERE m.amopfamily = o.opcfamily))
FROM pg_opclass o JOIN s ON o.opcnamespace = s.oid WHERE NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_opclass'::regclass AND e.objid = o.oid AND e.deptype = 'e')
UNION ALL
SELECT 'collation ' || l.collname || ': ' || (to_jsonb(l) - 'oid' - 'collnamespace' - 'collowner' - 'collversion' - 'collencoding')::text FROM pg_collation l JOIN s ON l.collnamespace = s.oid
UNION ALL
SELECT 'dictionary ' || d.dictname || ': ' || concat_ws(' ', (SELECT tmplname FROM pg_ts_template m WHERE m.oid = d.dicttemplate), d.dictinitoption)
FROM pg_ts_dict d JOIN s ON d.dictnamespace = s.oid
UNION ALL
SELECT 'configuration ' || g.cfgname || ': ' || coalesce((SELECT string_agg(concat_ws(' ', m.maptokentype, m.mapseqno, m.mapdict::regdictionary::text), ',')
              FROM (SELECT * FROM pg_ts_config_map WHERE mapcfg = g.oid ORDER BY maptokentype, mapseqno) m), '')
FROM pg_ts_config g JOIN s ON g.cfgnamespace = s.oid
UNION ALL
SELECT 'conversion ' || v.conname || ': ' || concat_ws(' ', pg_encoding_to_char(v.conforencoding), pg_encoding_to_char(v.contoencoding), v.conproc)
FROM pg_conversion v JOIN s ON v.connamespace = s.oid
UNION ALL
SELECT 'comment ' || i.type || ' ' || i.identity || ': ' || d.description
FROM pg_description d CROSS JOIN LATERAL pg_identify_object(d.classoid, d.objoid, d.objsubid) i
WHERE d.objoid >= 16384 AND (i.schema = '$SCHEMA$' OR i.identity = '$SCHEMA$' OR i.identity LIKE '%$SCHEMA$.%')
ORDER BY 1
