"""What there is to tell of a review, as values: small, bounded, and the same whoever made it.

The weekly review's process hands it to the server, and so does `swell review --send`. It holds the changes that meet
the objective and save for sure, replayed on all of the time: first what is recommended of each model, then the best
of each other lever, which would do instead, each by what it saves. Only what is recommended adds up.
"""

import shlex
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from swell.spec.reviews import MAX_TOP
from swell.units import usd_text

MAX_MODELS = 20  # that are named as reviewed or not reviewed; of more the number is told
MAX_MISSES = 5  # tenants that would find more in prefix caches
MAX_TEXT_LENGTH = 500  # characters of a name, a change or a reason
MAX_COMMAND_LENGTH = 2_000
CENT = 10_000_000  # nano-dollars

_Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT_LENGTH)]
_Command = Annotated[str, msgspec.Meta(max_length=MAX_COMMAND_LENGTH)]
_Nanos = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Effect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How requests fare: the share that meets the objective, and times of the slowest hundredth, where there are."""

    attainment: float
    ttft_p99_ms: float | None
    itl_p99_ms: float | None


class ReportedChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One change of one model. Its saving is negative where it is what it takes to meet the objective."""

    model: _Text
    lever: _Text
    change: _Text  # such as `accelerators H100; replicas min 1, max 4`
    recommended: bool
    saving_usd_nanos_per_month: _Nanos
    confidence: _Text
    attainment_asked: float
    before: Effect
    after: Effect


class ReportedMiss(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One tenant of one model, whose prompts would be found in prefix caches if they were routed by prefix.

    Shares are of its prompt tokens: as it is, and as it is where one replica has them all, which is the most that can
    be. The saving is an upper bound too, and no part of what is recommended.
    """

    model: _Text
    tenant: _Text
    cached_now: float
    cached_at_most: float
    prefill_seconds: float
    saving_usd_nanos_per_month: _Nanos
    confidence: _Text


class ReviewReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of all models. `command` is how the review is made again; with `--model NAME --apply` it writes."""

    days: float
    requests: int  # that were replayed
    replayed_seconds: float  # from the first to the last of them, of the model with the longest time
    models: Annotated[tuple[_Text, ...], msgspec.Meta(max_length=MAX_MODELS)]
    model_count: int
    not_reviewed: Annotated[tuple[tuple[_Text, _Text], ...], msgspec.Meta(max_length=MAX_MODELS)]  # name, why
    not_reviewed_count: int
    recommended_count: int  # models of which something is recommended
    cost_usd_nanos_per_month: _Nanos  # of what was reviewed, as it is
    saving_usd_nanos_per_month: _Nanos  # of everything that is recommended
    changes: Annotated[tuple[ReportedChange, ...], msgspec.Meta(max_length=MAX_TOP)]
    command: _Command
    misses: Annotated[tuple[ReportedMiss, ...], msgspec.Meta(max_length=MAX_MISSES)] = ()  # those that cost most
    miss_count: int = 0


class ReviewRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a process of its own shall review: models as the running spec has them, and their requests since then."""

    models: list[dict[str, Any]]
    since_unix_ms: int
    days: int
    profiles: str | None
    prices: str | None
    command: str


class ReviewAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Its answer, one of them: the report, why there can be none, or what went wrong this time."""

    report: ReviewReport | None = None
    refused: str = ""
    failed: str = ""


def command_of(options: Sequence[tuple[str, object]]) -> str:
    """`swell review` with options, for a shell; those that are None are left out."""
    words = [word for name, value in options if value is not None for word in (name, str(value))]
    return shlex.join(["swell", "review", *words])


def money_text(nanos: int) -> str:
    """To the cent: a simulated cost knows no better."""
    return usd_text(round(nanos / CENT) * CENT)


def clipped(text: str) -> str:
    """At most MAX_TEXT_LENGTH characters of it."""
    return text if len(text) <= MAX_TEXT_LENGTH else text[: MAX_TEXT_LENGTH - 1] + "…"
