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
