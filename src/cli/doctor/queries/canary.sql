-- A table of the schema $1; one for which the role $2 has one of the privileges $3 comes first, and of
-- those one that no row security guards. Whether row security holds that role there.
SELECT format('%I.%I', n.nspname, c.relname), quote_ident(c.relname), guard.holds
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_roles r ON r.rolname = $2
CROSS JOIN LATERAL (
  SELECT c.relrowsecurity
         AND NOT coalesce(r.rolsuper OR r.rolbypassrls, false)
         AND (c.relforcerowsecurity OR NOT coalesce(pg_has_role(r.oid, c.relowner, 'USAGE'), false)) AS holds
) AS guard
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p')
ORDER BY CASE
           WHEN r.oid IS NOT NULL
           THEN has_table_privilege($2, c.oid, $3)
                OR ($3 = 'SELECT' AND has_any_column_privilege($2, c.oid, 'SELECT'))
         END DESC NULLS LAST,
         guard.holds,
         c.relname
LIMIT 1
