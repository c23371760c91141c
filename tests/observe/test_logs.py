"""Logs are one JSON object a line, and say nothing that is not on the list."""

import json
import logging
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from swell.errors import LaunchFailed
from swell.observe.logs import log_to_file, stop_logging


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "logs" / "server.log"
    handler = log_to_file(path, level="debug", file_bytes=2000, files=2)
    yield path
    stop_logging(handler)


def test_only_listed_fields_are_written(path: Path) -> None:
    logging.getLogger("swell.test").info("replica is ready", extra={"replica_id": "chat-1", "prompt": "canary"})
    [line] = [json.loads(text) for text in path.read_text().splitlines()]
    assert line.pop("at").endswith("+00:00")
    assert line == {"level": "info", "event": "replica is ready", "replica_id": "chat-1"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_error_of_ours_is_told_whole_and_a_foreign_one_by_type_and_place(path: Path) -> None:
    logger = logging.getLogger("swell.test")
    for error in (LaunchFailed("the engine ended"), ValueError("canary in a message")):
        try:
            raise error
        except Exception:
            logger.exception("a turn failed")
    ours, foreign = [json.loads(text)["error"] for text in path.read_text().splitlines()]
    assert ours["text"] == "the engine ended"
    assert (foreign["type"], "text" in foreign) == ("ValueError", False)
    assert "test_logs.py" in foreign["frames"][-1]
    assert "canary" not in path.read_text()


def test_a_library_is_heard_from_warnings_on_without_its_words(path: Path) -> None:
    logging.getLogger("library").info("not heard")
    logging.getLogger("library").warning("canary")
    [line] = [json.loads(text) for text in path.read_text().splitlines()]
    assert line["event"] == "library reported"


def test_files_are_rotated_by_size(path: Path) -> None:
    for number in range(100):
        logging.getLogger("swell.test").info("tick", extra={"count": number})
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["server.log", "server.log.1", "server.log.2"]
    assert all(file.stat().st_size <= 2000 for file in files)
