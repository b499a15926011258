{{- define "rehome.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- (contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name)) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Of objects of the cluster: installations that serve some namespaces may have the same name. */}}
{{- define "rehome.clusterName" -}}
{{- $name := include "rehome.fullname" . -}}
{{- .Values.watch.namespaces | empty | ternary $name (printf "%s-%s" .Release.Namespace $name) -}}
{{- end -}}

{{- define "rehome.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Whether the gateway has pods of its own: text, empty for no. */}}
{{- define "rehome.standalone" -}}
{{- eq .Values.gateway.mode "standalone" | ternary "true" "" -}}
{{- end -}}

{{/* The pods that devices reach. */}}
{{- define "rehome.gatewaySelector" -}}
{{ include "rehome.selectorLabels" . }}
app.kubernetes.io/component: {{ include "rehome.standalone" . | empty | ternary "controller" "gateway" }}
{{- end -}}

{{/* What both processes are told of the namespaces that they serve. */}}
{{- define "rehome.watchArguments" -}}
{{- range $number, $namespace := .Values.watch.namespaces }}
{{- if $number }}{{ "\n" }}{{ end -}}
- --namespace={{ $namespace }}
{{- end }}
{{- end -}}

{{/* Roles: of the cluster, or of each namespace that is served. */}}
{{- define "rehome.grant" -}}
{{- $root := .root -}}
{{- $name := .name -}}
{{- $rules := .rules -}}
{{- if .root.Values.watch.namespaces }}
{{- range .root.Values.watch.namespaces }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $root.Release.Namespace }}-{{ $name }}
  namespace: {{ . }}
  labels:
    {{- include "rehome.labels" $root | nindent 4 }}
rules:
  {{- $rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $root.Release.Namespace }}-{{ $name }}
  namespace: {{ . }}
  labels:
    {{- include "rehome.labels" $root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $root.Release.Namespace }}-{{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ $name }}
    namespace: {{ $root.Release.Namespace }}
{{- end }}
{{- else }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ $name }}
  labels:
    {{- include "rehome.labels" $root | nindent 4 }}
rules:
  {{- $rules | nindent 2 }}
  # ID scopes.
  - apiGroups: [""]
    resources: [namespaces]
    verbs: [list, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $name }}
  labels:
    {{- include "rehome.labels" $root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ $name }}
    namespace: {{ $root.Release.Namespace }}
{{- end }}
{{- end -}}

{{- define "rehome.labels" -}}
{{ include "rehome.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* Of the pod of `helm test`, which nothing that selects the operator's pods may find. */}}
{{- define "rehome.probeSelectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}-probe
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "rehome.probeLabels" -}}
{{ include "rehome.probeSelectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "rehome.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "rehome.tlsSecret" -}}
{{- .Values.gateway.tls.existingSecret | default (printf "%s-gateway-tls" (include "rehome.fullname" .)) -}}
{{- end -}}

{{- define "rehome.controllerUser" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "rehome.fullname" . }}-controller
{{- end -}}

{{- define "rehome.gatewayUser" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "rehome.fullname" . }}-gateway
{{- end -}}

{{- define "rehome.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Users that may write any field, as match conditions of a policy. */}}
{{- define "rehome.exemptUsers" -}}
{{- with .Values.admissionPolicy.exemptUsers -}}
matchConditions:
  - name: not-exempt
    expression: "!(request.userInfo.username in ['{{ join "', '" . }}'])"
{{- end -}}
{{- end -}}

{{- define "rehome.denyBinding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ .name }}
  labels:
    {{- include "rehome.labels" .root | nindent 4 }}
spec:
  policyName: {{ .name }}
  validationActions: [Deny]
  {{- with .root.Values.watch.namespaces }}
  # Other namespaces are another installation's.
  matchResources:
    namespaceSelector:
      matchExpressions:
        - key: kubernetes.io/metadata.name
          operator: In
          values: {{ toJson . }}
  {{- end }}
{{- end -}}

{{/* Where a container finds the API server and its certificate. */}}
{{- define "rehome.apiSources" -}}
- configMap:
    name: kube-root-ca.crt
    items:
      - {key: ca.crt, path: ca.crt}
- downwardAPI:
    items:
      - path: namespace
        fieldRef: {fieldPath: metadata.namespace}
{{- end -}}

{{- define "rehome.telemetry" -}}
# From a file and not from here: what is logged changes without new pods.
- {name: REHOME_LOG_FROM, value: /etc/rehome/log/filter}
- {name: REHOME_LOG_FORMAT, value: {{ .Values.log.format }}}
{{- with .Values.tracing.endpoint }}
- {name: REHOME_TRACE_ENDPOINT, value: {{ . | quote }}}
- {name: REHOME_TRACE_RATIO, value: {{ $.Values.tracing.ratio | quote }}}
{{- end }}
{{- end -}}

{{- define "rehome.logMount" -}}
- name: log
  mountPath: /etc/rehome/log
  readOnly: true
{{- end -}}

{{- define "rehome.logVolume" -}}
- name: log
  configMap:
    name: {{ include "rehome.fullname" . }}-log
    # No pod waits for it.
    optional: true
{{- end -}}
