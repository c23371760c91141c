"""Slack messages: their shape, their limits, and that no text becomes markup."""

import json
import re
from typing import Any

from http_receiver import HttpReceiver
from hypothesis import example, given
from hypothesis import strategies as st
from sink_harness import HttpHarness

from swell.adapters.sinks.slack import escaped, slack_body
from swell.state.alerts import AlertValue
from swell.testing.alert_sink_suite import HOSTILE_TEXT, sample_alert

MARKUP = st.text(alphabet="<>&@!#|abc*_`~ \n\ud7ff", max_size=200) | st.text()


def texts(body: dict[str, Any]) -> list[str]:
    """Every text of a message that Slack reads markup in."""
    found = [body["text"]]
    for block in body["blocks"]:
        parts = [block["text"]] if "text" in block else block.get("fields") or block["elements"]
        assert all(part["type"] == "mrkdwn" and part["verbatim"] is True for part in parts)
        found += [part["text"] for part in parts]
    return found


async def test_a_message_says_what_happened(slack_harness: HttpHarness, receiver: HttpReceiver) -> None:
    await slack_harness.sink.deliver(sample_alert())
    body = json.loads(receiver.posted[0].body)
    assert body["text"].startswith("Warning: Tenant search has spent 80% of its budget\nTenant search has spent $80.00")
    assert [block["type"] for block in body["blocks"]] == ["section", "section", "section", "context"]
    assert [part["text"] for part in body["blocks"][2]["fields"]] == ["percent: 80", "spent: $80.00"]
    assert body["blocks"][3]["elements"][0]["text"] == "tenant search · 2023-11-14T22:13:20Z · budget:tenant:search:80"


def test_what_is_too_long_for_slack_is_cut() -> None:
    values: dict[str, str | int] = {f"v{number}": "&" * 500 for number in range(60)}
    body = json.loads(slack_body(sample_alert(title="<" * 9_000, text="&" * 90_000, subject=">" * 999, values=values)))
    assert len(body["text"]) <= 4_000
    assert all(len(text) <= 3_000 for text in texts(body)[1:])
    assert len(body["blocks"][2]["fields"]) == 10
    assert all(len(part["text"]) <= 2_000 for part in body["blocks"][2]["fields"])


def test_lists_are_for_machines_and_no_field() -> None:
    rows: dict[str, AlertValue] = {"saving_usd": "5.00", "changes": [{"model": "chat"}]}
    body = json.loads(slack_body(sample_alert(values=rows)))
    assert [part["text"] for part in body["blocks"][2]["fields"]] == ["saving: $5.00"]


def test_an_alert_without_text_has_no_empty_block() -> None:
    body = json.loads(slack_body(sample_alert(title="", text=" \n", subject="", values={})))
    assert [text for text in texts(body)[1:] if not text.strip()] == []


@given(title=MARKUP, text=MARKUP, subject=MARKUP, value=MARKUP)
@example(title=HOSTILE_TEXT, text=HOSTILE_TEXT, subject=HOSTILE_TEXT, value=HOSTILE_TEXT)
@example(title="<!channel>", text="&lt;!here&gt; <http://a.example|b> @channel", subject="<@U1>", value="&amp;")
def test_no_text_becomes_markup(title: str, text: str, subject: str, value: str) -> None:
    alert = sample_alert(title=title, text=text, subject=subject, values={value: value})
    for shown in texts(json.loads(slack_body(alert))):
        assert re.search(r"[<>]|&(?!(amp|lt|gt);)|@(?!\u200b)", shown) is None


@given(text=MARKUP, limit=st.integers(min_value=1, max_value=300))
def test_escaping_keeps_to_its_limit_and_cuts_no_escape(text: str, limit: int) -> None:
    shown = escaped(text, limit)
    assert len(shown) <= limit
    plain = shown.replace("@\u200b", "@").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert plain == text or (plain.endswith("…") and text.startswith(plain[:-1]))
