{{- define "swell.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- /* At most 50 characters: a StatefulSet's Pods carry its name and a hash in one label. */ -}}
{{- define "swell.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "swell.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "swell.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "swell.ownLabels" -}}
app.kubernetes.io/name: {{ include "swell.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "swell.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "swell.ownLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: swell
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "swell.serverLabels" -}}
{{ include "swell.ownLabels" . }}
app.kubernetes.io/component: server
{{- end -}}

{{- /* Of Pods that Swell makes, whichever installation's. */ -}}
{{- define "swell.replicaLabels" -}}
app.kubernetes.io/managed-by: swell
app.kubernetes.io/component: replica
{{- end -}}

{{- define "swell.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "swell.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "swell.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "swell.server" -}}
{{- default dict .Values.spec.server | toJson -}}
{{- end -}}

{{- /* http or https: what the server speaks, and what its port is called. */ -}}
{{- define "swell.scheme" -}}
{{- ternary "https" "http" (not (empty (include "swell.server" . | fromJson).tls)) -}}
{{- end -}}

{{- /* Where replicas are made with the Pod's own credentials: {"namespaces": […]}. */ -}}
{{- define "swell.replicaNamespaces" -}}
{{- $found := list -}}
{{- range .Values.spec.providers -}}
{{- if and (eq (toString .kind) "kubernetes") (not .kubeconfig) (not .context) -}}
{{- $found = append $found (default $.Release.Namespace .namespace) -}}
{{- end -}}
{{- end -}}
{{- dict "namespaces" (uniq $found) | toJson -}}
{{- end -}}

{{- /* Where the claim for models is mounted: {"namespaces": […]}. */ -}}
{{- define "swell.cacheNamespaces" -}}
{{- $found := list -}}
{{- range .Values.spec.providers -}}
{{- if and (eq (toString .kind) "kubernetes") (not .kubeconfig) (not .context) -}}
{{- if eq (toString (default dict .model_cache).claim) $.Values.modelCache.claim -}}
{{- $found = append $found (default $.Release.Namespace .namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- dict "namespaces" (uniq $found) | toJson -}}
{{- end -}}

{{- /* Gateway workers drain first, then replicas; 60 s are what the server adds to both, and a reserve. */ -}}
{{- define "swell.graceSeconds" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- $timeouts := default dict (include "swell.server" . | fromJson).timeouts -}}
{{- $longest := 30.0 -}}
{{- range .Values.spec.models -}}
{{- $longest = maxf $longest (default 30.0 .drain_seconds) -}}
{{- end -}}
{{- addf (default 30.0 $timeouts.drain_seconds) $longest 60.0 | ceil | int64 -}}
{{- else -}}
{{- .Values.terminationGracePeriodSeconds | int64 -}}
{{- end -}}
{{- end -}}

{{- /* A URL's port. */ -}}
{{- define "swell.portOf" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) -}}
{{- $usual := dict "http" "80" "https" "443" "postgresql" "5432" "postgres" "5432" -}}
{{- default (default "443" (get $usual $url.scheme)) $port -}}
{{- end -}}

{{- /* Ports that the server reaches outside: API, endpoints that others run, the database, mail: {"ports": […]}. */ -}}
{{- define "swell.outsidePorts" -}}
{{- $ports := list "443" -}}
{{- range .Values.networkPolicy.apiServerPorts -}}
{{- $ports = append $ports (. | int64 | toString) -}}
{{- end -}}
{{- range .Values.spec.models -}}
{{- range .endpoints -}}
{{- $ports = append $ports (include "swell.portOf" .) -}}
{{- end -}}
{{- end -}}
{{- range (default dict .Values.spec.alerts).sinks -}}
{{- if eq (toString .kind) "email" -}}
{{- $ports = append $ports (default 587 .port | int64 | toString) -}}
{{- else if .url -}}
{{- $ports = append $ports (include "swell.portOf" .url) -}}
{{- end -}}
{{- end -}}
{{- $store := (include "swell.server" . | fromJson).store -}}
{{- if $store -}}
{{- $ports = append $ports (include "swell.portOf" $store.url) -}}
{{- end -}}
{{- if .Values.secrets.storeUrl.name -}}
{{- $ports = append $ports "5432" -}}
{{- end -}}
{{- dict "ports" (uniq $ports | sortAlpha) | toJson -}}
{{- end -}}

{{- define "swell.dnsRule" -}}
- ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- end -}}

{{- define "swell.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
# Not at every mount: it would open Swell's private files to the group, and Swell refuses those.
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "swell.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
privileged: false
readOnlyRootFilesystem: true
{{- end -}}

{{- /* Secrets that Swell wants to itself, as SOURCE=TARGET: {"copies": […]}. */ -}}
{{- define "swell.privateCopies" -}}
{{- $copies := list -}}
{{- with .Values.secrets -}}
{{- if .pepper.name -}}
{{- $copies = append $copies (printf "/secrets/pepper/%s=/private/pepper" .pepper.key) -}}
{{- end -}}
{{- if .storeKey.name -}}
{{- $copies = append $copies (printf "/secrets/store-key/%s=/private/store.key" .storeKey.key) -}}
{{- end -}}
{{- if .tls -}}
{{- $copies = append $copies "/secrets/tls/tls.key=/private/tls.key" -}}
{{- end -}}
{{- end -}}
{{- dict "copies" $copies | toJson -}}
{{- end -}}

{{- /* What would only be found out in the cluster. */ -}}
{{- define "swell.check" -}}
{{- $server := include "swell.server" . | fromJson -}}
{{- $host := toString $server.host -}}
{{- if or (not $server.host) (eq $host "localhost") (hasPrefix "127." $host) (eq $host "::1") -}}
{{- fail (printf "spec.server.host is %s, where nobody outside the Pod could reach it; write 0.0.0.0" (default "127.0.0.1" $server.host)) -}}
{{- end -}}
{{- if and .Values.secrets.tls (not $server.tls) -}}
{{- fail "secrets.tls names a certificate, and spec.server.tls does not use it; write there {certificate: /secrets/tls/tls.crt, private_key: /private/tls.key}" -}}
{{- end -}}
{{- if and (ne .Values.service.type "ClusterIP") (not $server.tls) (not .Values.service.tlsAtLoadBalancer) -}}
{{- fail (printf "service.type %s would carry keys unencrypted to the Pod; give secrets.tls and spec.server.tls, or, where a load balancer ends TLS, set service.tlsAtLoadBalancer: true" .Values.service.type) -}}
{{- end -}}
{{- if and .Values.modelCache.create (empty (include "swell.cacheNamespaces" . | fromJson).namespaces) -}}
{{- fail (printf "modelCache makes the claim %s, and no provider of kind kubernetes uses it; write into one of spec.providers: model_cache: {claim: %s}" .Values.modelCache.claim .Values.modelCache.claim) -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled (not .Values.serviceMonitor.key.name) -}}
{{- fail "serviceMonitor needs a key, since /metrics names models and tells their traffic; put one (swell keys create metrics) into a Secret, and its name into serviceMonitor.key.name" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs is empty; name the Gateway" -}}
{{- end -}}
{{- end -}}

{{- define "swell.secretMounts" -}}
{{- with .Values.secrets -}}
{{- if or .pepper.name .storeKey.name .tls }}
- {name: private, mountPath: /private}
{{- end }}
{{- range $volume, $secret := dict "store-url" .storeUrl.name "pepper" .pepper.name "store-key" .storeKey.name "tls" .tls }}
{{- if $secret }}
- {name: {{ $volume }}, mountPath: {{ printf "/secrets/%s" $volume }}, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}
