-- A table of the schema $1; one for which the role $2 has one of the privileges $3 comes first.
SELECT format('%I.%I', n.nspname, c.relname), quote_ident(c.relname)
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p')
ORDER BY CASE
           WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = $2)
           THEN has_table_privilege($2, c.oid, $3)
                OR ($3 = 'SELECT' AND has_any_column_privilege($2, c.oid, 'SELECT'))
         END DESC NULLS LAST,
         c.relname
LIMIT 1
