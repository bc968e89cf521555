{{/* The configuration of the NATS servers. Variables: see kappa.natsEnv. Names and options are those of NATS 2.10. */}}
{{- define "kappa.natsConfig" -}}
port: 4222
http_port: 8222
server_name: $SERVER_NAME
pid_file: "/tmp/nats.pid"
max_payload: 4MB
# A server that is told to stop sends its clients elsewhere first.
lame_duck_grace_period: 2s
lame_duck_duration: 30s
jetstream {
  store_dir: "/data"
  max_memory_store: 64Mi
  max_file_store: {{ .Values.nats.storage.size }}
}
authorization {
  users: [
    {user: "kappa", password: $TOKEN}
    {{- range $index, $user := .Values.nats.mqtt.users }}
    {{- if $.Values.nats.mqtt.enabled }}
    {user: {{ $user.name | quote }}, password: $DEVICE_{{ $index }}, allowed_connection_types: ["MQTT"], permissions: {
      publish: {{ include "kappa.natsSubjects" ($user.publish | default list) }}
      subscribe: {{ include "kappa.natsSubjects" (append ($user.subscribe | default list) "$MQTT/sub/#") }}
    }}
    {{- end }}
    {{- end }}
  ]
}
{{- if .Values.nats.mqtt.enabled }}
mqtt {
  port: 1883
}
{{- end }}
{{- if gt (int .Values.nats.replicas) 1 }}
cluster {
  name: kappa
  port: 6222
  authorization: {user: "routes", password: $TOKEN, timeout: 5}
  routes: $ROUTES
}
{{- end }}
{{- end }}

{{/* MQTT topic filters as NATS permissions. `#` stands for its parent level too. An empty list allows nothing. */}}
{{- define "kappa.natsSubjects" -}}
{{- $found := list -}}
{{- range . -}}
{{- $subject := . | replace "/" "." | replace "+" "*" -}}
{{- if hasSuffix ".#" $subject -}}
{{- $found = append $found (trimSuffix ".#" $subject) -}}
{{- end -}}
{{- $found = append $found ($subject | replace "#" ">") -}}
{{- end -}}
{{- if $found -}}
{allow: {{ $found | toRawJson }}}
{{- else -}}
{deny: [">"]}
{{- end -}}
{{- end }}

{{/* The token, base64: the one that is there, else a random one, which is made once for the whole rendering. */}}
{{- define "kappa.natsTokenData" -}}
{{- if not (hasKey .Release "kappaNatsToken") -}}
{{- $old := lookup "v1" "Secret" .Release.Namespace "kappa-nats" -}}
{{- $value := dig "data" "token" "" ($old | default dict) | default (randAlphaNum 40 | b64enc) -}}
{{- $_ := set .Release "kappaNatsToken" $value -}}
{{- end -}}
{{ .Release.kappaNatsToken }}
{{- end }}

{{- define "kappa.natsSecretName" -}}
{{ .Values.nats.existingSecret | default "kappa-nats" }}
{{- end }}

{{/* Addresses of all servers, as a JSON list. Argument: root, format (with the pod's host name put in). */}}
{{- define "kappa.natsAddresses" -}}
{{- $found := list -}}
{{- range $index := until (int .root.Values.nats.replicas) -}}
{{- $found = append $found (printf $.format (printf "kappa-nats-%d.kappa-nats.%s" $index $.root.Release.Namespace)) -}}
{{- end -}}
{{ $found | toJson }}
{{- end }}

{{/* What the gateway is told of NATS, as a JSON list of variables. */}}
{{- define "kappa.gatewayNatsEnv" -}}
{{- $env := list -}}
{{- $nats := .Values.nats -}}
{{- if $nats.enabled -}}
{{- $urls := include "kappa.natsAddresses" (dict "root" . "format" "nats://%s:4222") | fromJsonArray -}}
{{- $env = append $env (dict "name" "KAPPA_NATS_URL" "value" (join "," $urls)) -}}
{{- $env = append $env (dict "name" "KAPPA_NATS_USER" "value" "kappa") -}}
{{- $env = append $env (dict "name" "KAPPA_NATS_TOKEN" "valueFrom" (dict "secretKeyRef" (dict "name" (include "kappa.natsSecretName" .) "key" "token"))) -}}
{{- $env = append $env (dict "name" "KAPPA_NATS_REPLICAS" "value" (ternary "1" "3" (eq (int $nats.replicas) 1))) -}}
{{- else if $nats.external.url -}}
{{- $env = append $env (dict "name" "KAPPA_NATS_URL" "value" $nats.external.url) -}}
{{- with $nats.external.user -}}
{{- $env = append $env (dict "name" "KAPPA_NATS_USER" "value" .) -}}
{{- end -}}
{{- with $nats.external.existingSecret -}}
{{- range $name, $key := dict "TOKEN" "token" "CREDS" "creds" "CA_CERT" "ca.crt" "TLS_CERT" "tls.crt" "TLS_KEY" "tls.key" -}}
{{- $ref := dict "name" $nats.external.existingSecret "key" $key "optional" true -}}
{{- $env = append $env (dict "name" (printf "KAPPA_NATS_%s" $name) "valueFrom" (dict "secretKeyRef" $ref)) -}}
{{- end -}}
{{- end -}}
{{- $env = append $env (dict "name" "KAPPA_NATS_REPLICAS" "value" (toString (int $nats.external.replicas))) -}}
{{- end -}}
{{- if $env -}}
{{- $env = append $env (dict "name" "KAPPA_SOURCE_SECRET_NAMESPACES" "value" (join "," .Values.gateway.events.secretNamespaces)) -}}
{{- $env = append $env (dict "name" "KAPPA_SHARED_SUBJECTS" "value" (join "," .Values.gateway.events.sharedSubjects)) -}}
{{- $resources := list -}}
{{- range $rule := .Values.gateway.events.kubernetes.rules -}}
{{- range $group := $rule.apiGroups -}}
{{- range $rule.resources -}}
{{- $resources = append $resources (ternary (printf "%s.%s" . $group) . (ne $group "")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $env = append $env (dict "name" "KAPPA_KUBERNETES_SOURCES" "value" (join "," $resources)) -}}
{{- $env = append $env (dict "name" "KAPPA_WORK_BYTES" "value" (toString (int64 .Values.gateway.events.workBytes))) -}}
{{- $env = append $env (dict "name" "KAPPA_NAMESPACE_SHARE" "value" (toString (int64 .Values.gateway.events.namespaceShare))) -}}
{{- $env = append $env (dict "name" "KAPPA_DEAD_SECONDS" "value" (toString (int64 .Values.gateway.events.deadLetterSeconds))) -}}
{{- end -}}
{{ $env | toJson }}
{{- end }}
