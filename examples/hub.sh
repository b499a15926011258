#!/usr/bin/env bash
# Runs a self-hosted hub in a namespace, with a certificate of a demonstration CA, and makes it known
# there as an IoTHub.
#
#   examples/hub.sh NAMESPACE NAME
#
# HUB_IMAGE is the image of Rehome, SERVICE_TYPE=LoadBalancer lets devices outside the cluster in.
set -euo pipefail

[ $# = 2 ] || { sed -n '2,7s/^# \?//p' "$0" >&2; exit 2; }
namespace=$1 name=$2
image=${HUB_IMAGE:-ghcr.io/rehome-dev/rehome:0.1.0}
host=$name.$namespace.svc.cluster.local
files=$(mktemp -d)
trap 'rm -rf "$files"' EXIT
cd "$files"

kubectl() { command kubectl --namespace "$namespace" "$@"; }
apply() { kubectl apply -f - ; }

# The CA of all hubs of the namespace.
if ! kubectl get secret hub-ca >/dev/null 2>&1; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
        -subj "/CN=$namespace demonstration CA" -keyout tls.key -out tls.crt 2>/dev/null
    kubectl create secret tls hub-ca --cert=tls.crt --key=tls.key
fi
kubectl get secret hub-ca -o jsonpath='{.data.tls\.crt}' | base64 -d >ca.crt
kubectl get secret hub-ca -o jsonpath='{.data.tls\.key}' | base64 -d >ca.key

openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=hub" \
    -keyout tls.key -out tls.csr 2>/dev/null
printf 'subjectAltName=DNS:%s\nextendedKeyUsage=serverAuth\n' "$host" >extensions
openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 \
    -extfile extensions -out tls.crt 2>/dev/null
kubectl create secret tls "$name-tls" --cert=tls.crt --key=tls.key --dry-run=client -o yaml | apply

# A hub that is there already keeps its key.
if ! kubectl get secret "$name-service" >/dev/null 2>&1; then
    key=$(openssl rand -base64 32)
    printf '{"policies": [{"name": "service",
  "permissions": ["RegistryRead", "RegistryWrite", "ServiceConnect"],
  "primaryKey": "%s", "secondaryKey": "%s"}]}' "$key" "$(openssl rand -base64 32)" >policies.json
    printf 'HostName=%s;SharedAccessKeyName=service;SharedAccessKey=%s' "$host" "$key" >connection
    kubectl create secret generic "$name-service" \
        --from-file=policies.json --from-file=connectionString=connection
fi

apply <<MANIFEST
apiVersion: v1
kind: Service
metadata: {name: $name, labels: {app.kubernetes.io/name: rehome-hub}}
spec:
  type: ${SERVICE_TYPE:-ClusterIP}
  selector: {app.kubernetes.io/name: rehome-hub, app.kubernetes.io/instance: $name}
  # The operator talks to it before devices do.
  ports:
    - {name: https, port: 443, targetPort: https}
    - {name: mqtts, port: 8883, targetPort: mqtts}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: $name, labels: {app.kubernetes.io/name: rehome-hub}}
spec:
  serviceName: $name
  selector:
    matchLabels: {app.kubernetes.io/name: rehome-hub, app.kubernetes.io/instance: $name}
  template:
    metadata:
      labels: {app.kubernetes.io/name: rehome-hub, app.kubernetes.io/instance: $name}
    spec:
      automountServiceAccountToken: false
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        fsGroup: 65532
        seccompProfile: {type: RuntimeDefault}
      containers:
        - name: hub
          image: $image
          args:
            - hub
            - --host-name=$host
            - --store=/var/lib/rehome/devices.redb
            - --tls-cert=/etc/rehome/tls/tls.crt
            - --tls-key=/etc/rehome/tls/tls.key
            - --policies=/etc/rehome/service/policies.json
            - --health-address=0.0.0.0:8080
          ports:
            - {name: https, containerPort: 10443}
            - {name: mqtts, containerPort: 8883}
            - {name: health, containerPort: 8080}
          readinessProbe: {httpGet: {path: /readyz, port: health}, periodSeconds: 2}
          livenessProbe: {httpGet: {path: /livez, port: health}, failureThreshold: 6}
          resources:
            requests: {cpu: 20m, memory: 32Mi}
            limits: {memory: 512Mi}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          volumeMounts:
            - {name: store, mountPath: /var/lib/rehome}
            - {name: tls, mountPath: /etc/rehome/tls, readOnly: true}
            - {name: service, mountPath: /etc/rehome/service, readOnly: true}
      volumes:
        - {name: tls, secret: {secretName: $name-tls}}
        - name: service
          secret: {secretName: $name-service, items: [{key: policies.json, path: policies.json}]}
  volumeClaimTemplates:
    - metadata: {name: store}
      spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: rehome.dev/v1alpha1
kind: IoTHub
metadata: {name: $name}
spec:
  hostName: $host
  connection:
    connectionStringSecretRef: {name: $name-service}
    caBundle: |
$(sed 's/^/      /' ca.crt)
MANIFEST
kubectl rollout status "statefulset/$name" --timeout=2m
kubectl wait --for=condition=Ready "iothub/$name" --timeout=1m
