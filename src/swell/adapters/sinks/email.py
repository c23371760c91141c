"""Mail through an SMTP server, with the standard library in a thread.

The Message-ID and the date follow from the alert, so that a repeat is the same mail: mailboxes thread or drop it.
No text can carry further headers, and the body is encoded. TLS is never given up silently: a server
without STARTTLS is refused. Delivered means that the server took it for at least one recipient; those that it refused
are logged.
"""

import asyncio
import hashlib
import logging
import smtplib
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from email import policy
from email.message import EmailMessage
from email.utils import formatdate

from swell.adapters.sinks.addresses import is_loopback_address
from swell.adapters.sinks.surroundings import Surroundings, read_secret
from swell.adapters.sinks.wording import headline, moment, presentable, readable_values, reply
from swell.errors import RetryLater
from swell.ports.alert_sink import RETRY_SECONDS, SinkRefusedError
from swell.spec.alerts import EmailSpec
from swell.state.alerts import Alert

TOTAL_SECONDS = 30.0
MAX_CONNECTIONS = 2  # at once, of one sink: each holds a thread that others need too
STEP_SECONDS = 10.0  # connecting, and each single read or write

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mailbox:
    """The server, and how to be let in."""

    host: str
    port: int
    security: str  # starttls, tls or none
    user: str = ""
    password: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)  # None: the machine's trusted authorities


class EmailSink:
    """Composes and sends."""

    def __init__(
        self, name: str, mailbox: Mailbox, sender: str, to: tuple[str, ...], *, total_seconds: float = TOTAL_SECONDS
    ) -> None:
        self.name = name
        self._mailbox = mailbox
        self._sender = sender
        self._to = to
        self._total_seconds = total_seconds
        self._turns = asyncio.Semaphore(MAX_CONNECTIONS)

    @classmethod
    def open(cls, spec: EmailSpec, surroundings: Surroundings) -> "EmailSink":
        """Raises UserError where the password cannot be read."""
        password = ""
        if spec.user is not None:
            environ = surroundings.environ
            password = read_secret(spec.name, "password", spec.password_env, spec.password_file, environ)
        mailbox = Mailbox(spec.host, spec.port, spec.security, spec.user or "", password)
        return cls(spec.name, mailbox, spec.sender, spec.to)

    async def deliver(self, alert: Alert) -> None:
        message = compose(alert, self._sender, self._to)
        cut = _Cut()
        try:
            async with asyncio.timeout(self._total_seconds), self._turns:
                refused = await asyncio.to_thread(_send, self._mailbox, message, cut)
        except TimeoutError as error:
            raise self._later(f"did not take the mail within {self._total_seconds:g} s") from error
        except (smtplib.SMTPException, OSError) as error:
            raise self._explained(error) from error
        finally:
            cut.now()
        if refused:
            extra = {"sink": self.name, "alert_id": alert.alert_id, "recipients": sorted(refused)}
            _log.warning("an alert's mail was not taken for some of its recipients", extra=extra)

    async def close(self) -> None:
        """Nothing is kept open."""

    def _explained(self, error: Exception) -> RetryLater | SinkRefusedError:
        if isinstance(error, smtplib.SMTPRecipientsRefused):
            return self._answered(*max(error.recipients.values(), key=lambda answer: answer[0] < 500))
        if isinstance(error, smtplib.SMTPResponseException):
            return self._answered(error.smtp_code, error.smtp_error)
        is_final = isinstance(error, smtplib.SMTPException) and not isinstance(error, smtplib.SMTPServerDisconnected)
        problem = f"failed: {type(error).__name__}{reply(str(error))}"
        return self._refusal(f"{problem}; correct security, user or password") if is_final else self._later(problem)

    def _answered(self, code: int, said: str | bytes) -> RetryLater | SinkRefusedError:
        answer = f"answered {code}{reply(said)}"
        if 500 <= code < 600:
            return self._refusal(f"{answer}; correct the addresses or the login")
        return self._later(answer)

    def _refusal(self, what: str) -> SinkRefusedError:
        return SinkRefusedError(f"alert sink {self.name}: {self._mailbox.host} {what}")

    def _later(self, what: str) -> RetryLater:
        message = f"alert sink {self.name}: {self._mailbox.host} {what}"
        return RetryLater(message, retry_after_seconds=RETRY_SECONDS)


