"""A small SMTP server on loopback: STARTTLS, TLS from the start, AUTH PLAIN, and replies as a test tells it to."""

import asyncio
import base64
import contextlib
import email
import email.policy
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from types import TracebackType


@dataclass(frozen=True)
class Mail:
    """One mail as it was taken."""

    sender: str
    recipients: tuple[str, ...]
    raw: bytes
    login: str
    encrypted: bool

    @property
    def message(self) -> EmailMessage:
        parsed = email.message_from_bytes(self.raw, policy=email.policy.default)
        assert isinstance(parsed, EmailMessage)
        return parsed

    @property
    def text(self) -> str:
        return str(self.message.get_content()).replace("\r\n", "\n")


class SmtpReceiver:
    """`replies` replaces the reply to a verb (`RCPT`, or `RCPT <a@b.example>` for one address; `CONNECT` greets);
    an empty one means that no reply ever comes, `drip` that it comes a byte at a time."""

    def __init__(self, *, starttls: ssl.SSLContext | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.replies: dict[str, str] = {}
        self.mails: list[Mail] = []
        self.verbs: list[str] = []
        self.heard = asyncio.Event()
        self.open_connections = 0
        self._starttls = starttls
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "SmtpReceiver":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open_connections += 1
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await _Dialogue(self, reader, writer, encrypted=self._tls is not None).hold(self._starttls)
        finally:
            self.open_connections -= 1
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class _Dialogue:
    def __init__(
        self, server: SmtpReceiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, encrypted: bool
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._encrypted = encrypted
        self._login = ""
        self._sender = ""
        self._recipients: list[str] = []

    async def hold(self, starttls: ssl.SSLContext | None) -> None:
        await self._say("CONNECT", "220 here")
        while line := (await self._reader.readline()).decode("latin-1").strip():
            verb, _, rest = line.partition(" ")
            verb = verb.upper()
            self._server.verbs.append(verb)
            if verb == "EHLO":
                offered = "250-STARTTLS\r\n" if starttls and not self._encrypted else ""
                await self._say(verb, f"250-here\r\n{offered}250-AUTH PLAIN\r\n250 8BITMIME")
            elif verb == "STARTTLS" and starttls:
                await self._say(verb, "220 go on")
                await self._writer.start_tls(starttls)
                self._encrypted = True
            elif verb == "AUTH":
                self._login = base64.b64decode(rest.split()[1]).decode().replace("\0", "|").strip("|")
                await self._say(verb, "235 welcome")
            elif verb == "MAIL":
                self._sender = rest.partition("<")[2].partition(">")[0]
                await self._say(verb, "250 fine")
            elif verb == "RCPT":
                address = rest.partition("<")[2].partition(">")[0]
                if await self._say(f"RCPT <{address}>" if f"RCPT <{address}>" in self._server.replies else verb, "250"):
                    self._recipients.append(address)
            elif verb == "DATA":
                await self._data()
            elif verb == "QUIT":
                await self._say(verb, "221 bye")
                return
            else:
                await self._say(verb, "250 fine")

    async def _data(self) -> None:
        if not await self._say("DATA", "354 go on"):
            return
        raw = await self._reader.readuntil(b"\r\n.\r\n")
        raw = raw.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.")
        mail = Mail(self._sender, tuple(self._recipients), raw, self._login, self._encrypted)
        if await self._say("BODY", "250 taken", before=lambda: self._server.mails.append(mail)):
            self._recipients = []

    async def _say(self, verb: str, usual: str, before: object = None) -> bool:
        """Whether the reply is a good one; `before` is called just before such."""
        reply = self._server.replies.get(verb, usual)
        self._server.heard.set()
        if not reply:
            await self._reader.read()  # returns when the other side hangs up
            raise ConnectionResetError
        if reply == "drip":
            while not self._reader.at_eof():
                self._writer.write(b"2")
                await self._writer.drain()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._reader.read(1), 0.02)
            raise ConnectionResetError
        is_good = reply[0] in "23"
        if is_good and callable(before):
            before()
        self._writer.write(reply.encode() + b"\r\n")
        await self._writer.drain()
        return is_good
