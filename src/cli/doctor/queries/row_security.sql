-- Tables of the schemas $2 that the role $1 may use and whose policies do not hold it, because row
-- security is off, or because the table's owner is exempt.
SELECT format('%I.%I', n.nspname, c.relname), c.relrowsecurity AS is_on
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_roles r ON r.rolname = $1
WHERE n.nspname = ANY ($2)
  AND c.relkind IN ('r', 'p')
  AND NOT (r.rolsuper OR r.rolbypassrls)
  AND EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid)
  AND has_schema_privilege(r.oid, n.oid, 'USAGE')
  AND (has_table_privilege(r.oid, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
       OR has_any_column_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE'))
  AND (NOT c.relrowsecurity
       OR (NOT c.relforcerowsecurity AND pg_has_role(r.oid, c.relowner, 'USAGE')))
ORDER BY 1
LIMIT 5
