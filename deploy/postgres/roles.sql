-- Least-privilege roles in PostgreSQL. docs/operations.md, "Roles in PostgreSQL".
--
-- Run it once in LEADRE's database as a superuser, before the first `alembic upgrade head`; running it again is harmless.
-- It sets no passwords: `ALTER ROLE leadre_app PASSWORD '…'` for each role that shall log in.
--
--   leadre_owner   owns the tables: `alembic upgrade head`, `feast apply`. Used by deployments, not by servers.
--   leadre_app     servers and workers: reads and writes rows, makes and drops months by functions, owns nothing of ours.
--   leadre_feast   `leadre dataset ranking`, Feast's point-in-time joins: reads, and makes scratch tables.
--   leadre_reader  reads: dashboards and people.

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['leadre_owner', 'leadre_app', 'leadre_feast', 'leadre_reader'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', role);
        END IF;
    END LOOP;
    EXECUTE format('ALTER DATABASE %I OWNER TO leadre_owner', current_database());
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format(
        'GRANT CONNECT, TEMPORARY ON DATABASE %I TO leadre_app, leadre_feast', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO leadre_reader', current_database());
END $$;

ALTER SCHEMA public OWNER TO leadre_owner;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
CREATE SCHEMA IF NOT EXISTS partitions AUTHORIZATION leadre_owner;
CREATE SCHEMA IF NOT EXISTS feast_registry AUTHORIZATION leadre_owner;
GRANT USAGE ON SCHEMA public, partitions, feast_registry TO leadre_app, leadre_feast, leadre_reader;
-- Scratch tables of point-in-time joins, also of the drift check in workers. What a role made there is its own.
GRANT CREATE ON SCHEMA feast_registry TO leadre_app, leadre_feast;

-- Feast's join on analysed tables must not plan nested loops (docs/operations.md, "A large PostgreSQL").
ALTER ROLE leadre_feast SET enable_nestloop = off;
-- A runaway statement of a person or a dashboard ends.
ALTER ROLE leadre_reader SET default_transaction_read_only = on;
ALTER ROLE leadre_reader SET statement_timeout = '60s';

-- What is there already, and what the owner will make.
DO $$
DECLARE
    schema text;
BEGIN
    FOREACH schema IN ARRAY ARRAY['public', 'partitions', 'feast_registry'] LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %I TO leadre_app', schema);
        EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO leadre_feast, leadre_reader', schema);
        EXECUTE format('GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA %I TO leadre_app', schema);
        EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE leadre_owner IN SCHEMA %I '
            'GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO leadre_app', schema);
        EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE leadre_owner IN SCHEMA %I '
            'GRANT SELECT ON TABLES TO leadre_feast, leadre_reader', schema);
        EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE leadre_owner IN SCHEMA %I '
            'GRANT USAGE, SELECT ON SEQUENCES TO leadre_app', schema);
        EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE leadre_owner IN SCHEMA %I '
            'GRANT EXECUTE ON FUNCTIONS TO leadre_app', schema);
        EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA %I TO leadre_app', schema);
    END LOOP;
END $$;
