"""The state directory is private, and one process's at a time."""

import os
import stat
from pathlib import Path

import pytest

from swell.errors import StateError
from swell.server.state_directory import StateDirectory


def mode_of(folder: Path) -> int:
    return stat.S_IMODE(folder.stat().st_mode)


def test_what_it_creates_is_private(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "new" / "s")
    for _ in range(2):
        state.create()
        for folder in (state.root, state.secrets, state.workers, state.spool, state.logs):
            assert mode_of(folder) == 0o700


def test_an_empty_folder_of_somebody_elses_making_keeps_its_mode(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "s")
    state.root.mkdir()
    state.root.chmod(0o755)
    state.create()
    assert mode_of(state.root) == 0o755
    assert mode_of(state.secrets) == 0o700


def test_a_folder_with_other_files_is_neither_filled_nor_changed(tmp_path: Path) -> None:
    root = tmp_path / "s"
    root.mkdir()
    root.chmod(0o755)
    (root / "mine.txt").write_text("")
    with pytest.raises(StateError, match=r"holds other files.*choose another with --state"):
        StateDirectory(root).create()
    assert mode_of(root) == 0o755
    assert [path.name for path in root.iterdir()] == ["mine.txt"]
    (root / "lock").write_text("")  # what Swell itself left there
    StateDirectory(root).create()
    assert (root / "secrets").is_dir()


@pytest.mark.parametrize("mode", [0o1777, 0o770, 0o702])
@pytest.mark.parametrize("own", [False, True])
def test_a_folder_that_others_may_write_is_refused(tmp_path: Path, mode: int, own: bool) -> None:
    root = tmp_path / "s"
    root.mkdir()
    if own:
        (root / "lock").write_text("")
    root.chmod(mode)
    with pytest.raises(StateError, match=r"others may write.*chmod go-w"):
        StateDirectory(root).create()
    assert mode_of(root) == mode
    assert not (root / "secrets").exists()


def test_the_lock_names_its_holder(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    with state.locked():
        assert state.is_locked()
        assert state.holder() == os.getpid()
        with pytest.raises(StateError, match=rf"in use by process {os.getpid()}.*swell down --state"), state.locked():
            pass
    assert not state.is_locked()
    with state.locked():
        assert state.is_locked()


def test_a_path_too_long_for_a_socket_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / ("x" * 100))
    with pytest.raises(StateError, match="too long for a Unix socket"):
        state.create()
    assert not state.root.exists()


def test_a_path_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="choose another with --state"):
        StateDirectory(tmp_path / "file" / "s").create()


def test_what_a_server_could_not_end_is_told_once(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "s")
    state.create()
    assert state.take_left() == ""
    state.note_left("Not everything ended in time: chat-0")
    state.note_left("Not everything that was prepared has gone: image engine:1 of cluster")
    assert state.take_left().splitlines() == [
        "Not everything ended in time: chat-0",
        "Not everything that was prepared has gone: image engine:1 of cluster",
    ]
    assert state.take_left() == ""
