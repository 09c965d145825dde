#!/bin/bash
# Images under the names that docker-compose.yml and the Dockerfile use, for a machine that can pull none: Debian by debootstrap,
# from the mirror that apt uses here, with Debian's PostgreSQL, Prometheus and Alertmanager, and with this machine's Python.
# It uses the engine of DOCKER_HOST.
#
#   stand_ins.sh FOLDER PYTHON_PREFIX     FOLDER/pip.conf becomes the pip.conf of the Python image
set -euo pipefail
folder=$1 prefix=$2
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
apts_mirror() { apt-get indextargets --format '$(REPO_URI)' "Codename: $suite" "Origin: Debian" "Created-By: Packages" | head -n 1; }
mirror=$(apts_mirror)
[ -n "$mirror" ] || { apt-get update -qq && mirror=$(apts_mirror); }
image_of() { grep -oE "(image: |PYTHON=)$1:[^ $]*" docker-compose.yml deploy/Dockerfile | sed -E 's/.*(image: |PYTHON=)//' | head -n 1; }

base() { # $1: name, $2: further packages
    mkdir -p "$folder/packages"
    debootstrap --variant=minbase --cache-dir="$folder/packages" --include="ca-certificates,$2" "$suite" "$folder/$1" "$mirror" \
        >"$folder/$1.log" || { tail -n 5 "$folder/$1.log" >&2; exit 1; }
    rm -rf "$folder/$1"/{var/cache/apt,var/lib/apt/lists,usr/share/doc,usr/share/locale,usr/share/man}/*
}

import() { # $1: folder, $2: image name, further: Dockerfile instructions
    local changes=() change
    for change in "${@:3}"; do changes+=(--change "$change"); done
    tar --create --directory="$folder/$1" . | docker import "${changes[@]}" - "$2" >/dev/null
}

# The Python image: this machine's Python at the path of the official image, with the libraries that it needs (those of Debian's
# python3) and this machine's certificates.
base python python3
tar --create --directory="$prefix" --exclude=site-packages --exclude=sitecustomize.py --exclude=test --exclude=__pycache__ \
    bin/python3 "bin/$(readlink "$prefix/bin/python3")" lib | tar --extract --directory="$folder/python/usr/local"
chroot "$folder/python" ldconfig
chroot "$folder/python" /usr/local/bin/python3 -m ensurepip >/dev/null
ln -s python3 "$folder/python/usr/local/bin/python"
ln -s pip3 "$folder/python/usr/local/bin/pip"
cp /etc/ssl/certs/ca-certificates.crt "$folder/python/etc/ssl/certs/"
cp "$folder/pip.conf" "$folder/python/etc/pip.conf"
import python "$(image_of python)" 'ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin'

base servers postgresql,prometheus,prometheus-alertmanager
install tests/compose/postgres.sh "$folder/servers/usr/local/bin/postgres-entrypoint"
install --directory --owner=65534 --group=65534 "$folder/servers"/{prometheus,alertmanager}
chroot "$folder/servers" install --directory --owner=postgres --group=postgres /var/lib/postgresql/data
import servers "$(image_of postgres)" 'ENTRYPOINT ["/usr/local/bin/postgres-entrypoint"]'
import servers "$(image_of prom/prometheus)" 'ENTRYPOINT ["/usr/bin/prometheus"]'
import servers "$(image_of prom/alertmanager)" 'ENTRYPOINT ["/usr/bin/prometheus-alertmanager"]'
