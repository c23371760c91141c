"""Alert sinks in a spec: defaults, short forms, and what is refused in which words and without its secrets."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from swell.spec.alerts import AlertsSpec, CommandSpec, EmailSpec, SlackSpec, WebhookSpec, sink_url_problem
from swell.spec.problems import problems_of

FULL = """
sinks:
  - {kind: webhook, name: ours, url: "https://alerts.example/hook?team=a", secret_env: HOOK_SECRET}
  - {kind: webhook, name: here, url: "http://127.0.0.1:9000/hook", secret_file: hook.secret, allow_private: true}
  - {kind: slack, name: chat, url_env: SLACK_URL}
  - {kind: email, name: mail, host: smtp.example, from: swell@ops.example, to: [a@ops.example, b@ops.example],
     user: swell, password_env: SMTP_PASSWORD}
  - {kind: command, name: page, argv: [/usr/local/bin/page, --team, serving], timeout_seconds: 5}
"""
WEBHOOK = "kind: webhook, name: w, url: 'https://a.example/', secret_env: S"
EMAIL = "kind: email, name: m, host: smtp.example, sender: s@a.example, to: [t@a.example]"


def parse(text: str, base: Path | None = None) -> AlertsSpec:
    return AlertsSpec.model_validate(yaml.safe_load(text), context={"base": base})


def refusal(sink: str) -> list[str]:
    """What is wrong with one sink, as the user reads it."""
    with pytest.raises(ValidationError) as caught:
        parse(f"sinks: [{{{sink}}}]")
    return [str(problem) for problem in problems_of(caught.value, AlertsSpec)]


def test_every_field_arrives(tmp_path: Path) -> None:
    ours, here, chat, mail, page = parse(FULL, tmp_path).sinks
    assert isinstance(ours, WebhookSpec)
    assert (ours.url, ours.secret_env, ours.allow_private) == (
        "https://alerts.example/hook?team=a",
        "HOOK_SECRET",
        False,
    )
    assert isinstance(here, WebhookSpec)
    assert here.secret_file == str(tmp_path / "hook.secret")
    assert isinstance(chat, SlackSpec)
    assert chat.url_env == "SLACK_URL"
    assert isinstance(mail, EmailSpec)
    assert (mail.security, mail.port, mail.sender) == ("starttls", 587, "swell@ops.example")
    assert mail.to == ("a@ops.example", "b@ops.example")
    assert isinstance(page, CommandSpec)
    assert (page.argv, page.timeout_seconds) == (("/usr/local/bin/page", "--team", "serving"), 5.0)


def test_it_survives_being_written_and_read_and_is_frozen() -> None:
    spec = parse(FULL)
    assert parse(json.dumps(spec.model_dump(mode="json"))) == spec
    assert hash(spec) == hash(parse(FULL))
    with pytest.raises(ValidationError, match="frozen"):
        spec.sinks = ()
    assert AlertsSpec().sinks == ()


@pytest.mark.parametrize(("security", "port"), [("starttls", 587), ("tls", 465)])
def test_the_port_follows_from_the_security(security: str, port: int) -> None:
    (mail,) = parse(f"sinks: [{{{EMAIL}, security: {security}}}]").sinks
    assert isinstance(mail, EmailSpec)
    assert mail.port == port


@pytest.mark.parametrize(
    ("sink", "problem"),
    [
        ("name: a", "sinks[0].kind: is missing; give one of webhook, slack, email, command"),
        (
            "kind: webhok, name: a",
            "sinks[0].kind: 'webhok' is not one of webhook, slack, email, command; did you mean webhook?",
        ),
        ("kind: [a]", "sinks[0].kind: a list is not one of webhook, slack, email, command"),
        ("kind: webhook, name: w, secret_env: S", "sinks[0].url: is missing; give it"),
        ("kind: webhook, url: 'https://a.example/', secret_env: S", "sinks[0].name: is missing; give it a name"),
        (
            "kind: webhook, name: w, url: 'https://a.example/'",
            "sinks[0]: has no secret; give secret_env or secret_file",
        ),
        (f"{WEBHOOK}, secret_file: f", "sinks[0].secret_file: contradicts secret_env; keep one of them"),
        (f"{WEBHOOK}, allow_privat: true", "sinks[0].allow_privat: is not a known field; did you mean allow_private?"),
        (
            "kind: command, name: c, argv: [a], url: x",
            "sinks[0].url: is not a known field; known are kind, name, argv, timeout_seconds, kinds",
        ),
        ("kind: slack, name: s", "sinks[0]: has no URL; give url_env or url_file or url"),
        (f"{EMAIL}, security: none", "sinks[0].security: none would send alerts to smtp.example unencrypted; use"),
        (f"{EMAIL}, security: ssl", "sinks[0].security: 'ssl' must be 'starttls', 'tls' or 'none'"),
        (f"{EMAIL}, user: u", "sinks[0]: has no password; give password_env or password_file"),
        (f"{EMAIL}, password_env: P", "sinks[0].user: is missing beside the password; give both or neither"),
        (f"{EMAIL}, from: x@a.example", "sinks[0].from: means the same as sender, which is given too; keep one"),
        (EMAIL.replace("[t@a.example]", "[]"), "sinks[0].to: is empty; name at least one address"),
        (EMAIL.replace("[t@", "[t@a.example, t@"), "sinks[0].to: names the same address twice; list each once"),
        (EMAIL.replace("[t@", '["a b@'), "sinks[0].to[0]: 'a b@a.example' has characters that are not allowed here"),
        (EMAIL.replace("[t@", '["a..b@'), "sinks[0].to[0]: 'a..b@a.example' has characters"),
        (EMAIL.replace("[t@a", r'["t@b\r\nBcc: x@a'), "sinks[0].to[0]: "),
        ("kind: command, name: c, argv: []", "sinks[0].argv: is empty; name a program"),
        ("kind: command, name: c, argv: page", "sinks[0].argv: 'page' must be a list"),
        (
            "kind: command, name: c, argv: [a], timeout_seconds: 999",
            "sinks[0].timeout_seconds: 999 must be less than",
        ),
        ("kind: command, name: 'a b', argv: [a]", "sinks[0].name: 'a b' is not a name: begin with a letter"),
    ],
)
def test_refusals_name_the_field_and_what_to_do(sink: str, problem: str) -> None:
    if '["' in sink:
        sink = sink.replace("a.example]", 'a.example"]')
    (found,) = refusal(sink)
    assert found.startswith(problem)


def test_several_problems_are_told_at_once() -> None:
    assert len(refusal("kind: email, name: 'a b', host: 'a b', to: [x], port: 0, colour: red")) == 6


def test_two_sinks_of_one_name_are_refused() -> None:
    with pytest.raises(ValidationError) as caught:
        parse(f"sinks: [{{{WEBHOOK}}}, {{{EMAIL}}}, {{{WEBHOOK}}}]")
    (problem,) = problems_of(caught.value, AlertsSpec)
    assert problem.path == "sinks[2].name"
    assert problem.text == "'w' is already the name of the sink at sinks[0].name; each needs its own"


def test_more_sinks_than_the_bound_are_refused() -> None:
    sinks = [{"kind": "command", "name": f"c{number}", "argv": ["a"]} for number in range(17)]
    with pytest.raises(ValidationError, match="at most 16"):
        AlertsSpec.model_validate({"sinks": sinks})


@pytest.mark.parametrize("value", ["text", 3, [1], None])
def test_what_is_no_mapping_is_refused(value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        AlertsSpec.model_validate({"sinks": [value]})
    assert [problem.path for problem in problems_of(caught.value, AlertsSpec)] == ["sinks[0]"]


@pytest.mark.parametrize(
    "fields",
    [
        {"url": "hxxps://hooks.example/T000-geheim"},
        {"url": "https://hooks.example/T000-geheim\x00"},
        {"url": "https://hooks.example/T000-geheim#a"},
        {"url": "https://user:geheim@hooks.example/"},
        {"url_env": "https://hooks.example/T000-geheim"},
        {"url": "https://hooks.example/", "urll": "https://hooks.example/T000-geheim"},
        {"url": "https://hooks.example/", "url_env": "T000_geheim"},
        {"url": ["geheim"]},
    ],
)
def test_a_refused_sink_is_not_repeated_with_its_secrets(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        AlertsSpec.model_validate({"sinks": [{"kind": "slack", "name": "s", **fields}]})
    problems = problems_of(caught.value, AlertsSpec)
    assert problems
    assert [str(problem) for problem in problems if "geheim" in str(problem)] == []


@pytest.mark.parametrize(
    ("url", "allow_private", "problem"),
    [
        ("https://alerts.example/hook?a=b", False, ""),
        ("https://10.0.0.1:8443/", False, ""),  # the address is judged when something is sent
        ("http://127.0.0.1:9000/", True, ""),
        ("http://[::1]:9000/", True, ""),
        ("http://127.0.0.1:9000/", False, "must begin with https://"),
        ("http://alerts.example/", True, "must begin with https://"),
        ("ftp://alerts.example/", True, "must begin with https://"),
        ("https://", False, "is not a URL"),
        ("https://a.example:99999/", False, "is not a URL"),
        ("https://a.example:0/", False, "is not a URL"),
        ("https://a.example\\@b.example/", False, "is not a URL"),
        ("https://exämple.example/", False, "is not a URL"),
        ("https://a.example/\r\nx: y", False, "is not a URL"),
        ("https://a@b.example/", False, "carries credentials"),
        ("https://a.example/#", False, "must not have a fragment"),
    ],
)
def test_urls(url: str, allow_private: bool, problem: str) -> None:
    assert sink_url_problem(url, allow_private=allow_private).startswith(problem)
    assert bool(sink_url_problem(url, allow_private=allow_private)) == bool(problem)


def test_the_schema_describes_each_kind() -> None:
    items = AlertsSpec.model_json_schema()["properties"]["sinks"]["items"]
    assert set(items["discriminator"]["mapping"]) == {"webhook", "slack", "email", "command"}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["name", "url", "secret_env", "host", "sender", "from", "to", "user", "argv", "security", "{x}"]
)


@given(kind=st.sampled_from(["webhook", "slack", "email", "command", 3]), fields=st.dictionaries(FIELDS, ANYTHING))
def test_anything_is_either_a_spec_or_refused_in_sentences(kind: object, fields: dict[str, object]) -> None:
    try:
        problems = [] if AlertsSpec.model_validate({"sinks": [{"kind": kind, **fields}]}).sinks else ["nothing"]
    except ValidationError as error:
        problems = [problem.path for problem in problems_of(error, AlertsSpec) if problem.text]
        assert problems
    assert [path for path in problems if not path.startswith("sinks[0]")] == []
