-- Roles of $2 that $1 may use or become, and the direct grant that leads there.
SELECT reached.rolname::text,
       quote_ident(reached.rolname),
       quote_ident(hop.rolname),
       quote_ident(member.rolname)
FROM pg_auth_members m
JOIN pg_roles hop ON hop.oid = m.roleid
JOIN pg_roles member ON member.oid = m.member
JOIN pg_roles reached ON pg_has_role(hop.oid, reached.oid, 'MEMBER')
WHERE member.rolname = $1 AND reached.rolname = ANY ($2) AND reached.rolname <> $1
