-- Takes CREATE on the schema $1 from whomever the role $2 has it of.
SELECT format(
         'REVOKE CREATE ON SCHEMA %I FROM %s;',
         n.nspname,
         CASE entry.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END)
FROM pg_namespace n
CROSS JOIN aclexplode(n.nspacl) AS entry
LEFT JOIN pg_roles r ON r.oid = entry.grantee
WHERE n.nspname = $1
  AND entry.privilege_type = 'CREATE'
  AND entry.grantee <> n.nspowner
  AND (entry.grantee = 0 OR pg_has_role($2, entry.grantee, 'USAGE'))
