#!/bin/sh
# Creates the secrets that docker-compose.yml reads, if they are missing: there is no default password anywhere.
# Other users of this machine cannot enter the folder; the containers' own users can read the files.
set -eu
folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"
chmod 700 "$folder"
for name in lossguard_token trainer_token prometheus_token postgres_password grafana_password; do
    [ -s "$folder/$name" ] || { od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$folder/$name"; }
    chmod 644 "$folder/$name"
done
echo "secrets are in $folder"
