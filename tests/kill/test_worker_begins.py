"""A worker that is started again takes no client before it knows the keys."""

import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kill_upstreams import end_with_the_tests

from swell.state.messages import FrameBuffer, Hello, decode_from_worker, encode_message
from swell.state.snapshot import Snapshot
from swell.state.worker import WorkerSettings
from swell_process import choose_free_port

pytestmark = pytest.mark.process


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_worker_listens_once_it_has_a_snapshot(tmp_path: Path, eventually: Any) -> None:
    (tmp_path / "pepper").write_bytes(b"p" * 32)
    settings = WorkerSettings(
        worker_id=0, incarnation="0123456789ab", host="127.0.0.1", port=choose_free_port(),
        control_socket=str(tmp_path / "control"), spool_dir=str(tmp_path / "spool"),
        pepper_file=str(tmp_path / "pepper"),
    )  # fmt: skip
    (tmp_path / "settings").write_bytes(msgspec.json.encode(settings))
    with socket.socket(socket.AF_UNIX) as control:
        control.bind(settings.control_socket)
        control.listen()
        control.settimeout(20)
        worker = subprocess.Popen(
            [sys.executable, "-m", "swell.server.gateway_worker", "--settings", str(tmp_path / "settings")],
            preexec_fn=end_with_the_tests,  # noqa: PLW1509 - no threads
        )
        try:
            link, _ = control.accept()
            with link:
                hello, *_ = FrameBuffer().feed(link.recv(65536))  # what it tells next may come with it
                assert isinstance(decode_from_worker(hello), Hello)
                assert not accepts(settings.port)
                link.sendall(encode_message(Snapshot(1, 1, 1, (), (), ())))
                eventually(lambda: accepts(settings.port))
                worker.send_signal(signal.SIGTERM)
                assert worker.wait(20) == 0
        finally:
            worker.kill()
            worker.wait()


def test_a_worker_that_never_learns_anything_ends_when_told(tmp_path: Path, eventually: Any) -> None:
    (tmp_path / "pepper").write_bytes(b"p" * 32)
    settings = WorkerSettings(
        worker_id=0, incarnation="0123456789ab", host="127.0.0.1", port=choose_free_port(),
        control_socket=str(tmp_path / "nobody"), spool_dir=str(tmp_path / "spool"),
        pepper_file=str(tmp_path / "pepper"),
    )  # fmt: skip
    (tmp_path / "settings").write_bytes(msgspec.json.encode(settings))
    worker = subprocess.Popen(
        [sys.executable, "-m", "swell.server.gateway_worker", "--settings", str(tmp_path / "settings")],
        preexec_fn=end_with_the_tests,  # noqa: PLW1509 - no threads
    )
    try:
        eventually((tmp_path / "spool" / "spare").exists)  # made by a worker that has come all the way up
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0
    finally:
        worker.kill()
        worker.wait()
