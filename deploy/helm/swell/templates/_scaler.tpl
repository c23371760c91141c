{{- /* Where KEDA asks how many replicas a model shall have; empty where the spec does not say that it may. */ -}}
{{- define "swell.scalerPort" -}}
{{- $scaler := (include "swell.server" . | fromJson).external_scaler -}}
{{- if kindIs "map" $scaler -}}
{{- int64 (default 7444 $scaler.port) -}}
{{- end -}}
{{- end -}}

{{- define "swell.scalerName" -}}
{{- printf "%s-scaler" (include "swell.fullname" .) -}}
{{- end -}}

{{- /* Of `swell.complete`: where it listens, and what it shows: (list . COPY). */ -}}
{{- define "swell.completeScaler" -}}
{{- $root := index . 0 -}}
{{- $spec := index . 1 -}}
{{- if include "swell.scalerPort" $root -}}
{{- $scaler := default dict $spec.server.external_scaler -}}
{{- $added := dict "host" $spec.server.host -}}
{{- if $root.Values.externalScaler.secret -}}
{{- $_ := set $added "certificate" "/secrets/external-scaler/tls.crt" -}}
{{- $_ := set $added "private_key" "/secrets/external-scaler/tls.key" -}}
{{- end -}}
{{- range $key, $value := $added -}}
{{- if not (hasKey $scaler $key) -}}
{{- $_ := set $scaler $key $value -}}
{{- end -}}
{{- end -}}
{{- $_ := set $spec.server "external_scaler" $scaler -}}
{{- end -}}
{{- end -}}

{{- define "swell.checkScaler" -}}
{{- $scaler := default dict (include "swell.server" . | fromJson).external_scaler -}}
{{- $host := toString $scaler.host -}}
{{- if and $scaler.host (or (eq $host "localhost") (hasPrefix "127." $host) (eq $host "::1")) -}}
{{- fail (printf "spec.server.external_scaler.host is %s, where KEDA could not reach it; leave it out, or write 0.0.0.0" $host) -}}
{{- end -}}
{{- if and $scaler.certificate .Values.externalScaler.secret -}}
{{- fail "spec.server.external_scaler names files, and externalScaler.secret a Secret, for the same; keep one of them" -}}
{{- end -}}
{{- if not (or $scaler.certificate .Values.externalScaler.secret $scaler.allow_plaintext_off_loopback) -}}
{{- fail "spec.server.external_scaler needs what KEDA is shown: name a Secret of type kubernetes.io/tls in externalScaler.secret, or write allow_plaintext_off_loopback: true there" -}}
{{- end -}}
{{- end -}}
