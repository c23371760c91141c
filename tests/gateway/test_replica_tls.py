"""Gateways and replicas that show each other certificates: a real gateway, real sidecar processes, real TLS."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from gateway_under_test import Gateway, content_events
from http_client import CHAT, EMBEDDINGS, LAST_CHUNK, body_for

from pod_under_test import CLIENT, DAY, EXPIRED, FOREIGN, OTHER_PODS, Pod, identity
from swell.state.snapshot import ClientIdentity, Delta, ReplicaEntry
from swell.testing.upstream_script import Cut, Framing, Script, Writes

LAYOUTS = [
    Script(),
    Script(writes=Writes.BURST),
    Script(writes=Writes.SPLIT, split_bytes=7),
    Script(chunks=8_000, writes=Writes.MERGED),
    Script(framing=Framing.EOF),
    Script(silent_close=True),
]


@pytest.fixture
async def pod(gateway: Gateway, tmp_path: Path) -> AsyncIterator[Pod]:
    """In front of the gateway's only upstream; the gateway knows of it, and shows what it asks for."""
    async with Pod(tmp_path / "pod", gateway.upstream.port) as pod:
        publish(gateway, identity(), pod.entry())
        yield pod


def publish(gateway: Gateway, shown: ClientIdentity, *entries: ReplicaEntry) -> None:
    """The model's replicas are these."""
    model = msgspec.structs.replace(gateway.model, replicas=entries)
    gateway.publish(models=(model,), identities=(shown,))


@pytest.mark.parametrize("script", LAYOUTS)
async def test_a_stream_comes_whole_through_tls(gateway: Gateway, pod: Pod, script: Script) -> None:
    for _ in range(2):
        answer = await gateway.ask(CHAT, body_for(CHAT, script, stream=True, max_tokens=8_192))
        assert answer.status == 200
        assert content_events(answer.body) == script.chunks
        assert answer.raw.endswith(LAST_CHUNK)
    await gateway.settled(2)
    assert [outcome[0] for outcome in gateway.outcomes] == ["settled", "settled"]
    assert gateway.upstream.stats.requests == 2


async def test_kept_connections_are_used_again(gateway: Gateway, pod: Pod) -> None:
    for _ in range(5):
        assert (await gateway.ask(EMBEDDINGS, body_for(EMBEDDINGS))).status == 200
    assert gateway.upstream.stats.connections == 1


@pytest.mark.parametrize(
    "shown",
    [
        None,
        identity(FOREIGN, trusts=FOREIGN),
        identity(lasts=EXPIRED),
        identity(name="other.gateway.swell.internal"),
        identity(name=CLIENT, is_client=False),
    ],
    ids=["none", "foreign", "expired", "another-installation", "a-servers"],
)
async def test_who_shows_no_good_certificate_reaches_no_engine(
    gateway: Gateway, pod: Pod, shown: ClientIdentity | None
) -> None:
    if shown is not None:  # its own trust is not what is tested
        shown = msgspec.structs.replace(shown, ca=identity().ca)
    assert await pod.is_refused(shown)
    assert gateway.upstream.stats.connections == 0
    assert not await pod.is_refused(identity())


@pytest.mark.parametrize("mounted", ["another-workload", "foreign", "expired"])
async def test_a_gateway_sends_nothing_to_who_is_not_the_workload(
    gateway: Gateway, tmp_path: Path, mounted: str
) -> None:
    pod = Pod(tmp_path / "pod", gateway.upstream.port)
    pod.folder.mkdir()
    match mounted:
        case "another-workload":
            pod.mount(name=OTHER_PODS)
        case "foreign":
            pod.mount(FOREIGN)
        case _:
            pod.mount(lasts=EXPIRED)
    async with pod:
        publish(gateway, identity(), pod.entry())
        answer = await gateway.ask_patiently(CHAT, body_for(CHAT))
        assert answer.status in (502, 503)
        assert gateway.upstream.stats.requests == 0


async def test_without_a_certificate_of_its_own_a_gateway_asks_nobody(gateway: Gateway, pod: Pod) -> None:
    publish(gateway, msgspec.structs.replace(identity(), identity_id="another"), pod.entry())
    answer = await gateway.ask_patiently(CHAT, body_for(CHAT))
    assert answer.status in (502, 503)
    assert gateway.upstream.stats.connections == 0


