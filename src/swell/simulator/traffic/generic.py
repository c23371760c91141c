"""Any CSV or JSON lines with columns of obvious names.

    arrival  arrival_seconds, arrival_ms, or timestamp: a date and time, or seconds from any moment. Numbers too great
             for that are times since 1970, in s, ms, us or ns by their size.
    prompt   prompt_tokens, input_tokens, input_length
    output   output_tokens, completion_tokens, output_length
    class    priority: interactive, standard or batch; without the column, or where it is empty, standard

The first of each that a file has is read. Offsets are from the beginning of the trace.
"""

from collections.abc import Collection
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from swell.policy.queueing import BATCH, PRIORITIES
from swell.simulator.traffic.format import Rows, TraceFormat, moments, tokens
from swell.simulator.traffic.table import Chunk

_ARRIVALS = ("arrival_seconds", "arrival_ms", "timestamp")
_PROMPTS = ("prompt_tokens", "input_tokens", "input_length")
_OUTPUTS = ("output_tokens", "completion_tokens", "output_length")

_PRIORITY = "priority"

_UNIX_FROM = 1e9  # seconds: September 2001 as a time since 1970, and 31 years as the length of a trace
_STEP_FROM = 1e11  # seconds: the year 5138; ms since 1970 pass it in 1973


def _lacking(present: Collection[str]) -> list[str]:
    choices = (_ARRIVALS, _PROMPTS, _OUTPUTS)
    return [" or ".join(names) for names in choices if not any(name in present for name in names)]


def _rows(chunk: Chunk) -> Rows:
    return replace(_timed(chunk), batch=_batch(chunk) if chunk.has(_PRIORITY) else None)


def _batch(chunk: Chunk) -> NDArray[np.bool_]:
    words = chunk.words(_PRIORITY)
    known = np.isin(words, ("", *PRIORITIES))
    if not known.all():
        row = int(np.argmin(known))
        raise chunk.wrong(row, _PRIORITY, f"{words[row]} is no priority; write {', '.join(PRIORITIES)}, or nothing")
    return np.asarray(words == BATCH, dtype=np.bool_)


def _timed(chunk: Chunk) -> Rows:
    prompt, output = (tokens(chunk, _first(chunk, names)) for names in (_PROMPTS, _OUTPUTS))
    arrival = _first(chunk, _ARRIVALS)
    if arrival == "arrival_ms":
        return Rows(moments(chunk, arrival, per_second=1000), prompt, output, is_unix=False)
    if arrival == "arrival_seconds":
        return Rows(moments(chunk, arrival), prompt, output, is_unix=False)
    if not chunk.is_number(arrival):
        return Rows(chunk.instants(arrival), prompt, output, is_unix=True)
    typical = float(np.median(chunk.numbers(arrival)))
    per_second = 1
    while typical >= _STEP_FROM * per_second and per_second < 1_000_000_000:
        per_second *= 1000
    return Rows(moments(chunk, arrival, per_second=per_second), prompt, output, is_unix=typical >= _UNIX_FROM)


def _first(chunk: Chunk, names: tuple[str, ...]) -> str:
    return next((name for name in names if chunk.has(name)), names[0])


GENERIC = TraceFormat(
    name="generic", title="CSV or JSON lines with obvious column names", lacking=_lacking, rows=_rows
)  # fmt: skip
