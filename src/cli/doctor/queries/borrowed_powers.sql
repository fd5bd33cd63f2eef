-- Functions that $1 may call and that run as somebody who may enter one of the schemas $2; whether the
-- path of their names is theirs, and whether $1 may make something in $3, where its own path begins.
SELECT p.oid::regprocedure::text,
       quote_ident(owner.rolname),
       coalesce(array_to_string(p.proconfig, ','), '') LIKE '%search_path=%' AS is_pinned,
       has_function_privilege('public', p.oid, 'EXECUTE') AS for_all,
       quote_ident(n.nspname),
       coalesce((SELECT has_schema_privilege($1, home.oid, 'CREATE') FROM pg_namespace home
                 WHERE home.nspname = $3), false) AS makes_names
FROM pg_proc p
JOIN pg_namespace n ON n.oid = p.pronamespace
JOIN pg_roles owner ON owner.oid = p.proowner
WHERE p.prosecdef
  AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND owner.rolname <> $1
  AND has_schema_privilege($1, n.oid, 'USAGE')
  AND has_function_privilege($1, p.oid, 'EXECUTE')
  AND (owner.rolsuper
       OR EXISTS (SELECT FROM pg_namespace other
                  WHERE other.nspname = ANY ($2) AND has_schema_privilege(owner.oid, other.oid, 'USAGE')))
ORDER BY is_pinned, 1
LIMIT 5
