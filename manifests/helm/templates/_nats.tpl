{{- /* How NATS is reached: settings, files and their mount. */}}

{{- /* Files of the Secret, by the setting that names them. Only those whose key is set. */}}
{{- define "asyncqueue.natsFiles" -}}
{{- $secret := .Values.nats.existingSecret }}
{{- if $secret.name }}
{{- if ne (empty $secret.keys.clientCertificate) (empty $secret.keys.clientKey) }}
{{- fail "nats.existingSecret.keys: clientCertificate and clientKey need each other: set both or none" }}
{{- end }}
{{- range $setting, $key := dict
      "nats_creds_file" $secret.keys.credentials
      "nats_tls_ca_file" $secret.keys.ca
      "nats_tls_cert_file" $secret.keys.clientCertificate
      "nats_tls_key_file" $secret.keys.clientKey }}
{{- with $key }}
{{ $setting }}: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The variable nats_url, which may use POD_NAMESPACE. */}}
{{- define "asyncqueue.natsUrl" -}}
{{- $secret := .Values.nats.existingSecret -}}
- name: nats_url
{{- if and $secret.name $secret.keys.url }}
  valueFrom:
    secretKeyRef:
      name: {{ $secret.name }}
      key: {{ $secret.keys.url }}
{{- else }}
  value: {{ default "nats://nats.$(POD_NAMESPACE):4222" .Values.nats.url | quote }}
{{- end }}
{{- end }}

{{- define "asyncqueue.natsSettings" -}}
{{- range $setting, $key := include "asyncqueue.natsFiles" . | fromYaml }}
{{ $setting }}: /etc/nats/{{ $key }}
{{- end }}
{{- end }}

{{- /* The same files for workers, which read them from the Secret of their namespace. */}}
{{- define "asyncqueue.natsWorkerSettings" -}}
{{- range $setting, $key := include "asyncqueue.natsFiles" . | fromYaml }}
{{ get (dict
     "nats_creds_file" "worker_nats_creds_secret"
     "nats_tls_ca_file" "worker_nats_ca_secret"
     "nats_tls_cert_file" "worker_nats_tls_cert_secret"
     "nats_tls_key_file" "worker_nats_tls_key_secret") $setting }}: {{ $.Values.nats.existingSecret.name }}/{{ $key }}
{{- end }}
{{- end }}

{{- define "asyncqueue.natsVolumes" -}}
{{- with include "asyncqueue.natsFiles" . | fromYaml -}}
- name: nats
  secret:
    secretName: {{ $.Values.nats.existingSecret.name }}
    items:
      {{- range $setting, $key := . }}
      - {key: {{ $key }}, path: {{ $key }}}
      {{- end }}
{{- end }}
{{- end }}

{{- define "asyncqueue.natsMounts" -}}
{{- with include "asyncqueue.natsFiles" . | fromYaml -}}
- name: nats
  mountPath: /etc/nats
  readOnly: true
{{- end }}
{{- end }}
