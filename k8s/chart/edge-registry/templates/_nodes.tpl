{{/* Parts of the DaemonSet that sets up nodes. */}}

{{- define "edge-registry.nodeSelector" -}}
app.kubernetes.io/name: {{ include "edge-registry.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: node-setup
{{- end }}

{{- define "edge-registry.nodeLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "edge-registry.nodeSelector" . }}
{{ include "edge-registry.commonLabels" . }}
{{- end }}

{{/* Whether /etc/hosts is mounted by itself; with all of /etc it is there already. */}}
{{- define "edge-registry.nodeHosts" -}}
{{- if and .Values.nodeSetup.hosts (not (has "/etc" .Values.nodeSetup.folders)) }}yes{{ end -}}
{{- end }}

{{- define "edge-registry.nodeRecord" -}}
{{ ternary "/var/lib" "/var/lib/edge-registry" (eq .Values.nodeSetup.mode "remove") }}
{{- end }}

{{- define "edge-registry.nodeContainer" -}}
image: {{ include "edge-registry.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
resources: {{- toYaml .Values.nodeSetup.resources | nindent 2 }}
volumeMounts:
  {{- if eq .Values.nodeSetup.mode "apply" }}
  - { name: config, mountPath: /etc/edge-registry/nodes, readOnly: true }
  {{- end }}
  - { name: tmp, mountPath: /tmp }
  - { name: record, mountPath: /node{{ include "edge-registry.nodeRecord" . }} }
  {{- range $place, $folder := .Values.nodeSetup.folders }}
  - { name: folder-{{ $place }}, mountPath: /node{{ $folder }} }
  {{- end }}
  {{- if include "edge-registry.nodeHosts" . }}
  - { name: hosts, mountPath: /node/etc/hosts }
  {{- end }}
{{- end }}
