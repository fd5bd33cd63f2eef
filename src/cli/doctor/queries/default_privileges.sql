-- What will be granted on tables to come, in the tenants' schemas $1, to everyone or to the role of
-- another tenant: $2 has their roles, in the same order.
SELECT DISTINCT
       quote_ident(pg_get_userbyid(d.defaclrole)),
       quote_ident(n.nspname),
       CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' ELSE 'SCHEMAS' END,
       coalesce(quote_ident(grantee.rolname), 'PUBLIC')
FROM pg_default_acl d
CROSS JOIN aclexplode(d.defaclacl) AS entry
LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
LEFT JOIN pg_roles grantee ON grantee.oid = entry.grantee
WHERE d.defaclobjtype IN ('r', 'S', 'n')
  AND (d.defaclnamespace = 0 OR n.nspname = ANY ($1))
  AND (entry.grantee = 0
       OR EXISTS (SELECT FROM unnest($1, $2) AS tenant (home, role)
                  WHERE tenant.role = grantee.rolname AND tenant.home IS DISTINCT FROM n.nspname))
LIMIT 20
