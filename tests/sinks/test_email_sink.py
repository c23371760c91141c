"""Mail: what is in it, how it travels, which replies mean what, and that no text becomes a header."""

import email
import email.policy
import ssl
import threading

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sink_harness import PASSWORD, EmailHarness, until
from smtp_receiver import SmtpReceiver

from swell.adapters.sinks.email import EmailSink, Mailbox, compose
from swell.errors import RetryLater
from swell.ports.alert_sink import SinkRefusedError
from swell.testing.alert_sink_suite import HOSTILE_TEXT, sample_alert

SENDER = "swell@ops.example"
TEAM = ("team@ops.example",)
HEADERS = {
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "Auto-Submitted",
    "Content-Type",
    "Content-Transfer-Encoding",
    "MIME-Version",
}

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


def plain_sink(port: int, to: tuple[str, ...] = TEAM, **options: float) -> EmailSink:
    return EmailSink("pager", Mailbox("127.0.0.1", port, "none"), SENDER, to, **options)


async def test_a_mail_says_what_happened(email_harness: EmailHarness) -> None:
    await email_harness.sink.deliver(sample_alert())
    (mail,) = email_harness.receiver.mails
    message = mail.message
    assert (mail.sender, mail.recipients) == (SENDER, TEAM)
    assert (mail.encrypted, mail.login) == (True, f"swell|{PASSWORD}")
    assert set(message.keys()) == HEADERS
    assert message["Subject"] == "Warning: Tenant search has spent 80% of its budget"
    assert message["Date"].datetime.timestamp() == sample_alert().at_unix
    content = mail.text
    assert content.startswith(sample_alert().text)
    assert "about: tenant search\npercent: 80\nspent: $80.00\nwhen: 2023-11-14T22:13:20Z\n" in content


async def test_a_repeat_is_the_same_mail(email_harness: EmailHarness) -> None:
    await email_harness.sink.deliver(sample_alert())
    await email_harness.sink.deliver(sample_alert())
    await email_harness.sink.deliver(sample_alert("another"))
    first, second, other = email_harness.receiver.mails
    assert first.raw == second.raw
    assert first.message["Message-ID"].endswith("@ops.example>")
    assert first.message["Message-ID"] != other.message["Message-ID"]


async def test_tls_from_the_start(loopback_tls: Contexts) -> None:
    server, client = loopback_tls
    async with SmtpReceiver(tls=server) as receiver:
        mailbox = Mailbox("127.0.0.1", receiver.port, "tls", tls=client)
        await EmailSink("pager", mailbox, SENDER, TEAM).deliver(sample_alert())
    assert receiver.mails[0].encrypted


@pytest.mark.parametrize("security", ["tls", "starttls"])
async def test_a_certificate_that_nobody_vouches_for_is_not_used(security: str, loopback_tls: Contexts) -> None:
    server, _ = loopback_tls
    async with SmtpReceiver(**{security: server}) as receiver:
        mailbox = Mailbox("127.0.0.1", receiver.port, security, "swell", PASSWORD)
        with pytest.raises(RetryLater, match="CERTIFICATE_VERIFY_FAILED"):
            await EmailSink("pager", mailbox, SENDER, TEAM).deliver(sample_alert())
    assert "AUTH" not in receiver.verbs
    assert receiver.mails == []


async def test_encryption_is_never_given_up_silently() -> None:
    async with SmtpReceiver() as receiver:
        mailbox = Mailbox("127.0.0.1", receiver.port, "starttls", "swell", PASSWORD)
        with pytest.raises(SinkRefusedError, match="STARTTLS"):
            await EmailSink("pager", mailbox, SENDER, TEAM).deliver(sample_alert())
    assert not {"AUTH", "MAIL"} & set(receiver.verbs)


@pytest.mark.parametrize(
    ("verb", "reply", "error"),
    [
        ("CONNECT", "421 full", RetryLater),
        ("CONNECT", "554 go away", SinkRefusedError),
        ("CONNECT", "what?", RetryLater),
        ("AUTH", "454 not now", RetryLater),
        ("AUTH", "535 who are you", SinkRefusedError),
        ("STARTTLS", "454 no TLS now", RetryLater),
        ("MAIL", "452 disk is full", RetryLater),
        ("MAIL", "550 not you", SinkRefusedError),
        ("RCPT", "450 greylisted", RetryLater),
        ("RCPT", "550 no such mailbox", SinkRefusedError),
        ("DATA", "451 try again", RetryLater),
        ("BODY", "554 spam", SinkRefusedError),
        ("BODY", "452 disk is full", RetryLater),
    ],
)
async def test_replies(verb: str, reply: str, error: type[Exception], email_harness: EmailHarness) -> None:
    email_harness.receiver.replies[verb] = reply
    with pytest.raises(error, match=r"alert sink pager: 127\.0\.0\.1 ") as caught:
        await email_harness.sink.deliver(sample_alert())
    assert PASSWORD not in str(caught.value)
    assert email_harness.receiver.mails == []


