"""Reading engines' own metrics: by each engine's names, from whatever text comes."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pod_under_test import CHAT_PODS, EXPIRED, Pod, identity
from swell.adapters.engines import local_engines
from swell.control.engine_metrics import MAX_TEXT_BYTES, EngineReading, MetricsReader, parse_metrics
from swell.control.replica import Replica
from swell.ports.engine import Address, EngineMetrics
from swell.state.replica import Phase
from swell.state.snapshot import ClientIdentity

LLAMA = """# HELP llamacpp:requests_processing Number of requests processing.
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 3
llamacpp:requests_deferred 2
llamacpp:prompt_tokens_total 120
llamacpp:tokens_predicted_total 4.5e2
llamacpp:requests_processing_other 99
"""
VLLM = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 4.0
vllm:num_requests_running{engine="1",model_name="m"} 1.0
vllm:num_requests_waiting{model_name="a } b"} 7.0
vllm:kv_cache_usage_perc{model_name="m"} 0.25
vllm:prompt_tokens_total{model_name="m"} NaN
"""


@pytest.mark.parametrize(
    ("engine", "text", "expected"),
    [
        ("llama.cpp", LLAMA, EngineReading(3.0, 2.0, None, 120.0, 450.0)),
        ("vllm", VLLM, EngineReading(5.0, 7.0, 0.25, None, None)),
        ("vllm", LLAMA, EngineReading()),
        ("external", VLLM, EngineReading()),
        ("llama.cpp", "llamacpp:requests_deferred\nllamacpp:requests_deferred many\n", EngineReading()),
    ],
)
def test_each_engine_is_read_by_its_own_names(engine: str, text: str, expected: EngineReading) -> None:
    assert parse_metrics(text, local_engines({})[engine].metrics) == expected


@given(st.text())
def test_whatever_comes_is_read_without_a_fault(text: str) -> None:
    names = local_engines({})["vllm"].metrics
    assert parse_metrics(text, names) == EngineReading()
    assert isinstance(parse_metrics(f"vllm:num_requests_waiting{text}", names), EngineReading)


def replica(child_id: str, port: int) -> Replica:
    return Replica(
        workload="m", kind="replica", provider="process", ordinal=0, child_id=child_id, fingerprint="v1",
        log_path=Path("log"), phase=Phase.READY, since=0.0, drain_seconds=1.0, stop_grace_seconds=1.0,
        address=Address("127.0.0.1", port), key="secret",
    )  # fmt: skip


async def test_those_that_answer_are_read_and_the_others_left_out(free_port: int) -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(head)
        body = LLAMA.encode() if b"/metrics" in head else b"x" * (MAX_TEXT_BYTES + 1)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader = MetricsReader()
    try:
        names = local_engines({})["llama.cpp"].metrics
        found = await reader.read([replica("up", port), replica("down", free_port)], names)
        assert found == {"up": EngineReading(3.0, 2.0, None, 120.0, 450.0)}
        assert b"authorization: Bearer secret" in seen[0].replace(b"Authorization", b"authorization")
        assert await reader.read([replica("flood", port)], EngineMetrics(path="/flood", running_requests="x")) == {}
        assert await reader.read([replica("up", port)], EngineMetrics()) == {}
    finally:
        await reader.close()
        server.close()
        await server.wait_closed()


async def test_engines_behind_tls_are_read_by_what_gateways_show(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + LLAMA.encode())
        writer.close()

    shown: list[ClientIdentity] = []
    engine = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with Pod(tmp_path / "pod", engine.sockets[0].getsockname()[1]) as pod:
        address = Address("127.0.0.1", pod.port, tls=True, identity="own", server_name=CHAT_PODS)
        replica = Replica(
            workload="chat", kind="replica", provider="c", ordinal=0, child_id="chat-0", fingerprint="f",
            log_path=tmp_path / "log", phase=Phase.READY, since=0.0, drain_seconds=1.0, stop_grace_seconds=1.0,
            address=address,
        )  # fmt: skip
        reader, names = MetricsReader(lambda: shown), local_engines({})["llama.cpp"].metrics
        assert await reader.read([replica], names) == {}
        for _ in range(2):
            shown[:] = [identity()]  # renewed
            found = await reader.read([replica], names)
            assert found["chat-0"].running_requests == 3.0
        shown[:] = [identity(lasts=EXPIRED)]
        assert await reader.read([replica], names) == {}
        await reader.close()
    engine.close()
