{{- define "rehome.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- (contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name)) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "rehome.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "rehome.labels" -}}
{{ include "rehome.selectorLabels" . }}
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

{{- define "rehome.logging" -}}
- {name: REHOME_LOG, value: {{ .Values.log.filter | quote }}}
- {name: REHOME_LOG_FORMAT, value: {{ .Values.log.format }}}
{{- end -}}
