{{- /* What the pods of all programs have in common. `volumes` and `mounts` are those of one program. */}}

{{- define "asyncqueue.podMetadata" -}}
{{- $values := index .root.Values .component -}}
{{- $labels := dict "app.kubernetes.io/instance" .root.Release.Name "app.kubernetes.io/part-of" "asyncqueue" -}}
labels:
  {{- mergeOverwrite (dict) .root.Values.commonLabels $values.podLabels $labels (include "asyncqueue.selectorLabels" . | fromYaml) | toYaml | nindent 2 }}
annotations:
  prometheus.io/scrape: "true"
  prometheus.io/port: {{ .metricsPort | quote }}
  prometheus.io/path: /metrics
  {{- with $values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "asyncqueue.podSpec" -}}
{{- $values := index .root.Values .component -}}
serviceAccountName: {{ include "asyncqueue.serviceAccountName" . }}
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "asyncqueue.podSecurityContext" (dict "root" .root "own" $values.podSecurityContext) | nindent 2 }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- range $field := tuple "nodeSelector" "tolerations" "affinity" }}
{{- with get $values $field }}
{{ $field }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with $values.topologySpreadConstraints }}
{{- $selector := dict "matchLabels" (dict "app.kubernetes.io/name" (include "asyncqueue.componentName" $)) }}
topologySpreadConstraints:
  {{- range . }}
  {{- list (merge (dict) . (dict "labelSelector" $selector)) | toYaml | nindent 2 }}
  {{- end }}
{{- end }}
{{- $volumes := concat (include "asyncqueue.natsVolumes" .root | fromYamlArray) (default list .volumes) $values.extraVolumes }}
{{- with $volumes }}
volumes:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "asyncqueue.podSecurityContext" -}}
{{- $user := .root.Values.runAsUser }}
{{- $ids := dict }}
{{- if not (kindIs "invalid" $user) }}
{{- $ids = dict "runAsUser" (int64 $user) "runAsGroup" (int64 $user) }}
{{- end }}
{{- toYaml (merge (dict) .own $ids) }}
{{- end }}

{{- define "asyncqueue.containerFields" -}}
{{- $values := index .root.Values .component -}}
image: {{ include "asyncqueue.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
command: [asyncqueue-{{ .component }}]
env:
  {{- include "asyncqueue.env" . | nindent 2 }}
{{- with $values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml $values.securityContext | nindent 2 }}
{{- $mounts := concat (include "asyncqueue.natsMounts" .root | fromYamlArray) (default list .mounts) $values.extraVolumeMounts }}
{{- with $mounts }}
volumeMounts:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
