"""The state directory is private, and one process's at a time."""

import os
import stat
from pathlib import Path

import pytest

from swell.errors import StateError
from swell.server.state_directory import StateDirectory


def test_what_it_creates_is_private_even_where_the_folder_existed(tmp_path: Path) -> None:
    root = tmp_path / "s"
    root.mkdir(mode=0o755)
    state = StateDirectory(root)
    state.create()
    for folder in (state.root, state.secrets, state.workers, state.spool, state.logs):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


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
