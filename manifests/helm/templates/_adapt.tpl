{{- /* Changes an object to what the values want, where it is, and prints nothing. */}}
{{- define "asyncqueue.adapt" }}
{{- $metadata := .object.metadata }}
{{- $_ := set $metadata "labels" (merge (default dict $metadata.labels) (include "asyncqueue.labels" .root | fromYaml)) }}
{{- if not (hasPrefix "Cluster" .object.kind) }}
{{- $_ := set $metadata "namespace" .root.Release.Namespace }}
{{- end }}
{{- range .object.subjects }}
{{- $_ := set . "namespace" $.root.Release.Namespace }}
{{- end }}
{{- if eq .object.kind "Deployment" }}
{{- include "asyncqueue.deployment" . }}
{{- end }}
{{- end }}

{{- define "asyncqueue.labels" }}
app.kubernetes.io/part-of: asyncqueue
{{- end }}

{{- define "asyncqueue.deployment" }}
{{- $component := index .object.metadata.labels "app.kubernetes.io/component" }}
{{- $values := deepCopy (index .root.Values $component) }}
{{- $template := .object.spec.template }}
{{- $container := first $template.spec.containers }}
{{- $image := .root.Values.image }}
{{- $_ := merge $template.metadata.labels (include "asyncqueue.labels" .root | fromYaml) }}
{{- $_ := set $container "image" (printf "%s:%s" $image.repository $image.tag) }}
{{- $_ := set $container "imagePullPolicy" $image.pullPolicy }}
{{- with .root.Values.imagePullSecrets }}
{{- $_ := set $template.spec "imagePullSecrets" . }}
{{- if eq $component "operator" }}
{{- $names := list }}
{{- range . }}
{{- $names = append $names .name }}
{{- end }}
{{- $variable := dict "name" "worker_image_pull_secrets" "value" (join "," $names) }}
{{- include "asyncqueue.variable" (dict "container" $container "variable" $variable) }}
{{- end }}
{{- end }}
{{- include "asyncqueue.nats" (dict "pod" $template.spec "container" $container "nats" .root.Values.nats) }}
{{- if and (eq $component "operator") .root.Values.nats.secret }}
{{- range $name, $key := dict "worker_nats_creds_secret" "nats.creds" "worker_nats_ca_secret" "ca.crt" }}
{{- $variable := dict "name" $name "value" (printf "%s/%s" $.root.Values.nats.secret $key) }}
{{- include "asyncqueue.variable" (dict "container" $container "variable" $variable) }}
{{- end }}
{{- end }}
{{- if and (eq $component "operator") .root.Values.watchNamespaces }}
{{- $_ := set $values.settings "watch_namespaces" (join "," .root.Values.watchNamespaces) }}
{{- end }}
{{- if eq $component "operator" }}
{{- $names := dict "maxInflight" "default_queue_max_inflight" "timeout" "default_queue_timeout" "ackWait" "default_queue_ack_wait" }}
{{- range $value, $setting := $names }}
{{- with get $.root.Values.defaultQueue $value }}
{{- $_ := set $values.settings $setting . }}
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $value := $values.settings }}
{{- include "asyncqueue.variable" (dict "container" $container "variable" (dict "name" $name "value" (toString $value))) }}
{{- end }}
{{- $_ := mergeOverwrite .object.spec $values.deployment }}
{{- $_ := mergeOverwrite $template.spec $values.pod }}
{{- $_ := mergeOverwrite $container $values.container }}
{{- end }}

{{- /* How NATS is reached. */}}
{{- define "asyncqueue.nats" }}
{{- if .nats.secret }}
{{- $url := dict "secretKeyRef" (dict "name" .nats.secret "key" "url") }}
{{- include "asyncqueue.variable" (dict "container" .container "variable" (dict "name" "nats_url" "valueFrom" $url)) }}
{{- range $name, $key := dict "nats_creds_file" "nats.creds" "nats_tls_ca_file" "ca.crt" }}
{{- $variable := dict "name" $name "value" (printf "/etc/nats/%s" $key) }}
{{- include "asyncqueue.variable" (dict "container" $.container "variable" $variable) }}
{{- end }}
{{- $items := list (dict "key" "nats.creds" "path" "nats.creds") (dict "key" "ca.crt" "path" "ca.crt") }}
{{- $volume := dict "name" "nats" "secret" (dict "secretName" .nats.secret "items" $items) }}
{{- $_ := set .pod "volumes" (list $volume) }}
{{- $_ := set .container "volumeMounts" (list (dict "name" "nats" "mountPath" "/etc/nats" "readOnly" true)) }}
{{- else if .nats.url }}
{{- include "asyncqueue.variable" (dict "container" .container "variable" (dict "name" "nats_url" "value" .nats.url)) }}
{{- end }}
{{- end }}

{{- /* Sets one variable of a container's environment. */}}
{{- define "asyncqueue.variable" }}
{{- $others := list }}
{{- range .container.env }}
{{- if ne .name $.variable.name }}
{{- $others = append $others . }}
{{- end }}
{{- end }}
{{- $_ := set .container "env" (append $others .variable) }}
{{- end }}

{{- /* Of a ClusterRole or its binding, a Role or a RoleBinding in each namespace that is watched. */}}
{{- define "asyncqueue.roles" }}
{{- range .root.Values.watchNamespaces }}
{{- $object := deepCopy $.object }}
{{- $_ := set $object "kind" (trimPrefix "Cluster" $object.kind) }}
{{- $_ := set $object "metadata" (dict "name" "asyncqueue-operator-watch") }}
{{- if $object.roleRef }}
{{- $_ := set $object "roleRef" (dict "apiGroup" "rbac.authorization.k8s.io" "kind" "Role" "name" "asyncqueue-operator-watch") }}
{{- end }}
{{- include "asyncqueue.adapt" (dict "object" $object "root" $.root) }}
{{- $_ := set $object.metadata "namespace" . }}
---
{{ toYaml $object }}
{{- end }}
{{- end }}
