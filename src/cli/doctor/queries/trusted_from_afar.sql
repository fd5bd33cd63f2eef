-- Lines of pg_hba.conf that let other machines in without a password.
SELECT line_number
FROM pg_hba_file_rules
WHERE auth_method = 'trust'
  AND type LIKE 'host%'
  AND address NOT IN ('127.0.0.1', '::1', 'localhost', 'samehost')
ORDER BY line_number
LIMIT 5
