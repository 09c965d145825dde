#!/bin/sh
# Secrets are files: sets NAME to the contents of NAME_FILE, then runs the command.
set -eu
for name in LOSSGUARD_TOKEN PGPASSWORD; do
    eval "file=\${${name}_FILE:-}"
    if [ -n "$file" ]; then
        [ -s "$file" ] || { echo "entrypoint: ${name}_FILE=$file is missing or empty" >&2; exit 2; }
        export "$name=$(cat "$file")"
    fi
done
exec "$@"
