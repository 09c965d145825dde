#!/usr/bin/env bash
# Installs the system programs that the tests use (on Debian, as root). Elsewhere it prints what is missing; pytest then skips the
# tests that need them, or fails them if CI=true.
set -u
missing=()
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
command -v chromium >/dev/null || missing+=(chromium)
command -v promtool >/dev/null || missing+=(prometheus)
command -v amtool >/dev/null || missing+=(prometheus-alertmanager)
[ -x /usr/sbin/nginx ] || command -v nginx >/dev/null || missing+=(nginx-light)
command -v kustomize >/dev/null || missing+=(kustomize)
command -v openssl >/dev/null || missing+=(openssl)
# An S3-compatible server, in an environment of its own: its botocore holds python-dateutil below 3.
object_store=/opt/lossguard-object-store
if ! command -v moto_server >/dev/null; then
    if [ "$(id -u)" = 0 ]; then
        echo "installing for the tests: moto_server"
        { python3 -m venv "$object_store" && "$object_store/bin/pip" install -q 'moto[server]>=5' &&
            ln -sf "$object_store/bin/moto_server" /usr/local/bin/; } >/tmp/lossguard-pip.log 2>&1 ||
            { echo "pip failed; the end of its output:"; tail -n 5 /tmp/lossguard-pip.log; }
    else
        echo "not installed (no root): moto_server (pip install 'moto[server]' in an environment of its own); its tests are skipped"
    fi
fi
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing for the tests: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >/tmp/lossguard-apt.log 2>&1 ||
        { echo "apt-get failed; the end of its output:"; tail -n 5 /tmp/lossguard-apt.log; }
else
    echo "not installed (no root, or not Debian): ${missing[*]}; the tests that need them are skipped"
fi
exit 0
