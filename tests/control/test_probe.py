"""Health probes: a status or a reason, never an exception, and no one waits for one that hangs."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from swell.control.probe import MAX_PROBES, Answer, HttpAsk, Prober


@pytest.fixture
async def ask() -> AsyncIterator[HttpAsk]:
    asking = HttpAsk()
    yield asking
    await asking.close()


async def test_an_answer_is_its_status_and_the_key_is_shown(ask: HttpAsk) -> None:
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 503 Loading\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await ask(f"http://127.0.0.1:{port}/health", "secret") == Answer(503)
    assert heads[0].startswith(b"GET /health HTTP/1.1")
    assert b"authorization: bearer secret" in heads[0].lower()


async def test_a_closed_port_and_a_babbling_one_are_problems(ask: HttpAsk, free_port: int) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    refused = await ask(f"http://127.0.0.1:{free_port}/health", "")
    assert refused.status is None
    assert refused.problem
    async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        babbled = await ask(f"http://127.0.0.1:{port}/health", "")
    assert babbled.status is None
    assert "Protocol" in babbled.problem


async def test_one_that_hangs_delays_no_other() -> None:
    released = asyncio.Event()

    async def answer(url: str, key: str) -> Answer:
        if url == "hangs":
            await released.wait()
        return Answer(200)

    prober = Prober(answer)
    assert prober.request("a", "hangs", "")
    assert prober.request("b", "answers", "")
    assert await prober.collect() == {"b": Answer(200)}
    assert not prober.request("a", "hangs", "")  # one at a time per child
    released.set()
    assert await prober.collect() == {"a": Answer(200)}
    assert await prober.collect() == {}


async def test_probes_are_bounded_and_end_with_the_prober() -> None:
    async def hang(url: str, key: str) -> Answer:
        await asyncio.Event().wait()
        return Answer(200)

    prober = Prober(hang)
    begun = [prober.request(str(number), "", "") for number in range(MAX_PROBES + 1)]
    assert begun.count(True) == MAX_PROBES
    await prober.close()
    assert await prober.collect() == {}
