#!/usr/bin/env bash
# Makes a Secret with the two symmetric keys of an Enrollment.
#
#   examples/keys.sh NAMESPACE SECRET
set -euo pipefail

[ $# = 2 ] || { sed -n '2,4s/^# \?//p' "$0" >&2; exit 2; }
kubectl --namespace "$1" create secret generic "$2" \
    --from-literal="primaryKey=$(openssl rand -base64 32)" \
    --from-literal="secondaryKey=$(openssl rand -base64 32)"
# Without this label nobody may read it for devices.
kubectl --namespace "$1" label secret "$2" rehome.dev/attestation=true
