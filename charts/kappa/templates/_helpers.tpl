{{/* Labels of every object. */}}
{{- define "kappa.labels" -}}
{{ include "kappa.selector" . }}
app.kubernetes.io/part-of: kappa
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Labels that never change; the component is added where there is one. */}}
{{- define "kappa.selector" -}}
app.kubernetes.io/name: kappa
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Image reference. Arguments: root, image {repository, tag}. */}}
{{- define "kappa.image" -}}
{{- $tag := .image.tag | default .root.Values.image.tag | default .root.Chart.AppVersion -}}
{{- with .root.Values.image.registry }}{{ . | trimSuffix "/" }}/{{ end }}{{ .image.repository }}:{{ $tag }}
{{- end }}

{{- define "kappa.secretName" -}}
{{ .Values.platformSecret.existingSecret | default "kappa-platform" }}
{{- end }}

{{/* The platform secret, base64: the one that is there, else a random one, which is made once for the whole rendering. */}}
{{- define "kappa.secretData" -}}
{{- if not (hasKey .Release "kappaSecret") -}}
{{- $old := lookup "v1" "Secret" .Release.Namespace "kappa-platform" -}}
{{- $value := dig "data" "secret" "" ($old | default dict) | default (randAlphaNum 48 | b64enc) -}}
{{- $_ := set .Release "kappaSecret" $value -}}
{{- end -}}
{{ .Release.kappaSecret }}
{{- end }}

{{- define "kappa.gatewayUrl" -}}
{{- if .Values.gateway.url -}}
{{ .Values.gateway.url | trimSuffix "/" }}
{{- else -}}
{{ include "kappa.gatewayServiceUrl" . }}
{{- end -}}
{{- end }}

{{- define "kappa.gatewayServiceUrl" -}}
http://gateway.{{ .Release.Namespace }}{{ if ne (int .Values.gateway.service.port) 80 }}:{{ .Values.gateway.service.port }}{{ end }}
{{- end }}

{{/* Labels of the namespace that Kappa runs in, as NetworkPolicies name it. */}}
{{- define "kappa.systemNamespaceLabels" -}}
{{- if .Values.networkPolicy.systemNamespaceLabels -}}
{{ toYaml .Values.networkPolicy.systemNamespaceLabels }}
{{- else -}}
kubernetes.io/metadata.name: {{ .Release.Namespace }}
{{- end -}}
{{- end }}

{{- define "kappa.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "kappa.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Metadata of the pods. Arguments: root, component, values (of the component). */}}
{{- define "kappa.podMetadata" -}}
labels:
  {{- include "kappa.selector" .root | nindent 2 }}
  app.kubernetes.io/part-of: kappa
  app.kubernetes.io/component: {{ .component }}
annotations:
  {{- if not .root.Values.platformSecret.existingSecret }}
  kappa.dev/platform-secret: {{ include "kappa.secretData" .root | sha256sum | trunc 12 | quote }}
  {{- end }}
  {{- if .root.Values.metrics.annotations }}
  prometheus.io/scrape: "true"
  prometheus.io/port: "8081"
  prometheus.io/path: /metrics
  {{- end }}
  {{- with .values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* What the pod specs of operator and gateway share. Arguments as above. */}}
{{- define "kappa.podSpec" -}}
serviceAccountName: kappa-{{ .component }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
terminationGracePeriodSeconds: {{ .values.terminationGracePeriodSeconds }}
securityContext:
  {{- include "kappa.podSecurityContext" . | nindent 2 }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
affinity:
  {{- if .values.affinity }}
  {{- toYaml .values.affinity | nindent 2 }}
  {{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "kappa.selector" .root | nindent 14 }}
              app.kubernetes.io/component: {{ .component }}
  {{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "kappa.selector" .root | nindent 8 }}
        app.kubernetes.io/component: {{ .component }}
volumes:
  - name: platform-secret
    secret:
      secretName: {{ include "kappa.secretName" .root }}
      defaultMode: 288 # 0440
  - name: tmp
    emptyDir: {medium: Memory, sizeLimit: 64Mi}
{{- end }}

{{/* What the containers of operator and gateway share. Arguments as above, and env: the component's own variables. */}}
{{- define "kappa.container" -}}
image: {{ include "kappa.image" (dict "root" .root "image" .values.image) }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  {{- include "kappa.containerSecurityContext" . | nindent 2 }}
env:
  - name: POD_NAME
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
  - name: POD_IP
    valueFrom: {fieldRef: {fieldPath: status.podIP}}
  - name: KAPPA_SYSTEM_NAMESPACE
    valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
  - name: KAPPA_PLATFORM_SECRET_FILE
    value: /etc/kappa/platform/secret
  - name: KAPPA_GATEWAY_URL
    value: {{ include "kappa.gatewayUrl" .root | quote }}
  {{- with .env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .values.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumeMounts:
  - {name: platform-secret, mountPath: /etc/kappa/platform, readOnly: true}
  - {name: tmp, mountPath: /tmp}
resources:
  {{- toYaml .values.resources | nindent 2 }}
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 2
  timeoutSeconds: 3
livenessProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
startupProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 1
  failureThreshold: 60
{{- end }}
