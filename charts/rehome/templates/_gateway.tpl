{{/* The gateway's container but for its name: a sidecar of the controller, or in pods of its own. */}}
{{- define "rehome.gatewayContainer" -}}
image: {{ include "rehome.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args:
  - gateway
  - --https-listen=0.0.0.0:10443
  - --mqtt-listen=0.0.0.0:8883
  - --amqp-listen=0.0.0.0:5671
  - --health-listen=0.0.0.0:8081
  - --tls-cert=/etc/rehome/tls/tls.crt
  - --tls-key=/etc/rehome/tls/tls.key
  {{- if not (include "rehome.standalone" .) }}
  - --token-file=/var/run/rehome/gateway/token
  {{- end }}
  {{- with include "rehome.watchArguments" . }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- range $namespace, $scope := .Values.watch.idScopes }}
  - --id-scope={{ $namespace }}={{ $scope }}
  {{- end }}
  {{- with .Values.gateway.unlimitedNetworks }}
  - --unlimited-network={{ join "," . }}
  {{- end }}
  {{- with .Values.gateway.proxyProtocolFrom }}
  - --proxy-protocol-from={{ join "," . }}
  {{- end }}
  {{- with .Values.gateway.extraArgs }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
env:
  {{- include "rehome.telemetry" . | nindent 2 }}
ports:
  - {name: https, containerPort: 10443}
  - {name: mqtts, containerPort: 8883}
  - {name: amqps, containerPort: 5671}
  - {name: gateway-health, containerPort: 8081}
readinessProbe:
  httpGet: {path: /readyz, port: gateway-health}
  periodSeconds: 5
livenessProbe:
  httpGet: {path: /livez, port: gateway-health}
  failureThreshold: 6
{{- with .Values.gateway.drainSeconds }}
# A pod that ends is told so before everybody who sends devices to it has heard: it serves on for a
# while, and those that it has accepted are done by then. The hook of a sidecar runs at once, not only
# when the controller has ended.
lifecycle:
  preStop:
    sleep: {seconds: {{ . }}}
{{- end }}
resources:
  {{- toYaml .Values.gateway.resources | nindent 2 }}
securityContext:
  {{- include "rehome.containerSecurityContext" . | nindent 2 }}
volumeMounts:
  {{- if not (include "rehome.standalone" .) }}
  - name: gateway-token
    mountPath: /var/run/rehome/gateway
    readOnly: true
  {{- end }}
  - name: gateway-api
    mountPath: /var/run/secrets/kubernetes.io/serviceaccount
    readOnly: true
  - name: tls
    mountPath: /etc/rehome/tls
    readOnly: true
  {{- include "rehome.logMount" . | nindent 2 }}
{{- end -}}

{{/* What the gateway mounts besides its token. */}}
{{- define "rehome.gatewayVolumes" -}}
- name: gateway-api
  projected:
    sources:
      {{- if include "rehome.standalone" . }}
      - serviceAccountToken: {path: token, expirationSeconds: 3607}
      {{- end }}
      {{- include "rehome.apiSources" . | nindent 6 }}
- name: tls
  secret:
    secretName: {{ include "rehome.tlsSecret" . }}
    # Not ca.crt: an existing Secret need not have it, and the gateway does not need it.
    items:
      - {key: tls.crt, path: tls.crt}
      - {key: tls.key, path: tls.key}
{{- end -}}
