{{/* What pods of both Deployments have in common, by component. */}}
{{- define "rehome.podMetadata" -}}
labels:
  {{- include "rehome.labels" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .component }}
  {{- with .root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  kubectl.kubernetes.io/default-container: {{ .component }}
  {{- with .root.Values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "rehome.podSecurity" -}}
# What is being served and reconciled has 15 seconds to end, after the gateway's draining.
terminationGracePeriodSeconds: {{ add 30 .Values.gateway.drainSeconds }}
# Each container mounts the token that it may have, and no other.
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  seccompProfile:
    type: RuntimeDefault
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "rehome.podPlacement" -}}
topologySpreadConstraints:
  {{- range .root.Values.topologySpread }}
  - maxSkew: 1
    topologyKey: {{ .topologyKey }}
    whenUnsatisfiable: {{ .whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "rehome.selectorLabels" $.root | nindent 8 }}
        app.kubernetes.io/component: {{ $.component }}
    # A rollout spreads its own pods.
    matchLabelKeys: [pod-template-hash]
  {{- else }} []
  {{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
