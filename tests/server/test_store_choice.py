"""Which store belongs to a state directory, for servers and for commands without one; secrets are never told."""

from pathlib import Path

import pytest

from swell.errors import StateError
from swell.server.store_choice import NOTE, PostgresChoice, chosen_store, remember_store
from swell.spec import StoreSpec

URL = "postgresql://swell@db.example/swell"
SECRET = "hunter2"


def test_without_anything_it_is_the_file(tmp_path: Path) -> None:
    remember_store(tmp_path, None, {})
    assert chosen_store(tmp_path, {}) is None


def test_what_a_server_went_by_is_found_by_commands_without_one(tmp_path: Path) -> None:
    remember_store(tmp_path, StoreSpec(url=URL), {})
    assert chosen_store(tmp_path, {}) == PostgresChoice(URL)
    remember_store(tmp_path, StoreSpec(url=URL, password_env="DB_PASSWORD"), {})
    assert chosen_store(tmp_path, {"DB_PASSWORD": f"{SECRET}\n"}) == PostgresChoice(URL, SECRET)
    with pytest.raises(StateError, match="DB_PASSWORD holds no password"):
        chosen_store(tmp_path, {})
    remember_store(tmp_path, None, {})
    assert chosen_store(tmp_path, {}) is None, "a server that went back to the file"


def test_the_note_is_private_and_holds_no_secret(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text(f"{SECRET}\n")
    remember_store(tmp_path, StoreSpec(url=URL, password_file=str(secret)), {})
    note = tmp_path / NOTE
    assert note.stat().st_mode & 0o777 == 0o600
    assert SECRET not in note.read_text()
    chosen = chosen_store(tmp_path, {})
    assert chosen == PostgresChoice(URL, SECRET)
    assert SECRET not in repr(chosen)
    secret.unlink()
    with pytest.raises(StateError, match=r"store's password cannot be read: No such file"):
        chosen_store(tmp_path, {})


def test_the_environment_goes_before_the_spec_and_may_hold_the_password(tmp_path: Path) -> None:
    environ = {"SWELL_STORE_URL": "postgresql://swell:hunter2@other/swell"}
    remember_store(tmp_path, StoreSpec(url=URL), environ)
    assert chosen_store(tmp_path, environ) == PostgresChoice("postgresql://swell:hunter2@other/swell")
    assert SECRET not in (tmp_path / NOTE).read_text()
    with pytest.raises(StateError, match="found its store by SWELL_STORE_URL"):
        chosen_store(tmp_path, {})


def test_the_environment_may_name_a_file_with_the_url(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(f"{URL}\n")
    environ = {"SWELL_STORE_URL_FILE": str(file)}
    assert chosen_store(tmp_path, environ) == PostgresChoice(URL)
    with pytest.raises(StateError, match="both set; keep one"):
        chosen_store(tmp_path, environ | {"SWELL_STORE_URL": URL})
    file.write_text(" \n")
    with pytest.raises(StateError, match="is empty; put the store's URL there"):
        chosen_store(tmp_path, environ)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(StateError, match="holds something else"):
        chosen_store(tmp_path, environ)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"spec": {"url": "mysql://x"}}', '{"spec": 3}'])
def test_a_damaged_note_says_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / NOTE).write_text(content)
    with pytest.raises(StateError, match=r"store\.json cannot be read; start the server again"):
        chosen_store(tmp_path, {})