async def test_both_sides_renew_under_load_and_nothing_fails(gateway: Gateway, pod: Pod) -> None:
    """Streams that began before the renewals end after them; others begin between and after."""
    held = [await gateway.connect() for _ in range(8)]
    for each in held:
        each.send(CHAT, body_for(CHAT, Script(chunks=9, hang_after=4), stream=True))
    await gateway.upstream.until(lambda: len(gateway.upstream.held) == len(held))
    shown = set()
    for _ in range(3):
        await pod.renew()
        directory = gateway.service.directory
        assert directory.apply_delta(Delta(directory.epoch, directory.sequence + 1, identities=(identity(),)))
        answers = await asyncio.gather(
            *(gateway.ask(CHAT, body_for(CHAT, Script(close=True), stream=True)) for _ in range(8))
        )
        assert [answer.status for answer in answers] == [200] * 8
        _, writer = await pod.connect(identity())
        shown.add(writer.get_extra_info("ssl_object").getpeercert()["serialNumber"])
        writer.transport.abort()
    gateway.upstream.release()
    assert [content_events((await each.answer()).body) for each in held] == [9] * len(held)
    assert len(shown) == 3
    await gateway.settled(32)
    assert {outcome[0] for outcome in gateway.outcomes} == {"settled"}


async def test_a_certificate_that_cannot_be_used_is_not_taken(gateway: Gateway, pod: Pod) -> None:
    kept = (pod.folder / "tls.key").read_bytes()
    pod.mount()
    (pod.folder / "tls.key").write_bytes(kept)  # of the one before
    pod.process.send_signal(1)
    await pod.line("until it is put right the one of before is shown on")
    assert (await gateway.ask(CHAT, body_for(CHAT))).status == 200


async def test_an_engine_hears_that_its_client_has_left(gateway: Gateway, pod: Pod) -> None:
    connection = await gateway.connect()
    connection.send(CHAT, body_for(CHAT, Script(chunks=9, hang_after=3), stream=True))
    await gateway.upstream.until(lambda: len(gateway.upstream.held) == 1)
    connection.writer.transport.abort()
    await gateway.upstream.until(lambda: gateway.upstream.stats.client_gone == 1)
    assert gateway.upstream.stats.in_flight == 0


@pytest.mark.parametrize("framing", [Framing.AUTO, Framing.EOF])
async def test_an_engine_that_breaks_off_is_not_taken_for_one_that_is_done(
    gateway: Gateway, pod: Pod, framing: Framing
) -> None:
    script = Script(chunks=9, die_after=3, die=Cut.RESET, framing=framing, delay_ms=1.0)
    answer = await gateway.ask(CHAT, body_for(CHAT, script, stream=True))
    assert b'"error"' in answer.body or answer.status >= 500
    await gateway.settled()
    assert gateway.outcomes[0][0] != "settled"


async def _get(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    async with asyncio.timeout(DAY):
        answer = await reader.read()
    writer.close()
    return answer


async def test_a_kubelet_is_told_of_health_and_of_nothing_else(gateway: Gateway, pod: Pod) -> None:
    def status(answer: bytes) -> bytes:
        return answer.split(b" ")[1]

    healthy = await _get(pod.health_port, b"GET /health HTTP/1.1\r\nhost: pod\r\n\r\n")
    assert (status(healthy), healthy.partition(b"\r\n\r\n")[2]) == (b"200", b"")
    gateway.upstream.script = Script(health=503)
    assert status(await _get(pod.health_port, b"GET /health HTTP/1.1\r\nhost: pod\r\n\r\n")) == b"503"
    for request in (b"GET /v1/models", b"POST /health", b"GET /health?x", b"nonsense", b"GET /metrics"):
        assert status(await _get(pod.health_port, request + b" HTTP/1.1\r\n\r\n")) == b"404"
    await gateway.upstream.close()
    assert status(await _get(pod.health_port, b"GET /health HTTP/1.1\r\n\r\n")) == b"503"


async def test_it_ends_when_told_and_says_what_it_lacks(gateway: Gateway, tmp_path: Path) -> None:
    async with Pod(tmp_path / "pod", gateway.upstream.port) as pod:
        pass
    assert pod.process.returncode == 0
    (pod.folder / "tls.crt").unlink()
    with pytest.raises(AssertionError, match=r"cannot begin: .*tls\.crt"):
        await pod.__aenter__()
    assert await pod.process.wait() == 2
