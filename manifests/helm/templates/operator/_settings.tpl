{{- /* Settings of the operator that follow from other values. What is the program's default is left out. */}}
{{- define "asyncqueue.operatorSettings" -}}
{{- if not .Values.defaultQueue.create }}
default_queue: ""
{{- else }}
{{ include "asyncqueue.defaultQueueSetting" . }}
{{- end }}
{{- with .Values.defaultQueue.spec }}
default_queue_spec: {{ toJson . | quote }}
{{- end }}
{{- with .Values.imagePullSecrets }}
{{- $names := list }}
{{- range . }}
{{- $names = append $names .name }}
{{- end }}
worker_image_pull_secrets: {{ join "," $names | quote }}
{{- end }}
{{- $user := ternary "" (toString .Values.runAsUser) (kindIs "invalid" .Values.runAsUser) }}
{{- if ne $user "65532" }}
worker_user_id: {{ $user | quote }}
{{- end }}
{{- with .Values.watchNamespaces }}
watch_namespaces: {{ join "," . | quote }}
{{- end }}
{{ include "asyncqueue.natsWorkerSettings" . }}
{{- end }}

{{- /* The name of the default queue, for operator and gateway. */}}
{{- define "asyncqueue.defaultQueueSetting" -}}
{{- if ne .Values.defaultQueue.name "faas-request" -}}
default_queue: {{ .Values.defaultQueue.name | quote }}
{{- end }}
{{- end }}

{{- /* The namespace that the operator creates it in. */}}
{{- define "asyncqueue.defaultQueueNamespace" -}}
{{- if or (empty .Values.watchNamespaces) (has .Release.Namespace .Values.watchNamespaces) -}}
{{ .Release.Namespace }}
{{- else -}}
{{ .Values.watchNamespaces | sortAlpha | first }}
{{- end }}
{{- end }}
