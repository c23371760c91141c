"""What an engine found in its prefix cache is in the record of a request's end: every endpoint, streams, cuts."""

import msgspec
import pytest
from gateway_under_test import Gateway
from http_client import CHAT, EMBEDDINGS, STREAMED, body_for

from swell.testing.upstream_script import Script, UsageMode, Writes

CACHED = Script(chunks=5, cached_tokens=8)  # of 11


@pytest.mark.parametrize("path", [*STREAMED, EMBEDDINGS])
async def test_an_answers_cached_tokens_are_part_of_its_prompt_tokens(gateway: Gateway, path: str) -> None:
    await gateway.ask(path, body_for(path, CACHED))
    (entry,) = gateway.ledger.values()
    assert entry.outcome[:2] == ("settled", 11)
    assert entry.cached_tokens == (0 if path == EMBEDDINGS else 8)


@pytest.mark.parametrize("path", STREAMED)
@pytest.mark.parametrize(
    "script",
    [
        CACHED,
        msgspec.structs.replace(CACHED, writes=Writes.BURST),
        msgspec.structs.replace(CACHED, writes=Writes.DRIBBLE, split_bytes=7),
        msgspec.structs.replace(CACHED, usage=UsageMode.EVERY),
    ],
    ids=lambda script: f"{script.writes}-{script.usage}",
)
async def test_a_streams_cached_tokens_are_read_however_it_comes(gateway: Gateway, path: str, script: Script) -> None:
    await gateway.ask(path, body_for(path, script, stream=True))
    (entry,) = gateway.ledger.values()
    assert entry.outcome == ("settled", 11, 5, 200)
    assert entry.cached_tokens == 8


@pytest.mark.parametrize("path", STREAMED)
async def test_an_engine_that_does_not_tell_is_no_claim(gateway: Gateway, path: str) -> None:
    await gateway.ask(path, body_for(path, Script(chunks=5), stream=True))
    await gateway.ask(path, body_for(path, Script(chunks=5)))
    await gateway.ask(path, body_for(path, Script(chunks=5, cached_tokens=8, usage=UsageMode.NEVER)))
    assert [entry.cached_tokens for entry in gateway.ledger.values()] == [0, 0, 0]
    assert [entry.outcome[0] for entry in gateway.ledger.values()] == ["settled", "settled", "estimated"]


@pytest.mark.parametrize("cached", [12, 2**62])
async def test_no_more_is_cached_than_the_prompt_has(gateway: Gateway, cached: int) -> None:
    await gateway.ask(CHAT, body_for(CHAT, Script(chunks=5, cached_tokens=cached)))
    await gateway.ask(CHAT, body_for(CHAT, Script(chunks=5, cached_tokens=cached), stream=True))
    assert [(entry.outcome[1], entry.cached_tokens) for entry in gateway.ledger.values()] == [(11, 11), (11, 11)]


async def test_a_cut_stream_of_messages_keeps_what_its_beginning_told(gateway: Gateway) -> None:
    path = "/v1/messages"
    await gateway.ask(path, body_for(path, msgspec.structs.replace(CACHED, die_after=3), stream=True))
    (entry,) = gateway.ledger.values()
    assert entry.outcome[:3] == ("estimated", 11, 3)
    assert entry.cached_tokens == 8
