{{- /* The environment of a program: variables of the downward API, extraEnv, NATS, and the settings in alphabetical order.
       `derived` are the settings that follow from other values. The program's own settings take precedence. */}}
{{- define "asyncqueue.env" -}}
{{- $values := index .root.Values .component }}
{{- $settings := mergeOverwrite (dict "log_encoding" "json") (include "asyncqueue.natsSettings" .root | fromYaml) .derived $values.settings }}
{{- $chart := keys $settings | concat (list "nats_url") .downward }}
{{- range $values.extraEnv }}
{{- if has .name $chart }}
{{- fail (printf "%s.extraEnv sets %s, which the chart sets too: set %s.settings.%s instead" $.component .name $.component .name) }}
{{- end }}
{{- end }}
{{- range $index, $name := .downward }}
{{- if $index }}
{{ end -}}
- name: {{ $name }}
{{- if hasKey $settings $name }}
  value: {{ include "asyncqueue.text" (get $settings $name) | quote }}
{{- else }}
  valueFrom:
    fieldRef:
      fieldPath: {{ get (dict "POD_NAME" "metadata.name" "POD_NAMESPACE" "metadata.namespace") $name }}
{{- end }}
{{- end }}
{{- with $values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- if hasKey $values.settings "nats_url" }}
- name: nats_url
  value: {{ $values.settings.nats_url | quote }}
{{- else }}
{{ include "asyncqueue.natsUrl" .root }}
{{- end }}
{{- range $name, $value := omit $settings "POD_NAME" "POD_NAMESPACE" }}
- name: {{ $name }}
  value: {{ include "asyncqueue.text" $value | quote }}
{{- end }}
{{- end }}

{{- /* A scalar as text. Helm reads numbers of a file as floating point, which toString writes as 1e+06. */}}
{{- define "asyncqueue.text" -}}
{{ ternary (toJson .) (toString .) (kindIs "float64" .) }}
{{- end }}
