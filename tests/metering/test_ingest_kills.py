"""The reader is killed anywhere, again and again; afterwards the ledger equals the truth, every request exactly once.

Each victim is a forked child that kills itself: after a seeded number of executed lines of the product, or by a timer
that strikes inside the database too.
"""

import os
import random
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from spools import SpoolWriter, Traffic, ledger_of

from swell.adapters.stores import open_store
from swell.metering.ingest import Ingested, SpoolReader

KEY = bytes(range(32))
KILLS = 15  # per seed
FINISHED = 0
_OURS = (f"{os.sep}swell{os.sep}metering{os.sep}", f"{os.sep}swell{os.sep}adapters{os.sep}stores{os.sep}")


@pytest.mark.parametrize("seed", range(6))
def test_a_reader_killed_anywhere_enters_every_request_exactly_once(seed: int, tmp_path: Path) -> None:
    choices = random.Random(seed)
    print(f"seed {seed}")
    root, database = tmp_path / "spool", tmp_path / "swell.db"
    open_store(database, KEY).close()
    living: list[tuple[SpoolWriter, Traffic]] = []
    truth = {}
    killed = started = 0
    while killed < KILLS:
        while len(living) < 2:
            started += 1
            name = f"w{started}"
            living.append((SpoolWriter(root / name), Traffic(choices, f"{name}-")))
        for writer, traffic in living:
            writer.append(*(traffic.next_record() for _ in range(choices.randint(0, 60))))
        if choices.random() < 0.4:
            writer, traffic = living.pop(choices.randrange(2))
            writer.die()
            truth |= traffic.truth
        killed += _victim(root, database, choices) != FINISHED
    for writer, traffic in living:
        writer.die()
        truth |= traffic.truth
    assert _read_all(root, database)
    store = open_store(database, KEY)
    assert ledger_of(store) == truth
    store.close()
    assert list(root.iterdir()) == []


def _victim(root: Path, database: Path, choices: random.Random) -> int:
    """Read in a child that is killed on its way; its wait status, FINISHED if it got to the end alive."""
    by_timer = choices.random() < 0.5
    lines, seconds = choices.randint(1, 2500), choices.uniform(0.001, 0.03)
    child = os.fork()
    if child == 0:
        try:
            if by_timer:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process on the spot, like SIGKILL
                signal.setitimer(signal.ITIMER_REAL, seconds)
            else:
                _kill_after(lines)
            _read_all(root, database)
            os._exit(FINISHED)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert status == FINISHED or os.WIFSIGNALED(status), "the victim failed by itself"
    return status


def _kill_after(lines: int) -> None:
    left = lines

    def on_line(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal left
        left -= event == "line"
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return on_line

    def on_call(frame: FrameType, _event: str, _argument: object) -> Any:
        return on_line if any(part in frame.f_code.co_filename for part in _OURS) else None

    sys.settrace(on_call)


def _read_all(root: Path, database: Path) -> bool:
    store = open_store(database, KEY)
    try:
        reader = SpoolReader(root, store, max_records=40)
        return any(reader.step() == Ingested() for _ in range(1000))
    finally:
        store.close()
