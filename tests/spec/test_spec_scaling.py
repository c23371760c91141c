"""Objectives and scaling in a spec: defaults, aliases, and what is refused."""

import pytest

from swell.spec import ModelSpec, ObjectivesSpec, ScalingSpec, Spec, SpecRefusedError, parse_spec, spec_json_schema
from swell.units import usd_nanos


def parse(text: str) -> Spec:
    return parse_spec(text, origin="swell.yaml")


def model(fields: str) -> ModelSpec:
    return parse(f"models: [{{name: m, source: a.gguf, {fields}}}]").models[0]


def test_defaults() -> None:
    plain = model("replicas: 0..4")
    assert plain.objectives == ObjectivesSpec(
        ttft_ms=5000.0, ttft_ms_per_1k_prompt_tokens=0.0, itl_ms=100.0, attainment=0.99
    )
    assert plain.objectives.late == "demote"
    assert plain.scaling == ScalingSpec()
    assert (plain.scaling.interval_seconds, plain.scaling.idle_seconds, plain.scaling.hold_seconds) == (5.0, 300, 300)


@pytest.mark.parametrize(
    ("replicas", "scales"), [("0..4", True), ("1..2", True), ("2", False), ("0", False), ("{min: 3}", False)]
)
def test_a_model_scales_where_it_may_have_more_or_fewer_replicas(replicas: str, scales: bool) -> None:
    assert model(f"replicas: {replicas}").scales is scales


def test_endpoints_of_others_never_scale() -> None:
    spec = parse('models: [{name: m, endpoints: ["http://127.0.0.1:1"], objectives: {ttft_ms: 800}}]')
    assert not spec.models[0].scales
    assert spec.models[0].objectives.ttft_ms == 800


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [("replicas: 0..4", 5.0), ("scaling: {start_seconds: 30}", 30.0), ("engine: vllm, source: /models/x", 120.0)],
)
def test_a_start_takes_what_the_engine_usually_takes_unless_told(fields: str, seconds: float) -> None:
    text = fields if "source" in fields else f"source: a.gguf, {fields}"
    assert parse(f"models: [{{name: m, {text}}}]").models[0].start_seconds == seconds


@pytest.mark.parametrize(
    ("real", "alias"),
    [
        ("objectives: {ttft_ms: 800}", "objectives: {time_to_first_token_ms: 800}"),
        ("objectives: {itl_ms: 60}", "objectives: {tpot_ms: 60}"),
        ("objectives: {itl_ms: 60}", "slo: {inter_token_latency_ms: 60}"),
        ("scaling: {idle_seconds: 60}", "scaling: {cooldownPeriod: 60}"),
        ("scaling: {idle_seconds: 60}", "scaling: {scaledown_window: 60}"),
        ("scaling: {interval_seconds: 2}", "scaling: {pollingInterval: 2}"),
    ],
)
def test_aliases_mean_the_same(real: str, alias: str) -> None:
    assert model(real) == model(alias)


@pytest.mark.parametrize(
    ("fields", "path", "words"),
    [
        ("objectives: {ttft_ms: 0}", "models[0].objectives.ttft_ms", "greater than 0"),
        ("objectives: {attainment: 1}", "models[0].objectives.attainment", "less than or equal to 0.9999"),
        ("objectives: {attainment: 0.1}", "models[0].objectives.attainment", "greater than or equal to 0.5"),
        ("objectives: {late: drop}", "models[0].objectives.late", "not one of demote, refuse"),
        ("objectives: {itl: 5}", "models[0].objectives.itl", "did you mean itl_ms"),
        ("objectives: {itl_ms: 5, tpot_ms: 5}", "models[0].objectives.tpot_ms", "means the same as itl_ms"),
        ("scaling: {interval_seconds: 0.01}", "models[0].scaling.interval_seconds", "greater than or equal to 0.2"),
        ("scaling: {idle_second: 5}", "models[0].scaling.idle_second", "did you mean idle_seconds"),
        ("scaling: {drain_seconds: 100000}", "models[0].scaling.drain_seconds", "less than or equal to 86400"),
    ],
)
def test_refusals_name_the_path_and_what_is_allowed(fields: str, path: str, words: str) -> None:
    with pytest.raises(SpecRefusedError) as caught:
        model(fields)
    assert caught.value.path == path
    assert words in str(caught.value)


def test_scaling_of_endpoints_is_refused() -> None:
    with pytest.raises(SpecRefusedError, match="has no effect on endpoints that somebody else runs"):
        parse('models: [{name: m, endpoints: ["http://127.0.0.1:1"], scaling: {idle_seconds: 5}}]')


def test_the_schema_tells_of_them() -> None:
    known = spec_json_schema()["$defs"]
    assert set(known["ObjectivesSpec"]["properties"]) == set(ObjectivesSpec.model_fields)
    assert set(known["ScalingSpec"]["properties"]) == set(ScalingSpec.model_fields)


def test_machines_that_may_be_bought() -> None:
    plain = model("replicas: 0..4")
    assert (plain.accelerators, plain.spot) == ((), None)
    bought = model("accelerators: [L4, 4xH100], spot: {max_fraction: 0.7, on_demand_base: 1}")
    assert bought.accelerators == ("L4", "4xH100")
    assert bought.spot is not None
    assert (bought.spot.max_fraction, bought.spot.ondemand_base) == (0.7, 1)
    with pytest.raises(SpecRefusedError, match="max_fraction"):
        model("spot: {max_fraction: 1.2}")
    with pytest.raises(SpecRefusedError, match="endpoints that somebody else runs"):
        parse('models: [{name: m, endpoints: ["http://127.0.0.1:1"], spot: {max_fraction: 0.5}}]')


def test_what_a_replica_costs_an_hour_is_exact_and_optional() -> None:
    assert model("replicas: 1").usd_per_replica_hour is None
    priced = model("usd_per_replica_hour: 0.123456789").usd_per_replica_hour
    assert priced is not None
    assert usd_nanos(priced) == 123_456_789


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{name: m, source: a.gguf, usd_per_replica_hour: -1}", "negative"),
        ("{name: m, source: a.gguf, usd_per_replica_hour: 100001}", "of a month or a year"),
        ('{name: m, endpoints: ["http://127.0.0.1:1"], usd_per_replica_hour: 0}', "leave it out"),
    ],
)
def test_what_cannot_be_the_cost_of_a_replica_is_refused(text: str, problem: str) -> None:
    with pytest.raises(SpecRefusedError, match=problem):
        parse(f"models: [{text}]")


def test_what_is_batch_alone_is_had_on_spot_unless_the_file_says_otherwise() -> None:
    batch = model("priority: batch, accelerators: [L4]")
    assert batch.is_batch
    assert batch.spot is None, "the file is shown as it is"
    assert batch.bought_on_spot is not None
    assert (batch.bought_on_spot.max_fraction, batch.bought_on_spot.ondemand_base) == (1.0, 0)
    told = model("priority: batch, spot: {max_fraction: 0.3, ondemand_base: 2}")
    assert told.bought_on_spot == told.spot
    for other in (model("priority: standard"), model("replicas: 1")):
        assert not other.is_batch
        assert other.bought_on_spot is None
    far = parse('models: [{name: m, endpoints: ["http://127.0.0.1:1"], priority: batch}]').models[0]
    assert far.bought_on_spot is None
    with pytest.raises(SpecRefusedError, match="interactive"):
        model("priority: low")
