"""The objects for TLS between gateways and replicas: Secrets with our own certificates, or what asks for others'. Pure.

All carry the labels of their installation and the component `tls`, also the Secrets that cert-manager makes, so that
one list finds them.
"""

import base64
from collections.abc import Mapping
from typing import Any

from swell.adapters.providers.kubernetes import names
from swell.adapters.providers.kubernetes.group import Group
from swell.adapters.providers.kubernetes.settings import ClusterSettings
from swell.security.certificates import IssuedCertificate
from swell.security.replica_tls import CA_FILE, CERTIFICATE_FILE, KEY_FILE, gateway_name, replica_name

AUTHORITY_FILE = "authority.pem"  # its key and certificate, as one: a pair that cannot be mismatched
CERT_MANAGER = "cert-manager.io"


def authority_secret(authority: bytes, settings: ClusterSettings) -> dict[str, Any]:
    """An installation's own authority, and what only it may do is in the hands of whoever can read this."""
    labels = names.selector(settings.installation) | {names.COMPONENT: names.TLS}
    return _secret(names.authority_name(settings.installation), labels, {}, "Opaque", {AUTHORITY_FILE: authority})


def certificate_secret(
    group: Group, made: IssuedCertificate, settings: ClusterSettings, *, issued_by: str, renew_at: float
) -> dict[str, Any]:
    """What the Pods of a Deployment mount."""
    annotations = {names.ISSUED_BY: issued_by, names.RENEW_AT: f"{renew_at:.0f}"}
    content = {CA_FILE: made.ca, CERTIFICATE_FILE: made.certificate, KEY_FILE: made.private_key}
    name = names.certificate_name(group.name)
    return _secret(name, _labels_of(group, settings), annotations, "kubernetes.io/tls", content)


def replica_certificate(group: Group, settings: ClusterSettings, lasts_seconds: float) -> dict[str, Any]:
    """What asks cert-manager for it. It goes with its Deployment."""
    name = replica_name(group.name, settings.namespace)
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": group.name, "uid": group.uid}
    manifest = _certificate(
        names.certificate_name(group.name),
        _labels_of(group, settings),
        group.authority,
        name,
        "server auth",
        lasts_seconds,
    )
    manifest["metadata"]["ownerReferences"] = [owner]
    return manifest


def gateways_certificate(authority: str, settings: ClusterSettings, lasts_seconds: float) -> dict[str, Any]:
    """What asks cert-manager for what gateways show; the server reads it and sends it to them."""
    labels = names.selector(settings.installation) | {names.COMPONENT: names.TLS}
    name, host = names.gateways_name(settings.installation, authority), gateway_name(settings.installation)
    return _certificate(name, labels, authority, host, "client auth", lasts_seconds)


def _labels_of(group: Group, settings: ClusterSettings) -> dict[str, str]:
    workload, _, fingerprint = group.key.partition("/")
    own = {names.WORKLOAD: workload, names.FINGERPRINT: fingerprint}
    return {**names.selector(settings.installation), **own, names.COMPONENT: names.TLS}


def _secret(
    name: str, labels: Mapping[str, str], annotations: Mapping[str, str], kind: str, content: Mapping[str, bytes]
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": dict(labels), "annotations": dict(annotations)},
        "type": kind,
        "data": {key: base64.b64encode(value).decode() for key, value in content.items()},
    }


def _certificate(
    name: str, labels: Mapping[str, str], authority: str, host: str, usage: str, lasts_seconds: float
) -> dict[str, Any]:
    kind, _, issuer = authority.partition("/")
    return {
        "apiVersion": f"{CERT_MANAGER}/v1",
        "kind": "Certificate",
        "metadata": {"name": name, "labels": dict(labels)},
        "spec": {
            "secretName": name,
            "secretTemplate": {"labels": dict(labels)},
            "issuerRef": {"group": CERT_MANAGER, "kind": kind, "name": issuer},
            "dnsNames": [host],
            "usages": ["digital signature", usage],
            "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
            "duration": f"{lasts_seconds / 3600:.0f}h0m0s",
            "renewBefore": f"{lasts_seconds / 7200:.0f}h0m0s",
            "revisionHistoryLimit": 1,
        },
    }
