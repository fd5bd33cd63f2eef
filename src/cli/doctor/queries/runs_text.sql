-- Functions that $1 may call, with its own rights, and whose body runs text that it makes: PL/pgSQL's EXECUTE,
-- or any language whose code the server does not read. With each, the other spellings that call it, and
-- whether one of them can be told from something harmless by the catalogue alone. Extensions answer for
-- their own.
WITH found AS (
  SELECT p.oid, p.oid::regprocedure::text AS function, l.lanname AS language, p.proargtypes AS arguments,
         has_function_privilege('public', p.oid, 'EXECUTE') AS for_all
  FROM pg_proc p
  JOIN pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_language l ON l.oid = p.prolang
  WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
    AND NOT p.prosecdef
    AND p.prorettype <> 'trigger'::regtype
    AND (CASE l.lanname
           WHEN 'plpgsql' THEN p.prosrc ~* '\mexecute\M'
           ELSE l.lanname NOT IN ('internal', 'c', 'sql')
         END)
    AND has_schema_privilege($1, n.oid, 'USAGE')
    AND has_function_privilege($1, p.oid, 'EXECUTE')
    AND NOT EXISTS (SELECT FROM pg_depend d
                    WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
), spelled AS (
  SELECT f.oid, 'the operator ' || o.oid::regoperator::text AS spelling
  FROM found f JOIN pg_operator o ON o.oprcode = f.oid
  UNION ALL
  SELECT f.oid, 'the cast ' || format_type(c.castsource, NULL) || ' AS ' || format_type(c.casttarget, NULL)
  FROM found f JOIN pg_cast c ON c.castfunc = f.oid
  UNION ALL
  SELECT f.oid, 'the check ' || quote_ident(c.conname) || ' of the domain ' || format_type(c.contypid, NULL)
  FROM found f
  JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.refclassid = 'pg_proc'::regclass
                  AND d.refobjid = f.oid
  JOIN pg_constraint c ON c.oid = d.objid AND c.contypid <> 0
  UNION ALL
  SELECT f.oid, 'a field of a row: it takes ' || format_type(t.oid, NULL)
  FROM found f
  JOIN pg_type t ON t.oid = f.arguments[0] AND array_length(f.arguments::oid[], 1) = 1
  WHERE t.typtype = 'c' OR t.typname IN ('record', 'anyelement', 'anynonarray', 'anycompatible')
)
SELECT f.function, f.language, f.for_all,
       coalesce(string_agg(s.spelling, ', ' ORDER BY s.spelling), '') AS spellings
FROM found f LEFT JOIN spelled s USING (oid)
GROUP BY f.oid, f.function, f.language, f.for_all
ORDER BY count(s.spelling) = 0, f.function
LIMIT 20
