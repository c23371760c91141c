"""What is particular to real processes: nothing inherited, nothing left behind, found again after a kill."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from provider_harness import ProcessHarness

from swell.adapters.providers import proc
from swell.adapters.providers.process import ProcessProvider
from swell.errors import LaunchFailed
from swell.ports.provider import MARKER, ChildHandle, ChildSpec, Presence

_REPORT = """
import json, os, sys
print(json.dumps({
    "files": sorted(int(name) for name in os.listdir("/proc/self/fd")),
    "input": os.readlink("/proc/self/fd/0"),
    "session": os.getsid(0) == os.getpid(),
    "marker": os.environ["SWELL_CHILD"],
    "own": os.environ["OWN"],
}), flush=True)
"""

_FAMILY = """
import signal, subprocess, sys
code = "import signal; signal.signal(15, signal.SIG_IGN); print('steady', flush=True); signal.pause()"
child = subprocess.Popen([sys.executable, "-c", code])
signal.pause()
"""


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _collect(handle: ChildHandle) -> None:
    """Reap a child whose provider no longer watches it."""
    os.waitpid(handle.pid, 0)


async def _run(harness: ProcessHarness, child: ChildSpec) -> ChildHandle:
    provider = harness.provider()
    handle = await provider.start(child)
    await harness.until(lambda: provider.status(handle).presence is Presence.GONE)
    return handle


async def test_a_child_inherits_nothing_but_its_environment_and_its_log(process_harness: ProcessHarness) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    child = process_harness.python(_REPORT)
    handle = await _run(process_harness, ChildSpec(child.child_id, child.argv, child.log_path, {"OWN": "yes"}))
    os.close(reading)
    os.close(writing)
    report = json.loads(handle.log_path.read_text().splitlines()[1])
    assert report["files"][:3] == [0, 1, 2]
    assert len(report["files"]) == 4  # the fourth is the listing itself
    assert report["input"] == "/dev/null"
    assert report["session"] is True
    assert (report["marker"], report["own"]) == (child.child_id, "yes")


async def test_a_log_is_appended_to_and_private(process_harness: ProcessHarness) -> None:
    first = process_harness.python("print('one')")
    second = process_harness.python("import sys; print('two', file=sys.stderr)")
    handle = await _run(process_harness, first)
    await _run(process_harness, ChildSpec(second.child_id, second.argv, first.log_path))
    text = handle.log_path.read_text()
    assert text.index("one") < text.index("two")
    assert stat.S_IMODE(handle.log_path.stat().st_mode) == 0o600
    assert await process_harness.provider().log_tail(handle.log_path) == "two"


async def test_a_rotated_log_is_still_written_to(process_harness: ProcessHarness) -> None:
    code = "import signal\nfor line in range(200): print('line', line)\nprint('steady', flush=True)\n"
    code += "signal.sigwait({signal.SIGUSR1}); print('after', flush=True); signal.pause()"
    child = process_harness.python("import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {10})\n" + code)
    provider = process_harness.provider()
    handle = await provider.start(child)
    await process_harness.settled(handle)
    for _ in range(3):
        await provider.rotate_log(handle.log_path, max_bytes=100, files=2)
    assert handle.log_path.read_text() == ""
    assert "line 199" in handle.log_path.with_name(handle.log_path.name + ".1").read_text()
    os.kill(handle.pid, signal.SIGUSR1)
    await process_harness.until(lambda: "after\n" in handle.log_path.read_text())
    assert handle.log_path.read_text() == "after\n"


async def test_rotation_keeps_a_bounded_number_of_files(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    for number in range(5):
        log.write_text(f"{number}" * 50)
        await ProcessProvider().rotate_log(log, max_bytes=10, files=2)
    assert _names(tmp_path) == ["a.log", "a.log.1", "a.log.2"]
    assert (log.with_name("a.log.1").read_text()[0], log.with_name("a.log.2").read_text()[0]) == ("4", "3")
    log.write_text("x" * 50)
    await ProcessProvider().rotate_log(log, max_bytes=10, files=0)
    assert log.read_text() == ""


async def test_what_a_child_started_dies_with_it(process_harness: ProcessHarness) -> None:
    provider = process_harness.provider()
    handle = await provider.start(process_harness.python(_FAMILY))
    await process_harness.settled(handle)
    assert len(list(proc.find_marked(handle.child_id))) == 2
    process_harness.crash(handle)
    await process_harness.until(lambda: provider.status(handle).presence is Presence.GONE)
    assert list(proc.find_marked(handle.child_id)) == []


async def test_what_outlived_its_parent_is_killed_where_it_is_not_adopted(process_harness: ProcessHarness) -> None:
    first = process_harness.provider()
    handle = await first.start(process_harness.python(_FAMILY))
    await process_harness.settled(handle)
    await first.close()
    process_harness.crash(handle)
    await process_harness.until(lambda: proc.identity_of(handle.pid) is None)
    assert process_harness.living() == {handle.child_id}
    assert await process_harness.provider().adopt(handle.child_id, handle.log_path, handle) is None
    assert process_harness.living() == set()
    _collect(handle)


async def test_ended_children_leave_no_zombies(process_harness: ProcessHarness) -> None:
    handles = [await _run(process_harness, process_harness.failing()) for _ in range(3)]
    assert not {str(handle.pid) for handle in handles} & set(_names(Path("/proc")))


async def test_an_argument_that_no_process_can_have_is_a_failed_launch(process_harness: ProcessHarness) -> None:
    child = process_harness.python("pass", "a\0b")
    with pytest.raises(LaunchFailed):
        await process_harness.provider().start(child)


async def test_the_exit_is_announced(process_harness: ProcessHarness) -> None:
    ended: asyncio.Queue[str] = asyncio.Queue()
    provider = ProcessProvider(on_exit=ended.put_nowait)
    handle = await provider.start(process_harness.failing())
    async with asyncio.timeout(10):
        assert await ended.get() == handle.child_id
    await provider.close()


_STARTER = """
import asyncio, sys
from pathlib import Path
from swell.adapters.providers.process import ProcessProvider
from swell.ports.provider import ChildSpec

