"""A month of requests, the same for the same seed: 50 tenants, 400 keys, 10 models, weekdays busier than nights.

Made in pieces by rising time. Few keys send most; each has a model that it mostly uses and two others. Ids of
requests are those of eight gateway workers that take turns.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swell.state.records import UsageChange
from swell.state.usage import id_prefix

MONTH = "202610"
START_MS = 1_790_812_800_000  # 2026-10-01T00:00:00Z
HOURS = 31 * 24
HOUR_MS = 3_600_000
END_MS = START_MS + HOURS * HOUR_MS
TENANTS, KEYS, MODELS, WORKERS = 50, 400, 10, 8
PIECE = 250_000
_SEED = 20_261_001
_STATUSES = ("settled", "estimated", "reserved", "void")
_SHARES = (0.983, 0.01, 0.002, 0.005)
_NAMES = ("llama-3.1-8b", "llama-3.3-70b", "qwen3-32b", "qwen3-coder-30b", "mistral-small", "gemma-3-27b",
          "deepseek-r1", "gpt-oss-120b", "phi-4", "embed-large")  # fmt: skip
_ENDPOINTS = ("/v1/chat/completions", "/v1/embeddings")
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Piece:
    """Rows of the ledger by column, and what they sum up to."""

    first: int
    at_ms: Numbers
    key: Numbers
    model: Numbers
    status: Numbers
    prompt: Numbers
    completion: Numbers
    duration: Numbers
    charge: Numbers

    @property
    def sums(self) -> tuple[int, int]:
        """Requests that were not void, and nano-dollars."""
        return int((self.status != 3).sum()), int(self.charge.sum())

    def rows(self) -> Iterator[UsageChange]:
        """As the spool reader hands them to the store."""
        columns = (self.at_ms, self.key, self.model, self.status, self.prompt, self.completion, self.duration,
                   self.charge)  # fmt: skip
        listed = zip(*(column.tolist() for column in columns), strict=True)
        for number, (at, key, model, status, prompt, completion, duration, charge) in enumerate(listed, self.first):
            worker = number % WORKERS
            is_open = status == 2
            yield UsageChange(
                request_id=f"{_PREFIXES[worker]}{number // WORKERS:08x}",
                spool=_INCARNATIONS[worker],
                reserved_at_unix_ms=at,
                key_id=_KEY_IDS[key],
                tenant=_TENANTS[key],
                model=_NAMES[model],
                endpoint=_ENDPOINTS[model == MODELS - 1],
                prompt_rate=_PROMPT_RATES[model],
                completion_rate=_COMPLETION_RATES[model],
                sent=status != 3,
                settled_at_unix_ms=None if is_open else at + duration,
                status=_STATUSES[status],
                prompt_tokens=prompt,
                completion_tokens=completion,
                cached_tokens=0 if is_open else prompt // 2,
                charge_usd_nanos=charge,
                replica_id="" if is_open else _REPLICAS[model][number % 4],
                http_status=0 if is_open else 200,
                duration_ms=-1 if is_open else duration,
                first_token_ms=-1 if is_open else duration // 8,
            )


def pieces(rows: int) -> Iterator[Piece]:
    """So many requests in all, in pieces of at most PIECE by rising time."""
    weights = np.array([_busyness(hour) for hour in range(HOURS)])
    ends = np.round(np.cumsum(weights) / weights.sum() * rows).astype(np.int64)
    begin = 0
    for hour, end in enumerate(ends.tolist()):
        for first in range(begin, end, PIECE):
            count = min(PIECE, end - first)
            offset, length = (first - begin) / (end - begin), count / (end - begin)
            yield _piece(first, count, START_MS + hour * HOUR_MS + int(offset * HOUR_MS), int(length * HOUR_MS))
        begin = end


def _busyness(hour: int) -> float:
    day = 1.0 + 0.9 * float(np.sin((hour % 24 - 9) / 24 * 2 * np.pi))
    return day * (0.4 if (hour // 24 + 3) % 7 >= 5 else 1.0)  # 1 October 2026 is a Thursday


def _piece(first: int, count: int, start_ms: int, length_ms: int) -> Piece:
    dice = np.random.default_rng((_SEED, first))
    key = dice.choice(KEYS, count, p=_KEY_SHARES)
    model = (key * 7 + dice.choice([0, 1, 3], count, p=[0.85, 0.12, 0.03])) % MODELS
    status = dice.choice(4, count, p=_SHARES)
    prompt = np.minimum(dice.lognormal(6.2, 1.1, count), 100_000).astype(np.int64) + 1
    completion = np.where(model == MODELS - 1, 0, np.minimum(dice.lognormal(5.2, 0.9, count), 8_000).astype(np.int64))
    prompt[status == 3] = 0
    completion[status == 3] = 0
    charge = -(-(prompt * np.array(_PROMPT_RATES)[model] + completion * np.array(_COMPLETION_RATES)[model]) // 10**6)
    return Piece(
        first, start_ms + np.sort(dice.integers(0, max(1, length_ms), count)), key, model, status, prompt, completion,
        80 + completion * 12, charge,
    )  # fmt: skip


_ranks = np.arange(1, KEYS + 1) ** -0.9
_KEY_SHARES = _ranks / _ranks.sum()
_names = np.random.default_rng(_SEED)
_KEY_IDS = [_names.bytes(6).hex() for _ in range(KEYS)]
_TENANTS = [f"tenant-{key % TENANTS:02d}" for key in range(KEYS)]
_INCARNATIONS = [_names.bytes(6).hex() for _ in range(WORKERS)]
_PREFIXES = [f"{id_prefix(MONTH)}{incarnation}-" for incarnation in _INCARNATIONS]
_REPLICAS = [[f"{name}-{_names.bytes(4).hex()}" for _ in range(4)] for name in _NAMES]
_PROMPT_RATES = [50_000_000 * (model + 1) for model in range(MODELS)]
_COMPLETION_RATES = [150_000_000 * (model + 1) for model in range(MODELS)]
