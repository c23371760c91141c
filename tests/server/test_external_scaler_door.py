"""KEDA asks, by gRPC: a real client and the real door, over a fleet that orders and runs nothing."""

import asyncio
import shutil
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from keda_client import Keda, grpc, keda, messages, plain_grpc
from swell.adapters.engines.external import External
from swell.clock import ManualClock
from swell.control.fleet import Fleet
from swell.control.probe import Answer
from swell.control.workload import model_workload
from swell.errors import StateError, UserError
from swell.gateway.tls import server_context
from swell.ports.provider import unquestioned
from swell.server import external_scaler
from swell.server.desired_counts import DesiredCounts
from swell.server.external_scaler import ExternalScaler, NotAnsweredError, Refusal
from swell.server.external_scaler_door import MAX_MESSAGE_BYTES, ExternalScalerDoor, check_scaler
from swell.spec import ModelSpec
from swell.spec.server import ExternalScalerSpec

HPA_TOLERANCE = 0.1  # of an autoscaler, unless it is told otherwise
SECONDS = 10.0


async def nobody_answers(url: str, key: str) -> Answer:
    return Answer(None)


class Door:
    """Open at a port of its own, with two models: chat and org/other."""

    def __init__(self, folder: Path, port: int, **files: str) -> None:
        self.fleet = Fleet(providers={}, intents=None, ask=nobody_answers, clock=ManualClock())  # type: ignore[arg-type]
        specs = [
            ModelSpec.model_validate({"name": name, "endpoints": ["http://127.0.0.1:1"], "replicas": "0..50"})
            for name in ("chat", "org/other")
        ]
        self.fleet.want([model_workload(s, External(), model_path=None, log_dir=folder, cores=1) for s in specs])
        self.counts = DesiredCounts(self.fleet)
        self.stopping = asyncio.Event()
        scaler = ExternalScaler(self.counts, unquestioned, self.stopping)
        self.spec = ExternalScalerSpec(port=port, **files)
        self.door = ExternalScalerDoor(self.spec, scaler)

    def want(self, count: int) -> None:
        self.fleet.set_count("chat", count)
        self.counts.look()


@asynccontextmanager
async def opened(folder: Path, port: int, **files: str) -> AsyncIterator[Door]:
    made = Door(folder, port, **files)
    await made.door.open()
    try:
        yield made
    finally:
        await made.door.close()


@pytest.fixture
async def door(tmp_path: Path, free_port: int) -> AsyncIterator[Door]:
    async with opened(tmp_path, free_port) as made:
        yield made


@pytest.fixture
async def client(door: Door) -> AsyncIterator[Keda]:
    async with asyncio.timeout(SECONDS), keda(door.door.port) as found:
        yield found


async def refusal(asked: Awaitable[Any]) -> tuple[str, str]:
    with pytest.raises(grpc.AioRpcError) as refused:
        await asked
    return refused.value.code().name, str(refused.value.details())


async def test_what_there_shall_be_is_answered_by_every_call(door: Door, client: Keda) -> None:
    assert await client.spec(model="chat") == [("swell-replicas", 1, 1.0)]
    assert await client.metrics(model="chat") == [("swell-replicas", 0, 0.0)]
    assert await client.is_active(model="chat") is False
    door.want(7)
    assert await client.metrics(model="chat") == [("swell-replicas", 7, 7.0)]
    assert await client.is_active(model="chat") is True
    assert await client.is_active(model="org/other", scalerAddress="swell-scaler:7444") is False


async def test_a_stream_tells_what_is_so_and_every_change_and_nothing_twice(door: Door, client: Keda) -> None:
    call = client.follow(model="chat")
    told = [(await call.read()).result]
    for count in (1, 2, 5, 0, 3):
        door.want(count)
        if (count > 0) is not told[-1]:
            told.append((await call.read()).result)
    door.stopping.set()
    assert await call.read() is grpc.EOF, "an end, not an error: after those KEDA waits for up to a minute"
    assert told == [False, True, False, True]
    assert (await refusal(client.is_active(model="chat")))[0] == "UNAVAILABLE"


