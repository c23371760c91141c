"""What sinks are opened with besides their spec, and the reading of their secrets."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swell.clock import Clock
from swell.errors import UserError

MAX_SECRET_BYTES = 8192


@dataclass(frozen=True)
class Surroundings:
    """The environment that secrets are read from, once, and the clock."""

    environ: Mapping[str, str]
    clock: Clock


def read_secret(sink: str, what: str, env: str | None, file: str | None, environ: Mapping[str, str]) -> str:
    """The secret in the variable `env` or in `file`, whichever is named; UserError where it cannot be had.

    White space around it is not part of it. `what` names it in messages, such as `password`.
    """
    if env:
        text, where = environ.get(env, ""), f"the environment variable {env}"
    else:
        where = f"the file {file}"
        try:
            with Path(file or "").open("rb") as opened:
                text = opened.read(MAX_SECRET_BYTES + 1).decode("utf-8", "replace")
        except OSError as error:
            advice = f"put the {what} there"
            raise UserError(f"alert sink {sink}: cannot read {where} ({error.strerror}); {advice}") from error
    text = text.strip()
    if not text:
        raise UserError(f"alert sink {sink}: {where} holds no {what}; set it, or take the sink out of the spec")
    if len(text) > MAX_SECRET_BYTES or not text.isascii() or any(ord(character) < 0x20 for character in text):
        # A password with a line break would end an SMTP command; nothing else needs more than ASCII either.
        raise UserError(f"alert sink {sink}: {where} holds characters that no {what} has; check what is in it")
    return text
