"""JSON to a URL of the user's, signed in the shape of Standard Webhooks (standardwebhooks.com).

Headers: `webhook-id` is the alert's id (seen before: a repeat), `webhook-timestamp` the seconds of this try (old: a
replay), `webhook-signature` `v1,` and base64 of HMAC-SHA-256 over `id.timestamp.body`. An id may hold dots, which
makes no two messages alike: a timestamp is all digits, and a body begins with a brace.

The secret is base64 of 24 to 64 bytes, with `whsec_` before it or not. Two of them, with a space or a line break in
between, sign twice, so that a receiver can be moved to a new one.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

import msgspec

from swell.adapters.sinks.outgoing import Outgoing
from swell.adapters.sinks.surroundings import Surroundings, read_secret
from swell.adapters.sinks.wording import moment, presentable
from swell.clock import Clock
from swell.errors import UserError
from swell.spec.alerts import WebhookSpec
from swell.state.alerts import Alert

SECRET_PREFIX = "whsec_"  # noqa: S105 - begins every secret
MIN_SECRET_BYTES = 24
MAX_SECRET_BYTES = 64
MAX_SECRETS = 2


class WebhookSink:
    """Signs and posts."""

    def __init__(self, name: str, outgoing: Outgoing, secrets: Sequence[bytes], clock: Clock) -> None:
        self.name = name
        self._outgoing = outgoing
        self._secrets = tuple(secrets)
        self._clock = clock

    @classmethod
    def open(cls, spec: WebhookSpec, surroundings: Surroundings) -> "WebhookSink":
        """Raises UserError where the secret or the URL is unusable."""
        text = read_secret(spec.name, "secret", spec.secret_env, spec.secret_file, surroundings.environ)
        outgoing = Outgoing(spec.name, spec.url, allow_private=spec.allow_private, clock=surroundings.clock)
        return cls(spec.name, outgoing, read_webhook_secrets(spec.name, text), surroundings.clock)

    async def deliver(self, alert: Alert) -> None:
        body = webhook_body(alert)
        at = int(self._clock.unix())
        signatures = " ".join(sign(secret, alert.alert_id, at, body) for secret in self._secrets)
        headers = {"webhook-id": alert.alert_id, "webhook-timestamp": str(at), "webhook-signature": signatures}
        await self._outgoing.post(body, headers)

    async def close(self) -> None:
        await self._outgoing.close()


def webhook_body(alert: Alert) -> bytes:
    """`{"type": "alert.budget", "timestamp": …, "data": …}`: the timestamp is the alert's, the same in every try."""
    content = {"type": f"alert.{alert.kind}", "timestamp": moment(alert), "data": presentable(alert)}
    return msgspec.json.encode(content)


def sign(secret: bytes, alert_id: str, at_unix: int, body: bytes) -> str:
    """One signature, `v1,` before it."""
    signed = f"{alert_id}.{at_unix}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


def read_webhook_secrets(sink: str, text: str) -> list[bytes]:
    """The bytes of each secret in `text`. Raises UserError, which does not repeat them."""
    advice = f"make one with: echo {SECRET_PREFIX}$(head -c 32 /dev/urandom | base64)"
    words = text.split()
    if not 1 <= len(words) <= MAX_SECRETS:
        raise UserError(f"alert sink {sink}: there are {len(words)} secrets, and at most {MAX_SECRETS} can be used")
    try:
        secrets = [base64.b64decode(word.removeprefix(SECRET_PREFIX), validate=True) for word in words]
    except binascii.Error as error:
        raise UserError(f"alert sink {sink}: its secret is not base64; {advice}") from error
    if any(not MIN_SECRET_BYTES <= len(secret) <= MAX_SECRET_BYTES for secret in secrets):
        wanted = f"{MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes"
        raise UserError(f"alert sink {sink}: its secret must be base64 of {wanted}; {advice}")
    return secrets
