"""Places that the file no longer names and that cannot be asked any more: they keep nothing else from going on."""

from pathlib import Path

import pytest

from swell.errors import SwellError, UserError
from swell.server import assembly
from swell.server.leftovers import stop_leftovers
from swell.server.state_directory import StateDirectory
from swell.spec import parse_spec
from swell.state.records import ProcessRecord

IMAGE = "images: {llama.cpp: 'e:1'}}"
GONE = {
    "daemon": "{name: gone, kind: container, socket: /nowhere/docker.sock, " + IMAGE,
    "kubeconfig": "{name: gone, kind: kubernetes, kubeconfig: /nowhere/config, " + IMAGE,
}
DETAIL = {
    "workload": "chat", "provider": "gone", "ordinal": 0, "fingerprint": "f", "log_path": "/nowhere/chat-0.log",
    "drain_seconds": 1.0, "stop_grace_seconds": 1.0, "key": "k",
}  # fmt: skip


@pytest.fixture(params=GONE)
def state(tmp_path: Path, request: pytest.FixtureRequest) -> StateDirectory:
    """Of a server that ran with such a place, and runs with another one now."""
    state = StateDirectory(tmp_path / "state")
    state.create()
    for places in (GONE[request.param], "{name: here}"):
        models = "models: [{name: m, endpoints: ['http://127.0.0.1:1']}]"
        assembly.remember_spec(state, parse_spec(f"{models}\nproviders: [{places}]", origin="a test"))
    assembly.open_store(state).close()
    return state


def _record(state: StateDirectory) -> None:
    store = assembly.open_store(state)
    store.record_processes(
        [ProcessRecord(process_id="c", kind="replica", marker="c", recorded_at_unix=1.0, detail=DETAIL)]
    )
    store.close()


def _recorded(state: StateDirectory) -> list[str]:
    store = assembly.open_store(state)
    try:
        return [record.process_id for record in store.list_processes()]
    finally:
        store.close()


def test_one_where_nothing_ran_does_not_keep_the_rest_from_ending(state: StateDirectory) -> None:
    with state.locked():
        assert stop_leftovers(state, 5.0) == 0
    assert [place.name for place in assembly.remembered_places(state)] == ["here", "gone"]


def test_one_where_something_ran_is_told_until_it_is_forgotten(state: StateDirectory) -> None:
    _record(state)
    with state.locked():
        with pytest.raises(SwellError, match=r"/nowhere/.*swell down --forget PLACE"):
            stop_leftovers(state, 0.2)
        assert _recorded(state) == ["c"]
        with pytest.raises(UserError, match="no place gome to forget; there are here, gone"):
            stop_leftovers(state, 5.0, "gome")
        assert stop_leftovers(state, 5.0, "gone") == 0
    assert _recorded(state) == []
    assert [place.name for place in assembly.remembered_places(state)] == ["here"]


async def test_a_server_does_without_one_that_its_file_does_not_name(state: StateDirectory) -> None:
    made = assembly.providers(state, lambda child_id: None, named=["here"])
    assert set(made.spared) | set(made.left_out) == {"gone"}
    await made.close()
