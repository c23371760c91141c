"""Reviews of several models, one after another: of those that can be reviewed, and why the others cannot."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from swell.errors import UserError
from swell.server.review_cache import CacheUse, PrefixCache, prefix_cache_of
from swell.server.review_replays import Case, Progress, scenario
from swell.server.review_usage import Idle
from swell.server.reviewing import Review, review
from swell.spec import ModelSpec
from swell.state.traffic import Traffic

DAY_SECONDS = 86_400.0
FEWEST_REQUESTS = 20


@dataclass(frozen=True, slots=True)
class Terms:
    """What models are reviewed with: own tables in place of those that ship, and how many replays run at a time."""

    profiles: Path | None = None
    prices: Path | None = None
    seed: int = 1
    jobs: int = 1


@dataclass(frozen=True)
class Findings:
    """Everything there is to say. `refused` are models that were not reviewed, with a reason."""

    reviews: tuple[Review, ...]
    refused: tuple[tuple[str, str], ...]
    idle: Idle | None  # None: there was no ledger to ask
    days: float
    caches: Mapping[str, PrefixCache] = field(default_factory=dict)  # by model, as far as the ledger tells


def reviewable(models: Sequence[ModelSpec]) -> tuple[list[ModelSpec], list[tuple[str, str]]]:
    """Models that have machines which could be others, and the rest with a reason. UserError where there are none."""
    refused = [(model.name, model.why_not_reviewed) for model in models if model.why_not_reviewed]
    left = [model for model in models if not model.why_not_reviewed]
    if not left:
        raise UserError(_refusal(refused))
    return left, refused


def review_all(
    models: Sequence[ModelSpec],
    traffic: Mapping[str, Traffic],
    refused: Sequence[tuple[str, str]],
    terms: Terms,
    *,
    few: Callable[[str, int], str],
    told: Progress = lambda share: None,
) -> tuple[tuple[Review, ...], tuple[tuple[str, str], ...]]:
    """The reviews, and what could not be had for want of requests, a profile or a price beside what was `refused`.

    `few` says, of a model and its number of requests, that these are too few. UserError where no review is left.
    """
    refused = list(refused)
    cases = []
    for model in models:
        found = traffic.get(model.name)
        if found is None or len(found) < FEWEST_REQUESTS or found.seconds <= 0:
            refused.append((model.name, few(model.name, 0 if found is None else len(found))))
        else:
            cases.append(Case(model, found, terms.profiles, terms.prices, terms.seed))
    reviews = []
    for index, case in enumerate(cases):

        def within(share: float, before: int = index) -> None:
            told((before + share) / len(cases))

        try:
            reviews.append(review(case, terms.jobs, within))
        except UserError as error:
            refused.append((case.model.name, error.message))
    if not reviews:
        raise UserError(_refusal(refused))
    return tuple(reviews), tuple(refused)


def prefix_caches(
    reviews: Sequence[Review], traffic: Mapping[str, Traffic], uses: Mapping[str, CacheUse], terms: Terms
) -> dict[str, PrefixCache]:
    """Of the models that were reviewed, by what a replica on the first of their accelerators takes and costs."""
    found = {}
    for model in (each.model for each in reviews if each.model.name in uses):
        case = Case(model, traffic[model.name], terms.profiles, terms.prices, terms.seed)
        found[model.name] = prefix_cache_of(uses[model.name], model, scenario(case, model).pools[0])
    return found


def _refusal(refused: Sequence[tuple[str, str]]) -> str:
    return "nothing to review: " + "; ".join(f"{name}: {why}" for name, why in refused)
