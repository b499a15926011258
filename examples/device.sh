#!/usr/bin/env bash
# Runs a device with the official Python SDK as a pod.
#
#   examples/device.sh NAMESPACE REGISTRATION-ID SECRET [group|individual]
#
# SECRET holds the keys of its Enrollment; the key of a device in a group is derived from the group's.
# DEVICE_IMAGE is an image made of examples/device, RELEASE_NAMESPACE where Rehome is installed.
set -euo pipefail

[ $# -ge 3 ] || { sed -n '2,7s/^# \?//p' "$0" >&2; exit 2; }
namespace=$1 id=$2 secret=$3 kind=${4:-group}
image=${DEVICE_IMAGE:-rehome-device:latest}
release=${RELEASE_NAMESPACE:-rehome-system}

kubectl() { command kubectl --namespace "$namespace" "$@"; }
secret() { command kubectl --namespace "$1" get secret "$2" -o "jsonpath={.data.$3}" | base64 -d; }

key=$(secret "$namespace" "$secret" primaryKey)
if [ "$kind" = group ]; then
    hex=$(printf %s "$key" | base64 -d | od -An -v -tx1 | tr -d ' \n')
    key=$(printf %s "$id" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$hex" -binary | base64)
fi
scope=$(command kubectl get namespace "$namespace" \
    -o 'jsonpath={.metadata.annotations.rehome\.dev/id-scope}')

# Whom it trusts: the gateway's CA and the hubs'.
{ secret "$release" rehome-gateway-tls 'ca\.crt'; secret "$namespace" iothub-ca 'ca\.crt'; } |
    kubectl create configmap device-trust --from-file=ca.crt=/dev/stdin --dry-run=client -o yaml |
    kubectl apply -f -
kubectl create secret generic "device-$id" --from-literal="key=$key" --dry-run=client -o yaml |
    kubectl apply -f -

kubectl apply -f - <<MANIFEST
apiVersion: v1
kind: Pod
metadata: {name: $id, labels: {app.kubernetes.io/name: device}}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    seccompProfile: {type: RuntimeDefault}
  containers:
    - name: device
      image: $image
      imagePullPolicy: IfNotPresent
      env:
        - {name: PROVISIONING_HOST, value: rehome.$release.svc.cluster.local}
        - {name: ID_SCOPE, value: ${scope:-$namespace}}
        - {name: REGISTRATION_ID, value: $id}
        - {name: SYMMETRIC_KEY, valueFrom: {secretKeyRef: {name: device-$id, key: key}}}
        - {name: CA_FILE, value: /trust/ca.crt}
        # Often, so that one need not wait long; an hour is more usual.
        - {name: CHECK_IN_SECONDS, value: "${CHECK_IN_SECONDS:-10}"}
      resources: {requests: {cpu: 50m, memory: 64Mi}, limits: {memory: 256Mi}}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      volumeMounts:
        - {name: trust, mountPath: /trust, readOnly: true}
        - {name: tmp, mountPath: /tmp}
  volumes:
    - {name: trust, configMap: {name: device-trust}}
    - {name: tmp, emptyDir: {}}
MANIFEST
kubectl wait --for=condition=Ready "pod/$id" --timeout=1m
