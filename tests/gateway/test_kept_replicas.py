"""Replicas that a new server cannot ask about: a gateway that knows them goes on with them, certificates included."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from gateway_under_test import Gateway
from http_client import CHAT, body_for

from pod_under_test import Pod, identity
from swell.state.snapshot import ClientIdentity, Delta, ModelEntry


@pytest.fixture
async def pod(gateway: Gateway, tmp_path: Path) -> AsyncIterator[Pod]:
    """In front of the gateway's only upstream, which the gateway knows by it."""
    async with Pod(tmp_path / "pod", gateway.upstream.port) as pod:
        model = msgspec.structs.replace(gateway.model, replicas=(pod.entry(),))
        gateway.publish(models=(model,), identities=(identity(),))
        yield pod


def kept(gateway: Gateway, *ids: str) -> ModelEntry:
    """The model as a server tells it that knows nothing but ids."""
    return msgspec.structs.replace(gateway.model, replicas=(), kept=ids)


async def status(gateway: Gateway) -> int:
    return (await gateway.ask_patiently(CHAT, body_for(CHAT))).status


async def test_a_kept_replica_goes_on_and_so_does_what_it_is_shown(gateway: Gateway, pod: Pod) -> None:
    own = pod.entry().replica_id
    gateway.publish(models=(kept(gateway, own),), identities=())
    assert await status(gateway) == 200
    directory = gateway.service.directory
    before = directory.models[gateway.model.name].replicas[own]
    other = ClientIdentity("other", b"", b"", b"")
    changes = [
        Delta(directory.epoch, directory.sequence + 1, identities=(other,)),
        Delta(directory.epoch, directory.sequence + 2, models=(kept(gateway, own, "unknown"),), identities=()),
        Delta(directory.epoch, directory.sequence + 3, workers=2),
    ]
    for delta in changes:
        assert directory.apply_delta(delta)
        route = directory.models[gateway.model.name]
        assert list(route.replicas) == [own], "nothing is known of the other one"
        assert route.replicas[own] is before, "its load and its connections are kept"
        assert await status(gateway) == 200


async def test_one_that_is_kept_no_longer_is_gone_with_what_it_was_shown(gateway: Gateway, pod: Pod) -> None:
    own = pod.entry()
    gateway.publish(models=(kept(gateway, own.replica_id),), identities=())
    gateway.publish(models=(kept(gateway),), identities=())
    assert not gateway.service.directory.models[gateway.model.name].replicas
    gateway.publish(models=(kept(gateway, own.replica_id),), identities=())
    assert not gateway.service.directory.models[gateway.model.name].replicas
    assert await status(gateway) in (502, 503)
    gateway.publish(models=(msgspec.structs.replace(gateway.model, replicas=(own,)),), identities=(identity(),))
    assert await status(gateway) == 200


@pytest.mark.parametrize("how", ["told again", "let go", "model gone"])
async def test_what_was_shown_is_forgotten_with_the_last_that_was_kept(gateway: Gateway, pod: Pod, how: str) -> None:
    own, directory = pod.entry(), gateway.service.directory
    gateway.publish(models=(kept(gateway, own.replica_id),), identities=())
    assert directory.identities.names == {own.identity}
    delta = Delta(directory.epoch, directory.sequence + 1)
    match how:
        case "told again":
            told = msgspec.structs.replace(own, identity="")
            delta = msgspec.structs.replace(delta, models=(msgspec.structs.replace(gateway.model, replicas=(told,)),))
        case "let go":
            delta = msgspec.structs.replace(delta, models=(kept(gateway),))
        case _:
            delta = msgspec.structs.replace(delta, removed_models=(gateway.model.name,))
    assert directory.apply_delta(delta)
    assert not directory.identities.names