async def test_a_stream_about_a_model_that_goes_ends_and_never_says_inactive(door: Door, client: Keda) -> None:
    door.want(3)
    call = client.follow(model="chat")
    assert (await call.read()).result is True
    door.fleet.want([each for each in door.fleet.workloads if each.name != "chat"])
    door.counts.look()
    assert await call.read() is grpc.EOF
    assert (await refusal(client.metrics(model="chat")))[0] == "NOT_FOUND"


async def test_a_model_that_goes_while_the_store_is_asked_has_no_number(tmp_path: Path, free_port: int) -> None:
    made = Door(tmp_path, free_port)
    made.want(5)

    async def take_it_away() -> None:
        made.fleet.want([each for each in made.fleet.workloads if each.name != "chat"])

    scaler = ExternalScaler(made.counts, take_it_away, made.stopping)
    with pytest.raises(NotAnsweredError) as refused:
        await scaler.desired({"model": "chat"})
    assert refused.value.refusal is Refusal.NOT_FOUND


@pytest.mark.parametrize(
    ("metadata", "code", "words"),
    [
        ({}, "INVALID_ARGUMENT", "add model: with one of: chat, org/other"),
        ({"modelName": "chat"}, "INVALID_ARGUMENT", "does not say which model"),
        ({"model": "chta"}, "NOT_FOUND", "there is no model 'chta'; did you mean chat?"),
        ({"model": "x" * 5000}, "NOT_FOUND", "there are: chat, org/other"),
    ],
)
async def test_a_trigger_that_names_no_model_is_told_so_by_every_call(
    client: Keda, metadata: dict[str, str], code: str, words: str
) -> None:
    call = client.follow(**metadata)
    asked = [client.is_active(**metadata), client.spec(**metadata), client.metrics(**metadata), call.read()]
    for each in asked:
        found, text = await refusal(each)
        assert found == code
        assert words in text
        assert len(text) < 500


async def test_another_metric_is_refused(client: Keda) -> None:
    code, words = await refusal(client.metrics("s0-swell-replicas", model="chat"))
    assert (code, words) == (
        "INVALID_ARGUMENT",
        "there is no metric 's0-swell-replicas'; the only one is swell-replicas",
    )


