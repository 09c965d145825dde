#!/bin/bash
# Images under the names that docker-compose.yml and the Dockerfile use, for a machine that can pull none: Debian by debootstrap,
# with Debian's PostgreSQL, Prometheus and Alertmanager, and the Python that make uses. The engine is the one of DOCKER_HOST.
#
#   stand_ins.sh FOLDER PYTHON_PREFIX
set -euo pipefail
folder=$1 prefix=$2
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
image_of() { grep -oE "(image: |PYTHON=)$1[^ ]*" docker-compose.yml deploy/Dockerfile | sed -E 's/.*(image: |PYTHON=)//' | head -n 1; }

base() { # $1: its name, $2: further packages
    debootstrap --variant=minbase --include="ca-certificates,$2" "$suite" "$folder/$1" http://deb.debian.org/debian >"$folder/$1.log"
    rm -rf "$folder/$1"/{var/cache/apt,var/lib/apt/lists,usr/share/doc,usr/share/locale,usr/share/man}/*
    cp /etc/ssl/certs/ca-certificates.crt "$folder/$1/etc/ssl/certs/"
}

import() { # $1: folder, $2: name, further: what its configuration says
    local changes=() change
    for change in "${@:3}"; do changes+=(--change "$change"); done
    tar --create --directory="$folder/$1" . | docker import "${changes[@]}" - "$2" >/dev/null
    echo "stand-in for $2"
}

# The image of Python: this machine's own, where the official one has it, with the wheels and the index that pip knows here.
base python python3  # for the libraries that it needs
tar --create --directory="$prefix" --exclude=site-packages --exclude=test --exclude=__pycache__ bin lib |
    tar --extract --directory="$folder/python/usr/local"
ln -sf python3 "$folder/python/usr/local/bin/python"
chroot "$folder/python" ldconfig
if [ -d "${PIP_FIND_LINKS:-}" ]; then
    mkdir -p "$folder/python$PIP_FIND_LINKS"
    cp "$PIP_FIND_LINKS"/*.whl "$folder/python$PIP_FIND_LINKS/"
    printf '[global]\nfind-links = %s\n' "$PIP_FIND_LINKS" >"$folder/python/etc/pip.conf"
fi
printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' | cat - "$folder/python/etc/pip.conf" 2>/dev/null |
    awk '!seen[$0]++' >"$folder/pip.conf"
mv "$folder/pip.conf" "$folder/python/etc/pip.conf"
import python "$(image_of python)" 'ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin'

base servers postgresql,prometheus,prometheus-alertmanager
ln -s prometheus-alertmanager "$folder/servers/usr/bin/alertmanager"
cp tests/compose/postgres.sh "$folder/servers/usr/local/bin/postgres-entrypoint"
ln -s /usr/lib/postgresql/*/bin/postgres "$folder/servers/usr/local/bin/postgres" 2>/dev/null || true
install --directory --owner=65534 --group=65534 "$folder/servers"/{prometheus,alertmanager}
import servers "$(image_of postgres)" 'ENTRYPOINT ["/usr/local/bin/postgres-entrypoint"]'
import servers "$(image_of prom/prometheus)" 'ENTRYPOINT ["/usr/bin/prometheus"]'
import servers "$(image_of prom/alertmanager)" 'ENTRYPOINT ["/usr/bin/alertmanager"]'
