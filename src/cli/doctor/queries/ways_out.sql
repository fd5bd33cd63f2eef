-- Functions among $2, of the extensions $3, or in languages that nothing holds, that the role $1 may call.
SELECT coalesce(e.extname, CASE WHEN wild.is_wild THEN l.lanname ELSE 'PostgreSQL' END)::text AS source,
       string_agg(p.oid::regprocedure::text, ', ' ORDER BY p.oid),
       has_function_privilege('public', p.oid, 'EXECUTE') AS for_all,
       e.extname IS NULL AS reaches_files
FROM pg_roles r
JOIN pg_proc p ON has_function_privilege(r.oid, p.oid, 'EXECUTE')
JOIN pg_language l ON l.oid = p.prolang
CROSS JOIN LATERAL (
  SELECT l.lanispl AND NOT l.lanpltrusted AS is_wild
) AS wild
LEFT JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
                     AND d.refclassid = 'pg_extension'::regclass
LEFT JOIN pg_extension e ON e.oid = d.refobjid
WHERE r.rolname = $1
  AND NOT r.rolsuper
  AND has_schema_privilege(r.oid, p.pronamespace, 'USAGE')
  AND (wild.is_wild
       OR e.extname = ANY ($3)
       OR (p.pronamespace = 'pg_catalog'::regnamespace AND p.proname = ANY ($2)))
GROUP BY source, for_all, reaches_files
