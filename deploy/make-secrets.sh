#!/bin/sh
# Make the secrets that docker-compose.yml reads, in deploy/secrets, unless they are there. Prints the first API key.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
chmod 700 secrets
cd secrets
new() { [ -s "$1" ] || head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$1"; }
new postgres
new owner
new app
new redis
redis_url="redis://:$(cat redis)@redis:6379/0"
printf 'requirepass %s\n' "$(cat redis)" >redis.conf
for role in owner app; do
    printf 'LEADRE_DATABASE_URL=postgresql://leadre_%s:%s@postgres:5432/leadre?sslmode=prefer\nLEADRE_REDIS_URL=%s\n' \
        "$role" "$(cat "$role")" "$redis_url" >"$role.env"
done
if [ ! -s api_keys ]; then
    key="leadre_$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')"
    printf 'first:%s\n' "$(printf %s "$key" | sha256sum | cut -d' ' -f1)" >api_keys
    echo "The first API key, shown this once: $key"
fi
# Containers run as other users and read the files as they are mounted; on this machine the folder is closed.
chmod 644 postgres owner app redis.conf api_keys