async def test_one_recipient_that_takes_it_is_enough_and_the_others_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with SmtpReceiver() as receiver:
        receiver.replies["RCPT <gone@ops.example>"] = "550 no such mailbox"
        await plain_sink(receiver.port, ("gone@ops.example", *TEAM)).deliver(sample_alert())
    assert [mail.recipients for mail in receiver.mails] == [TEAM]
    assert caplog.records[0].__dict__["recipients"] == ["gone@ops.example"]


async def test_of_several_that_refuse_one_that_may_take_it_later_decides() -> None:
    async with SmtpReceiver() as receiver:
        receiver.replies["RCPT <gone@ops.example>"] = "550 no such mailbox"
        receiver.replies["RCPT"] = "450 greylisted"
        with pytest.raises(RetryLater, match="answered 450"):
            await plain_sink(receiver.port, ("gone@ops.example", *TEAM)).deliver(sample_alert())
    assert receiver.mails == []


async def test_a_server_that_sends_a_byte_at_a_time_keeps_no_thread() -> None:
    before = threading.active_count()
    async with SmtpReceiver() as receiver:
        receiver.replies["CONNECT"] = "drip"
        with pytest.raises(RetryLater, match=r"within 0\.3 s"):
            await plain_sink(receiver.port, total_seconds=0.3).deliver(sample_alert())
        await until(lambda: receiver.open_connections == 0)
    assert threading.active_count() <= before + 1  # the pool's own, idle again


async def test_the_mail_counts_as_taken_whatever_becomes_of_the_farewell() -> None:
    async with SmtpReceiver() as receiver:
        receiver.replies["QUIT"] = "500 what?"
        await plain_sink(receiver.port).deliver(sample_alert())
    assert len(receiver.mails) == 1


async def test_nobody_there_is_worth_another_try(free_port: int) -> None:
    with pytest.raises(RetryLater, match="refused"):
        await plain_sink(free_port).deliver(sample_alert())


async def test_lines_that_begin_with_a_dot_arrive_whole() -> None:
    async with SmtpReceiver() as receiver:
        await plain_sink(receiver.port).deliver(sample_alert(text=".\n..\n.b\nQUIT\nend"))
    assert receiver.mails[0].text.startswith(".\n..\n.b\nQUIT\nend\n")


def test_a_password_is_not_shown() -> None:
    assert PASSWORD not in repr(Mailbox("127.0.0.1", 25, "none", "swell", PASSWORD))


@given(title=st.text(), text=st.text(), subject=st.text(), value=st.text())
@example(title=HOSTILE_TEXT, text=HOSTILE_TEXT, subject=HOSTILE_TEXT, value=HOSTILE_TEXT)
@example(title="a" * 5_000, text="b" * 50_000, subject="=?utf-8?q?=0D=0ABcc:_x@y.example?=", value="\r\n\r\n")
@example(title="é" * 5_000, text="x", subject="", value="")
@example(title="=?utf-8?q?=0D=0ABcc:_x@y.example?=", text="", subject="", value="")
def test_no_text_becomes_a_header(title: str, text: str, subject: str, value: str) -> None:
    alert = sample_alert(title=title, text=text, subject=subject, values={value: value})
    parsed = email.message_from_bytes(compose(alert, SENDER, TEAM).as_bytes(), policy=email.policy.default)
    assert set(parsed.keys()) == HEADERS
    assert len(parsed.keys()) == len(HEADERS)
    assert (parsed["From"], parsed["To"]) == (SENDER, ", ".join(TEAM))
    assert not parsed.is_multipart()
    assert not parsed.defects


@given(length=st.integers(min_value=1, max_value=60), labels=st.integers(min_value=1, max_value=4))
def test_a_message_id_stays_one_word_however_long_the_domain(length: int, labels: int) -> None:
    domain = ".".join(["d" * length] * labels)
    raw = compose(sample_alert(), f"swell@{domain}", TEAM).as_bytes()
    parsed = email.message_from_bytes(raw, policy=email.policy.compat32)
    assert replace_folds(parsed["Message-ID"]) == f"<{parsed['Message-ID'].strip()[1:41]}@{domain}>"


def replace_folds(value: str) -> str:
    """A header's value as a receiver unfolds it."""
    return value.replace("\r\n", "").replace("\n", "").strip()
