"""What workers are told, from spec, keys and replicas."""

from dataclasses import replace
from pathlib import Path

import pytest

from swell.control.replica import Replica
from swell.ports.engine import Address
from swell.server.publish import Served, limits_of, picture_of, refused_keys
from swell.spec import parse_spec
from swell.spec.tenants import MAX_LIMIT
from swell.state.messages import encode_message
from swell.state.records import KeyRecord
from swell.state.replica import Phase
from swell.state.snapshot import Limits

SPEC = parse_spec(
    """
models:
  - {name: chat, source: hf://org/chat, engine: vllm, max_in_flight: 7, lora: {tuned: /adapters/tuned},
     objectives: {late: refuse}}
  - {name: far, engine: external, endpoints: ["https://far.example/base"], upstream_model: big, n_max: 2}
tenants:
  - {name: search, limits: {requests_per_minute: 5}, priority: interactive}
""",
    origin="test",
)
MODELS = [Served(model, ("/v1/chat/completions",)) for model in SPEC.models]


def replica(workload: str, phase: Phase, address: Address | None, key: str = "") -> Replica:
    return Replica(
        workload=workload, kind="replica", provider="process", ordinal=0, child_id=f"{workload}-{phase}",
        address=address, fingerprint="", log_path=Path("x.log"), phase=phase, since=0, drain_seconds=0,
        stop_grace_seconds=0, key=key,
    )  # fmt: skip


def key(key_id: str, **fields: object) -> KeyRecord:
    fields = {"tenant": "search"} | fields
    return KeyRecord(key_id=key_id, name=key_id, digest=b"d", created_at_unix=0, **fields)


def picture(replicas: list[Replica] | None = None, keys: list[KeyRecord] | None = None):
    return picture_of(MODELS, SPEC.tenants, keys or [], replicas or [], workers=2, created_unix=1, now_unix=1000.0)


def test_only_routable_replicas_are_listed_and_adapters_share_them() -> None:
    here = Address("127.0.0.1", 9000)
    told = picture([replica("chat", Phase.READY, here, "secret"), replica("chat", Phase.DRAINING, here)])
    chat, tuned, far = told.models
    assert (chat.name, chat.upstream_model) == ("chat", "chat")
    assert (tuned.name, tuned.upstream_model, tuned.replicas) == ("tuned", "tuned", chat.replicas)
    [entry] = chat.replicas
    assert (entry.replica_id, entry.port, entry.max_in_flight) == ("chat-ready", 9000, 7)
    assert entry.authorization == "Bearer secret"
    assert [entry.refuses_late for entry in told.models] == [True, True, False]
    assert (far.upstream_model, far.n_cap, far.replicas) == ("big", 2, ())


def test_an_endpoint_keeps_its_prefix_and_tls() -> None:
    told = picture([replica("far", Phase.READY, Address("far.example", 443, True, "/base"))])
    [entry] = told.models[2].replicas
    assert (entry.host, entry.tls, entry.base_path, entry.authorization) == ("far.example", True, "/base", "")


def test_revoked_and_expired_keys_are_not_sent() -> None:
    keys = [key("live"), key("revoked", revoked_at_unix=1.0), key("expired", expires_at_unix=999.0)]
    assert [entry.key_id for entry in picture(keys=keys).keys] == ["live"]


@pytest.mark.parametrize("limits", [Limits(10**20), Limits(None, -1), Limits(None, None, MAX_LIMIT + 1)])
def test_a_stored_key_with_impossible_limits_is_refused_and_takes_nobody_down(
    limits: Limits,
) -> None:
    keys = [key("bad", limits=limits), key("good")]
    told = picture(keys=keys)
    assert [entry.key_id for entry in told.keys] == ["good"]
    assert encode_message(told.numbered(1, 1))
    [(refused, why)] = refused_keys(SPEC.tenants, keys, 1000.0)
    assert (refused.key_id, "must lie between" in why) == ("bad", True)


def test_keys_of_a_tenant_that_the_spec_lacks_are_refused_because_nothing_would_limit_them() -> None:
    keys = [key("gone"), key("mine", tenant="default")]
    told = picture_of(MODELS, (), keys, [], workers=2, created_unix=1, now_unix=1000.0)
    assert [entry.key_id for entry in told.keys] == ["mine"]
    [(refused, why)] = refused_keys((), keys, 1000.0)
    assert refused.key_id == "gone"
    assert why.startswith("the spec has no tenant 'search'; ")
    assert refused_keys(SPEC.tenants, keys, 1000.0) == []


def test_tenants_carry_limits_and_the_default_one_is_always_there() -> None:
    told = picture(keys=[key("k", limits=Limits(concurrent_requests=0))])
    assert [(tenant.name, tenant.priority) for tenant in told.tenants] == [
        ("default", "standard"),
        ("search", "interactive"),
    ]
    assert limits_of(told) == {"tenant:search:requests_per_minute": 5, "key:k:concurrent_requests": 0}


def test_llama_cpp_is_asked_for_one_choice_at_a_time() -> None:
    """It reports the usage of one choice only, so more could not be billed."""
    spec = parse_spec("models: [{name: small, source: file:///m.gguf, engine: llama.cpp, n_max: 4}]", origin="test")
    served = [Served(spec.models[0], ("/v1/completions",))]
    told = picture_of(served, (), [], [], workers=1, created_unix=1, now_unix=1000.0)
    assert (told.models[0].n_cap, told.models[0].prompts_cap) == (1, 1)


def test_replicas_that_cannot_be_asked_about_are_named_and_no_more() -> None:
    here = Address("127.0.0.1", 9000)
    unseen = replace(replica("chat", Phase.READY, None), child_id="chat-0.aa", unseen=True)
    told = picture([unseen, replace(unseen, child_id="chat-1.bb", address=here), replica("chat", Phase.READY, here)])
    chat, tuned, far = told.models
    assert chat.kept == tuned.kept == ("chat-0.aa", "chat-1.bb")
    assert [entry.replica_id for entry in chat.replicas] == ["chat-ready"]
    assert far.kept == ()
