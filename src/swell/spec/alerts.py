"""Where alerts are sent. Secrets stand in variables or files; the URL of a webhook may be one, so none is repeated.

What is wrong with a URL is told as a contradiction and not as a bad value, because messages show bad values.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, Strict, StringConstraints

from swell.spec.aliases import AliasTable
from swell.spec.base import (
    MAX_TEXT_LENGTH,
    Conflict,
    Count,
    LocalPath,
    Seconds,
    SpecModel,
    Switch,
    Text,
    is_loopback,
)
from swell.spec.kinds import of_its_kind
from swell.spec.problems import path_of
from swell.spec.reviews import ReviewSpec
from swell.spec.server import Host
from swell.spec.tenants import TenantName

SinkKind = Literal["budget", "objective", "capacity", "replicas", "spot_loss", "review"]

MAX_SINKS = 16
MAX_RECIPIENTS = 50
MAX_ARGUMENTS = 64
SINK_KINDS: tuple[SinkKind, ...] = ("budget", "objective", "capacity", "replicas", "spot_loss", "review")

Url = Annotated[str, Strict()]
Variable = Annotated[str, Strict()]  # judged in `conflicts` as well: a secret may have been put there

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
MailAddress = Annotated[
    Text,
    StringConstraints(max_length=254, pattern=rf"^{_ATOM}(\.{_ATOM})*@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$"),
]
UserName = Annotated[Text, StringConstraints(pattern=r"^[\x20-\x7e]+$")]

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_DEFAULT_PORTS = {"starttls": 587, "tls": 465, "none": 25}


def sink_url_problem(url: str, *, allow_private: bool) -> str:
    """What is wrong with a URL that alerts shall be posted to, as the end of a sentence; empty where nothing is.

    Only how it is written is judged here; the addresses that it leads to are when something is sent.
    """
    example = "is not a URL such as https://alerts.example/hook"
    if len(url) > MAX_TEXT_LENGTH or not url.isascii() or re.search(r"[\x00-\x20\x7f\\]", url):
        return example
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return example
    if parts.scheme not in ("http", "https"):
        return "must begin with https://"
    if not parts.hostname or port == 0:
        return example
    if "@" in parts.netloc:
        return "carries credentials before an @; take them out"
    if "#" in url:
        return "must not have a fragment (#…)"
    if parts.scheme == "http" and not (allow_private and is_loopback(parts.hostname)):
        return "must begin with https:// (http only to this machine itself, with allow_private: true)"
    return ""


def _misnamed(spec: SpecModel, *fields: str) -> list[Conflict]:
    """A conflict for each of `fields` that is no name of a variable."""
    given = [(field, getattr(spec, field)) for field in fields]
    sentence = "must be the name of an environment variable, such as ALERT_SECRET, and not the secret itself"
    return [(field, sentence) for field, name in given if name is not None and not _VARIABLE.fullmatch(name)]


def _one_of(spec: SpecModel, what: str, *fields: str) -> list[Conflict]:
    """A conflict unless exactly one of `fields` is given."""
    given = [field for field in fields if getattr(spec, field) is not None]
    if not given:
        return [("", f"has no {what}; give {' or '.join(fields)}")]
    return [(field, f"contradicts {given[0]}; keep one of them") for field in given[1:]]


class _Sink(SpecModel):
    """What every sink can be told to leave out."""

    kinds: Annotated[tuple[SinkKind, ...], Field(min_length=1)] = Field(
        default=SINK_KINDS, description="Only alerts of these kinds; all without it."
    )
    min_severity: Literal["info", "warning", "critical"] = Field(
        default="info", description="Only alerts that are this severe or more."
    )


class WebhookSpec(_Sink):
    """Signed JSON to a URL, in the shape of Standard Webhooks."""

    kind: Literal["webhook"] = "webhook"
    name: TenantName
    url: Url = Field(description="Where to POST; https, and not inside this network unless allow_private.")
    secret_env: Variable | None = Field(default=None, description="Variable with the secret that signs (whsec_…).")
    secret_file: LocalPath | None = Field(default=None, description="File with it.")
    allow_private: Switch = Field(default=False, description="The receiver may be on this machine or network.")

    def conflicts(self) -> list[Conflict]:
        problem = sink_url_problem(self.url, allow_private=self.allow_private)
        return [
            *([("url", problem)] if problem else []),
            *_misnamed(self, "secret_env"),
            *_one_of(self, "secret", "secret_env", "secret_file"),
        ]


class SlackSpec(_Sink):
    """Messages to an incoming webhook of Slack, or of what speaks like it. Its URL is a secret."""

    kind: Literal["slack"] = "slack"
    name: TenantName
    url: Url | None = Field(default=None, description="The incoming webhook; who reads it can post there.")
    url_env: Variable | None = Field(default=None, description="Variable with the URL.")
    url_file: LocalPath | None = Field(default=None, description="File with the URL.")
    allow_private: Switch = Field(default=False, description="The receiver may be on this machine or network.")

    def conflicts(self) -> list[Conflict]:
        problem = "" if self.url is None else sink_url_problem(self.url, allow_private=self.allow_private)
        return [
            *([("url", problem)] if problem else []),
            *_misnamed(self, "url_env"),
            *_one_of(self, "URL", "url_env", "url_file", "url"),
        ]


class EmailSpec(_Sink):
    """Mail through an SMTP server."""

    aliases: ClassVar[AliasTable] = {"from": ("sender",), "username": ("user",)}

    kind: Literal["email"] = "email"
    name: TenantName
    host: Host = Field(description="The SMTP server.")
    port: Annotated[Count, Field(ge=1, le=65_535)] = Field(
        default=587, description="Default: 587, with tls 465, with none 25."
    )
    security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="none only where the server runs on this machine."
    )
    sender: MailAddress = Field(description="The address it comes from; may be written `from`.")
    to: Annotated[tuple[MailAddress, ...], Field(max_length=MAX_RECIPIENTS)]
    user: UserName | None = Field(default=None, description="To log in with.")
    password_env: Variable | None = Field(default=None, description="Variable with the password.")
    password_file: LocalPath | None = Field(default=None, description="File with the password.")

    @classmethod
    def complete(cls, given: dict[Any, Any]) -> dict[Any, Any]:
        security = given.get("security", "starttls")
        if "port" not in given and isinstance(security, str) and security in _DEFAULT_PORTS:
            given["port"] = _DEFAULT_PORTS[security]
        return given

    def conflicts(self) -> list[Conflict]:
        found = _misnamed(self, "password_env")
        if not self.to:
            found.append(("to", "is empty; name at least one address"))
        if len(set(self.to)) < len(self.to):
            found.append(("to", "names the same address twice; list each once"))
        if self.security == "none" and not is_loopback(self.host):
            found.append(("security", f"none would send alerts to {self.host} unencrypted; use starttls or tls"))
        if self.user is not None:
            found += _one_of(self, "password", "password_env", "password_file")
        elif self.password_env or self.password_file:
            found.append(("user", "is missing beside the password; give both or neither"))
        return found


class CommandSpec(_Sink):
    """A command of this machine, run without a shell; the alert is its standard input, as JSON."""

    kind: Literal["command"] = "command"
    name: TenantName
    argv: Annotated[tuple[Text, ...], Field(max_length=MAX_ARGUMENTS)] = Field(
        description="The program and its arguments, such as [/usr/local/bin/page, --team, serving]."
    )
    timeout_seconds: Annotated[Seconds, Field(ge=0.1, le=240)] = Field(
        default=10.0, description="After this it is killed with everything it started."
    )

    def conflicts(self) -> list[Conflict]:
        if not self.argv:
            return [("argv", "is empty; name a program")]
        return []


_KINDS: Mapping[str, type[SpecModel]] = {
    "webhook": WebhookSpec,
    "slack": SlackSpec,
    "email": EmailSpec,
    "command": CommandSpec,
}


SinkSpec = Annotated[
    WebhookSpec | SlackSpec | EmailSpec | CommandSpec,
    Field(discriminator="kind"),
    BeforeValidator(of_its_kind(_KINDS, shared=_Sink)),
]


class AlertsSpec(SpecModel):
    """Where alerts are sent; each goes to every sink that does not leave it out."""

    sinks: Annotated[tuple[SinkSpec, ...], Field(max_length=MAX_SINKS)] = ()
    review: ReviewSpec | None = Field(
        default=None, description="Once a week, what would cost less; never without this."
    )

    def conflicts(self) -> list[Conflict]:
        first: dict[str, str] = {}
        found: list[Conflict] = []
        for i, sink in enumerate(self.sinks):
            path = path_of(("sinks", i, "name"))
            if sink.name in first:
                taken = f"{sink.name!r} is already the name of the sink at {first[sink.name]}; each needs its own"
                found.append((path, taken))
            first.setdefault(sink.name, path)
        return found
