#!/usr/bin/env bash
# Has the operator run a hub in a namespace. Devices know it by the name that its Service has in the
# cluster.
#
#   examples/hub.sh NAMESPACE NAME
#
# SERVICE_TYPE=LoadBalancer lets devices outside the cluster in.
set -euo pipefail

[ $# = 2 ] || { sed -n '2,7s/^# \?//p' "$0" >&2; exit 2; }
namespace=$1 name=$2

kubectl apply -f - <<MANIFEST
apiVersion: rehome.dev/v1alpha1
kind: IoTHub
metadata: {name: $name, namespace: $namespace}
spec:
  hostName: iothub-$name.$namespace.svc.cluster.local
  managed: {service: {type: ${SERVICE_TYPE:-ClusterIP}}}
MANIFEST
kubectl --namespace "$namespace" wait --for=condition=Ready "iothub/$name" --timeout=2m
