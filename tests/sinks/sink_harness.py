"""Harnesses for the alert sink suite: a fake, and each real sink with a real other side on loopback."""

import asyncio
import base64
import json
import ssl
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import trustme
from http_receiver import Answer, HttpReceiver
from smtp_receiver import SmtpReceiver

from swell.adapters.sinks.command import CommandSink
from swell.adapters.sinks.email import EmailSink, Mailbox
from swell.adapters.sinks.outgoing import TOTAL_SECONDS, Outgoing
from swell.adapters.sinks.slack import SlackSink
from swell.adapters.sinks.webhook import WebhookSink
from swell.clock import ManualClock
from swell.errors import RetryLater
from swell.ports.alert_sink import AlertSink, SinkRefusedError
from swell.testing.fake_alert_sink import FakeAlertSink

SILENT_SECONDS = 1.0  # until a sink under test gives up
WAIT_SECONDS = 10.0
POLL_SECONDS = 0.01
SECRET = base64.b64encode(bytes(range(32))).decode()
PASSWORD = "hunter2-of-the-mailbox"

_COMMAND = """
import json, os, signal, sys
folder = sys.argv[1]
mode = open(folder + "/mode").read()
alert = json.load(sys.stdin)
open(folder + "/begun", "w").close()
if mode == "silent":
    signal.pause()
print("said", mode)
if mode == "accept":
    with open(folder + "/received", "a") as received:
        received.write(alert["alert_id"] + "\\n")
sys.exit({"accept": 0, "busy": 75, "refuse": 78}[mode])
"""


async def until(condition: Callable[[], bool]) -> None:
    """Polls: nothing else tells what another process or connection did. AssertionError if it does not come true."""
    turn = asyncio.Event()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WAIT_SECONDS
    while not condition():
        assert loop.time() < deadline, "still not so"
        loop.call_later(POLL_SECONDS, turn.set)
        await turn.wait()
        turn.clear()


class FakeHarness:
    """Faults of the fake that make what is asked for."""

    secrets: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.fake = FakeAlertSink("pager")
        self.sink: AlertSink = self.fake

    def accept(self) -> None:
        self.fake.fail_next.clear()

    def be_busy(self) -> None:
        self.fake.fail_next.append(RetryLater("alert sink pager is busy", retry_after_seconds=5.0))

    def refuse(self) -> None:
        self.fake.fail_next.append(SinkRefusedError("alert sink pager does not want this"))

    def fall_silent(self) -> None:
        self.fake.silent = True
        asyncio.get_running_loop().call_later(SILENT_SECONDS, self.fake.time_out)

    def received(self) -> list[str]:
        return [alert.alert_id for alert in self.fake.delivered]

    async def begun(self) -> None:
        await self.fake.begun.wait()

    async def at_rest(self) -> None:
        assert self.fake.in_progress == 0


class HttpHarness:
    """A webhook or a Slack message to a scripted HTTP server."""

    def __init__(self, receiver: HttpReceiver, kind: str) -> None:
        self.receiver = receiver
        self.kind = kind
        self.path = "/services/T000/B000/a-secret-path"
        self.secrets = (self.path, SECRET, base64.b64decode(SECRET).hex())
        self.sink = self._open(TOTAL_SECONDS)

    def _open(self, total_seconds: float) -> AlertSink:
        clock = ManualClock()
        url = f"http://127.0.0.1:{self.receiver.port}{self.path}"
        outgoing = Outgoing("pager", url, allow_private=True, clock=clock, total_seconds=total_seconds)
        if self.kind == "slack":
            return SlackSink("pager", outgoing)
        return WebhookSink("pager", outgoing, [base64.b64decode(SECRET)], clock)

    def accept(self) -> None:
        self.receiver.answer = Answer()

    def be_busy(self) -> None:
        self.receiver.answer = Answer(503, body=b"not now")

    def refuse(self) -> None:
        self.receiver.answer = Answer(403, body=b"no_such_hook")

    def fall_silent(self) -> None:
        self.receiver.answer = Answer(way="hang")
        self.sink = self._open(SILENT_SECONDS)

    def received(self) -> list[str]:
        bodies = [json.loads(posted.body) for posted in self.receiver.taken]
        if self.kind == "slack":
            return [body["blocks"][-1]["elements"][0]["text"].rpartition(" · ")[2] for body in bodies]
        ids = [posted.headers["webhook-id"] for posted in self.receiver.taken]
        assert ids == [body["data"]["alert_id"] for body in bodies]
        return ids

    async def begun(self) -> None:
        await self.receiver.heard.wait()

    async def at_rest(self) -> None:
        await until(lambda: self.receiver.open_connections == 0)


class EmailHarness:
    """Mail over STARTTLS with a login."""

    def __init__(self, receiver: SmtpReceiver, trusted: ssl.SSLContext) -> None:
        self.receiver = receiver
        self.mailbox = Mailbox("127.0.0.1", receiver.port, "starttls", "swell", PASSWORD, trusted)
        self.secrets = (PASSWORD,)
        self.sink: AlertSink = EmailSink("pager", self.mailbox, "swell@ops.example", ("team@ops.example",))

    def accept(self) -> None:
        self.receiver.replies.clear()

    def be_busy(self) -> None:
        self.receiver.replies["RCPT"] = "451 greylisted"

    def refuse(self) -> None:
        self.receiver.replies["AUTH"] = "535 who are you"

    def fall_silent(self) -> None:
        self.receiver.replies["DATA"] = ""
        recipients = ("team@ops.example",)
        self.sink = EmailSink("pager", self.mailbox, "swell@ops.example", recipients, total_seconds=SILENT_SECONDS)

    def received(self) -> list[str]:
        return [mail_alert_id(mail.text) for mail in self.receiver.mails]

    async def begun(self) -> None:
        await self.receiver.heard.wait()

    async def at_rest(self) -> None:
        await until(lambda: self.receiver.open_connections == 0)


class CommandHarness:
    """A Python program that does as a file says."""

    secrets = (PASSWORD,)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sink = self._open(WAIT_SECONDS)
        self._be("accept")

    def _open(self, timeout_seconds: float) -> AlertSink:
        argv = (sys.executable, "-I", "-S", "-c", _COMMAND, str(self.folder))
        return CommandSink("pager", argv, timeout_seconds=timeout_seconds, environ={"MAIL_PASSWORD": PASSWORD})

    def _be(self, mode: str) -> None:
        (self.folder / "mode").write_text(mode)

    def accept(self) -> None:
        self._be("accept")

    def be_busy(self) -> None:
        self._be("busy")

    def refuse(self) -> None:
        self._be("refuse")

    def fall_silent(self) -> None:
        self._be("silent")
        self.sink = self._open(SILENT_SECONDS)

    def received(self) -> list[str]:
        file = self.folder / "received"
        return file.read_text().split() if file.exists() else []

    async def begun(self) -> None:
        await until((self.folder / "begun").exists)

    async def at_rest(self) -> None:
        await until(lambda: not marked_processes(str(self.folder)))


def marked_processes(word: str) -> list[int]:
    """The processes that have `word` as an argument."""
    found = psutil.process_iter(["cmdline", "pid", "status"])
    return [process.pid for process in found if word in (process.info["cmdline"] or ())]


def mail_alert_id(content: str) -> str:
    """The id that a mail's last line tells."""
    return content.rstrip().rpartition("alert: ")[2]


def tls_pair(*hosts: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for `hosts`, and a client's that trusts it."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*hosts).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client
