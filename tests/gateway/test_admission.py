"""Who may ask for what: keys, caps and defaults, limits and their headers."""

import asyncio
import json
from typing import Any

import msgspec
import pytest
from gateway_under_test import PEPPER, Gateway, StartGateway
from http_client import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES, Answer, body_for

from swell.security.keys import digest_key, new_key, new_secret_for
from swell.state.snapshot import Delta, KeyDigest, KeyEntry, Limits, ModelEntry, TenantEntry
from swell.state.worker import Bounds, Timeouts
from swell.testing.upstream_script import Script

LIMIT_NAMES = {CHAT: "max_tokens", COMPLETIONS: "max_tokens", RESPONSES: "max_output_tokens", MESSAGES: "max_tokens"}


def forwarded(gateway: Gateway) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(gateway.upstream.seen[-1].body)
    return body


# Caps and defaults


@pytest.mark.parametrize("path", list(LIMIT_NAMES))
async def test_a_default_limit_is_put_in_and_the_bound_follows_from_it(start_gateway: StartGateway, path: str) -> None:
    gateway = await start_gateway(default_max_tokens=7)
    await gateway.ask(path, body_for(path))
    assert forwarded(gateway)[LIMIT_NAMES[path]] == 7
    (entry,) = gateway.ledger.values()
    assert (entry.reserved.completion_tokens, entry.outcome[2]) == (7, 7)


@pytest.mark.parametrize("value", [0, -1, 101, 10**30, "5", 1.5, True, [1]])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_a_limit_outside_the_cap_is_refused(start_gateway: StartGateway, name: str, value: object) -> None:
    gateway = await start_gateway(max_tokens_cap=100)
    answer = await gateway.ask(CHAT, body_for(CHAT, **{name: value}))
    assert (answer.status, answer.json["error"]["param"]) == (400, name)
    assert gateway.upstream.stats.requests == 0
    assert not gateway.ledger


@pytest.mark.parametrize(("n", "status"), [(1, 200), (4, 200), (5, 400), (0, 400), (16384, 400), ("2", 400)])
@pytest.mark.parametrize(("path", "name"), [(CHAT, "n"), (COMPLETIONS, "n"), (COMPLETIONS, "best_of")])
async def test_choices_have_a_cap_and_are_part_of_the_bound(
    start_gateway: StartGateway, path: str, name: str, n: object, status: int
) -> None:
    gateway = await start_gateway(n_cap=4)
    answer = await gateway.ask(path, body_for(path, **{name: n, "max_tokens": 10}))
    assert answer.status == status
    if status == 200:
        assert [entry.reserved.completion_tokens for entry in gateway.ledger.values()] == [10 * int(str(n))]


async def test_each_prompt_of_a_list_has_its_completion(gateway: Gateway) -> None:
    for prompt, times in ((["a", "b", "c"], 3), ([[1, 2], [3]], 2), ([1, 2, 3], 1), ("a", 1)):
        await gateway.ask(COMPLETIONS, {"model": "m", "prompt": prompt, "max_tokens": 10, "n": 2})
        assert list(gateway.ledger.values())[-1].reserved.completion_tokens == 20 * times


@pytest.mark.parametrize("name", ["n_predict", "n_cmpl"])
async def test_engine_names_that_go_round_the_limits_are_refused(gateway: Gateway, name: str) -> None:
    answer = await gateway.ask(CHAT, body_for(CHAT, **{name: 100_000}))
    assert (answer.status, answer.json["error"]["param"]) == (400, name)


async def test_a_member_given_twice_reaches_the_engine_once(gateway: Gateway) -> None:
    body = b'{"model":"m","max_tokens":9999999,"messages":[],"max_tokens":3,"m\\u0061x_tokens":4}'
    assert (await gateway.ask(CHAT, body)).status == 200
    assert gateway.upstream.seen[-1].body.count(b"max_tokens") == 1
    assert forwarded(gateway)["max_tokens"] == 4
    assert next(iter(gateway.ledger.values())).reserved.completion_tokens == 4


