"""From a spec to a sink: every kind opens and delivers, and secrets are read once, with advice where they are not."""

import base64
import sys
from pathlib import Path

import pytest
from http_receiver import HttpReceiver
from pydantic import TypeAdapter
from sink_harness import SECRET
from smtp_receiver import SmtpReceiver

from swell.adapters.sinks import SINKS, open_sink
from swell.clock import ManualClock
from swell.errors import UserError
from swell.spec.alerts import AlertsSpec, EmailSpec, SinkSpec
from swell.state.alerts import Alert, money_values
from swell.testing.alert_sink_suite import sample_alert

_SINK: TypeAdapter[SinkSpec] = TypeAdapter(SinkSpec)


def spec(**fields: object) -> SinkSpec:
    return _SINK.validate_python({"name": "pager", **fields})


def test_every_kind_of_the_spec_has_a_sink() -> None:
    schema = AlertsSpec.model_json_schema()
    fields = [definition.get("properties", {}) for definition in schema["$defs"].values()]
    kinds = {each["kind"]["const"] for each in fields if "kind" in each}
    assert kinds == set(SINKS)


async def test_each_kind_delivers(receiver: HttpReceiver, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{receiver.port}"
    environ = {"HOOK_SECRET": f" whsec_{SECRET}\n", "SLACK_URL": f"{url}/slack"}
    file = tmp_path / "made"
    async with SmtpReceiver() as mail:
        specs = [
            spec(kind="webhook", url=f"{url}/hook", secret_env="HOOK_SECRET", allow_private=True),
            spec(kind="slack", url_env="SLACK_URL", allow_private=True),
            spec(kind="slack", url=f"{url}/other", allow_private=True),
            spec(
                kind="email",
                host="127.0.0.1",
                port=mail.port,
                security="none",
                to=["a@b.example"],
                sender="s@b.example",
            ),
            spec(kind="command", argv=[sys.executable, "-c", f"open({str(file)!r}, 'w')"]),
        ]
        for each in specs:
            sink = open_sink(each, environ, ManualClock())
            assert sink.name == "pager"
            await sink.deliver(sample_alert())
            await sink.close()
    assert [posted.target for posted in receiver.posted] == ["/hook", "/slack", "/other"]
    assert len(mail.mails) == 1
    assert file.exists()


async def test_a_password_file_is_read_when_the_sink_is_opened(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("  pass word \n")
    async with SmtpReceiver() as mail:
        given = spec(
            kind="email",
            host="127.0.0.1",
            port=mail.port,
            security="none",
            to=["a@b.example"],
            sender="s@b.example",
            user="swell",
            password_file=str(tmp_path / "password"),
        )
        assert isinstance(given, EmailSpec)
        sink = open_sink(given, {})
        (tmp_path / "password").unlink()
        await sink.deliver(sample_alert())
    assert mail.mails[0].login == "swell|pass word"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "the environment variable HOOK_SECRET holds no secret; set it"),
        ("  \n", "the environment variable HOOK_SECRET holds no secret; set it"),
        ("geheim\x00", "characters that no secret has"),
        ("geheimé", "characters that no secret has"),
        ("x" * 9_000, "characters that no secret has"),
        (base64.b64encode(b"short").decode(), "24 to 64 bytes"),
    ],
)
def test_a_variable_without_a_usable_secret_is_told(value: str | None, problem: str) -> None:
    environ = {} if value is None else {"HOOK_SECRET": value}
    given = spec(kind="webhook", url="https://alerts.example/", secret_env="HOOK_SECRET")
    with pytest.raises(UserError, match=f"alert sink pager: .*{problem}") as caught:
        open_sink(given, environ)
    assert "geheim" not in caught.value.message


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    given = spec(kind="slack", url_file=str(tmp_path / "absent"))
    with pytest.raises(
        UserError, match=r"cannot read the file .*absent \(No such file or directory\); put the URL there"
    ):
        open_sink(given, {})


@pytest.mark.parametrize(
    "url", ["http://hooks.example/T000/secret", "hooks.example/T000/secret", "https://u@h.example/T000"]
)
def test_a_url_from_the_environment_is_judged_as_one_in_the_spec(url: str) -> None:
    with pytest.raises(UserError, match="alert sink pager: its URL") as caught:
        open_sink(spec(kind="slack", url_env="SLACK_URL"), {"SLACK_URL": url})
    assert "T000" not in caught.value.message


@pytest.mark.parametrize("alert_id", ["", "a b", "a\nb", "a\x7f", "é", "x" * 256])
def test_an_id_that_no_header_can_carry_makes_no_alert(alert_id: str) -> None:
    with pytest.raises(ValueError, match="alert_id"):
        sample_alert(alert_id)


@pytest.mark.parametrize("at_unix", [-1.0, float("nan"), float("inf"), 1_700_000_000_000.0])
def test_a_moment_that_is_none_makes_no_alert(at_unix: float) -> None:
    with pytest.raises(ValueError, match="at_unix"):
        sample_alert(at_unix=at_unix)


def test_sums_of_money_are_text_and_integers() -> None:
    assert money_values("left", -1_234_567_000_000_001) == {
        "left_usd": "-1234567.000000001",
        "left_usd_nanos": -1_234_567_000_000_001,
    }
    fields = {
        "alert_id": "a",
        "kind": "test",
        "severity": "info",
        "title": "",
        "text": "",
        "subject": "",
        "at_unix": 0.0,
    }
    first, second = Alert(**fields), Alert(**fields)  # type: ignore[arg-type]  # literals, in a mapping
    assert first.values == {}
    assert first.values is not second.values
