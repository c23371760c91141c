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
{{- include "swell.imageOf" (list . .Values.image) -}}
{{- end -}}

{{- define "swell.imageOf" -}}
{{- $root := index . 0 -}}
{{- with index . 1 -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $root.Chart.AppVersion .tag) -}}
{{- end -}}
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

{{- /* Those of them where certificates of replicas are asked of cert-manager: {"namespaces": […]}. */ -}}
{{- define "swell.issuerNamespaces" -}}
{{- $found := list -}}
{{- range .Values.spec.providers -}}
{{- if and (eq (toString .kind) "kubernetes") (not .kubeconfig) (not .context) (kindIs "map" .tls) -}}
{{- if .tls.issuer -}}
{{- $found = append $found (default $.Release.Namespace .namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- dict "namespaces" (uniq $found) | toJson -}}
{{- end -}}

{{- /* Where models or images are got ready ahead, among these: {"namespaces": […]}. */ -}}
{{- define "swell.prefetchNamespaces" -}}
{{- $found := list -}}
{{- range .Values.spec.providers -}}
{{- if and (eq (toString .kind) "kubernetes") (not .kubeconfig) (not .context) (kindIs "map" .prefetch) -}}
{{- $found = append $found (default $.Release.Namespace .namespace) -}}
{{- end -}}
{{- end -}}
{{- dict "namespaces" (uniq $found) | toJson -}}
{{- end -}}

{{- /* Where models and tenants are read from objects with the Pod's own credentials: {"namespace": …}, or nothing. */ -}}
{{- define "swell.customResources" -}}
{{- $server := include "swell.server" . | fromJson -}}
{{- $found := dict -}}
{{- if kindIs "map" $server.custom_resources -}}
{{- $where := $server.custom_resources -}}
{{- if not (or $where.kubeconfig $where.context) -}}
{{- $found = dict "namespace" (default .Release.Namespace $where.namespace) -}}
{{- end -}}
{{- end -}}
{{- toJson $found -}}
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
{{- define "swell.endSeconds" -}}
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

{{- /* One of several leaves its replicas to the next one, and has none of its own to drain. */ -}}
{{- define "swell.graceSeconds" -}}
{{- if and .Values.highAvailability.enabled (kindIs "invalid" .Values.terminationGracePeriodSeconds) -}}
60
{{- else -}}
{{- include "swell.endSeconds" . -}}
{{- end -}}
{{- end -}}

{{- /* A URL's port. */ -}}
{{- define "swell.portOf" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) -}}
{{- $usual := dict "http" "80" "https" "443" "postgresql" "5432" "postgres" "5432" -}}
{{- default (default "443" (get $usual $url.scheme)) $port -}}
{{- end -}}

{{- /* Ports of endpoints that others run: {"ports": […]}. */ -}}
{{- define "swell.endpointPorts" -}}
{{- $ports := list -}}
{{- range .Values.spec.models -}}
{{- range .endpoints -}}
{{- $ports = append $ports (include "swell.portOf" .) -}}
{{- end -}}
{{- end -}}
{{- dict "ports" (uniq $ports | sortAlpha) | toJson -}}
{{- end -}}

{{- /* Ports that the server reaches outside: API, endpoints that others run, the database, mail: {"ports": […]}. */ -}}
{{- define "swell.outsidePorts" -}}
{{- $ports := concat (list "443") (include "swell.endpointPorts" . | fromJson).ports -}}
{{- range .Values.networkPolicy.apiServerPorts -}}
{{- $ports = append $ports (. | int64 | toString) -}}
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

{{- /* Clients, to whomever they come to. */ -}}
{{- define "swell.clientRule" -}}
- ports:
    - {protocol: TCP, port: {{ int64 (include "swell.server" . | fromJson).port }}}
  {{- with .Values.networkPolicy.clients }}
  from:
    {{- toYaml . | nindent 4 }}
  {{- end }}
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

{{- /* What is mounted below /secrets in the server's Pod, by volume. */ -}}
{{- define "swell.secretVolumes" -}}
{{- $found := dict -}}
{{- with .Values.secrets -}}
{{- range $volume, $secret := dict "store-url" .storeUrl.name "pepper" .pepper.name "store-key" .storeKey.name "tls" .tls -}}
{{- if $secret -}}
{{- $_ := set $found $volume $secret -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.externalScaler.secret -}}
{{- $_ := set $found "external-scaler" . -}}
{{- end -}}
{{- if .Values.gateways.enabled -}}
{{- with (include "swell.controlSecrets" . | fromJson).server -}}
{{- $_ := set $found "control" . -}}
{{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{- define "swell.secretMounts" -}}
{{- if (include "swell.privateCopies" . | fromJson).copies }}
- {name: private, mountPath: /private}
{{- end }}
{{- range $volume, $secret := include "swell.secretVolumes" . | fromJson }}
- {name: {{ $volume }}, mountPath: {{ printf "/secrets/%s" $volume }}, readOnly: true}
{{- end }}
{{- end -}}
