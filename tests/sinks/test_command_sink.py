"""Commands: what they are given, what their ends mean, and that nothing of them goes on afterwards."""

import asyncio
import json
import os
import stat
import sys
from pathlib import Path

import pytest
from sink_harness import marked_processes, until

from swell.adapters.sinks.command import MAX_OUTPUT_BYTES, CommandSink
from swell.errors import RetryLater
from swell.ports.alert_sink import SinkRefusedError
from swell.testing.alert_sink_suite import HOSTILE_TEXT, sample_alert

_REPORT = """
import json, os, sys
told = {"argv": sys.argv[2:], "environ": dict(os.environ), "alert": json.load(sys.stdin), "folder": os.getcwd()}
open(sys.argv[1], "w").write(json.dumps(told))
"""
_TREE = """
import subprocess, sys, time
child = [sys.executable, "-I", "-S", "-c", "import signal; signal.pause()", sys.argv[1]]
subprocess.Popen(child)
print("said before", flush=True)
if sys.argv[2] == "stay":
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pause()
"""


def sink(*argv: str, seconds: float = 10.0, **environ: str) -> CommandSink:
    return CommandSink("pager", argv, timeout_seconds=seconds, environ=environ)


def python(code: str, *arguments: str, seconds: float = 10.0, **environ: str) -> CommandSink:
    return sink(sys.executable, "-I", "-S", "-c", code, *arguments, seconds=seconds, **environ)


async def test_the_alert_is_its_input_and_a_few_variables(tmp_path: Path) -> None:
    file = tmp_path / "told"
    await python(_REPORT, str(file), HOME="/home/ops", DATABASE_PASSWORD="hunter2").deliver(sample_alert())
    told = json.loads(file.read_text())
    assert told["alert"]["values"] == {"percent": 80, "spent_usd": "80.00", "spent_usd_nanos": 80_000_000_000}
    assert told["folder"] == "/"
    told["environ"].pop("LC_CTYPE", None)  # Python's own
    assert told["environ"] == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": "/home/ops",
        "SWELL_ALERT_ID": "budget:tenant:search:80",
        "SWELL_ALERT_KIND": "budget",
        "SWELL_ALERT_SEVERITY": "warning",
        "SWELL_ALERT_TITLE": "Tenant search has spent 80% of its budget",
        "SWELL_ALERT_SUBJECT": "tenant search",
    }


async def test_no_shell_reads_its_arguments_or_the_alert(tmp_path: Path) -> None:
    file, trap = tmp_path / "told", tmp_path / "trap"
    arguments = (f"$(touch {trap})", f"; touch {trap}", "`id`", "*")
    text = f"$(touch {trap}); `touch {trap}` {HOSTILE_TEXT}"
    await python(_REPORT, str(file), *arguments).deliver(sample_alert(title=text, text=text, subject=text))
    told = json.loads(file.read_text())
    assert told["argv"] == list(arguments)
    assert not trap.exists()
    assert "\n" not in told["environ"]["SWELL_ALERT_TITLE"]


@pytest.mark.parametrize("code", [1, 2, 75, 255])
async def test_exits_that_are_worth_another_try(code: int) -> None:
    with pytest.raises(RetryLater, match=rf"pager: .* ended with {code} \(the pager is down\)"):
        await python(f"print('the pager is down'); raise SystemExit({code})").deliver(sample_alert())


@pytest.mark.parametrize("code", [64, 77, 78, 126, 127])
async def test_exits_that_are_not(code: int) -> None:
    with pytest.raises(SinkRefusedError, match=rf"ended with {code} \(no key\); correct it"):
        await python(f"print('no key'); raise SystemExit({code})").deliver(sample_alert())


async def test_a_signal_is_worth_another_try() -> None:
    with pytest.raises(RetryLater, match="ended with -9"):
        await python("import os; os.kill(os.getpid(), 9)").deliver(sample_alert())


async def test_what_cannot_be_run_is_refused(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("no program")
    for path, reason in ((tmp_path / "absent", "No such file"), (plain, "Permission denied")):
        with pytest.raises(SinkRefusedError, match=f"cannot be started .{reason}"):
            await sink(str(path)).deliver(sample_alert())
    plain.chmod(plain.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(SinkRefusedError, match="Exec format error"):
        await sink(str(plain)).deliver(sample_alert())


async def test_at_its_time_limit_all_of_its_group_is_killed(tmp_path: Path) -> None:
    word = str(tmp_path)
    with pytest.raises(RetryLater, match=r"within 1 s and was killed"):
        await python(_TREE, word, "stay", seconds=1.0).deliver(sample_alert())
    await until(lambda: marked_processes(word) == [])
    assert marked_processes(word) == []


async def test_what_it_leaves_behind_neither_delays_nor_outlives_it(tmp_path: Path) -> None:
    """A child in the background keeps the output open."""
    word = str(tmp_path)
    async with asyncio.timeout(10):
        await python(_TREE, word, "go", seconds=60.0).deliver(sample_alert())
    await until(lambda: marked_processes(word) == [])
    assert marked_processes(word) == []


async def test_endless_output_is_read_and_only_its_end_is_kept() -> None:
    noisy = "import sys\nfor _ in range(200): sys.stdout.write('x' * 65536)\nprint('the reason'); raise SystemExit(1)"
    with pytest.raises(RetryLater) as caught:
        await python(noisy).deliver(sample_alert())
    assert len(str(caught.value)) < MAX_OUTPUT_BYTES
    silent = "import os\nos.close(1); os.close(2)\nraise SystemExit(0)"
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - of this moment
    await python(silent).deliver(sample_alert())
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


async def test_a_large_alert_needs_no_reader() -> None:
    values: dict[str, str | int] = {f"value {number}": "x" * 500 for number in range(64)}
    alert = sample_alert(text="\U0001f525" * 8_000, values=values)
    async with asyncio.timeout(10):
        await python("raise SystemExit(0)").deliver(alert)
    with pytest.raises(RetryLater, match="ended with 3"):
        await python("import sys; sys.exit(3 if len(sys.stdin.read()) > 32_000 else 0)").deliver(alert)
