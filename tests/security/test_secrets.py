"""The secrets of a state directory: made once, readable by their owner alone, never replaced in silence."""

import threading
from pathlib import Path

import pytest

from swell.errors import StateError
from swell.security import private_files
from swell.security.secrets import Secrets, load_pepper, load_secrets


def test_secrets_are_made_on_first_use_and_stay(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    first = load_secrets(folder, {})
    assert load_secrets(folder, {}) == first
    assert len(first.store_key) == len(first.pepper) == 32
    assert first.store_key != first.pepper
    assert sorted(path.name for path in folder.iterdir()) == ["pepper", "store.key"]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert first.pepper_file.read_bytes() == first.pepper == load_pepper(first.pepper_file)


def test_secrets_are_not_in_their_own_description(tmp_path: Path) -> None:
    assert repr(load_secrets(tmp_path, {}).pepper) not in repr(load_secrets(tmp_path, {}))


@pytest.mark.parametrize("name", ["pepper", "store.key"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620])
def test_a_file_open_to_others_is_refused(tmp_path: Path, name: str, mode: int) -> None:
    load_secrets(tmp_path, {})
    (tmp_path / name).chmod(mode)
    with pytest.raises(StateError, match=f"chmod 600 .*{name}"):
        load_secrets(tmp_path, {})


def test_the_environment_may_name_other_files(tmp_path: Path) -> None:
    own = {"SWELL_PEPPER_FILE": tmp_path / "my-pepper", "SWELL_STORE_KEY_FILE": tmp_path / "my-key"}
    for path, content in zip(own.values(), (b"p" * 48, b"k" * 32), strict=True):
        private_files.create_private(path, content)
    secrets = load_secrets(tmp_path / "secrets", {name: str(path) for name, path in own.items()})
    assert secrets == Secrets(b"k" * 32, b"p" * 48, own["SWELL_STORE_KEY_FILE"], own["SWELL_PEPPER_FILE"])
    assert not (tmp_path / "secrets").exists()


@pytest.mark.parametrize("variable", ["SWELL_PEPPER_FILE", "SWELL_STORE_KEY_FILE"])
def test_a_named_file_is_never_made(tmp_path: Path, variable: str) -> None:
    with pytest.raises(StateError, match="nowhere cannot be read"):
        load_secrets(tmp_path / "secrets", {variable: str(tmp_path / "nowhere")})
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(("name", "size"), [("pepper", 31), ("pepper", 4097), ("store.key", 33), ("store.key", 0)])
def test_a_secret_of_a_wrong_length_is_refused(tmp_path: Path, name: str, size: int) -> None:
    load_secrets(tmp_path, {})
    private_files.replace_private(tmp_path / name, b"x" * size)
    with pytest.raises(StateError, match=f"has {size} bytes"):
        load_secrets(tmp_path, {})


def test_a_lost_pepper_is_not_replaced_in_silence(tmp_path: Path) -> None:
    load_secrets(tmp_path, {})
    (tmp_path / "pepper").unlink()
    with pytest.raises(StateError, match="no existing key works"):
        load_secrets(tmp_path, {})
    assert not (tmp_path / "pepper").exists()


def test_a_first_use_that_was_killed_half_way_is_taken_up(tmp_path: Path) -> None:
    first = load_secrets(tmp_path, {})
    first.store_key_file.unlink()
    assert load_secrets(tmp_path, {}).pepper == first.pepper


def test_many_at_once_agree_on_the_same_secrets(tmp_path: Path) -> None:
    for turn in range(20):
        found: list[Secrets] = []
        barrier = threading.Barrier(6)

        def load(folder: Path = tmp_path / str(turn), barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            found.append(load_secrets(folder, {}))  # noqa: B023  # the threads end within the turn

        threads = [threading.Thread(target=load) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 6
        assert len({(secrets.store_key, secrets.pepper) for secrets in found}) == 1
        assert len(list((tmp_path / str(turn)).iterdir())) == 2, "no temporary file may stay"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot make"):
        load_secrets(tmp_path / "file" / "secrets", {})


def test_replacing_leaves_either_the_old_or_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    private_files.create_private(path, b"old")
    monkeypatch.setattr(private_files.os, "fsync", _fail)
    with pytest.raises(OSError, match="no"):
        private_files.replace_private(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def _fail(_handle: int) -> None:
    raise OSError("no")
