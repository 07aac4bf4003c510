{{/* What cannot work, or would be a pity, said before anything is installed. */}}

{{- define "edge-registry.checks" -}}
{{- $settings := include "edge-registry.settings" . | fromYaml -}}
{{- include "edge-registry.checkStorage" . -}}
{{- include "edge-registry.checkUsers" (dict "settings" $settings "values" .Values) -}}
{{- include "edge-registry.checkPasswords" (dict "settings" $settings "values" .Values) -}}
{{- include "edge-registry.checkPorts" . -}}
{{- $google := .Values.google.workloadIdentity -}}
{{- if and $google.enabled (not (hasPrefix "//" $google.audience)) -}}
{{- fail "google.workloadIdentity.audience must be //iam.googleapis.com/projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER" -}}
{{- end -}}
{{- if and .Values.tls.certManager.enabled (not .Values.tls.certManager.issuerRef.name) -}}
{{- fail "tls.certManager.issuerRef.name must name the Issuer that signs the certificate" -}}
{{- end -}}
{{- if and .Values.tls.certManager.enabled .Values.tls.existingSecret -}}
{{- fail "tls.existingSecret and tls.certManager are two ways to say one thing: set one of them" -}}
{{- end -}}
{{- end }}

{{- define "edge-registry.checkStorage" -}}
{{- $storage := include "edge-registry.storage" . -}}
{{- if and (gt (int .Values.replicaCount) 1) (ne $storage "s3") -}}
{{- fail (printf "replicaCount is %d and storage is %s: several replicas need a bucket (set s3.endpoint and s3.existingSecret), or set replicaCount to 1" (int .Values.replicaCount) $storage) -}}
{{- end -}}
{{- if and .Values.persistence.hostPath .Values.persistence.existingClaim -}}
{{- fail "persistence.hostPath and persistence.existingClaim are two places for one thing: set one of them" -}}
{{- end -}}
{{- if hasKey (default dict .Values.config.storage) "filesystem" -}}
{{- fail "config.storage.filesystem has no effect: the folder is the volume that persistence names" -}}
{{- end -}}
{{- if hasKey (default dict .Values.config.storage) "driver" -}}
{{- fail "config.storage.driver would leave out the store's volumes and keys: set storage instead" -}}
{{- end -}}
{{- end }}

{{- define "edge-registry.checkUsers" -}}
{{- $auth := default dict .settings.auth -}}
{{- $said := or $auth.htpasswd $auth.anonymous $auth.rules -}}
{{- range default (list dict) .settings.listeners -}}
{{- if not (or $said .anonymous) -}}
{{- fail "there are no users: set htpasswd.existingSecret to a secret with an htpasswd file, or let everybody in with auth.anonymous (pull or push)" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "edge-registry.checkPasswords" -}}
{{- $s3 := default dict (default dict .settings.storage).s3 -}}
{{- if or $s3.secret_key $s3.access_key -}}
{{- fail "keys of the store are no values: put them into a secret and name it in s3.existingSecret" -}}
{{- end -}}
{{- range default list (default dict .settings.proxy).upstreams -}}
{{- if (default dict .credentials).password -}}
{{- fail (printf "the password of upstream %s is no value: put it into a secret, name that in upstreamSecrets, and set credentials.password_file to /etc/edge-registry/upstreams/SECRET/KEY" .name) -}}
{{- end -}}
{{- end -}}
{{- range .values.extraEnv -}}
{{- if and .value (regexMatch "(PASSWORD|SECRET_?KEY|ACCESS_?KEY|TOKEN|UPSTREAMS)$" .name) -}}
{{- fail (printf "extraEnv: %s holds a secret: use valueFrom.secretKeyRef instead of value" .name) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "edge-registry.checkPorts" -}}
{{- if .Values.listeners -}}
{{- if or .Values.hostPort .Values.service.nodePort -}}
{{- fail "with listeners, node ports and host ports are listeners[].nodePort and listeners[].hostPort" -}}
{{- end -}}
{{- if .Values.config.listeners -}}
{{- fail "config.listeners would not be known to the Service: set listeners" -}}
{{- end -}}
{{- else if .Values.config.listeners -}}
{{- fail "config.listeners would not be known to the Service: set listeners" -}}
{{- end -}}
{{- if and .Values.config.proxy (not .Values.proxy) -}}
{{- fail "config.proxy would have no volume for transfers: set proxy" -}}
{{- end -}}
{{- range (include "edge-registry.ports" . | fromYaml).ports -}}
{{- if and .nodePort (not (has $.Values.service.type (list "NodePort" "LoadBalancer"))) -}}
{{- fail (printf "nodePort %d needs service.type NodePort or LoadBalancer" (int .nodePort)) -}}
{{- end -}}
{{- if lt (int .port) 1024 -}}
{{- fail (printf "port %d: the registry has no right to ports below 1024; let the Service have that port (service.port, listeners[].servicePort)" (int .port)) -}}
{{- end -}}
{{- end -}}
{{- end }}
