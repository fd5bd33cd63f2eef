-- The statements that close every way of the role $1 into the schema $2: grants to it, to everyone
-- and to roles that it is a member of, and ownership.
WITH who AS (
  SELECT oid, rolsuper, quote_ident(rolname) AS name FROM pg_roles WHERE rolname = $1
), place AS (
  SELECT oid, nspowner, nspacl, quote_ident(nspname) AS name FROM pg_namespace WHERE nspname = $2
), things AS (
  SELECT c.* FROM pg_class c JOIN place ON place.oid = c.relnamespace
), entries AS (
  SELECT aclexplode(nspacl) AS entry, nspowner AS owner FROM place
  UNION ALL
  SELECT aclexplode(relacl), relowner FROM things
  UNION ALL
  SELECT aclexplode(attacl), relowner FROM pg_attribute JOIN things ON things.oid = attrelid
), grantees AS (
  SELECT DISTINCT (entry).grantee AS oid FROM entries WHERE (entry).grantee <> owner
  UNION
  SELECT relowner FROM things
  UNION
  SELECT nspowner FROM place
  UNION
  SELECT oid FROM pg_roles WHERE rolname IN ('pg_read_all_data', 'pg_write_all_data')
), hops AS (
  SELECT DISTINCT quote_ident(hop.rolname) AS name
  FROM who
  JOIN pg_auth_members m ON m.member = who.oid
  JOIN pg_roles hop ON hop.oid = m.roleid
  JOIN grantees g ON g.oid <> 0 AND g.oid <> who.oid AND pg_has_role(hop.oid, g.oid, 'MEMBER')
  WHERE NOT who.rolsuper
), losers AS (
  SELECT 'PUBLIC' AS name FROM grantees WHERE oid = 0
  UNION ALL
  SELECT who.name FROM who JOIN grantees USING (oid)
), revocations (rank, pattern) AS (
  VALUES (5, 'REVOKE ALL ON ALL TABLES IN SCHEMA %s FROM %s;'),
         (6, 'REVOKE ALL ON ALL SEQUENCES IN SCHEMA %s FROM %s;'),
         (7, 'REVOKE ALL ON SCHEMA %s FROM %s;')
), ways (rank, statement) AS (
  SELECT 1, format('ALTER ROLE %s NOSUPERUSER;', name) FROM who WHERE rolsuper
  UNION ALL
  SELECT 2, format('REVOKE %s FROM %s;', hops.name, who.name) FROM hops, who
  UNION ALL
  SELECT 3, format('ALTER SCHEMA %s OWNER TO CURRENT_USER;', place.name)
  FROM place JOIN who ON who.oid = place.nspowner
  UNION ALL
  (SELECT 4, format('ALTER TABLE %s.%I OWNER TO CURRENT_USER;', place.name, relname)
   FROM place, things JOIN who ON who.oid = things.relowner
   WHERE relkind IN ('r', 'p', 'v', 'm', 'f')
   ORDER BY relname
   LIMIT 50)
  UNION ALL
  SELECT rank, format(pattern, place.name, losers.name) FROM place, losers, revocations
)
SELECT statement FROM ways ORDER BY rank, statement