def compose(alert: Alert, sender: str, to: tuple[str, ...]) -> EmailMessage:
    """The mail; the same alert gives the same bytes."""
    shown = presentable(alert)
    message = EmailMessage(policy=policy.SMTP)
    message["From"] = sender
    message["To"] = ", ".join(to)
    # EmailMessage decodes encoded words in what it is given, line breaks too, and writes those out as they are.
    message["Subject"] = headline(shown).replace("=?", "= ?")
    message["Date"] = formatdate(alert.at_unix)
    digest = hashlib.sha256(alert.alert_id.encode()).hexdigest()[:40]
    message["Message-ID"] = f"<{digest}@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers
    facts = [("about", shown.subject), *readable_values(shown), ("when", moment(shown)), ("alert", shown.alert_id)]
    listing = "\n".join(f"{label}: {value}" for label, value in facts if value)
    message.set_content(f"{shown.text}\n\n{listing}\n", charset="utf-8", cte="base64")
    return message


def _send(mailbox: Mailbox, message: EmailMessage, cut: "_Cut") -> dict[str, tuple[int, bytes]]:
    """Runs in a thread. The recipients that were refused, where at least one was not."""
    context = mailbox.tls or ssl.create_default_context()
    smtp = _Smtp(mailbox, context, message["From"].addresses[0].domain, cut)
    try:
        if mailbox.security == "starttls":
            smtp.starttls(context=context)
        if mailbox.user:
            smtp.login(mailbox.user, mailbox.password)
        refused = smtp.send_message(message)
        with suppress(smtplib.SMTPException, OSError):
            smtp.quit()  # the mail is taken, whatever becomes of the farewell
        return refused
    finally:
        smtp.close()


class _Smtp(smtplib.SMTP):
    """Connects as its mailbox says, and can be cut off from the first byte on.

    It introduces itself by the sender's domain: the machine's own name would have to be looked up, which can hang.
    """

    def __init__(self, mailbox: Mailbox, context: ssl.SSLContext, domain: str, cut: "_Cut") -> None:
        self._mailbox = mailbox
        self._context = context
        self._cut = cut
        super().__init__(mailbox.host, mailbox.port, local_hostname=domain, timeout=STEP_SECONDS)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        connection = socket.create_connection((host, port), timeout)
        try:
            self._cut.hold(connection)
            if self._mailbox.security == "none" and not is_loopback_address(connection.getpeername()[0]):
                raise smtplib.SMTPNotSupportedError(f"{host} is another machine, and security: none sends in the clear")
            if self._mailbox.security == "tls":
                return self._context.wrap_socket(connection, server_hostname=host)
        except BaseException:
            connection.close()
            raise
        return connection


class _Cut:
    """Ends a connection from another thread. smtplib's time-outs are for each read, and a server that sends a byte at
    a time would keep its thread for hours."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._handle: socket.socket | None = None
        self._is_cut = False

    def hold(self, connection: socket.socket) -> None:
        """A second handle on the connection, since TLS takes the first one over."""
        with self._lock:
            if self._is_cut:
                raise TimeoutError("nobody waits for this any more")
            self._handle = connection.dup()

    def now(self) -> None:
        """End it, if it has not ended; one that would begin later does not."""
        with self._lock:
            self._is_cut = True
            if self._handle is not None:
                with suppress(OSError):
                    self._handle.shutdown(socket.SHUT_RDWR)
                self._handle.close()
                self._handle = None
