-- Three tenants, each with a schema of its own and the same tables in it. Every row says whose it
-- is, so that a row in the wrong answer shows. Run it as a superuser in an empty database.

CREATE ROLE legacy LOGIN PASSWORD 'legacy';
CREATE ROLE innkeeper LOGIN NOINHERIT PASSWORD 'innkeeper';
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

SELECT format($tenant$
    CREATE SCHEMA %1$I;
    CREATE TABLE %1$I.orders (id int PRIMARY KEY, tenant text NOT NULL, item text NOT NULL);
    CREATE TABLE %1$I.visits (id int PRIMARY KEY, seen int NOT NULL);
    INSERT INTO %1$I.orders SELECT n, %1$L, 'item ' || n FROM generate_series(1, 10) n;
    INSERT INTO %1$I.visits SELECT n, 0 FROM generate_series(1, 100) n;
    CREATE ROLE %2$I NOLOGIN;
    GRANT %2$I TO innkeeper;
    GRANT USAGE ON SCHEMA %1$I TO %2$I, legacy;
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %1$I TO %2$I, legacy;
$tenant$, tenant, tenant || '_role')
FROM unnest(ARRAY['acme', 'globex', 'initech']) AS tenant
\gexec
