"""Trace files become Traffic: recognise the format, read in chunks, put in order, begin at the first arrival.

Memory is bounded by the columns themselves: 16 bytes a request, and about twice that while they are put together.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from swell.errors import UserError
from swell.simulator.traffic.azure import AZURE
from swell.simulator.traffic.bailian import BAILIAN
from swell.simulator.traffic.burstgpt import BURSTGPT
from swell.simulator.traffic.csv_table import open_csv
from swell.simulator.traffic.format import SECOND_NS, Rows, TraceFormat
from swell.simulator.traffic.generic import GENERIC
from swell.simulator.traffic.json_table import open_json_array, open_json_lines
from swell.simulator.traffic.mooncake import MOONCAKE
from swell.simulator.traffic.prefixes import PrefixColumn
from swell.simulator.traffic.servegen import SERVEGEN
from swell.simulator.traffic.stored import whole_lines
from swell.simulator.traffic.table import Table
from swell.simulator.traffic.usage_log import USAGE_LOG
from swell.state.traffic import Traffic

# By name, in the order in which they are tried: what needs fewer columns comes later.
FORMATS: Mapping[str, TraceFormat] = MappingProxyType(
    {each.name: each for each in (AZURE, BURSTGPT, BAILIAN, MOONCAKE, SERVEGEN, USAGE_LOG, GENERIC)}
)

MAX_TRACE_DAYS = 366  # a turn every ten seconds takes its time, whether or not anything happened

_SUFFIXES = {".gz", ".zst", ".zstd", ".csv", ".tsv", ".json", ".jsonl", ".ndjson"}


def load(path: Path, format: str | None = None) -> Traffic:
    """The requests of a trace file, plain or compressed with gzip or zstd.

    `format` is one of FORMATS; without it, the format is recognised from the columns. Arrivals count from the first
    one. Rows out of order are sorted, keeping the file's order among equal times. Requests with 0 tokens count as 1.
    Raises UserError, which names the file, the line and the column, and says what to do.
    """
    table = _opened(path)
    chosen = _recognised(table) if format is None else _named(format, table)
    parts = [chosen.rows(chunk) for chunk in table.chunks]
    return _put_together(parts, path, chosen)


def _opened(path: Path) -> Table:
    texts = whole_lines(path)
    first = next(texts, b"")
    start = first.lstrip()[:1]
    if not start:
        raise UserError(f"{path}: is empty; give a trace with at least one request")
    texts = itertools.chain([first], texts)
    if start == b"[":
        return open_json_array(path, texts)
    return open_json_lines(path, texts) if start == b"{" else open_csv(path, texts)


def _fits(candidate: TraceFormat, table: Table) -> bool:
    return candidate.container is None or (candidate.container == "csv") == table.is_csv


def _recognised(table: Table) -> TraceFormat:
    for candidate in FORMATS.values():
        if _fits(candidate, table) and not candidate.lacking(table.columns):
            return candidate
    raise UserError(
        f"{table.path}: no trace format has these columns: {_shown(table)}. Known formats: {', '.join(FORMATS)}; "
        f"or name the columns arrival_seconds, prompt_tokens and output_tokens"
    )


def _named(name: str, table: Table) -> TraceFormat:
    chosen = FORMATS.get(name)
    if chosen is None:
        raise UserError(f"unknown trace format {name!r}; valid are: {', '.join(FORMATS)}")
    if not _fits(chosen, table):
        has = "CSV" if table.is_csv else "JSON"
        raise UserError(f"{table.path}: is {has}, but format {name} is not; leave the format out to have it recognised")
    lacking = chosen.lacking(table.columns)
    if lacking:
        raise UserError(
            f"{table.path}: format {name} needs the columns {', '.join(lacking)}; the file has {_shown(table)}. "
            "Leave the format out to have it recognised"
        )
    return chosen


def _shown(table: Table) -> str:
    names = [name[:40] for name in table.columns[:20]]
    return ", ".join(names) + (", …" if len(table.columns) > len(names) else "")


def _put_together(parts: list[Rows], path: Path, chosen: TraceFormat) -> Traffic:
    if not any(len(part.arrival_ns) for part in parts):
        raise UserError(f"{path}: has no request that can be replayed ({chosen.title}); give a trace with some")
    kinds = {part.is_unix for part in parts}
    if len(kinds) > 1:
        raise UserError(f"{path}: some times are dates, others are offsets; write them all in one way")
    arrival_ns = np.concatenate([part.arrival_ns for part in parts])
    prompt = np.maximum(np.concatenate([part.prompt_tokens for part in parts]), 1)
    output = np.maximum(np.concatenate([part.output_tokens for part in parts]), 1)
    prefixes = PrefixColumn.joined(part.prefixes for part in parts if part.prefixes is not None)
    says_class = any(part.batch is not None for part in parts)
    batch = np.concatenate([_batch_of(part) for part in parts]) if says_class else None
    parts.clear()  # a week's columns twice over would be the largest thing in memory
    if np.any(arrival_ns[1:] < arrival_ns[:-1]):
        order = np.argsort(arrival_ns, kind="stable")
        arrival_ns, prompt, output = arrival_ns[order], prompt[order], output[order]
        prefixes = prefixes.take(order) if len(prefixes) else prefixes
        batch = None if batch is None else batch[order]
    begin = int(arrival_ns[0])
    arrival_ns -= begin
    _check_length(path, int(arrival_ns[-1]))
    return Traffic(
        arrival_seconds=_seconds(arrival_ns),
        prompt_tokens=prompt,
        output_tokens=output,
        prefix_blocks=prefixes if prefixes.blocks else (),
        block_tokens=chosen.block_tokens,
        start_unix=begin / SECOND_NS if kinds.pop() else None,
        name=_name(path),
        batch=batch,
    )


def _batch_of(part: Rows) -> NDArray[np.bool_]:
    return np.zeros(len(part.arrival_ns), dtype=np.bool_) if part.batch is None else part.batch


def _check_length(path: Path, nanoseconds: int) -> None:
    """A year is replayed in minutes where it is quiet; what is longer is a mistake in the times more often than not."""
    days = nanoseconds / SECOND_NS / 86_400
    if days > MAX_TRACE_DAYS:
        raise UserError(
            f"{path}: spans {days:,.0f} days, and at most {MAX_TRACE_DAYS} are taken; give a part of it, or mend its "
            "times if they are not what the column's name says"
        )


def _seconds(nanoseconds: NDArray[np.int64]) -> NDArray[np.float64]:
    return nanoseconds / SECOND_NS


def _name(path: Path) -> str:
    """Without the endings that only tell how it is stored."""
    while path.suffix.lower() in _SUFFIXES:
        path = path.with_suffix("")
    return path.name
