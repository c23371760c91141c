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
{{- if include "swell.scalerPort" . -}}
{{- include "swell.checkScaler" . -}}
{{- else if .Values.externalScaler.secret -}}
{{- fail "externalScaler.secret is what KEDA is shown, and KEDA may not ask; write spec.server.external_scaler: {}" -}}
{{- end -}}
{{- if .Values.gateways.enabled -}}
{{- include "swell.checkGateways" . -}}
{{- else if and (hasKey $server "workers") (eq (int64 $server.workers) 0) -}}
{{- fail "spec.server.workers is 0 and gateways.enabled is false, so that the Service would lead to nobody; set gateways.enabled: true, or leave workers out" -}}
{{- end -}}
{{- if .Values.highAvailability.enabled -}}
{{- include "swell.checkHighAvailability" . -}}
{{- end -}}
{{- end -}}

{{- define "swell.checkGateways" -}}
{{- $server := include "swell.server" . | fromJson -}}
{{- $gateways := default dict $server.gateways -}}
{{- $host := toString $gateways.host -}}
{{- $own := or $gateways.ca $gateways.certificate $gateways.private_key -}}
{{- if gt (int64 (default 0 $server.workers)) 0 -}}
{{- fail (printf "spec.server.workers is %d, and with gateways.enabled clients come to the gateways' Pods, so that nobody would ask those; leave it out, and say gateways.workers" (int64 $server.workers)) -}}
{{- end -}}
{{- if and $gateways.host (or (eq $host "localhost") (hasPrefix "127." $host) (eq $host "::1")) -}}
{{- fail (printf "spec.server.gateways.host is %s, where no gateway outside the Pod could reach it; leave it out, or write 0.0.0.0" $host) -}}
{{- end -}}
{{- if and $own .Values.control.serverSecret -}}
{{- fail "spec.server.gateways names files, and control.serverSecret a Secret, for the same; keep one of them" -}}
{{- end -}}
{{- $secrets := include "swell.controlSecrets" . | fromJson -}}
{{- if not (or $own $secrets.server) -}}
{{- fail "gateways.enabled needs what the server shows gateways: name a Secret with ca.crt, tls.crt and tls.key in control.serverSecret (swell credentials FOLDER --server makes them), or an issuer of cert-manager in control.certManager.issuer.name" -}}
{{- end -}}
{{- if not $secrets.gateway -}}
{{- fail "gateways.enabled needs what gateways show the server: name a Secret with ca.crt, tls.crt and tls.key in control.gatewaySecret (swell credentials FOLDER makes them), or an issuer of cert-manager in control.certManager.issuer.name" -}}
{{- end -}}
{{- if eq (toString $secrets.server) $secrets.gateway -}}
{{- fail (printf "control.serverSecret and control.gatewaySecret are both %s, so that a gateway could pass for the server; give two Secrets with certificates of one authority" $secrets.gateway) -}}
{{- end -}}
{{- if and $server.tls (not .Values.secrets.tls) -}}
{{- fail "spec.server.tls is what clients are shown, and with gateways.enabled every gateway needs the same; name a Secret of type kubernetes.io/tls in secrets.tls, and write spec.server.tls: {certificate: /secrets/tls/tls.crt, private_key: /private/tls.key}" -}}
{{- end -}}
{{- if (default dict $server.tls).local_ca -}}
{{- fail "spec.server.tls.local_ca makes a certificate in the server's Pod, which gateways do not have; write {certificate: /secrets/tls/tls.crt, private_key: /private/tls.key}" -}}
{{- end -}}
{{- end -}}

{{- define "swell.checkHighAvailability" -}}
{{- if not .Values.gateways.enabled -}}
{{- fail "highAvailability needs gateways that outlive a server; set gateways.enabled: true" -}}
{{- end -}}
{{- if not (or .Values.secrets.storeUrl.name (include "swell.server" . | fromJson).store) -}}
{{- fail "highAvailability needs a Postgres database that all servers use, since its lock says who leads; put its URL into a Secret, and the Secret's name into secrets.storeUrl.name" -}}
{{- end -}}
{{- if not .Values.secrets.pepper.name -}}
{{- fail "highAvailability needs one pepper for all servers, since keys are digests under it; put it (32 random bytes, or secrets/pepper of the state of a server that was there before) into a Secret, and the Secret's name into secrets.pepper.name" -}}
{{- end -}}
{{- if .Values.state.existingClaim -}}
{{- fail (printf "state.existingClaim is %s, which one server alone could use; with highAvailability everything that is kept is in the database: leave it out" .Values.state.existingClaim) -}}
{{- end -}}
{{- $places := default (list (dict "name" "here" "kind" "process")) .Values.spec.providers -}}
{{- range $model := .Values.spec.models -}}
{{- if not (or (eq (toString $model.engine) "external") $model.endpoints) -}}
{{- range $index, $place := $places -}}
{{- if and (eq (toString $place.name) (toString (default (first $places).name $model.provider))) (eq (toString (default "process" $place.kind)) "process") -}}
{{- fail (printf "the model %s is on %s, whose replicas end with the server's Pod; with highAvailability name a provider of kind kubernetes, or route to endpoints with engine external" $model.name $place.name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
