#!/bin/sh
# Writes Alertmanager's configuration from alertmanager.yml and the environment, then starts Alertmanager.
#
#   start.sh [--write-only] FOLDER [alertmanager's own options]
#
# The configuration goes to FOLDER (use a tmpfs: it contains addresses, and only this user can read it). The receivers:
#
#   PAGE_WEBHOOK_URL    PAGE_SLACK_URL    PAGE_EMAIL      critical alerts
#   NOTICE_WEBHOOK_URL  NOTICE_SLACK_URL  NOTICE_EMAIL    other alerts; if none is set, those of PAGE_
#   SMTP_HOST (host:port), SMTP_FROM, SMTP_USER, SMTP_PASSWORD_FILE   for e-mail
#   QUIET_PROJECTS      a regular expression of projects whose alerts wake nobody (default: demo|sandbox.*)
#
# The URLs are secrets. Instead of a URL, PAGE_SLACK_URL_FILE, for example, may name a file that contains it.
set -eu
umask 077
write_only=
[ "$1" = --write-only ] && { write_only=yes; shift; }
folder=$1
shift
here=$(cd "$(dirname "$0")" && pwd)
config=$folder/alertmanager.yml

quoted() { printf "'%s'" "$(printf %s "$1" | sed "s/'/''/g")"; }

# The value of variable $1, or the contents of the file that $1_FILE names.
value() {
    eval "direct=\${$1:-} file=\${$1_FILE:-}"
    if [ -n "$direct" ]; then printf %s "$direct"; elif [ -n "$file" ]; then tr -d '\n' <"$file"; fi
}

# The file from which Alertmanager reads the URL in variable $1; the configuration itself never contains it.
url_file() {
    value "$1" >"$folder/$1"
    quoted "$folder/$1"
}

receiver() { # $1: its name, $2: the prefix of its variables
    printf '  - name: %s\n' "$1"
    if [ -n "$(value "$2_WEBHOOK_URL")" ]; then
        printf '    webhook_configs:\n      - url_file: %s\n        send_resolved: true\n' "$(url_file "$2_WEBHOOK_URL")"
    fi
    if [ -n "$(value "$2_SLACK_URL")" ]; then
        printf '    slack_configs:\n      - api_url_file: %s\n        send_resolved: true\n' "$(url_file "$2_SLACK_URL")"
        cat "$here/slack.yml"
    fi
    if [ -n "$(value "$2_EMAIL")" ]; then
        : "${SMTP_HOST:?is needed for e-mail: host:port}" "${SMTP_FROM:?is needed for e-mail: an address}"
        printf '    email_configs:\n      - to: %s\n        send_resolved: true\n' "$(quoted "$(value "$2_EMAIL")")"
    fi
}

globals() {
    [ -n "${SMTP_HOST:-}" ] || return 0
    printf 'global:\n  smtp_smarthost: %s\n  smtp_from: %s\n' "$(quoted "$SMTP_HOST")" "$(quoted "${SMTP_FROM:-}")"
    [ -z "${SMTP_USER:-}" ] || printf '  smtp_auth_username: %s\n' "$(quoted "$SMTP_USER")"
    [ -z "${SMTP_PASSWORD_FILE:-}" ] || printf '  smtp_auth_password_file: %s\n' "$(quoted "$SMTP_PASSWORD_FILE")"
}

notice=PAGE
for kind in WEBHOOK_URL SLACK_URL EMAIL; do
    [ -z "$(value "NOTICE_$kind")" ] || notice=NOTICE
done
# Escaped for the matcher's double quotes, for YAML's single quotes, and for sed's right side.
projects=$(printf %s "${QUIET_PROJECTS:-demo|sandbox.*}" | sed 's/[\\"]/\\&/g' | sed "s/'/''/g" | sed 's/[\\&#]/\\&/g')
{
    globals
    printf 'templates: [%s]\n' "$(quoted "$here/slack.tmpl")"
    sed "s#@QUIET_PROJECTS@#\"$projects\"#" "$here/alertmanager.yml"
    echo 'receivers:'
    receiver page PAGE
    receiver notice "$notice"
} >"$config"
if [ -n "$write_only" ]; then exit 0; fi
program=$(command -v alertmanager || command -v prometheus-alertmanager)
exec "$program" --config.file="$config" "$@"