async def test_the_engine_gets_its_own_name_of_the_model_and_no_header_of_the_client(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(upstream_model="org/real")
    connection = await gateway.connect()
    await connection.ask(CHAT, body_for(CHAT), x_secret="canary", cookie="canary")
    seen = gateway.upstream.seen[-1]
    assert seen.model == "org/real"
    assert "canary" not in str(seen.headers)
    assert gateway.token not in str(seen.headers)
    assert set(seen.headers) == {"host", "content-type", "accept-encoding", "x-request-id", "content-length"}


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (CHAT, b"", 400, "invalid_json"),
        (CHAT, b"[]", 400, "invalid_json"),
        (CHAT, b'{"model":"m"}', 400, "invalid_request"),
        (CHAT, b'{"messages":[]}', 400, "invalid_request"),
        (CHAT, b'{"model":3,"messages":[]}', 400, "invalid_request"),
        (CHAT, b'{"model":"nobody","messages":[]}', 404, "model_not_found"),
        (CHAT, b'{"model":"m","messages":[],"stream":"yes"}', 400, "invalid_request"),
        (CHAT, b'{"model":"m","messages":[],"stream":true,"stream_options":3}', 400, "invalid_request"),
        (CHAT, b'{"model":"m","messages":"\xff"}', 400, "invalid_utf8"),
        (CHAT, b'{"model":"m","messages":' + b"[" * 65 + b"]" * 65 + b"}", 400, "json_too_deep"),
        (EMBEDDINGS, b'{"model":"m","messages":[]}', 400, "invalid_request"),
    ],
)
async def test_what_cannot_be_served_is_refused_with_its_reason(
    gateway: Gateway, path: str, body: bytes, status: int, code: str
) -> None:
    answer = await gateway.ask(path, body)
    assert (answer.status, answer.error) == (status, code)
    assert gateway.upstream.stats.requests == 0


async def test_an_endpoint_that_the_engine_lacks_is_not_found(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(endpoints=(CHAT,))
    answer = await gateway.ask(EMBEDDINGS, body_for(EMBEDDINGS))
    assert (answer.status, answer.error) == (404, "endpoint_not_offered")


async def test_errors_on_messages_have_anthropics_shape(gateway: Gateway) -> None:
    answer = await gateway.ask(MESSAGES, {"model": "nobody", "messages": []})
    assert answer.status == 404
    assert answer.json == {
        "type": "error",
        "error": {"type": "not_found_error", "message": answer.json["error"]["message"]},
    }


@pytest.mark.parametrize("path", ["/healthz", "/v1/models", "/nowhere", CHAT])
async def test_a_head_request_gets_no_body(gateway: Gateway, path: str) -> None:
    connection = await gateway.connect()
    lines = f"HEAD {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.token}\r\n\r\n"
    connection.writer.write(lines.encode())
    head = await connection.until(b"\r\n\r\n")
    assert int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]) > 0
    answer = await connection.ask(CHAT, body_for(CHAT, Script(chunks=1)))
    assert (answer.version, answer.status) == ("HTTP/1.1", 200)


# Keys


def key_entry(key_id: str, *secrets: tuple[str, float | None], **more: Any) -> KeyEntry:
    digests = tuple(KeyDigest(digest_key(PEPPER, secret), expires) for secret, expires in secrets)
    return KeyEntry(key_id, "t", digests, **more)


async def ask_with(gateway: Gateway, token: str) -> Answer:
    connection = await gateway.connect()
    connection.token = token
    return await connection.ask(CHAT, body_for(CHAT, Script(chunks=1)))


async def test_a_revoked_key_dies_at_once_on_a_connection_that_is_kept(gateway: Gateway) -> None:
    connection = await gateway.connect()
    for _ in range(2):
        assert (await connection.ask(CHAT, body_for(CHAT, Script(chunks=1)))).status == 200
    assert gateway.service.directory.apply_delta(Delta(1, 2, removed_keys=(gateway.key_id,)))
    answer = await connection.ask(CHAT, body_for(CHAT, Script(chunks=1)))
    assert (answer.status, answer.error) == (401, "invalid_api_key")
    assert gateway.upstream.stats.requests == 2


