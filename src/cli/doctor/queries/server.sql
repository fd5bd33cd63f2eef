-- How one gets to the server, what it gives, what it writes down.
SELECT (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()) AS encrypted,
       coalesce(NOT (inet_server_addr() <<= '127.0.0.0/8' OR inet_server_addr() = '::1'), false) AS remote,
       current_setting('ssl')::bool AS offers_tls,
       EXISTS (SELECT FROM regexp_split_to_table(current_setting('listen_addresses'), '\s*,\s*') AS address
               WHERE address NOT IN ('', 'localhost', '127.0.0.1', '::1')) AS listens_afar,
       current_date::text AS today,
       current_setting('max_connections')::int8
         - current_setting('superuser_reserved_connections')::int8
         - coalesce(current_setting('reserved_connections', true)::int8, 0) AS connections,
       (SELECT rolconnlimit::int8 FROM pg_roles WHERE rolname = current_user) AS of_login,
       (SELECT datconnlimit::int8 FROM pg_database WHERE datname = current_database()) AS of_database,
       current_setting('password_encryption') AS encryption,
       current_setting('log_statement') <> 'none'
         OR current_setting('log_min_duration_statement')::interval >= '0' AS logs,
       current_setting('lo_compat_privileges')::bool AS large_objects,
       current_setting('client_connection_check_interval', true) IS NOT NULL AS watches_clients,
       has_table_privilege('pg_hba_file_rules', 'SELECT')
         AND has_function_privilege('pg_hba_file_rules()', 'EXECUTE') AS shows_rules