async def test_what_is_too_much_is_refused_and_others_are_answered(
    door: Door, client: Keda, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _ = await refusal(client.is_active(model="chat", more="x" * MAX_MESSAGE_BYTES))
    assert code == "RESOURCE_EXHAUSTED"
    monkeypatch.setattr(external_scaler, "MAX_FOLLOWERS", 2)
    first, second = client.follow(model="chat"), client.follow(model="chat")
    assert [(await call.read()).result for call in (first, second)] == [False, False]
    code, words = await refusal(client.follow(model="chat").read())
    assert (code, words) == ("RESOURCE_EXHAUSTED", "2 streams are open already; use triggers of type external")
    first.cancel()
    answered = None
    while answered is None:  # the server learns of it in its own time
        with suppress(grpc.AioRpcError):
            answered = await client.follow(model="chat").read()
    assert answered.result is False
    assert await client.is_active(model="chat") is False


async def test_an_end_ends_what_is_open_and_frees_the_port(tmp_path: Path, free_port: int) -> None:
    async with asyncio.timeout(SECONDS), opened(tmp_path, free_port) as first, keda(free_port) as client:
        second = Door(tmp_path, free_port)
        with pytest.raises(StateError, match=rf"KEDA cannot be listened to at 127\.0\.0\.1:{free_port}; free the port"):
            await second.door.open()
        call = client.follow(model="chat")
        assert (await call.read()).result is False
        first.stopping.set()
        await first.door.close()
        assert await call.read() is grpc.EOF
        async with opened(tmp_path, free_port) as third:
            third.want(1)
            assert (await client.follow(model="chat").read()).result is True


async def test_without_a_place_in_the_file_nothing_listens(tmp_path: Path) -> None:
    shut = ExternalScalerDoor(None, Door(tmp_path, 1).door._scaler)
    await shut.open()
    assert shut.port == 0
    await shut.close()


# The messages, byte by byte: what KEDA's own generated code writes and reads.


def test_bytes_are_those_of_kedas_messages() -> None:
    assert messages.SERVICE == "externalscaler.ExternalScaler"
    assert messages.IsActiveResponse(result=True).SerializeToString() == b"\x08\x01"
    assert messages.targets().SerializeToString() == (
        b"\x0a\x1b" + b"\x0a\x0eswell-replicas" + b"\x10\x01" + b"\x19\x00\x00\x00\x00\x00\x00\xf0\x3f"
    )
    assert messages.metrics(300).SerializeToString() == (
        b"\x0a\x1c" + b"\x0a\x0eswell-replicas" + b"\x10\xac\x02" + b"\x19\x00\x00\x00\x00\x00\xc0\x72\x40"
    )
    ref = b"\x0a\x01n" + b"\x12\x02ns" + b"\x1a\x0d\x0a\x05model\x12\x04chat"
    asked = messages.GetMetricsRequest.FromString(b"\x0a" + bytes([len(ref)]) + ref + b"\x12\x01m")
    assert (asked.metricName, asked.scaledObjectRef.name, asked.scaledObjectRef.namespace) == ("m", "n", "ns")
    assert dict(asked.scaledObjectRef.scalerMetadata) == {"model": "chat"}


def autoscaled(wanted: int, running: int, tolerance: float) -> int:
    """How many Pods a HorizontalPodAutoscaler comes to, by what KEDA makes of the answers: averages, in thousandths."""
    (spec,), (value,) = messages.targets().metricSpecs, messages.metrics(wanted).metricValues
    target, usage = round(spec.targetSizeFloat * 1000), round((value.metricValueFloat or value.metricValue) * 1000)
    ratio = usage / (target * running)
    if 1 - tolerance <= ratio <= 1 + tolerance:
        return running
    return -(-usage // target)


@given(wanted=st.integers(0, 10_000), running=st.integers(1, 10_000))
def test_an_autoscaler_without_tolerance_comes_to_exactly_as_many(wanted: int, running: int) -> None:
    assert autoscaled(wanted, running, 0.0) == wanted


@given(wanted=st.integers(0, 10_000), running=st.integers(1, 10_000))
def test_one_with_its_usual_tolerance_does_up_to_nine_and_is_never_off_by_more_than_a_tenth(
    wanted: int, running: int
) -> None:
    found = autoscaled(wanted, running, HPA_TOLERANCE)
    assert found == wanted or abs(found - wanted) <= HPA_TOLERANCE * running + 1e-9
    assert running > 9 or found == wanted


# TLS


class Authority:
    """Certificates of one authority, as files."""

    def __init__(self, folder: Path, name: str) -> None:
        self.ca = trustme.CA()
        self.folder = folder / name
        self.folder.mkdir()
        self.ca_file = self.folder / "ca.crt"
        self.ca.cert_pem.write_to_path(self.ca_file)

    def issue(self, host: str = "localhost", not_after: datetime | None = None) -> dict[str, str]:
        leaf = self.ca.issue_cert(host, not_after=not_after)
        certificate, key = self.folder / f"{host}.crt", self.folder / f"{host}.key"
        leaf.private_key_pem.write_to_path(key)
        certificate.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        return {"certificate": str(certificate), "private_key": str(key)}

    def client(self, own: "dict[str, str] | None" = None) -> Any:
        files = (
            [None, None] if own is None else [Path(own[name]).read_bytes() for name in ("private_key", "certificate")]
        )
        return plain_grpc.ssl_channel_credentials(self.ca_file.read_bytes(), *files)


async def asks(door: Door, credentials: Any) -> str:
    """`answered`, or the code of what became of one call on a connection of its own."""
    async with asyncio.timeout(SECONDS), keda(door.door.port, credentials, "localhost") as client:
        try:
            await client.spec(model="chat")
        except grpc.AioRpcError as error:
            return str(error.code().name)
    return "answered"


async def test_with_a_certificate_who_trusts_it_is_answered(tmp_path: Path, free_port: int) -> None:
    ours, others = Authority(tmp_path, "ours"), Authority(tmp_path, "others")
    async with opened(tmp_path, free_port, **ours.issue()) as door:
        check_scaler(door.spec)
        assert await asks(door, ours.client()) == "answered"
        assert await asks(door, others.client()) == "UNAVAILABLE"
        async with asyncio.timeout(SECONDS), keda(free_port) as plaintext:
            assert (await refusal(plaintext.spec(model="chat")))[0] == "UNAVAILABLE"


async def test_with_an_authority_of_clients_only_those_are_answered(tmp_path: Path, free_port: int) -> None:
    ours, others = Authority(tmp_path, "ours"), Authority(tmp_path, "others")
    async with opened(tmp_path, free_port, **ours.issue(), client_ca=str(others.ca_file)) as door:
        assert await asks(door, ours.client()) == "UNAVAILABLE"
        assert await asks(door, ours.client(ours.issue("keda"))) == "UNAVAILABLE"
        assert await asks(door, ours.client(others.issue("keda"))) == "answered"


async def test_a_renewed_certificate_is_shown_at_the_next_handshake(tmp_path: Path, free_port: int) -> None:
    before, after = Authority(tmp_path, "before"), Authority(tmp_path, "after")
    files, renewed = before.issue(), after.issue()
    async with opened(tmp_path, free_port, **files) as door:
        assert await asks(door, before.client()) == "answered"
        shutil.move(files["certificate"], tmp_path / "away")
        assert await asks(door, before.client()) == "answered", "what cannot be read stays as it was"
        for name, path in renewed.items():
            shutil.copyfile(path, files[name])
        assert await asks(door, after.client()) == "answered"
        assert await asks(door, before.client()) == "UNAVAILABLE"


async def test_one_that_has_ended_already_is_not_shown_in_place_of_a_good_one(tmp_path: Path, free_port: int) -> None:
    before, after = Authority(tmp_path, "before"), Authority(tmp_path, "after")
    files, ended = before.issue(), after.issue(not_after=datetime(2001, 1, 1, tzinfo=UTC))
    async with opened(tmp_path, free_port, **files) as door:
        for name, path in ended.items():
            shutil.copyfile(path, files[name])
        assert await asks(door, before.client()) == "answered"


@pytest.mark.parametrize("broken", [b"", b"garbage"])
async def test_files_that_are_half_written_change_nothing(tmp_path: Path, free_port: int, broken: bytes) -> None:
    ours, clients = Authority(tmp_path, "ours"), Authority(tmp_path, "clients")
    files = {**ours.issue(), "client_ca": str(clients.ca_file)}
    keda_shows = clients.issue("keda")
    async with opened(tmp_path, free_port, **files) as door:
        for path in map(Path, files.values()):
            content = path.read_bytes()
            path.write_bytes(broken)
            assert await asks(door, ours.client(keda_shows)) == "answered", path.name
            assert await asks(door, ours.client()) == "UNAVAILABLE"
            path.write_bytes(content)
        assert await asks(door, ours.client(keda_shows)) == "answered"


def test_files_that_cannot_be_used_are_told_before_anything_starts(tmp_path: Path) -> None:
    ours, others = Authority(tmp_path, "ours"), Authority(tmp_path, "others")
    files, foreign = ours.issue(), others.issue()
    for wrong in ({"private_key": foreign["private_key"]}, {"certificate": str(tmp_path / "none.pem")}):
        with pytest.raises(StateError, match="KEDA cannot be shown a certificate"):
            check_scaler(ExternalScalerSpec(**files | wrong))
    with pytest.raises(StateError, match="give PEM files that belong together"):
        check_scaler(ExternalScalerSpec(**files, client_ca=str(tmp_path / "none.pem")))
    check_scaler(ExternalScalerSpec(**files))
    check_scaler(None)


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_a_passphrase(tmp_path: Path) -> None:
    files = Authority(tmp_path, "ours").issue()
    key = Path(files["private_key"])
    encrypted = serialization.load_pem_private_key(key.read_bytes(), None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    key.write_bytes(encrypted)
    with pytest.raises(StateError, match="the private key is encrypted; give an unencrypted PEM key"):
        check_scaler(ExternalScalerSpec(**files))
    with pytest.raises(ssl.SSLError, match="the private key is encrypted"):
        server_context(files["certificate"], files["private_key"])


def test_without_the_packages_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(UserError, match=r"pip install 'swell\[keda\]'"):
        check_scaler(ExternalScalerSpec())
    check_scaler(None)
