-- The demo's world: shared tables in `public`, and for each tenant a schema, a role and tables with
-- the same names. Running it again changes nothing.
--
-- Each row says whose it is, so that a wrong answer shows: a tenant's tables accept no other mark.

-- What the gateway logs in as. It owns nothing, and has a tenant's rights only after SET ROLE.
do $$
begin
    if not exists (select from pg_roles where rolname = 'gateway') then
        create role gateway login noinherit;
    end if;
end $$;

revoke create on schema public from public;

create table if not exists public.tenants (
    id text primary key,
    name text not null,
    schema_name text not null unique,
    role_name text not null unique,
    state text not null default 'active' check (state in ('active', 'suspended', 'held')),
    buildings int not null
);

insert into public.tenants (id, name, schema_name, role_name, state, buildings) values
    ('acme', 'Acme', 'tenant_acme', 'acme_role', 'active', 3),
    -- A name that is wrong unless it is quoted.
    ('globex', 'Globex', 'Globex Corp', 'globex_role', 'active', 4),
    ('initech', 'Initech', 'tenant_initech', 'initech_role', 'active', 5),
    ('umbrella', 'Umbrella', 'tenant_umbrella', 'umbrella_role', 'suspended', 1)
on conflict do nothing;

create table if not exists public.roles (
    id int primary key,
    name text not null,
    tenant text not null default 'shared' check (tenant = 'shared')
);

create table if not exists public.users (
    id int primary key,
    name text not null,
    role_id int not null references public.roles,
    tenant text not null default 'shared' check (tenant = 'shared')
);

-- Who logs in does not know a tenant yet.
create table if not exists public.user_lookup (
    email text primary key,
    tenant_id text not null references public.tenants
);

insert into public.roles (id, name) values (1, 'operator') on conflict do nothing;
insert into public.users (id, name, role_id) values (1, 'Olga, who runs the service', 1) on conflict do nothing;

grant select on public.tenants, public.user_lookup to gateway;

do $$
declare
    t public.tenants;
begin
    for t in select * from public.tenants loop
        if not exists (select from pg_roles where rolname = t.role_name) then
            execute format('create role %I nologin', t.role_name);
        end if;
        execute format('grant %I to gateway', t.role_name);
        execute format('create schema if not exists %I', t.schema_name);

        execute format(
            'create table if not exists %1$I.roles (
                id int primary key,
                name text not null,
                tenant text not null default %2$L check (tenant = %2$L))',
            t.schema_name, t.id);
        execute format(
            'create table if not exists %1$I.users (
                id int primary key,
                name text not null,
                role_id int not null references %1$I.roles,
                tenant text not null default %2$L check (tenant = %2$L))',
            t.schema_name, t.id);
        execute format(
            'create table if not exists %1$I.buildings (
                id int primary key,
                name text not null,
                tenant text not null default %2$L check (tenant = %2$L))',
            t.schema_name, t.id);
        execute format(
            'create table if not exists %1$I.floors (
                id bigint generated always as identity primary key,
                building_id int not null references %1$I.buildings,
                name text not null,
                tenant text not null default %2$L check (tenant = %2$L))',
            t.schema_name, t.id);

        execute format(
            'insert into %1$I.roles (id, name) values (1, %2$L), (2, %3$L) on conflict do nothing',
            t.schema_name, t.name || ' janitor', t.name || ' manager');
        execute format(
            'insert into %1$I.users (id, name, role_id) values (1, %2$L, 1), (2, %3$L, 2) on conflict do nothing',
            t.schema_name, 'Ada of ' || t.name, 'Bob of ' || t.name);
        -- The same ids everywhere: an id alone never tells whose row it is.
        execute format(
            'insert into %1$I.buildings (id, name)
             select n, %2$L || n from generate_series(1, %3$s) as n on conflict do nothing',
            t.schema_name, t.name || ' house ', t.buildings);
        execute format(
            'insert into %1$I.floors (building_id, name)
             select b.id, b.name || '', floor '' || n from %1$I.buildings b, generate_series(0, 1) as n
             where not exists (select from %1$I.floors)',
            t.schema_name);

        execute format('grant usage on schema %I to %I', t.schema_name, t.role_name);
        execute format('grant select, insert on all tables in schema %I to %I', t.schema_name, t.role_name);
        execute format('grant usage on all sequences in schema %I to %I', t.schema_name, t.role_name);

        insert into public.user_lookup (email, tenant_id)
        values ('ada@' || t.id || '.example', t.id), ('bob@' || t.id || '.example', t.id)
        on conflict do nothing;
    end loop;
end $$;
