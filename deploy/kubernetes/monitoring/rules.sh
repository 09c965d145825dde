#!/bin/sh
# Writes rules.yaml from the alerts of deploy/prometheus/rules.yml. Change that file, then call this script.
set -eu
cd "$(dirname "$0")"
{
    printf '# Written by rules.sh from deploy/prometheus/rules.yml.\n'
    printf 'apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata: {name: lossguard}\nspec:\n'
    sed -e 's/^\(.\)/  \1/' ../../prometheus/rules.yml
} >"${1:-rules.yaml}"
