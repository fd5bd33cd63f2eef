-- Lines of pg_hba.conf that let other machines in without a password, or take it over the wire as it is.
SELECT line_number, auth_method = 'trust' AS without_password
FROM pg_hba_file_rules
WHERE (auth_method = 'trust' OR (auth_method = 'password' AND type <> 'hostssl'))
  AND type LIKE 'host%'
  AND address NOT IN ('127.0.0.1', '::1', 'localhost', 'samehost')
ORDER BY line_number
LIMIT 10
