#!/bin/sh
# Run by the image of PostgreSQL when its data folder is new: roles, and passwords of those that log in.
set -eu
psql --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --file /roles.sql
for role in owner app; do
    printf "ALTER ROLE leadre_%s PASSWORD '%s';\n" "$role" "$(cat "/run/secrets/$role")"
done | psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB"
