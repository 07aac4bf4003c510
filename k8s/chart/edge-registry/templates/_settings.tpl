{{/* The registry's configuration, and what the manifests take from it. */}}

{{- define "edge-registry.storage" -}}
{{- if .Values.storage -}}
{{- .Values.storage -}}
{{- else if or .Values.s3.endpoint .Values.s3.existingSecret -}}
s3
{{- else -}}
filesystem
{{- end -}}
{{- end }}

{{/* registry.yaml: what the values say, then `config` over it. */}}
{{- define "edge-registry.settings" -}}
{{- $http := dict "host" (ternary "::" "0.0.0.0" .Values.ipv6) "drain_delay" 10 "drain_timeout" 60 -}}
{{- if not .Values.listeners -}}
{{- $_ := set $http "port" 5045 -}}
{{- end -}}
{{- if include "edge-registry.tlsSecret" . -}}
{{- $_ := set $http "tls" (dict "certificate" "/etc/edge-registry/tls/tls.crt" "key" "/etc/edge-registry/tls/tls.key") -}}
{{- end -}}
{{- $driver := include "edge-registry.storage" . -}}
{{- $storage := dict "driver" $driver -}}
{{- if eq $driver "s3" -}}
{{- $s3 := dict "bucket" .Values.s3.bucket "region" .Values.s3.region "path_style" .Values.s3.pathStyle -}}
{{- with .Values.s3.endpoint }}{{ $_ := set $s3 "endpoint" . }}{{ end -}}
{{- with .Values.s3.publicEndpoint }}{{ $_ := set $s3 "public_endpoint" . }}{{ end -}}
{{- if .Values.s3.createBucket }}{{ $_ := set $s3 "create_bucket" true }}{{ end -}}
{{- if .Values.s3.redirect }}{{ $_ := set $s3 "redirect" true }}{{ end -}}
{{- if not .Values.s3.verify }}{{ $_ := set $s3 "verify" false }}{{ end -}}
{{- if .Values.s3.ca.existingSecret }}{{ $_ := set $s3 "ca" "/etc/edge-registry/s3-ca/ca.crt" }}{{ end -}}
{{- $_ := set $storage "s3" $s3 -}}
{{- end -}}
{{- $auth := deepCopy .Values.auth -}}
{{- if .Values.htpasswd.existingSecret -}}
{{- $_ := set $auth "htpasswd" "/etc/edge-registry/users/htpasswd" -}}
{{- end -}}
{{- $settings := dict "http" $http "storage" $storage -}}
{{- if $auth }}{{ $_ := set $settings "auth" $auth }}{{ end -}}
{{- if .Values.proxy -}}
{{- $proxy := mergeOverwrite (dict "spool" (dict "folder" "/var/lib/edge-registry/spool")) (deepCopy .Values.proxy) -}}
{{- $_ := set $settings "proxy" $proxy -}}
{{- end -}}
{{- if .Values.listeners -}}
{{- $listeners := list -}}
{{- range .Values.listeners -}}
{{- $listeners = append $listeners (omit . "servicePort" "nodePort" "hostPort") -}}
{{- end -}}
{{- $_ := set $settings "listeners" $listeners -}}
{{- end -}}
{{- toYaml (mergeOverwrite $settings (deepCopy .Values.config)) -}}
{{- end }}

{{/* The ports as YAML: {ports: [{name, port, servicePort, nodePort, hostPort, scheme}]}; probes ask the first. */}}
{{- define "edge-registry.ports" -}}
{{- $settings := include "edge-registry.settings" . | fromYaml -}}
{{- $tls := and $settings.http.tls $settings.http.tls.certificate -}}
{{- $ports := list -}}
{{- range .Values.listeners -}}
{{- $scheme := ternary "https" "http" (and $tls (ne (toString .tls) "false") | not | not) -}}
{{- $port := int .port -}}
{{- $ports = append $ports (dict "name" (printf "%s-%d" $scheme $port) "port" $port "servicePort" (int (default $port .servicePort)) "nodePort" (int (default 0 .nodePort)) "hostPort" (int (default 0 .hostPort)) "scheme" $scheme) -}}
{{- else -}}
{{- $scheme := ternary "https" "http" ($tls | not | not) -}}
{{- $ports = append $ports (dict "name" $scheme "port" (int $settings.http.port) "servicePort" (int .Values.service.port) "nodePort" (int (default 0 .Values.service.nodePort)) "hostPort" (int .Values.hostPort) "scheme" $scheme) -}}
{{- end -}}
{{- toYaml (dict "ports" $ports) -}}
{{- end }}

{{- define "edge-registry.hostPorts" -}}
{{- range (include "edge-registry.ports" . | fromYaml).ports }}{{ if .hostPort }}{{ int .hostPort }} {{ end }}{{ end -}}
{{- end }}

{{- define "edge-registry.grace" -}}
{{- $http := (include "edge-registry.settings" . | fromYaml).http -}}
{{- $least := int (ceil (addf (float64 $http.drain_delay) (float64 $http.drain_timeout))) -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- add $least 10 -}}
{{- else if le (int .Values.terminationGracePeriodSeconds) $least -}}
{{- fail (printf "terminationGracePeriodSeconds must be more than http.drain_delay + http.drain_timeout (%d): pulls would be cut off" $least) -}}
{{- else -}}
{{- int .Values.terminationGracePeriodSeconds -}}
{{- end -}}
{{- end }}

{{/* Google's external_account document. */}}
{{- define "edge-registry.googleCredentials" -}}
{{- $google := .Values.google.workloadIdentity -}}
{{- $source := dict "file" $google.tokenPath "format" (dict "type" "text") -}}
{{- $account := dict "type" "external_account" "audience" $google.audience "subject_token_type" "urn:ietf:params:oauth:token-type:jwt" "token_url" $google.tokenUrl "credential_source" $source -}}
{{- if $google.impersonationUrl -}}
{{- $_ := set $account "service_account_impersonation_url" $google.impersonationUrl -}}
{{- else if $google.serviceAccountEmail -}}
{{- $_ := set $account "service_account_impersonation_url" (printf "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/%s:generateAccessToken" $google.serviceAccountEmail) -}}
{{- end -}}
{{- toPrettyJson $account -}}
{{- end }}
