#!/bin/sh
# Pins the images of others that docker-compose.yml names, the base of our own included: pulls each, and writes the digest of what
# it got into .env as NAME_DIGEST=@sha256:.., which docker compose reads. Other lines of .env stay. Call it again to renew them.
set -eu
cd "$(dirname "$0")/.."
found=$(mktemp)
trap 'rm -f "$found"' EXIT
grep -oE '[a-z/]+:[v0-9][^ $]*[$][{][A-Z]+_DIGEST' docker-compose.yml | sort -u | while IFS='$' read -r image variable; do
    docker pull --quiet "$image" >/dev/null
    digest=$(docker image inspect --format '{{index .RepoDigests 0}}' "$image" | sed -nE 's/.*(@sha256:[0-9a-f]{64})$/\1/p')
    [ -n "$digest" ] || { echo "digests.sh: the engine knows no digest of $image" >&2; exit 1; }
    echo "${variable#?}=$digest"
done >"$found"
[ "$(wc -l <"$found")" -eq 5 ] || { echo "digests.sh: not every image could be pulled; .env is unchanged" >&2; exit 1; }
[ ! -f .env ] || grep -vE '^[A-Z]+_DIGEST=' .env >>"$found" || true
cat "$found" >.env
grep -E '^[A-Z]+_DIGEST=' .env
