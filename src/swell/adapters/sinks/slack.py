"""Messages to an incoming webhook of Slack, or of what speaks like it (Mattermost, Rocket.Chat).

Everything that an alert says is text there, never markup: `&`, `<` and `>` are escaped, which is what mentions, links
and dates are made of, automatic links are turned off (`verbatim`), and a name after `@` is kept apart from it for
servers that notify on plain text. Text is cut before its escapes, so that none is cut in half.
"""

import re

import msgspec

from swell.adapters.sinks.outgoing import Outgoing
from swell.adapters.sinks.surroundings import Surroundings, read_secret
from swell.adapters.sinks.wording import headline, moment, presentable, readable_values
from swell.spec.alerts import SlackSpec
from swell.state.alerts import Alert

MAX_FALLBACK_LENGTH = 3_900  # characters; Slack cuts the plain text of a message at 4,000
MAX_BLOCK_LENGTH = 2_900  # Slack refuses a block of more than 3,000
MAX_FIELD_LENGTH = 1_900  # and a field of more than 2,000
MAX_FIELDS = 10

_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "@\u200b"}
_SPECIAL = re.compile("[&<>@]")


class SlackSink:
    """Composes and posts."""

    def __init__(self, name: str, outgoing: Outgoing) -> None:
        self.name = name
        self._outgoing = outgoing

    @classmethod
    def open(cls, spec: SlackSpec, surroundings: Surroundings) -> "SlackSink":
        """Raises UserError where the URL is unusable."""
        url = spec.url or read_secret(spec.name, "URL", spec.url_env, spec.url_file, surroundings.environ)
        outgoing = Outgoing(spec.name, url, allow_private=spec.allow_private, clock=surroundings.clock)
        return cls(spec.name, outgoing)

    async def deliver(self, alert: Alert) -> None:
        await self._outgoing.post(slack_body(alert), {})

    async def close(self) -> None:
        await self._outgoing.close()


def slack_body(alert: Alert) -> bytes:
    """The message: a headline, the text, the values as fields, and where it comes from."""
    alert = presentable(alert)
    title = headline(alert)
    blocks: list[dict[str, object]] = [{"type": "section", "text": _text(title, MAX_BLOCK_LENGTH)}]
    if alert.text.strip():
        blocks.append({"type": "section", "text": _text(alert.text, MAX_BLOCK_LENGTH)})
    fields = [_text(f"{label}: {value}", MAX_FIELD_LENGTH) for label, value in readable_values(alert)[:MAX_FIELDS]]
    if fields:
        blocks.append({"type": "section", "fields": fields})
    origin = f"{alert.subject or alert.kind} · {moment(alert)} · {alert.alert_id}"
    blocks.append({"type": "context", "elements": [_text(origin, MAX_FIELD_LENGTH)]})
    fallback = escaped(f"{title}\n{alert.text}", MAX_FALLBACK_LENGTH)
    return msgspec.json.encode({"text": fallback, "blocks": blocks})


def escaped(text: str, limit: int) -> str:
    """`text` without markup, at most `limit` characters long with its escapes."""
    whole = _SPECIAL.sub(lambda match: _ESCAPES[match[0]], text)
    if len(whole) <= limit:
        return whole
    kept, length = [], 1  # the ellipsis
    for character in text:
        piece = _ESCAPES.get(character, character)
        length += len(piece)
        if length > limit:
            break
        kept.append(piece)
    return "".join(kept) + "…"


def _text(text: str, limit: int) -> dict[str, object]:
    return {"type": "mrkdwn", "text": escaped(text, limit), "verbatim": True}
