"""Alerts over HTTP: what each answer means, what a hostile server can do, and where nothing is ever sent."""

import json
import ssl

import pytest
from http_receiver import Answer, HttpReceiver
from sink_harness import HttpHarness, tls_pair, until

from swell.adapters.sinks.outgoing import MAX_RETRY_AFTER_SECONDS, Outgoing
from swell.clock import ManualClock
from swell.errors import RetryLater, UserError
from swell.ports.alert_sink import RETRY_SECONDS, SinkRefusedError
from swell.testing.alert_sink_suite import sample_alert


class Resolver:
    """Answers what it was given, one list per question, the last one again and again."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def outgoing(
    url: str, resolver: Resolver, *, allow_private: bool = True, tls: ssl.SSLContext | None = None, seconds: float = 5.0
) -> Outgoing:
    return Outgoing(
        "pager",
        url,
        allow_private=allow_private,
        clock=ManualClock(),
        resolver=resolver,
        tls=tls,
        total_seconds=seconds,
    )


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 425, 429])
async def test_statuses_that_are_worth_another_try(
    status: int, webhook_harness: HttpHarness, receiver: HttpReceiver
) -> None:
    receiver.answer = Answer(status)
    with pytest.raises(RetryLater, match=f"pager: 127.0.0.1 answered {status}") as caught:
        await webhook_harness.sink.deliver(sample_alert())
    assert caught.value.retry_after_seconds == RETRY_SECONDS


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 413, 422])
async def test_statuses_that_are_not(status: int, webhook_harness: HttpHarness, receiver: HttpReceiver) -> None:
    receiver.answer = Answer(status, body=b"no such hook\x1b[31m")
    with pytest.raises(SinkRefusedError, match=rf"answered {status} \(no such hook \[31m\); check the URL"):
        await webhook_harness.sink.deliver(sample_alert())
    assert len(receiver.posted) == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("17", 17.0),
        ("0", 0.0),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0),  # a minute after the clock's beginning
        ("Tue, 14 Nov 2003 22:14:20 GMT", 0.0),
        ("999999", MAX_RETRY_AFTER_SECONDS),
        ("9" * 400, RETRY_SECONDS),
        ("soon", RETRY_SECONDS),
        ("-5", RETRY_SECONDS),
        ("nan", RETRY_SECONDS),
    ],
)
async def test_a_receiver_may_say_when(
    header: str, seconds: float, webhook_harness: HttpHarness, receiver: HttpReceiver
) -> None:
    receiver.answer = Answer(429, {"retry-after": header})
    with pytest.raises(RetryLater) as caught:
        await webhook_harness.sink.deliver(sample_alert())
    assert caught.value.retry_after_seconds == seconds


async def test_a_redirect_is_not_followed(webhook_harness: HttpHarness, receiver: HttpReceiver) -> None:
    receiver.next.append(Answer(307, {"location": f"http://127.0.0.1:{receiver.port}/elsewhere"}))
    with pytest.raises(SinkRefusedError, match="redirect"):
        await webhook_harness.sink.deliver(sample_alert())
    assert [posted.target for posted in receiver.posted] == [webhook_harness.path]


@pytest.mark.parametrize("status", [200, 500])
async def test_an_endless_body_is_left_unread(
    status: int, webhook_harness: HttpHarness, receiver: HttpReceiver
) -> None:
    receiver.answer = Answer(status, way="endless")
    if status == 200:
        await webhook_harness.sink.deliver(sample_alert())
    else:
        with pytest.raises(RetryLater, match="answered 500"):
            await webhook_harness.sink.deliver(sample_alert())
    await until(lambda: receiver.open_connections == 0)
    assert receiver.bytes_sent < 64 * 1024 * 1024  # what socket buffers hold, far from what was offered


async def test_a_connection_that_closes_early_is_worth_another_try(
    webhook_harness: HttpHarness, receiver: HttpReceiver
) -> None:
    receiver.next.append(Answer(way="close"))
    with pytest.raises(RetryLater, match="could not be reached"):
        await webhook_harness.sink.deliver(sample_alert())
    await webhook_harness.sink.deliver(sample_alert())
    assert len(receiver.taken) == 1


async def test_an_answer_that_drips_has_an_end(receiver: HttpReceiver) -> None:
    receiver.answer = Answer(way="drip")
    sending = outgoing(f"http://127.0.0.1:{receiver.port}/", Resolver(["127.0.0.1"]), seconds=0.3)
    with pytest.raises(RetryLater):
        await sending.post(b"{}", {})
    await sending.close()
    await until(lambda: receiver.open_connections == 0)


async def test_nobody_there_is_worth_another_try(free_port: int) -> None:
    sending = outgoing(f"http://127.0.0.1:{free_port}/secret", Resolver(["127.0.0.1"]))
    with pytest.raises(RetryLater, match="could not be reached") as caught:
        await sending.post(b"{}", {})
    await sending.close()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "::1",
        "fe80::1",
        "fe80::1%2",
        "fd00::1",
        "fec0::1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::1",
        "0.0.0.0",  # noqa: S104 - an address to refuse
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "ff02::1",
    ],
)
async def test_nothing_is_sent_inside_this_network_unless_that_is_meant(address: str) -> None:
    resolver = Resolver(["93.184.216.34", address])
    sending = outgoing("https://alerts.example/hook", resolver, allow_private=False)
    with pytest.raises(SinkRefusedError, match=r"pager: alerts\.example is .* which is "):
        await sending.post(b"{}", {})
    await sending.close()
    assert resolver.asked == [("alerts.example", 443)]


async def test_a_name_is_resolved_once_and_its_address_is_the_one_that_was_judged(receiver: HttpReceiver) -> None:
    """The second answer, where nobody listens, stands for a name that changes between the question and the use."""
    resolver = Resolver(["127.0.0.1"], ["127.0.0.9"])
    sending = outgoing(f"http://localhost:{receiver.port}/hook", resolver)
    await sending.post(b"{}", {})
    await sending.close()
    assert resolver.asked == [("localhost", receiver.port)]
    assert receiver.posted[0].headers["host"] == f"localhost:{receiver.port}"


async def test_the_next_address_is_tried_where_one_is_not_reached(receiver: HttpReceiver) -> None:
    sending = outgoing(f"http://localhost:{receiver.port}/hook", Resolver(["127.0.0.9", "127.0.0.1"]))
    await sending.post(b"{}", {})
    await sending.close()
    assert len(receiver.taken) == 1


async def test_http_to_another_machine_is_refused_whatever_its_name_says() -> None:
    sending = outgoing("http://localhost/hook", Resolver(["192.168.1.1"]))
    with pytest.raises(SinkRefusedError, match="use https"):
        await sending.post(b"{}", {})
    await sending.close()


async def test_the_certificate_must_be_for_the_name_in_the_url() -> None:
    server, client = tls_pair("alerts.example")
    async with HttpReceiver(server) as receiver:
        good = outgoing(f"https://alerts.example:{receiver.port}/hook", Resolver(["127.0.0.1"]), tls=client)
        await good.post(json.dumps({"a": 1}).encode(), {})
        other = outgoing(f"https://other.example:{receiver.port}/hook", Resolver(["127.0.0.1"]), tls=client)
        with pytest.raises(RetryLater, match="certificate"):
            await other.post(b"{}", {})
        strict = outgoing(f"https://alerts.example:{receiver.port}/hook", Resolver(["127.0.0.1"]))
        with pytest.raises(RetryLater, match="certificate"):
            await strict.post(b"{}", {})
        for sending in (good, other, strict):
            await sending.close()
    assert [posted.headers["host"] for posted in receiver.posted] == [f"alerts.example:{receiver.port}"]


@pytest.mark.parametrize("url", ["https://[::1/", "https://a b/", "https://" + "a" * 5000, "ftp://a.example/"])
def test_what_is_no_url_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(UserError, match="alert sink pager: its URL"):
        outgoing(url, Resolver(["127.0.0.1"]))


async def test_a_name_that_nobody_knows_is_worth_another_try() -> None:
    sending = Outgoing("pager", "https://no-such-host.invalid/", allow_private=False, clock=ManualClock())
    with pytest.raises(RetryLater, match=r"no-such-host\.invalid"):
        await sending.post(b"{}", {})
    await sending.close()