async def main():
    code = "import signal; print('steady', flush=True); signal.pause()"
    handle = await ProcessProvider().start(ChildSpec(sys.argv[1], (sys.executable, "-c", code), Path(sys.argv[2])))
    print(handle.pid, handle.start_time, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def _start_and_die(child: ChildSpec) -> ChildHandle:
    """Have a process of its own start the child, and kill it."""
    argv = [sys.executable, "-c", _STARTER, child.child_id, str(child.log_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        pid, start_time = server.stdout.readline().split()
        server.kill()
    return ChildHandle(child.child_id, child.log_path, int(pid), float(start_time))


@pytest.mark.parametrize("stored", [True, False], ids=["handle stored", "intent only"])
async def test_a_child_outlives_a_killed_server_and_is_adopted(process_harness: ProcessHarness, stored: bool) -> None:
    child = process_harness.steady()
    handle = _start_and_die(child)
    await process_harness.settled(handle)
    provider = process_harness.provider()
    assert await provider.adopt(child.child_id, child.log_path, handle if stored else None) == handle
    assert provider.status(handle).presence is Presence.RUNNING
    await provider.stop(handle, grace_seconds=10.0)
    await process_harness.until(lambda: provider.status(handle).presence is Presence.GONE)
    assert process_harness.living() == set()


async def test_the_marker_of_others_is_not_ours(process_harness: ProcessHarness) -> None:
    handle = await process_harness.provider().start(process_harness.steady())
    await process_harness.settled(handle)
    assert proc.carries(handle.pid, handle.child_id)
    assert not proc.carries(handle.pid, handle.child_id[:-1])
    assert MARKER not in os.environ
