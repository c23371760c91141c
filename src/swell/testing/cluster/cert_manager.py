"""What cert-manager does where a cluster has it: makes the Secret of each Certificate, and renews it in time.

Every issuer has one CA here. Faults, to be set by tests: `away` does nothing, and what is `self_signed` is its own CA.
"""

import base64
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from swell.security.certificates import issue_certificate, make_authority
from swell.testing.cluster.objects import FakeCluster

_PARTS = re.compile(r"(?:(?P<hours>\d+)h)?(?:(?P<minutes>\d+)m)?(?:(?P<seconds>\d+)s)?")


class CertManager:
    """Beside a `FakeCluster`, one `step` at a time."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.authority = make_authority(cluster.clock.unix())
        self.away = False
        self.self_signed = False
        self.issued = 0
        self._renew_at: dict[str, float] = {}  # by Secret, in Unix time

    def step(self) -> None:
        """Make what is missing, and what is to be renewed by now."""
        if self.away:
            return
        secrets, now = self.cluster.objects["secrets"], self.cluster.clock.unix()
        for item in list(self.cluster.objects["certificates"].values()):
            name = item["spec"]["secretName"]
            if name in secrets and now < self._renew_at.get(name, 0.0):
                continue
            self._issue(name, item["spec"], now)

    def _issue(self, name: str, spec: Mapping[str, Any], now: float) -> None:
        self.issued += 1
        lasts = _seconds(spec["duration"])
        (host,) = spec["dnsNames"]
        is_client = "client auth" in spec["usages"]
        made = issue_certificate(self.authority, host, now, lasts_seconds=lasts, is_client=is_client)
        ca = made.certificate if self.self_signed else made.ca
        content = {"ca.crt": ca, "tls.crt": made.certificate, "tls.key": made.private_key}
        manifest = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "labels": dict(spec["secretTemplate"]["labels"])},
            "type": "kubernetes.io/tls",
            "data": {key: base64.b64encode(value).decode() for key, value in content.items()},
        }
        self.cluster.apply("secrets", name, manifest, manager="cert-manager", force=True)
        self._renew_at[name] = now + lasts - _seconds(spec["renewBefore"])


def _seconds(duration: str) -> float:
    found = _PARTS.fullmatch(duration)
    assert found, f"{duration!r} is no duration"  # noqa: S101  what Swell writes is what is meant
    return timedelta(**{unit: int(value or 0) for unit, value in found.groupdict().items()}).total_seconds()