async def test_a_key_that_a_snapshot_no_longer_has_dies_too(gateway: Gateway) -> None:
    connection = await gateway.connect()
    assert (await connection.ask(CHAT, body_for(CHAT, Script(chunks=1)))).status == 200
    gateway.publish()
    assert (await connection.ask(CHAT, body_for(CHAT, Script(chunks=1)))).status == 200
    gateway.publish(keys=())
    assert (await connection.ask(CHAT, body_for(CHAT, Script(chunks=1)))).status == 401


async def test_an_answer_under_way_is_completed_when_its_key_is_revoked(gateway: Gateway) -> None:
    connection = await gateway.connect()
    connection.send(CHAT, body_for(CHAT, Script(chunks=3, hang_after=1), stream=True))
    await gateway.upstream.until(lambda: bool(gateway.upstream.held))
    gateway.publish(keys=())
    gateway.upstream.release()
    assert (await connection.answer()).status == 200
    assert gateway.outcomes == [("settled", 11, 3, 200)]


async def test_a_key_expires_on_a_connection_that_is_kept(gateway: Gateway) -> None:
    now = gateway.clock.unix()
    gateway.publish(keys=(key_entry(gateway.key_id, (gateway.token, None), expires_at_unix=now + 10),))
    connection = await gateway.connect()
    for _ in range(2):
        assert (await connection.ask(CHAT, body_for(CHAT, Script(chunks=1)))).status == 200
    gateway.clock.advance(10.0)
    assert (await connection.ask(CHAT, body_for(CHAT, Script(chunks=1)))).status == 401


async def test_two_secrets_live_until_the_old_one_ends(gateway: Gateway) -> None:
    new = new_secret_for(gateway.key_id)
    now = gateway.clock.unix()
    gateway.publish(keys=(key_entry(gateway.key_id, (new, None), (gateway.token, now + 10)),))
    kept = await gateway.connect()
    for token in (new, gateway.token):
        assert (await ask_with(gateway, token)).status == 200
    for _ in range(2):
        assert (await kept.ask(CHAT, body_for(CHAT, Script(chunks=1)))).status == 200
    gateway.clock.advance(10.0)
    assert (await ask_with(gateway, new)).status == 200
    assert (await ask_with(gateway, gateway.token)).status == 401
    assert (await kept.ask(CHAT, body_for(CHAT, Script(chunks=1)))).status == 401


