{{- /* How the kubelet asks a server: its own workers by HTTP, else the server itself by its socket; one that waits for its
       turn answers there too: (list . PATH). */ -}}
{{- define "swell.serverProbe" -}}
{{- $root := index . 0 -}}
{{- $scheme := include "swell.scheme" $root -}}
{{- if $root.Values.gateways.enabled -}}
exec:
  command:
    - python3
    - -SI
    - -c
    - |
      {{- $root.Files.Get "files/answers.py" | trim | nindent 6 }}
    - /state/swell/admin.sock
    - "4"
{{- else -}}
httpGet: {path: {{ index . 1 }}, port: {{ $scheme }}, scheme: {{ upper $scheme }}}
{{- end -}}
{{- end -}}

{{- /* The Pod of the server, alone or one of several. */ -}}
{{- define "swell.serverPod" -}}
{{- $server := include "swell.server" . | fromJson -}}
{{- $scheme := include "swell.scheme" . -}}
{{- $copies := (include "swell.privateCopies" . | fromJson).copies -}}
{{- $patience := ternary 5 2 .Values.gateways.enabled -}}
{{- $spec := deepCopy .Values.spec -}}
{{- include "swell.complete" (list . $spec) -}}
metadata:
  labels:
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- include "swell.serverLabels" . | nindent 4 }}
  annotations:
    checksum/spec: {{ toJson $spec | sha256sum }} # Swell reads its file when it starts
    kubectl.kubernetes.io/default-container: server
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "swell.serviceAccountName" . | quote }}
  automountServiceAccountToken: {{ not (and (empty (include "swell.replicaNamespaces" . | fromJson).namespaces) (empty (include "swell.customResources" . | fromJson))) }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "swell.graceSeconds" . }}
  securityContext:
    {{- include "swell.podSecurity" . | nindent 4 }}
  {{- with .Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . | quote }}
    {{- end }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if or .Values.topologySpreadConstraints .Values.highAvailability.enabled }}
  topologySpreadConstraints:
    {{- include "swell.spread" (list (include "swell.serverLabels" .) .Values.topologySpreadConstraints) | nindent 4 }}
  {{- end }}
  {{- if $copies }}
  initContainers:
    - name: private-copies
      image: {{ include "swell.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      command:
        - python3
        - -c
        - |
          {{- .Files.Get "files/private_copies.py" | trim | nindent 10 }}
        {{- range $copies }}
        - {{ . | quote }}
        {{- end }}
      resources:
        requests: {cpu: 10m, memory: 32Mi}
        limits: {memory: 64Mi}
      securityContext:
        {{- include "swell.containerSecurity" . | nindent 8 }}
      terminationMessagePolicy: FallbackToLogsOnError
      volumeMounts:
        {{- include "swell.secretMounts" . | trim | nindent 8 }}
  {{- end }}
  containers:
    - name: server
      image: {{ include "swell.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [up{{ if .Values.highAvailability.enabled }}, --ha{{ end }}, --file, /etc/swell/swell.yaml, --state, /state/swell, --hide-key]
      env:
        - {name: SWELL_STATE, value: /state/swell} # for commands run with kubectl exec
        - {name: SWELL_LOG_LEVEL, value: {{ .Values.logLevel | quote }}}
        {{- if .Values.secrets.storeUrl.name }}
        - {name: SWELL_STORE_URL_FILE, value: {{ printf "/secrets/store-url/%s" .Values.secrets.storeUrl.key | quote }}}
        {{- end }}
        {{- if .Values.secrets.pepper.name }}
        - {name: SWELL_PEPPER_FILE, value: /private/pepper}
        {{- end }}
        {{- if .Values.secrets.storeKey.name }}
        - {name: SWELL_STORE_KEY_FILE, value: /private/store.key}
        {{- end }}
        {{- with .Values.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .Values.envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        {{- if .Values.gateways.enabled }}
        - {name: control, containerPort: {{ include "swell.controlPort" . }}, protocol: TCP}
        {{- else }}
        - {name: {{ $scheme }}, containerPort: {{ int64 $server.port }}, protocol: TCP}
        {{- end }}
        {{- with include "swell.scalerPort" . }}
        - {name: external-scaler, containerPort: {{ . }}, protocol: TCP}
        {{- end }}
      # Restarting {{ ternary "has another server take over" "ends every replica" .Values.highAvailability.enabled }}, so that nothing but long silence is a reason for it.
      startupProbe:
        {{- include "swell.serverProbe" (list . "/healthz") | nindent 8 }}
        periodSeconds: 2
        timeoutSeconds: {{ $patience }}
        failureThreshold: {{ divf .Values.startupSeconds 2 | ceil | int64 }}
      livenessProbe:
        {{- include "swell.serverProbe" (list . "/healthz") | nindent 8 }}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        {{- include "swell.serverProbe" (list . "/readyz") | nindent 8 }}
        periodSeconds: {{ ternary 10 5 .Values.gateways.enabled }}
        timeoutSeconds: 5
        failureThreshold: 2
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        {{- include "swell.containerSecurity" . | nindent 8 }}
      terminationMessagePolicy: FallbackToLogsOnError
      volumeMounts:
        - {name: spec, mountPath: /etc/swell, readOnly: true}
        - {name: state, mountPath: /state}
        - {name: models, mountPath: /models}
        - {name: temporary, mountPath: /tmp}
        {{- with include "swell.secretMounts" . | trim }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: spec
      configMap: {name: {{ include "swell.fullname" . | quote }}}
    - {name: models, emptyDir: {}}
    - {name: temporary, emptyDir: {}}
    {{- if .Values.state.existingClaim }}
    - name: state
      persistentVolumeClaim: {claimName: {{ .Values.state.existingClaim | quote }}}
    {{- else if or .Values.state.ephemeral .Values.highAvailability.enabled }}
    - {name: state, emptyDir: {}}
    {{- end }}
    {{- if $copies }}
    - {name: private, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
    {{- end }}
    {{- range $volume, $secret := include "swell.secretVolumes" . | fromJson }}
    - name: {{ $volume }}
      secret: {secretName: {{ $secret | quote }}, defaultMode: 0440}
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- /* The same as the last one of several, which ends what they have run. */ -}}
{{- define "swell.lastServer" -}}
{{- $pod := include "swell.serverPod" . | fromYaml -}}
{{- $metadata := $pod.metadata -}}
{{- $_ := set $metadata.labels "app.kubernetes.io/component" "let-go" -}}
{{- $_ := set $metadata "annotations" (dict "kubectl.kubernetes.io/default-container" "let-go") -}}
{{- $spec := $pod.spec -}}
{{- $_ := set $spec "restartPolicy" "Never" -}}
{{- $_ := unset $spec "topologySpreadConstraints" -}}
{{- $server := first $spec.containers -}}
{{- range list "startupProbe" "livenessProbe" "readinessProbe" "ports" -}}
{{- $_ := unset $server . -}}
{{- end -}}
{{- $_ := set $server "name" "let-go" -}}
{{- $_ := set $server "command" (list "python3" "-c" (.Files.Get "files/end_servers.py" | trim)) -}}
{{- $seconds := add (include "swell.endSeconds" . | int64) 120 | toString -}}
{{- $_ := set $server "args" (concat (list .Release.Namespace (include "swell.fullname" .) $seconds) $server.args) -}}
{{- toYaml $pod -}}
{{- end -}}
