-- Schemas besides $2 that the role $1 may enter.
SELECT n.nspname::text, quote_ident(n.nspname)
FROM pg_namespace n, pg_roles r
WHERE r.rolname = $1
  AND NOT r.rolsuper
  AND n.nspname <> ALL ($2)
  AND n.nspname NOT LIKE 'pg\_%'
  AND has_schema_privilege($1, n.oid, 'USAGE, CREATE')
LIMIT 3
