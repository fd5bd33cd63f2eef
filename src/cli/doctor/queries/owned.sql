-- Whether the role $2 owns one of the schemas $1, or something in it.
SELECT
FROM pg_namespace n, pg_roles r
WHERE n.nspname = ANY ($1)
  AND r.rolname = $2
  AND (n.nspowner = r.oid
       OR EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relowner = r.oid))
LIMIT 1
