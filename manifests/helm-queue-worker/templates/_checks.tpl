{{- /* Refuses what has no counterpart here, with what to do instead. The schema refuses what is not valid by itself. */}}
{{- define "queue-worker.check" }}
{{- if ne .Values.mode "static" }}
{{- fail (printf "mode `%s` is not supported: use static, and give each function that needs a concurrency of its own a queue of its own" .Values.mode) }}
{{- end }}
{{- if or (ne (int .Values.queuePartitions) 1) (ne (int .Values.partition) 0) }}
{{- fail "queuePartitions and partition are not supported: all workers of a queue share it; raise replicas instead" }}
{{- end }}
{{- if contains "jetstream-queue-worker" .Values.image }}
{{- fail (printf "image `%s` is OpenFaaS's queue-worker, which does not read these queues: leave image empty" .Values.image) }}
{{- end }}
{{- $name := include "queue-worker.name" . }}
{{- if not (regexMatch "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$" $name) }}
{{- fail (printf "queue name `%s` is not valid: use 1 to 40 of a-z, 0-9 and -; set queueName, and the annotation com.openfaas.queue of its functions" $name) }}
{{- end }}
{{- end }}

{{- define "queue-worker.name" -}}
{{ default .Values.nats.stream.name .Values.queueName }}
{{- end }}
