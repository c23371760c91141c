"""Models of which somebody else runs as many replicas as Swell decides, and where KEDA asks how many."""

import pytest

from swell.spec import ModelSpec, Spec, SpecRefusedError, parse_spec

ONE = 'endpoints: ["http://127.0.0.1:8000"]'
TWO = 'endpoints: ["http://127.0.0.1:8000", "http://127.0.0.1:8001"]'
ASKED = "server: {external_scaler: {}}"


def parse(model: str, server: str = ASKED, more: str = "") -> Spec:
    return parse_spec(f"models: [{{name: m, {model}}}]\n{server}\n{more}\n", origin="swell.yaml")


def model(fields: str) -> ModelSpec:
    return parse(f"{ONE}, {fields}").models[0]


def refusal(text: str, server: str = ASKED, more: str = "") -> tuple[str, str]:
    with pytest.raises(SpecRefusedError) as refused:
        parse(text, server, more)
    (problem,) = refused.value.problems
    return problem.path, str(refused.value)


@pytest.mark.parametrize("replicas", ["0..8", "1..2", "{min: 0, max: 8}", "{max: 3}", "{maxReplicas: 3}"])
def test_endpoints_that_leave_a_choice_are_advised(replicas: str) -> None:
    found = model(f"replicas: {replicas}")
    assert (found.is_advised, found.scales, found.is_launched, found.is_ordered) == (True, True, False, True)
    assert found.max_in_flight == 256, "sent to one replica, and the others have their own"


@pytest.mark.parametrize("fields", ["routing: round_robin", "replicas: 1", "replicas: {min: 1, max: 1}"])
def test_endpoints_that_leave_none_are_as_they_were(fields: str) -> None:
    found = model(fields)
    assert (found.is_advised, found.scales, found.is_ordered) == (False, False, False)
    assert found.max_in_flight == 20_000


def test_what_is_decided_by_may_be_said() -> None:
    found = model(
        "replicas: 0..8, accelerators: [L4], usd_per_replica_hour: 0.7, infrastructure_budget: {usd: 500, period: "
        "month}, scaling: {idle_seconds: 60}, objectives: {ttft_ms: 900}, parallel: 32, minimum_billed_seconds: 60, "
        "max_in_flight: 64"
    )
    assert (found.accelerators, found.parallel, found.max_in_flight) == (("L4",), 32, 64)
    assert found.infrastructure_budget[0].usd == 500


@pytest.mark.parametrize(
    ("fields", "path", "words"),
    [
        (f"{TWO}, replicas: 0..8", "models[0].replicas", "give one, of a Service in front of all replicas"),
        (f"{ONE}, replicas: 3", "models[0].replicas", "contradicts 1 endpoints"),
        (f"{ONE}, replicas: 0..8, accelerators: [L4, H100]", "models[0].accelerators", "name one"),
        (f"{ONE}, replicas: 0..8, spot: {{}}", "models[0].spot", "has no effect on endpoints"),
        (f"{ONE}, replicas: 0..8, provider: x", "models[0].provider", "has no effect on endpoints"),
        (f"{ONE}, parallel: 4", "models[0].parallel", "has no effect on endpoints"),
        (f"{ONE}, accelerators: [L4]", "models[0].accelerators", "has no effect on endpoints"),
        (f"{ONE}, minimum_billed_seconds: 60", "models[0].minimum_billed_seconds", "has no effect on endpoints"),
        (
            f"{ONE}, replicas: 0..8, infrastructure_budget: {{usd: 5, period: day}}",
            "models[0].usd_per_replica_hour",
            "infrastructure_budget counts it",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(fields: str, path: str, words: str) -> None:
    found, text = refusal(fields)
    assert found == path
    assert words in text


def test_a_choice_that_nobody_could_ask_for_is_refused() -> None:
    path, text = refusal(f"{ONE}, replicas: 0..8", server="")
    assert path == "models[0].replicas"
    assert "let KEDA ask with server: {external_scaler: {}}" in text


def test_the_organisations_budget_counts_what_others_run() -> None:
    budget = "organisation: {infrastructure_budget: {usd: 5, period: day}}"
    assert parse(f"{ONE}, replicas: 0..8, usd_per_replica_hour: 1", more=budget).models[0].is_advised
    path, text = refusal(f"{ONE}, replicas: 0..8", more=budget)
    assert path == "models[0].usd_per_replica_hour"
    assert "organisation.infrastructure_budget counts it" in text


def test_where_it_listens_by_default() -> None:
    scaler = parse(ONE).server.external_scaler
    assert scaler is not None
    assert (scaler.host, scaler.port, scaler.certificate, scaler.client_ca) == ("127.0.0.1", 7444, None, None)
    assert parse(ONE, server="").server.external_scaler is None


@pytest.mark.parametrize(
    ("scaler", "path", "words"),
    [
        ("{host: 0.0.0.0}", "server.external_scaler.host", "give certificate and private_key"),
        ("{certificate: a.pem}", "server.external_scaler.private_key", "is missing beside certificate"),
        ("{private_key: a.pem}", "server.external_scaler.certificate", "is missing beside private_key"),
        ("{client_ca: a.pem}", "server.external_scaler.client_ca", "has no effect in plaintext"),
        ("{port: 8080}", "server.external_scaler.port", "8080 is port too"),
        ("{port: 7443}, gateways: {}", "server.external_scaler.port", "7443 is gateways.port too"),
    ],
)
def test_where_it_cannot_listen_is_refused(scaler: str, path: str, words: str) -> None:
    found, text = refusal(ONE, f"server: {{external_scaler: {scaler}}}")
    assert found == path
    assert words in text


@pytest.mark.parametrize(
    "scaler",
    ["{host: 0.0.0.0, allow_plaintext_off_loopback: true}", "{host: 0.0.0.0, certificate: c.pem, private_key: k.pem}"],
)
def test_other_machines_may_reach_it_where_that_is_said(scaler: str) -> None:
    found = parse(ONE, f"server: {{external_scaler: {scaler}}}").server.external_scaler
    assert found is not None
    assert found.host != "127.0.0.1"
