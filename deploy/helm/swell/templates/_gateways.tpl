{{- /* At most 51 characters, as of every StatefulSet. */ -}}
{{- define "swell.gatewaysName" -}}
{{- printf "%s-gateway" (include "swell.fullname" . | trunc 43 | trimSuffix "-") -}}
{{- end -}}

{{- define "swell.gatewayLabels" -}}
{{ include "swell.ownLabels" . }}
app.kubernetes.io/component: gateway
{{- end -}}

{{- /* Whom clients come to: gateways, or the server with its own workers. */ -}}
{{- define "swell.front" -}}
{{- ternary "gateway" "server" .Values.gateways.enabled -}}
{{- end -}}

{{- define "swell.frontLabels" -}}
{{ include "swell.ownLabels" . }}
app.kubernetes.io/component: {{ include "swell.front" . }}
{{- end -}}

{{- /* The Service by which gateways find every server. */ -}}
{{- define "swell.controlName" -}}
{{- printf "%s-control" (include "swell.fullname" .) -}}
{{- end -}}

{{- define "swell.controlPort" -}}
{{- int64 (default 7443 (default dict (include "swell.server" . | fromJson).gateways).port) -}}
{{- end -}}

{{- /* Secrets that server and gateways prove themselves with: {"server": …, "gateway": …}. Empty: none is named. The
       server's is not needed where the spec names files. */ -}}
{{- define "swell.controlSecrets" -}}
{{- $server := .Values.control.serverSecret -}}
{{- $gateway := .Values.control.gatewaySecret -}}
{{- if .Values.control.certManager.issuer.name -}}
{{- $server = default (printf "%s-server" (include "swell.controlName" .)) $server -}}
{{- $gateway = default (printf "%s-gateway" (include "swell.controlName" .)) $gateway -}}
{{- end -}}
{{- $own := default dict (include "swell.server" . | fromJson).gateways -}}
{{- if or $own.ca $own.certificate $own.private_key -}}
{{- $server = "" -}}
{{- end -}}
{{- dict "server" $server "gateway" $gateway | toJson -}}
{{- end -}}

{{- /* Adds to a copy of the spec, in place, what gateways and KEDA need and it does not say itself: (list . COPY). */ -}}
{{- define "swell.complete" -}}
{{- $root := index . 0 -}}
{{- $spec := index . 1 -}}
{{- if $root.Values.gateways.enabled -}}
{{- $server := default dict $spec.server -}}
{{- $gateways := default dict $server.gateways -}}
{{- $added := dict "host" $server.host "port" 7443 -}}
{{- if (include "swell.controlSecrets" $root | fromJson).server -}}
{{- $_ := set $added "ca" "/secrets/control/ca.crt" -}}
{{- $_ := set $added "certificate" "/secrets/control/tls.crt" -}}
{{- $_ := set $added "private_key" "/secrets/control/tls.key" -}}
{{- end -}}
{{- range $key, $value := $added -}}
{{- if not (hasKey $gateways $key) -}}
{{- $_ := set $gateways $key $value -}}
{{- end -}}
{{- end -}}
{{- $_ := set $server "gateways" $gateways -}}
{{- if not (hasKey $server "workers") -}}
{{- $_ := set $server "workers" 0 -}}
{{- end -}}
{{- $_ := set $spec "server" $server -}}
{{- end -}}
{{- include "swell.completeScaler" (list $root $spec) -}}
{{- end -}}

{{- /* It accepts on, its workers drain, and it sends up what they wrote last; 30 s are what it adds (5 s, and 15 s for the
       last usage), and a reserve. */ -}}
{{- define "swell.gatewayGraceSeconds" -}}
{{- if kindIs "invalid" .Values.gateways.terminationGracePeriodSeconds -}}
{{- $timeouts := default dict (include "swell.server" . | fromJson).timeouts -}}
{{- addf (default 30.0 $timeouts.drain_seconds) .Values.gateways.leaveSeconds 30.0 | ceil | int64 -}}
{{- else -}}
{{- .Values.gateways.terminationGracePeriodSeconds | int64 -}}
{{- end -}}
{{- end -}}

{{- /* Over machines where there is a choice: (list LABELS CONSTRAINTS). */ -}}
{{- define "swell.spread" -}}
{{- $labels := index . 0 -}}
{{- with index . 1 -}}
{{- toYaml . }}
{{- else -}}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- $labels | nindent 6 }}
{{- end -}}
{{- end -}}