async def test_a_rotated_key_keeps_the_use_of_its_limits(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(limits=Limits(requests_per_minute=2))
    assert (await ask_with(gateway, gateway.token)).status == 200
    new = new_secret_for(gateway.key_id)
    gateway.publish(keys=(key_entry(gateway.key_id, (new, None), limits=gateway.key.limits),))
    gateway.token = new
    assert [(await gateway.ask_patiently(CHAT, body_for(CHAT))).status for _ in range(2)] == [200, 429]


async def test_every_wrong_key_is_refused_in_the_same_words(gateway: Gateway) -> None:
    """A refusal says neither whether the key's id exists nor how close its secret was."""
    _, stranger = new_key()
    other_secret = new_secret_for(gateway.key_id)
    gateway.publish()
    answers = [await ask_with(gateway, token) for token in (stranger, other_secret)]
    gateway.publish(keys=())
    answers.append(await ask_with(gateway, gateway.token))
    assert {answer.status for answer in answers} == {401}
    assert len({answer.body for answer in answers}) == 1


@pytest.mark.parametrize("token", ["", "x", "sk-swell-", "sk-swell-' OR 1=1 --", "\xff" * 73, "a" * 5000])
async def test_what_is_no_key_is_refused_before_any_look_up(gateway: Gateway, token: str) -> None:
    answer = await ask_with(gateway, token)
    assert answer.status == 401
    assert token[:40] not in answer.body.decode() or not token or token in ("x", "sk-swell-")


async def test_a_kept_connection_may_change_its_key(gateway: Gateway) -> None:
    key_id, token = new_key()
    gateway.publish(keys=(gateway.key, key_entry(key_id, (token, None))))
    connection = await gateway.connect()
    tokens = [gateway.token, token, gateway.token, token[:-1] + "x", gateway.token]
    statuses = []
    for connection.token in tokens:
        statuses.append((await connection.ask(CHAT, body_for(CHAT, Script(chunks=1)))).status)
    assert statuses == [200, 200, 200, 401, 200]
    assert [entry.reserved.key_id for entry in gateway.ledger.values()] == [
        gateway.key_id,
        key_id,
        gateway.key_id,
        gateway.key_id,
    ]


# The directory


async def test_deltas_apply_in_order_only(gateway: Gateway) -> None:
    directory = gateway.service.directory
    key_id, token = new_key()
    delta = Delta(1, 2, keys=(key_entry(key_id, (token, None)),))
    assert not directory.apply_delta(msgspec.structs.replace(delta, sequence=3))
    assert not directory.apply_delta(msgspec.structs.replace(delta, epoch=2))
    assert (await ask_with(gateway, token)).status == 401
    assert directory.apply_delta(delta)
    assert not directory.apply_delta(delta)
    assert (await ask_with(gateway, token)).status == 200


async def test_a_delta_changes_models_tenants_and_workers(gateway: Gateway) -> None:
    directory = gateway.service.directory
    other = ModelEntry(name="o", upstream_model="o", endpoints=(CHAT,), replicas=gateway.model.replicas)
    assert directory.apply_delta(Delta(1, 2, models=(other,), workers=4))
    assert {route.name for route in directory.models.values()} == {"m", "o"}
    assert gateway.replica().limit == 16
    assert (await gateway.ask(CHAT, {**body_for(CHAT, Script(chunks=1)), "model": "o"})).status == 200
    tenant = TenantEntry("t", Limits(requests_per_minute=0), "batch")
    assert directory.apply_delta(Delta(1, 3, tenants=(tenant,)))
    assert (await gateway.ask(CHAT, body_for(CHAT))).status == 429
    assert directory.apply_delta(Delta(1, 4, removed_tenants=("t",), removed_models=("o",)))
    assert (await gateway.ask(CHAT, body_for(CHAT, Script(chunks=1)))).status == 200
    assert (await gateway.ask(CHAT, {**body_for(CHAT), "model": "o"})).status == 404


async def test_a_replica_that_stays_keeps_its_load_and_connections(gateway: Gateway) -> None:
    connection = await gateway.connect()
    connection.send(CHAT, body_for(CHAT, Script(chunks=3, hang_after=1), stream=True))
    await gateway.upstream.until(lambda: bool(gateway.upstream.held))
    gateway.publish()
    assert gateway.replica().in_flight == 1
    gateway.upstream.release()
    assert (await connection.answer()).status == 200
    await gateway.ask(CHAT, body_for(CHAT, Script(chunks=1)))
    assert gateway.upstream.stats.connections == 1


async def test_a_replica_that_is_gone_finishes_what_it_has(gateway: Gateway) -> None:
    connection = await gateway.connect()
    connection.send(CHAT, body_for(CHAT, Script(chunks=3, hang_after=1), stream=True))
    await gateway.upstream.until(lambda: bool(gateway.upstream.held))
    gateway.publish(models=(msgspec.structs.replace(gateway.model, replicas=()),))
    gateway.upstream.release()
    assert (await connection.answer()).status == 200
    await gateway.upstream.until(lambda: gateway.upstream.stats.open == 0)
    assert gateway.outcomes == [("settled", 11, 3, 200)]


# Limits


@pytest.mark.parametrize("scope", ["limits", "tenant_limits"])
async def test_requests_over_the_limit_are_told_when_to_come_back(start_gateway: StartGateway, scope: str) -> None:
    gateway = await start_gateway(**{scope: Limits(requests_per_minute=3)}, timeouts=Timeouts(keep_alive_seconds=900.0))
    answers = [await gateway.ask_patiently(CHAT, body_for(CHAT, Script(chunks=1))) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers[:3]] == ["2", "1", "0"]
    assert answers[0].headers["x-ratelimit-limit-requests"] == "3"
    assert answers[3].error == "rate_limit_exceeded"
    assert 1 <= int(answers[3].headers["retry-after"]) <= 61
    assert len(gateway.ledger) == 3
    gateway.pass_time(1.0)
    gateway.pass_time(61.0)
    assert (await gateway.ask_patiently(CHAT, body_for(CHAT, Script(chunks=1)))).status == 200


async def test_tokens_are_held_as_estimated_and_settled_as_used(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(limits=Limits(tokens_per_minute=1000))
    for _ in range(5):  # each holds more than half of the limit while it runs, and uses 13 tokens
        assert (await gateway.ask(CHAT, body_for(CHAT, Script(chunks=2), max_tokens=500))).status == 200
    refused = await gateway.ask(CHAT, body_for(CHAT, max_tokens=1000))
    assert (refused.status, refused.error) == (429, "rate_limit_exceeded")
    assert "lower max_tokens" in refused.json["error"]["message"]


async def test_concurrent_requests_wait_for_a_place_and_are_refused_if_none_comes(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(limits=Limits(concurrent_requests=2))
    running = [await gateway.connect() for _ in range(2)]
    for connection in running:
        connection.send(CHAT, body_for(CHAT, Script(chunks=1, hang_after=-1)))
    await gateway.upstream.until(lambda: len(gateway.upstream.held) == 2)
    waiting, refused = await gateway.connect(), await gateway.connect()
    for connection in (waiting, refused):
        connection.send(CHAT, body_for(CHAT, Script(chunks=1)))
    await gateway.until(lambda: len(gateway.service.exchanges) == 4)
    next(iter(gateway.upstream.held)).release()
    done = asyncio.ensure_future(waiting.answer())
    second = asyncio.ensure_future(refused.answer())
    await gateway.until(done.done)
    assert (await done).status == 200
    assert (await second).status == 200
    late = await gateway.connect()
    blocker = await gateway.connect()
    blocker.send(CHAT, body_for(CHAT, Script(hang_after=-1)))
    await gateway.until(lambda: len(gateway.service.exchanges) == 2)
    late.send(CHAT, body_for(CHAT))
    await gateway.until(lambda: len(gateway.service.exchanges) == 3)
    for _ in range(4):
        gateway.pass_time(0.3)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert (await late.answer()).status == 429
    gateway.upstream.release()
    for connection in (running[0], running[1]):
        assert (await connection.answer()).status == 200


async def test_limits_without_a_server_are_refused_after_a_bounded_wait(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(limits=Limits(requests_per_minute=5))
    assert gateway.leases is not None
    gateway.leases.disconnect()
    connection = await gateway.connect()
    connection.send(CHAT, body_for(CHAT))
    await gateway.until(lambda: bool(gateway.service.exchanges))
    gateway.pass_time(2.1)
    answer = await connection.answer()
    assert (answer.status, answer.error) == (503, "limits_unavailable")
    assert not gateway.ledger


async def test_who_was_told_that_a_limit_is_reached_hears_of_it_also_where_the_server_falls_behind(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(limits=Limits(requests_per_minute=1))
    assert gateway.leases is not None
    gateway.leases.book.request("other", f"key:{gateway.key_id}:requests_per_minute", 1, gateway.clock.monotonic())
    connection = await gateway.connect()
    connection.send(CHAT, body_for(CHAT))
    (share,) = gateway.shares()
    await gateway.until(lambda: bool(share.denials))
    gateway.service.shares.send = lambda message: None  # it answers no more
    gateway.pass_time(0.3)
    assert (share.waiting, share.asked_at > 0) == (1, True)
    gateway.pass_time(2.1)
    answer = await connection.answer()
    assert (answer.status, answer.error, answer.headers["retry-after"]) == (429, "rate_limit_exceeded", "1")


async def test_a_refused_request_gives_its_shares_back(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(
        limits=Limits(requests_per_minute=5), max_in_flight=1, bounds=Bounds(queued_requests=0)
    )
    blocker = await gateway.connect()
    blocker.send(CHAT, body_for(CHAT, Script(chunks=1, hang_after=-1)))
    await gateway.upstream.until(lambda: bool(gateway.upstream.held))
    for _ in range(6):
        assert (await gateway.ask(CHAT, body_for(CHAT))).status == 503
    gateway.upstream.release()
    assert (await blocker.answer()).status == 200
    statuses = [(await gateway.ask_patiently(CHAT, body_for(CHAT))).status for _ in range(5)]
    assert statuses == [200] * 4 + [429]
