-- Settings among $2 that the role $1 brings along.
SELECT split_part(setting, '=', 1),
       s.setdatabase <> 0 AS is_of_database,
       quote_ident(current_database())
FROM pg_db_role_setting s
JOIN pg_roles r ON r.oid = s.setrole
CROSS JOIN unnest(s.setconfig) AS setting
WHERE r.rolname = $1
  AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
  AND split_part(setting, '=', 1) = ANY ($2)
