"""The spool: what was appended is there whatever is killed when, and a full disk is told before anything is lost."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from swell.errors import AtCapacity
from swell.gateway.spool import Spool
from swell.state.usage import (
    LOCK_NAME,
    SEGMENT_BYTES,
    Reserved,
    Sent,
    SpoolRecord,
    encode_frame,
    is_damaged,
    read_frames,
)

CHILD = """
import os, sys, threading
from pathlib import Path
from swell.gateway.spool import Spool
from swell.state.usage import Reserved

spool = Spool(Path(sys.argv[1]))

def maintain():
    while True:
        spool.maintain()

threading.Thread(target=maintain, daemon=True).start()
text = "x" * 900
number = 0
while True:
    spool.append(Reserved(f"req-{number}", number, "k", "t", "m", text, 1, 2, True))
    number += 1
    os.write(1, number.to_bytes(8, "big"))
"""


def reserved(number: int, size: int = 900) -> Reserved:
    return Reserved(f"req-{number}", number, "k", "t", "m", "x" * size, 1, 2, True)


def stored(folder: Path) -> list[SpoolRecord]:
    """All records of a folder, as the server reads them; nothing in it may be damaged."""
    records: list[SpoolRecord] = []
    for path in sorted(folder.glob("*.spool")):
        segment = path.read_bytes()
        assert len(segment) == SEGMENT_BYTES
        frames = list(read_frames(segment))
        records += [record for record, _ in frames]
        assert not is_damaged(segment, frames[-1][1] if frames else 0)
    return records


def fill_segment(spool: Spool, start: int = 0) -> int:
    """Append until the next record needs another segment; returns its number."""
    number, left = start, SEGMENT_BYTES
    while (left := left - sum(map(len, encode_frame(reserved(number))))) >= 0:
        spool.append(reserved(number))
        number += 1
    return number


@contextmanager
def no_room_for_segments() -> Iterator[None]:
    """No file may grow to a segment's size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SEGMENT_BYTES - 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    running = Spool(tmp_path / "spool")
    yield running
    running.close()


def test_records_are_there_at_once_and_in_order(spool: Spool, tmp_path: Path) -> None:
    for number in range(100):
        spool.append(reserved(number, size=number))
        assert len(stored(tmp_path / "spool")) == number + 1
    assert [record.request_id for record in stored(tmp_path / "spool")] == [f"req-{number}" for number in range(100)]


@pytest.mark.parametrize("maintained", [False, True])
def test_a_full_segment_is_followed_by_another(spool: Spool, tmp_path: Path, maintained: bool) -> None:
    number = 0
    for _ in range(3):
        if maintained:
            spool.maintain()
        number = fill_segment(spool, number)
        spool.append(reserved(number))  # in the next one
        number += 1
    folder = tmp_path / "spool"
    assert len(list(folder.glob("*.spool"))) >= 3
    ids = [record.request_id for record in stored(folder)]
    assert ids == [f"req-{each}" for each in range(number)]


def test_the_spare_is_no_segment_and_goes_with_the_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append(reserved(1))
    assert spool.needs_maintenance
    spool.maintain()
    assert not spool.needs_maintenance
    assert sorted(path.name for path in (tmp_path / "spool").iterdir()) == ["00000001.spool", LOCK_NAME, "spare"]
    spool.close()
    assert sorted(path.name for path in (tmp_path / "spool").iterdir()) == ["00000001.spool", LOCK_NAME]


def test_a_living_worker_holds_the_lock(spool: Spool, tmp_path: Path) -> None:
    with pytest.raises(BlockingIOError):
        Spool(tmp_path / "spool")
    assert spool.needs_maintenance


def test_a_full_disk_stores_nothing_and_everything_again_when_there_is_room(spool: Spool, tmp_path: Path) -> None:
    number = fill_segment(spool)
    with no_room_for_segments():
        with pytest.raises(AtCapacity, match="free disk space"):
            spool.append(reserved(number))
        with pytest.raises(AtCapacity):
            spool.maintain()
        with pytest.raises(AtCapacity):
            spool.append(reserved(number))
        spool.append(Sent("x"))  # what still fits is stored
        assert len(stored(tmp_path / "spool")) == number + 1
        assert [path.name for path in (tmp_path / "spool").glob("*.spool")] == ["00000001.spool"]
    spool.append(reserved(number))
    assert [record.request_id for record in stored(tmp_path / "spool")][-2:] == ["x", f"req-{number}"]


def test_a_full_disk_at_the_start_is_told(tmp_path: Path) -> None:
    with no_room_for_segments(), pytest.raises(AtCapacity):
        Spool(tmp_path / "spool")


@pytest.mark.parametrize("maintained", [False, True])
def test_a_folder_that_is_gone_is_no_room(tmp_path: Path, maintained: bool) -> None:
    spool = Spool(tmp_path / "spool")
    if maintained:
        spool.maintain()
    number = fill_segment(spool)
    shutil.rmtree(tmp_path / "spool")
    with pytest.raises(AtCapacity):
        spool.append(reserved(number))
    spool.close()


def test_maintenance_in_the_middle_of_a_rotation_takes_nothing_away(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread may run between any two steps; here, right before the spare becomes a segment."""
    rename = Path.rename

    def maintain_first(self: Path, target: Path) -> Path:
        spool.maintain()
        return rename(self, target)

    spool.maintain()
    number = fill_segment(spool)
    monkeypatch.setattr(Path, "rename", maintain_first)
    spool.append(reserved(number))
    spool.append(reserved(number + 1))
    assert len(stored(tmp_path / "spool")) == number + 2


def test_maintenance_on_another_thread_loses_nothing(spool: Spool, tmp_path: Path) -> None:
    stop = threading.Event()
    failures: list[BaseException] = []

    def maintain() -> None:
        try:
            while not stop.is_set():
                spool.maintain()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=maintain)
    thread.start()
    try:
        for number in range(30_000):
            spool.append(reserved(number))
    finally:
        stop.set()
        thread.join()
    assert failures == []
    assert [record.request_id for record in stored(tmp_path / "spool")] == [f"req-{each}" for each in range(30_000)]


@pytest.mark.kill
@pytest.mark.parametrize("seed", range(6))
def test_whatever_a_killed_worker_had_appended_is_readable(tmp_path: Path, seed: int) -> None:
    """The child tells after each record how many there are, and is killed at a random one."""
    folder = tmp_path / "spool"
    wanted = random.Random(seed).choice([1, 7, 500, 4_400, 9_000, 13_000]) + seed
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    told = 0
    try:
        while told < wanted:
            data = os.read(child.stdout.fileno(), 8 * 4096)
            assert data, "the child ended by itself"
            told = int.from_bytes(data[len(data) // 8 * 8 - 8 : len(data) // 8 * 8], "big")
    finally:
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read()
        child.stdout.close()
        child.wait()
    told += len(rest) // 8
    ids = [record.request_id for record in stored(folder)]
    assert ids == [f"req-{number}" for number in range(len(ids))]
    assert told <= len(ids) <= told + 1
    survivor = Spool(folder)  # the lock died with its holder
    survivor.close()
