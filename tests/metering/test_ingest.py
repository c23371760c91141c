"""Spools into the ledger: exactly once for any interleaving, tear, replay and failure of the store."""

import logging
import random
from contextlib import suppress
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from spools import SpoolWriter, Traffic, ledger_of, reserved, settled

from swell.errors import AtCapacity, StateError
from swell.gateway.spool import Spool
from swell.metering.collapse import MAX_TOKENS, collapse
from swell.metering.ingest import FAILED_STEPS, Ingested, SpoolReader
from swell.state.records import SpoolPosition, UsageFilter
from swell.state.usage import MAX_RECORD_BYTES, Sent, encode_frame
from swell.testing.memory_store import MemoryStore

FULL = AtCapacity("the disk is full", retry_after_seconds=1.0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def read_all(reader: SpoolReader) -> Ingested:
    """Step until a step finds nothing more; the sum of what was done."""
    total = Ingested()
    for _ in range(1000):
        done = reader.step()
        total += done
        if done == Ingested():
            return total
    raise AssertionError("reading does not come to an end")


def test_records_of_a_living_worker_are_in_the_ledger_after_a_step(root: Path) -> None:
    store = MemoryStore()
    writer, reader = SpoolWriter(root / "w1"), SpoolReader(root, store)
    writer.append(reserved("a"), settled("a"), reserved("b"))
    assert reader.step() == Ingested(records=3)
    assert ledger_of(store) == {"a": ("settled", 7, 9), "b": ("reserved", 100, 512)}
    writer.append(settled("b"))
    assert reader.step() == Ingested(records=1)
    assert reader.step() == Ingested()
    assert ledger_of(store)["b"] == ("settled", 7, 9)
    writer.die()


def test_segments_with_a_successor_are_deleted_once_they_are_applied(root: Path) -> None:
    store = MemoryStore()
    writer, reader = SpoolWriter(root / "w1"), SpoolReader(root, store)
    for number in range(200):
        writer.append(reserved(f"r{number:03d}"), settled(f"r{number:03d}"))
    written = int(writer.path.stem)
    assert written > 5
    assert reader.step() == Ingested(records=400, segments_deleted=written - 1)
    assert sorted(path.name for path in writer.folder.iterdir()) == [writer.path.name, "lock"]
    assert len(ledger_of(store)) == 200
    writer.die()


def test_a_dead_workers_spool_is_finished_and_removed(root: Path) -> None:
    store = MemoryStore()
    writer, reader = SpoolWriter(root / "w1"), SpoolReader(root, store)
    writer.append(reserved("sent"), reserved("queued", sent=False), reserved("done"), settled("done"))
    reader.step()
    assert writer.folder.exists()
    writer.die()
    assert reader.step() == Ingested(spools_finished=1, left_reserved=1, left_void=1, finished=("w1",))
    assert ledger_of(store) == {"sent": ("reserved", 100, 512), "queued": ("void", 0, 0), "done": ("settled", 7, 9)}
    assert list(root.iterdir()) == []
    reader.step()
    assert store.spool_position("w1") is None


def test_a_gateway_workers_own_spool_is_read_while_it_lives_and_finished_when_it_ends(root: Path) -> None:
    store = MemoryStore()
    spool, reader = Spool(root / "0123456789ab"), SpoolReader(root, store)
    spool.append(reserved("a"))
    assert reader.step() == Ingested(records=1)
    spool.append(settled("a"))
    spool.maintain()
    spool.close()
    assert reader.step() == Ingested(records=1, spools_finished=1, finished=("0123456789ab",))
    assert ledger_of(store) == {"a": ("settled", 7, 9)}
    assert list(root.iterdir()) == []


def test_a_worker_that_is_about_to_start_is_left_alone(root: Path) -> None:
    folder = root / "w1"
    folder.mkdir(parents=True)
    reader = SpoolReader(root, MemoryStore())
    assert reader.step() == Ingested()
    (folder / "lock").touch()
    assert reader.step() == Ingested()
    assert (folder / "lock").exists()


def test_no_folder_at_all_is_nothing_to_read(root: Path) -> None:
    assert SpoolReader(root, MemoryStore()).step() == Ingested()


def test_a_step_is_bounded_and_says_that_there_is_more(root: Path) -> None:
    store = MemoryStore()
    writer, reader = SpoolWriter(root / "w1"), SpoolReader(root, store, max_records=10)
    for number in range(12):
        writer.append(reserved(f"r{number}"), settled(f"r{number}"))
    writer.die()
    steps = [reader.step() for _ in range(3)]
    assert [step.records for step in steps] == [10, 10, 4]
    assert [step.folders_with_more for step in steps] == [1, 1, 0]
    assert [step.spools_finished for step in steps] == [0, 0, 1]
    assert len(ledger_of(store)) == 12


def test_a_store_that_fails_loses_nothing(root: Path) -> None:
    store = MemoryStore()
    writer, reader = SpoolWriter(root / "w1"), SpoolReader(root, store)
    writer.append(reserved("a"), settled("a"))
    writer.die()
    for _ in range(6):  # one call of the store after the other
        store.fail_next(FULL)
        with pytest.raises(AtCapacity):
            reader.step()
    read_all(reader)
    assert ledger_of(store) == {"a": ("settled", 7, 9)}


def test_a_folder_that_fails_by_itself_holds_up_no_other(root: Path) -> None:
    store = MemoryStore()
    bad, good = SpoolWriter(root / "a"), SpoolWriter(root / "b")
    reader = SpoolReader(root, store)
    bad.append(reserved("1"))
    good.append(reserved("2"))
    store.fail_next(None, StateError("it is another gateway's"))  # None: to forget, and then the first folder's
    assert reader.step() == Ingested(records=1)
    assert set(ledger_of(store)) == {"2"}
    steps = 0
    while not reader.step().records:
        steps += 1
        assert steps <= FAILED_STEPS
    assert set(ledger_of(store)) == {"1", "2"}
    bad.die()
    good.die()


def test_where_every_folder_fails_the_reason_is_raised(root: Path) -> None:
    store = MemoryStore()
    writer, reader = SpoolWriter(root / "a"), SpoolReader(root, store)
    writer.append(reserved("1"))
    store.fail_next(None, StateError("it is broken"))
    with pytest.raises(StateError, match="it is broken"):
        reader.step()
    assert reader.step() == Ingested(records=1)
    writer.die()


def test_what_a_step_did_before_the_store_was_full_is_told_by_the_next(root: Path) -> None:
    store = MemoryStore()
    first, second = SpoolWriter(root / "a"), SpoolWriter(root / "b")
    reader = SpoolReader(root, store)
    first.append(reserved("1"), settled("1"))
    second.append(reserved("2"))
    first.die()
    store.fail_next(*[None] * 4, FULL)  # to forget, and three calls for the first folder
    with pytest.raises(AtCapacity):
        reader.step()
    assert not (root / "a").exists()
    assert reader.step().finished == ("a",), "whose leases end now"
    second.die()


@pytest.mark.parametrize("failing_call", range(5))
def test_whichever_call_of_the_store_fails_the_next_step_goes_on(root: Path, failing_call: int) -> None:
    store = MemoryStore()
    store.fail_next(*[None] * failing_call, FULL)
    traffic = Traffic(random.Random(failing_call))
    writer = SpoolWriter(root / "w1")
    writer.append(*(traffic.next_record() for _ in range(60)))
    writer.die()
    reader = SpoolReader(root, store)
    failures = 0
    for _ in range(3):
        try:
            reader.step()
        except AtCapacity:
            failures += 1
    assert failures == 1
    assert ledger_of(store) == traffic.truth
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("tear", [b"\x10\x00\x00\x00\xde\xad\xbe\xef" + b"x" * 16, b"\xff\xff\xff\xff", b"\x05"])
def test_a_damaged_segment_is_kept_aside_and_the_next_is_read(
    root: Path, tear: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()
    writer, reader = SpoolWriter(root / "w1"), SpoolReader(root, store)
    writer.append(reserved("whole"), settled("whole"), reserved("queued", sent=False))
    writer.tear(tear)
    writer._next_segment()
    writer.append(settled("late"), reserved("after"), settled("after"))
    writer.die()
    with caplog.at_level(logging.ERROR):
        done = read_all(reader)
    assert (done.damaged_segments, done.spools_finished, done.records) == (1, 1, 6)
    assert [path.name for path in root.iterdir()] == ["w1-00000001.damaged"]
    assert "damaged" in caplog.text
    assert ledger_of(store) == {
        "whole": ("settled", 7, 9),
        "queued": ("reserved", 100, 512),  # what was lost may have said that it was sent
        "late": ("settled", 7, 9),
        "after": ("settled", 7, 9),
    }


def test_a_damaged_frame_of_a_living_worker_is_taken_for_one_being_written(root: Path) -> None:
    store = MemoryStore()
    writer, reader = SpoolWriter(root / "w1"), SpoolReader(root, store)
    writer.append(reserved("a"))
    frame = b"".join(encode_frame(settled("a")))
    writer.tear(frame[:20])
    assert reader.step() == Ingested(records=1)
    writer.tear(frame)
    assert reader.step() == Ingested(records=1)
    assert ledger_of(store) == {"a": ("settled", 7, 9)}
    writer.die()


def test_a_worker_killed_between_payload_and_header_left_no_damage(root: Path) -> None:
    store = MemoryStore()
    writer, reader = SpoolWriter(root / "w1", segment_bytes=16_384), SpoolReader(root, store)
    writer.append(reserved("a"))
    writer.tear(encode_frame(settled("a"))[1], ahead=8)
    writer.die()
    done = read_all(reader)
    assert (done.damaged_segments, done.left_reserved) == (0, 1)


def test_a_page_that_a_power_cut_lost_is_noticed_by_what_follows_it(root: Path) -> None:
    store = MemoryStore()
    writer, reader = SpoolWriter(root / "w1", segment_bytes=16_384), SpoolReader(root, store)
    writer.append(reserved("a", sent=False))
    writer.tear(b"later records", ahead=8 + MAX_RECORD_BYTES)
    writer.die()
    assert read_all(reader).damaged_segments == 1
    assert ledger_of(store) == {"a": ("reserved", 100, 512)}


def test_an_empty_segment_file_is_no_damage(root: Path) -> None:
    store = MemoryStore()
    writer, reader = SpoolWriter(root / "w1"), SpoolReader(root, store)
    writer.append(reserved("a"))
    (writer.folder / "00000002.spool").touch()  # killed before it was allocated
    (writer.folder / "spare").touch()
    writer.die()
    assert read_all(reader) == Ingested(
        records=1, segments_deleted=1, spools_finished=1, left_reserved=1, finished=("w1",)
    )
    assert list(root.iterdir()) == []


def test_a_folder_that_was_half_removed_is_removed(root: Path) -> None:
    store = MemoryStore()
    store.apply_usage([], SpoolPosition("w1", 3, 100))
    store.apply_usage([], SpoolPosition("w2", 3, 100))
    (root / "w1").mkdir(parents=True)
    (root / "w1" / "lock").touch()
    (root / "w2").mkdir()
    read_all(SpoolReader(root, store))
    assert list(root.iterdir()) == []


@given(seed=st.integers(0, 2**32))
@settings(max_examples=60)
def test_any_interleaving_with_duplicates_tears_and_restarts_ends_in_the_truth(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    choices, root, store = random.Random(seed), tmp_path_factory.mktemp("any"), MemoryStore()
    reader = SpoolReader(root, store, max_records=choices.choice((1, 3, 50, 4000)))
    writers = [SpoolWriter(root / name, choices.choice((400, 2048))) for name in ("wa", "wb")]
    traffic = [Traffic(choices, prefix) for prefix in "ab"]
    for _ in range(choices.randint(1, 120)):
        which = choices.randrange(2)
        record = traffic[which].next_record()
        writers[which].append(*[record] * choices.choice((1, 1, 1, 2)))
        if choices.random() < 0.15:
            reader.step()
        if choices.random() < 0.05:
            reader = SpoolReader(root, store)
        if choices.random() < 0.03:
            store.fail_next(FULL)
            with suppress(AtCapacity):
                reader.step()
                store.next_epoch()  # takes the failure away where the step had nothing to say to the store
    for writer, torn in zip(writers, (choices.randbytes(choices.randint(0, 30)), b""), strict=True):
        writer.tear(torn, ahead=8)
        writer.die()
    read_all(reader)
    assert ledger_of(store) == traffic[0].truth | traffic[1].truth
    assert list(root.iterdir()) == []


@given(st.integers(-(2**63), 2**64 - 1), st.integers(-(2**63), 2**64 - 1))
def test_no_count_that_an_engine_reports_can_overflow_the_ledger(prompt: int, completion: int) -> None:
    [change] = collapse("s", [settled("a", prompt=prompt, completion=completion)])
    assert 0 <= change.prompt_tokens <= MAX_TOKENS
    assert 0 <= change.completion_tokens <= MAX_TOKENS


@pytest.mark.parametrize(("status", "entered"), [("void", ("void", 0, 0)), ("surprise", ("estimated", 7, 9))])
def test_an_outcome_is_entered_as_what_it_is(status: str, entered: tuple[str, int, int]) -> None:
    [change] = collapse("s", [reserved("a"), settled("a", status=status)])
    assert (change.status, change.prompt_tokens, change.completion_tokens) == entered


def test_records_of_one_request_become_one_change_and_the_first_word_counts() -> None:
    records = [Sent("b"), reserved("a"), settled("a"), settled("a", prompt=99), reserved("a", prompt=1), settled("c")]
    changes = {change.request_id: change for change in collapse("s", records)}
    assert list(changes) == ["b", "a", "c"]
    assert (changes["a"].prompt_tokens, changes["a"].sent, changes["b"].sent, changes["c"].sent) == (
        7,
        True,
        True,
        False,
    )
    assert (changes["b"].reserved_at_unix_ms, changes["c"].reserved_at_unix_ms) == (None, None)


# The outcome of a request as the version before cached tokens wrote it, byte by byte: nine fields and the charge.
OLD_SETTLED = bytes.fromhex("9ba174a161cd07d0a7736574746c65640709a6636861742d30ccc8cd01f43219")


def test_a_spool_of_the_version_before_cached_tokens_is_read(root: Path) -> None:
    store = MemoryStore()
    writer, reader = SpoolWriter(root / "w1"), SpoolReader(root, store)
    writer.append(reserved("a"))
    writer.tear(len(OLD_SETTLED).to_bytes(4, "little") + crc32(OLD_SETTLED).to_bytes(4, "little") + OLD_SETTLED)
    assert reader.step() == Ingested(records=2)
    (row,) = store.list_usage(UsageFilter(), 10)
    assert (row.status, row.prompt_tokens, row.completion_tokens, row.charge_usd_nanos) == ("settled", 7, 9, 25)
    assert (row.cached_tokens, row.first_token_ms) == (0, 50)
    writer.die()


@pytest.mark.parametrize(
    ("status", "said", "kept"), [("settled", 5, 5), ("settled", 8, 7), ("settled", -1, 0), ("void", 5, 0)]
)
def test_no_more_is_cached_than_the_prompt_has_whatever_a_record_says(status: str, said: int, kept: int) -> None:
    outcome = replace(settled("a", status=status), cached_tokens=said)
    (change,) = collapse("w1", [reserved("a"), outcome])
    assert change.cached_tokens == kept
    (still_open,) = collapse("w1", [reserved("a")])
    assert still_open.cached_tokens == 0
