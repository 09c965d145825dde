#!/bin/sh
# Secrets come as files: of NAME_FILE the contents become NAME, then the command runs.
set -eu
for name in LOSSGUARD_TOKEN PGPASSWORD; do
    eval "file=\${${name}_FILE:-}"
    if [ -n "$file" ]; then
        [ -s "$file" ] || { echo "entrypoint: ${name}_FILE=$file is no file with something in it" >&2; exit 2; }
        export "$name=$(cat "$file")"
    fi
done
exec "$@"
