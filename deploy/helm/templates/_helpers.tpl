{{- /* The name of the release's objects: the release's, with the chart's unless that is part of it. */}}
{{- define "headcount.name" -}}
{{- $chart := default .Chart.Name .Values.nameOverride }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $chart .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $chart | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* The labels by which pods of a component are selected: (list $ "serve"). */}}
{{- define "headcount.selector" -}}
app.kubernetes.io/name: {{ default (index . 0).Chart.Name (index . 0).Values.nameOverride }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
{{- with index . 1 }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- /* All recommended labels of a component. */}}
{{- define "headcount.labels" -}}
{{ include "headcount.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version }}
{{- end }}

{{- /* The metadata of an object: (list $ component suffix-of-the-name). */}}
{{- define "headcount.metadata" -}}
name: {{ include "headcount.name" (index . 0) }}{{ index . 2 }}
namespace: {{ (index . 0).Release.Namespace }}
labels:
  {{- include "headcount.labels" . | nindent 2 }}
{{- end }}

{{- define "headcount.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- /* "yes" if something uses Redis. */}}
{{- define "headcount.redis" -}}
{{- if or (eq .Values.store "redis") (eq .Values.cache "redis") .Values.live.enabled }}yes{{ end }}
{{- end }}

{{- /* The environment of the processes that use the store. The argument is the key of the store's credentials, by default the
service's: (list $ key). */}}
{{- define "headcount.env" -}}
{{- $ := index . 0 }}
{{- $folder := "/run/secrets/headcount/" }}
{{- $env := dict
    "listen" "0.0.0.0:8080"
    "store" $.Values.store
    "cache" $.Values.cache
    "live" (ternary "redis" "off" $.Values.live.enabled)
    "tokens_file" (print $folder "tokens") }}
{{- if eq $.Values.store "embedded" }}
{{- $_ := set $env "data_dir" "/var/lib/headcount/data" }}
{{- else }}
{{- $_ := set $env "spool_dir" "/var/lib/headcount/spool" }}
{{- end }}
{{- if $.Values.live.enabled }}
{{- $_ := set $env "live_dir" "/var/lib/headcount/live" }}
{{- end }}
{{- if eq $.Values.store "influx" }}
{{- $_ := set $env "influx_token_file" (print $folder (default "influx_token" (index . 1))) }}
{{- else if eq $.Values.store "postgres" }}
{{- $_ := set $env "postgres_url_file" (print $folder (default "postgres_url" (index . 1))) }}
{{- end }}
{{- if include "headcount.redis" $ }}
{{- $key := ternary (default "redis_url" (index . 1)) "redis_url" (eq $.Values.store "redis") }}
{{- $_ := set $env "redis_url_file" (print $folder $key) }}
{{- end }}
{{- range $.Values.secretKeys }}
{{- /* jwt_keys is the name of a file itself. */}}
{{- $_ := set $env (eq . "jwt_keys" | ternary . (print . "_file")) (print $folder .) }}
{{- end }}
{{- $own := list "public_listen" "shutdown_delay" "worker_listen" "live_address" "live_dir" "data_dir" "spool_dir" "auth" }}
{{- range $name, $value := $.Values.settings }}
{{- if or (hasSuffix "_file" $name) (has $name (list "influx_token" "postgres_url" "redis_url" "jwt_key" "jwt_keys" "session_key" "user_key")) }}
{{- fail (printf "settings.%s: a secret does not belong into values: give it as a key of existingSecret" $name) }}
{{- else if or (hasKey $env $name) (has $name $own) }}
{{- fail (printf "settings.%s: the chart sets it: see values.yaml" $name) }}
{{- end }}
{{- $_ := set $env $name $value }}
{{- end }}
{{- range $name, $value := $env }}
- name: HEADCOUNT_{{ upper $name }}
  {{- /* Numbers of a YAML file are floats here: a million would be 1e+06. */}}
  {{- if and (kindIs "float64" $value) (eq $value (floor $value)) }}
  value: {{ int64 $value | quote }}
  {{- else }}
  value: {{ $value | quote }}
  {{- end }}
{{- end }}
{{- with $.Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* The volume with the secrets of a process that uses the store; the argument is that of headcount.env. */}}
{{- define "headcount.secrets" -}}
{{- $ := index . 0 }}
{{- $keys := list "tokens" }}
{{- if eq $.Values.store "influx" }}
{{- $keys = append $keys (default "influx_token" (index . 1)) }}
{{- else if eq $.Values.store "postgres" }}
{{- $keys = append $keys (default "postgres_url" (index . 1)) }}
{{- end }}
{{- if include "headcount.redis" $ }}
{{- $keys = append $keys (ternary (default "redis_url" (index . 1)) "redis_url" (eq $.Values.store "redis")) }}
{{- end }}
{{- include "headcount.secret" (list $ (concat $keys $.Values.secretKeys)) }}
{{- with $.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* The volume with these keys of the Secret: (list $ keys). */}}
{{- define "headcount.secret" -}}
- name: secrets
  secret:
    secretName: {{ (index . 0).Values.existingSecret }}
    # 0440, which YAML 1.2 does not read as octal.
    defaultMode: 288
    items:
      {{- range index . 1 }}
      - {key: {{ . }}, path: {{ . }}}
      {{- end }}
{{- end }}

{{- /* What all pods have: no access to the Kubernetes API, and no privileges. */}}
{{- define "headcount.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "headcount.container" -}}
image: {{ include "headcount.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- /* Where pods of a component run: (list $ component values). */}}
{{- define "headcount.placement" -}}
topologySpreadConstraints:
  {{- range $key, $unsatisfiable := dict "kubernetes.io/hostname" (index . 2).spreadOverNodes "topology.kubernetes.io/zone" (index . 2).spreadOverZones }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: {{ $unsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "headcount.selector" (list (index $ 0) (index $ 1)) | nindent 8 }}
  {{- end }}
{{- with (index . 2).nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with (index . 2).tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with (index . 2).affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* A volume claim template: (list $ name persistence). */}}
{{- define "headcount.claim" -}}
- metadata:
    name: {{ index . 1 }}
    labels:
      {{- include "headcount.selector" (list (index . 0) "") | nindent 6 }}
  spec:
    accessModes: [ReadWriteOnce]
    {{- with (index . 2).storageClassName }}
    storageClassName: {{ . }}
    {{- end }}
    resources:
      requests: {storage: {{ (index . 2).size }}}
{{- end }}
