"""Whose a store is: one pepper and one installation for all servers that use it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from swell.errors import StateError
from swell.server.state_directory import StateDirectory
from swell.server.store_marks import INSTALLATION, PEPPER, check, check_marks, join, pepper_mark
from swell.testing.memory_store import MemoryStore

ONE, OTHER = b"1" * 32, b"2" * 32
FILE = Path("secrets/pepper")
Make = Callable[[str], StateDirectory]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(name: str) -> StateDirectory:
        state = StateDirectory(tmp_path / name)
        state.create()
        return state

    return made


def marks(store: MemoryStore) -> dict[str, int]:
    found = {name: store.mark(name) for name in (PEPPER, INSTALLATION)}
    return {name: value for name, value in found.items() if value is not None}


def test_a_second_server_is_of_the_installation_of_the_first(make: Make) -> None:
    store, first, second = MemoryStore(), make("a"), make("b")
    join(store, first, ONE, FILE)
    join(store, second, ONE, FILE)
    join(store, first, ONE, FILE)
    assert second.installation() == first.installation()
    check_marks(marks(store), second, ONE, FILE)
    check_marks({}, second, ONE, FILE)


@pytest.mark.parametrize("kept", ["0000000000000001", "7fffffffffffffff", "8000000000000000", "ffffffffffffffff"])
def test_an_installation_that_moves_to_a_database_keeps_its_id(make: Make, kept: str) -> None:
    store, moved, fresh = MemoryStore(), make("a"), make("b")
    moved.keep_installation(kept)
    join(store, moved, ONE, FILE)
    join(store, fresh, ONE, FILE)
    assert (moved.installation(), fresh.installation()) == (kept, kept)


def test_another_installation_is_refused_and_told_what_to_do(make: Make) -> None:
    store, own, foreign = MemoryStore(), make("a"), make("b")
    join(store, own, ONE, FILE)
    known = foreign.installation()
    with pytest.raises(StateError, match=f"another installation than the store: {known} and {own.installation()}"):
        join(store, foreign, ONE, FILE)
    with pytest.raises(StateError, match=f"remove {foreign.installation_file}"):
        check_marks(marks(store), foreign, ONE, FILE)


def test_an_id_that_swell_did_not_make_is_refused(make: Make) -> None:
    state = make("a")
    state.keep_installation("mine")
    with pytest.raises(StateError, match="'mine' is none that Swell made"):
        join(MemoryStore(), state, ONE, FILE)


def test_another_pepper_is_refused_before_and_after_the_store_is_had(make: Make) -> None:
    store, first, second = MemoryStore(), make("a"), make("b")
    join(store, first, ONE, FILE)
    for refused in (lambda: join(store, second, OTHER, FILE), lambda: check_marks(marks(store), second, OTHER, FILE)):
        with pytest.raises(StateError, match="name it in SWELL_PEPPER_FILE"):
            refused()
    assert not second.has_installation()


def test_a_mark_tells_nothing_of_the_pepper_and_fits_into_63_bits() -> None:
    found = {pepper_mark(bytes([number]) * 32) for number in range(200)}
    assert len(found) == 200
    assert all(0 <= mark < 2**63 for mark in found)


def test_a_command_that_comes_first_marks_nothing_and_one_that_comes_later_is_of_the_installation(make: Make) -> None:
    store, first, second = MemoryStore(), make("a"), make("b")
    check(store, second, OTHER, FILE)
    assert marks(store) == {}
    join(store, first, ONE, FILE)
    check(store, second, ONE, FILE)
    assert second.installation() == first.installation()
    with pytest.raises(StateError, match="name it in SWELL_PEPPER_FILE"):
        check(store, second, OTHER, FILE)
