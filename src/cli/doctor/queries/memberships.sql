-- Roles of $2 that $1 may use or become, the direct grant that leads there, and what it gives. From
-- PostgreSQL 16 on a membership can give less than all of it; before, the columns are not there.
SELECT reached.rolname::text,
       quote_ident(reached.rolname),
       quote_ident(hop.rolname),
       quote_ident(member.rolname),
       options.uses,
       options.becomes
FROM pg_auth_members m
JOIN pg_roles hop ON hop.oid = m.roleid
JOIN pg_roles member ON member.oid = m.member
JOIN pg_roles reached ON pg_has_role(hop.oid, reached.oid, 'MEMBER')
CROSS JOIN LATERAL (
  SELECT coalesce((to_jsonb(m) ->> 'inherit_option')::bool, member.rolinherit) AS uses,
         coalesce((to_jsonb(m) ->> 'set_option')::bool, true) AS becomes
) AS options
WHERE member.rolname = $1
  AND reached.rolname = ANY ($2)
  AND reached.rolname <> $1
  AND (options.uses OR options.becomes OR m.admin_option)
