{{- /* Names and labels. `root` is the context of the chart, `component` is operator, gateway or another part. */}}
{{- define "asyncqueue.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 53 | trimSuffix "-" }}
{{- end }}

{{- /* First part of all names. It leaves room for the longest suffix within 63 characters. */}}
{{- define "asyncqueue.fullname" -}}
{{- $name := include "asyncqueue.name" . }}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{ .Release.Name | trunc 53 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 53 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "asyncqueue.componentName" -}}
{{ include "asyncqueue.fullname" .root }}-{{ .component }}
{{- end }}

{{- /* Cluster-scoped objects have the namespace in their name: releases of other namespaces may be called the same. */}}
{{- define "asyncqueue.clusterName" -}}
{{ .root.Release.Namespace }}-{{ include "asyncqueue.componentName" . }}
{{- end }}

{{- define "asyncqueue.serviceAccountName" -}}
{{- $account := (index .root.Values .component).serviceAccount }}
{{- $default := ternary (include "asyncqueue.componentName" .) "default" $account.create -}}
{{ default $default $account.name }}
{{- end }}

{{- /* Unique in a namespace, and never changed: the selector of a Deployment is immutable. */}}
{{- define "asyncqueue.selectorLabels" -}}
app.kubernetes.io/name: {{ include "asyncqueue.componentName" . }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- /* Labels of an object: of a program, or with `shared` of what belongs to none. */}}
{{- define "asyncqueue.labels" -}}
{{- $root := .root }}
{{- with $root.Values.commonLabels }}
{{- toYaml . }}
{{ end -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 }}
{{- if .shared }}
app.kubernetes.io/name: {{ include "asyncqueue.name" $root }}
app.kubernetes.io/component: {{ .component }}
{{- else }}
{{ include "asyncqueue.selectorLabels" . }}
{{- end }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: asyncqueue
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{- end }}

{{- define "asyncqueue.image" -}}
{{- with .Values.image }}
{{- $repository := .repository }}
{{- with .registry }}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) $repository }}
{{- end }}
{{- if .digest -}}
{{ $repository }}@{{ .digest }}
{{- else -}}
{{ $repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end }}
{{- end }}
{{- end }}
