"""Certificates of Swell's own authority on a real control plane, with the rights that the chart gives."""

import asyncio
import base64
from contextlib import closing
from dataclasses import replace

from control_plane import ControlPlane
from kube_children import OWN_TLS
from kube_harness import RealClusterHarness
from lightkube import Client
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Secret

from swell.adapters.providers.kubernetes import names
from swell.adapters.providers.kubernetes.sidecar import ENGINE_PORT
from swell.ports.engine import LOOPBACK


def _secrets(client: Client) -> dict[str, Secret]:
    return {item.metadata.name or "": item for item in client.list(Secret) if item.metadata is not None}


async def test_an_api_server_keeps_one_authority_and_what_it_signed(
    real_harness: RealClusterHarness, control_plane: ControlPlane
) -> None:
    harness = real_harness
    harness.authority = OWN_TLS.authority
    first, second = harness.provider(), harness.provider()
    await asyncio.gather(first.end_orphans(), second.end_orphans())  # two servers, of which none knew of the other
    (one,), (other,) = first.identities, second.identities
    assert one.ca == other.ca
    assert (second.binding.host, second.binding.port) == (LOOPBACK, ENGINE_PORT)
    steady = harness.steady()
    spec = replace(steady, port=ENGINE_PORT, needs=replace(steady.needs, tls=OWN_TLS))
    harness.children[spec.workload] = spec
    handle = await second.start(spec)
    await harness.settled(handle)
    address = second.status(handle).address
    assert address is not None
    deployment = names.object_name(spec.workload, spec.fingerprint)
    assert address.server_name == f"{deployment}.{harness.namespace}.replica.swell.internal"
    with closing(Client(control_plane.config, namespace=harness.namespace)) as client:
        found = _secrets(client)
        assert set(found) == {deployment, names.certificate_name(deployment), names.authority_name("inst-1")}
        mounted = found[names.certificate_name(deployment)]
        assert mounted.type == "kubernetes.io/tls"
        assert base64.b64decode((mounted.data or {})["ca.crt"]) == one.ca
        template = client.get(Deployment, deployment).spec.template.spec  # type: ignore[union-attr]  # it has one
        (sidecar,) = template.initContainers or ()  # type: ignore[union-attr]
        assert sidecar.restartPolicy == "Always"

    third = harness.provider()
    await third.adopt(spec.child_id, spec.log_path, handle)
    (same,) = third.identities
    assert (same.ca, same.identity_id) == (one.ca, one.identity_id)
    with closing(Client(control_plane.config, namespace=harness.namespace)) as client:
        assert _secrets(client)[names.certificate_name(deployment)] == mounted
