-- What lets the role $1 ask other servers, and the statement that takes it away: rights on foreign data
-- wrappers and servers, and user mappings, by which PostgreSQL logs in there as somebody.
WITH who AS (
  SELECT oid, quote_ident(rolname) AS name FROM pg_roles WHERE rolname = $1 AND NOT rolsuper
), granted AS (
  SELECT 'foreign data wrapper' AS kind, quote_ident(fdwname) AS name, fdwacl AS acl FROM pg_foreign_data_wrapper
  UNION ALL
  SELECT 'foreign server', quote_ident(srvname), srvacl FROM pg_foreign_server
), grants AS (
  SELECT kind, granted.name, entry.grantee, coalesce(quote_ident(grantee.rolname), 'PUBLIC') AS loser
  FROM granted
  CROSS JOIN aclexplode(acl) AS entry
  LEFT JOIN pg_roles grantee ON grantee.oid = entry.grantee
  WHERE entry.privilege_type = 'USAGE'
)
SELECT format('%s may use the %s %s', who.name, kind, grants.name),
       format('REVOKE USAGE ON %s %s FROM %s CASCADE;', upper(kind), grants.name, loser)
FROM who
JOIN grants ON grants.grantee = 0 OR pg_has_role(who.oid, grants.grantee, 'USAGE')
UNION ALL
SELECT format('%s is somebody on the foreign server %I, by a user mapping', who.name, srvname),
       format('DROP USER MAPPING IF EXISTS FOR %s SERVER %I;', CASE umuser WHEN 0 THEN 'PUBLIC' ELSE who.name END, srvname)
FROM who
JOIN pg_user_mappings ON umuser IN (0, who.oid)
ORDER BY 1
