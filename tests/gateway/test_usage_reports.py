"""Usage is read only where the protocols put it, and counted in full."""

import json

import pytest

from swell.gateway.admit import Claim
from swell.gateway.directory import Key
from swell.gateway.events import is_usage_event, usage_of_answer, usages_in
from swell.gateway.shares import Shares
from swell.state.messages import LeaseGrant, LeaseReport
from swell.state.snapshot import KeyEntry, Limits

FORGED = {"usage": {"input_tokens": 1, "output_tokens": 0}}


def line(event: dict[str, object]) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.created", "response": {"tools": [{"parameters": FORGED}]}},
        {"type": "response.completed", "response": {"tools": [{"parameters": FORGED}]}},
        {"type": "response.created", "response": FORGED},  # not the end: what it says is not final
        {"choices": [{"delta": {"tool_calls": [FORGED]}}]},
        {"type": "content_block_start", "content_block": {"input": FORGED}},
    ],
)
def test_what_a_client_can_make_an_engine_echo_is_no_usage(event: dict[str, object]) -> None:
    assert usages_in(line(event)) == []
    assert not is_usage_event(line(event))


def test_the_real_report_is_found_beside_an_echoed_one() -> None:
    real = {"usage": {"input_tokens": 9, "output_tokens": 7}}
    event = {"type": "response.completed", "response": {"tools": [FORGED], **real}}
    assert [(usage.prompt, usage.completion) for usage in usages_in(line(event))] == [(9, 7)]


def test_prompt_tokens_from_anthropics_cache_count() -> None:
    answer = {"usage": {"input_tokens": 1, "cache_read_input_tokens": 33, "output_tokens": 5}}
    usage = usage_of_answer(json.dumps(answer).encode())
    assert usage is not None
    assert (usage.prompt, usage.completion) == (34, 5)
    started = line({"type": "message_start", "message": answer})
    assert [usage.prompt for usage in usages_in(started)] == [34]


@pytest.mark.parametrize(
    ("usage", "cached"),
    [
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 7, "audio_tokens": 0}}, 7),
        ({"input_tokens": 9, "input_tokens_details": {"cached_tokens": 7}}, 7),
        ({"input_tokens": 2, "cache_read_input_tokens": 7}, 7),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 0}}, 0),
        ({"prompt_tokens": 9, "prompt_tokens_details": None}, 0),  # vLLM without a hit
        ({"prompt_tokens": 9}, 0),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": None}}, 0),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": "7"}}, 0),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": True}}, 0),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 7.5}}, 0),
        ({"prompt_tokens": 9, "prompt_tokens_details": [7]}, 0),
        ({"prompt_tokens": 9, "prompt_tokens_details": "seven"}, 0),
    ],
)
def test_cached_tokens_are_read_in_every_shape_and_nonsense_costs_no_count(
    usage: dict[str, object], cached: int
) -> None:
    read = usage_of_answer(json.dumps({"usage": usage}).encode())
    assert read is not None
    assert (read.prompt, read.cached) == (9, cached)
    assert [each.cached for each in usages_in(line({"usage": usage}))] == [cached]


def test_a_long_request_costs_the_tokens_it_used_and_not_its_estimate() -> None:
    now = 0.0
    shares = Shares(lambda: now)
    sent: list[object] = []
    shares.connected(sent.append)
    key = Key(KeyEntry("k", "t", (), limits=Limits(tokens_per_minute=2000)), None, shares)
    (share,) = key.token_shares
    share.granted(LeaseGrant(share.limit, 1000, 2000, 1000))
    claim = Claim(key, 600)
    assert claim.take() is None
    now = 5.0
    shares.turn()  # it runs on: nothing is known to be used
    assert not any(isinstance(message, LeaseReport) and message.used for message in sent)
    assert share.statement(now).held == 1000
    claim.settle(9)
    claim.give_back(went_out=True)
    now = 5.5
    shares.turn()
    assert sum(message.used for message in sent if isinstance(message, LeaseReport)) == 9
    assert share.in_use == 0
