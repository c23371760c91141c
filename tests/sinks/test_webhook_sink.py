"""What a webhook's receiver can rely on: the signature, the ids, the body."""

import base64
import json

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC
from http_receiver import Answer, HttpReceiver, Posted
from hypothesis import given
from hypothesis import strategies as st
from sink_harness import SECRET, HttpHarness

from swell.adapters.sinks.outgoing import Outgoing
from swell.adapters.sinks.webhook import WebhookSink, read_webhook_secrets, sign, webhook_body
from swell.adapters.sinks.wording import MAX_ROWS
from swell.clock import ManualClock
from swell.errors import RetryLater, UserError
from swell.state.alerts import AlertValue
from swell.testing.alert_sink_suite import sample_alert


def verify(posted: Posted, secret: str, now_unix: float) -> None:
    """As a receiver would, with another library. InvalidSignature for a forgery or a replay."""
    headers = posted.headers
    if abs(now_unix - int(headers["webhook-timestamp"])) > 300:
        raise InvalidSignature("too old")
    mac = HMAC(base64.b64decode(secret), hashes.SHA256())
    mac.update(f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + posted.body)
    expected = "v1," + base64.b64encode(mac.finalize()).decode()
    if expected not in headers["webhook-signature"].split(" "):
        raise InvalidSignature("forged")


def test_the_signature_is_that_of_the_published_example() -> None:
    secret = read_webhook_secrets("pager", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")[0]
    made = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_a_receiver_can_verify_and_refuse_replays(webhook_harness: HttpHarness, receiver: HttpReceiver) -> None:
    await webhook_harness.sink.deliver(sample_alert())
    (posted,) = receiver.posted
    now = ManualClock().unix()
    verify(posted, SECRET, now)
    forged = Posted(posted.target, posted.headers, posted.body.replace(b"80", b"90"))
    with pytest.raises(InvalidSignature, match="forged"):
        verify(forged, SECRET, now)
    with pytest.raises(InvalidSignature, match="too old"):
        verify(posted, SECRET, now + 301)


async def test_a_repeat_has_its_own_timestamp_and_the_same_id_and_body(receiver: HttpReceiver) -> None:
    clock = ManualClock()
    outgoing = Outgoing("pager", f"http://127.0.0.1:{receiver.port}/hook?a=b", allow_private=True, clock=clock)
    sink = WebhookSink("pager", outgoing, [base64.b64decode(SECRET)], clock)
    receiver.next.append(Answer(500))
    with pytest.raises(RetryLater):
        await sink.deliver(sample_alert())
    clock.advance(400)
    await sink.deliver(sample_alert())
    await sink.close()
    first, second = receiver.posted
    verify(second, SECRET, clock.unix())
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == sample_alert().alert_id
    assert first.body == second.body
    assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) == 400
    assert second.target == "/hook?a=b"
    assert second.headers["content-type"] == "application/json"


async def test_the_body_has_money_as_text_and_as_an_integer(
    webhook_harness: HttpHarness, receiver: HttpReceiver
) -> None:
    await webhook_harness.sink.deliver(sample_alert())
    body = json.loads(receiver.posted[0].body)
    assert (body["type"], body["timestamp"]) == ("alert.budget", "2023-11-14T22:13:20Z")
    assert body["data"]["values"] == {"percent": 80, "spent_usd": "80.00", "spent_usd_nanos": 80_000_000_000}
    assert body["data"]["severity"] == "warning"


def test_two_secrets_sign_twice_so_that_a_receiver_can_change() -> None:
    new = base64.b64encode(b"n" * 24).decode()
    assert read_webhook_secrets("pager", f"whsec_{SECRET}\n{new}") == [base64.b64decode(SECRET), b"n" * 24]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("pa$$word!", "not base64"),
        ("whsec_" + base64.b64encode(b"short").decode(), "24 to 64 bytes"),
        ("whsec_" + base64.b64encode(b"x" * 65).decode(), "24 to 64 bytes"),
        (f"{SECRET} {SECRET} {SECRET}", "at most 2"),
    ],
)
def test_a_secret_that_is_none_is_refused_and_not_repeated(text: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        read_webhook_secrets("pager", text)
    assert text.split()[0].removeprefix("whsec_") not in caught.value.message


facts = st.dictionaries(st.text(), st.text() | st.integers())


@given(title=st.text(), text=st.text(), subject=st.text(), values=facts, rows=st.lists(facts, max_size=30))
def test_no_text_breaks_out_of_the_json(
    title: str, text: str, subject: str, values: dict[str, AlertValue], rows: list[dict[str, str | int]]
) -> None:
    values = {"rows": rows, **values}
    alert = sample_alert(title=title, text=text, subject=subject, values=values)
    body = json.loads(webhook_body(alert))
    assert set(body) == {"type", "timestamp", "data"}
    assert set(body["data"]) == set(sample_alert().__struct_fields__)
    shown = body["data"]["values"]["rows"]
    assert not isinstance(shown, list) or len(shown) == min(len(rows), MAX_ROWS)
    assert body["data"]["alert_id"] == alert.alert_id
