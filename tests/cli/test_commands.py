"""Commands that need no server."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from swell import __version__
from swell.cli.keys import seconds_of
from swell.cli.output import moment
from swell.errors import UserError


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "swell.cli.main", *arguments], capture_output=True, text=True, timeout=30, check=False
    )


def test_version_loads_next_to_nothing() -> None:
    script = (
        "import sys; sys.argv = ['swell', 'version']; from swell.cli.main import main; main();"
        "print(sorted({'typer', 'pydantic', 'httpx', 'sqlalchemy', 'asyncio'} & sys.modules.keys()))"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [f"swell {__version__}", "[]"]
    assert json.loads(run("version", "--json").stdout) == {"version": __version__}


def test_every_command_explains_itself() -> None:
    said = run("--help").stdout
    for name in ("up", "down", "status", "logs", "keys", "usage", "doctor", "schema", "version"):
        assert f" {name} " in said
    assert "--tenant" in run("keys", "create", "--help").stdout


def test_schema_is_json_schema() -> None:
    schema = json.loads(run("schema").stdout)
    assert schema == json.loads(run("schema", "--json").stdout)
    assert "models" in schema["properties"]


def test_a_command_line_that_is_not_understood_is_answered_in_json_too() -> None:
    ended = run("keys", "create", "--json")
    assert ended.returncode == 2
    assert "name" in json.loads(ended.stderr)["error"]


def test_commands_that_need_a_server_say_so_with_code_3(tmp_path: Path) -> None:
    ended = run("status", "--state", str(tmp_path), "--json")
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "swell up" in json.loads(ended.stderr)["error"]


def test_doctor_finds_what_is_wrong(tmp_path: Path, free_port: int) -> None:
    fine = run("doctor", "--state", str(tmp_path / "new"), "--port", str(free_port), "--json")
    found = {finding["check"]: finding["verdict"] for finding in json.loads(fine.stdout)}
    assert {"python", "cores", "memory", "disk", "open files", "clock", "store", "port"} <= found.keys()
    assert (found["store"], found["state directory"], found["port"]) == ("fine", "fine", "fine")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "pepper").write_bytes(b"x")
    (tmp_path / "secrets" / "pepper").chmod(0o644)
    wrong = run("doctor", "--state", str(tmp_path), "--port", str(free_port), "--json")
    finding = next(each for each in json.loads(wrong.stdout) if each["check"] == "state directory")
    assert (wrong.returncode, finding["verdict"]) == (1, "wrong")
    assert "pepper" in finding["found"]
    assert "chmod" in finding["advice"]


TIGHT = """
server: {{port: {port}}}
models:
  - {{name: chat, source: a.gguf, usd_per_replica_hour: 0.85, infrastructure_budget: 0.05 / hour}}
  - {{name: code, source: b.gguf, usd_per_replica_hour: 0.85, infrastructure_budget: 5 / hour}}
"""


def test_doctor_looks_at_the_file_at_its_port_and_at_its_budgets(tmp_path: Path, free_port: int) -> None:
    file = tmp_path / "swell.yaml"
    file.write_text(TIGHT.format(port=free_port))
    rows = json.loads(run("doctor", "-f", str(file), "--state", str(tmp_path / "s"), "--json").stdout)
    found = {row["check"]: row for row in rows}
    assert found["file"]["verdict"] == "fine"
    assert found["port"]["found"] == f"{free_port} is free"
    [budget] = [row for row in rows if row["check"] == "infrastructure budget"]
    assert budget["verdict"] == "wrong"
    assert "the infrastructure budget of chat is $0.05 an hour, less than the $" in budget["found"]
    assert budget["advice"] == "raise it, or lower drain_seconds"


def test_doctor_says_what_is_wrong_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "swell.yaml"
    file.write_text("models: [{name: chat}]")
    ended = run("doctor", "-f", str(file), "--state", str(tmp_path / "s"), "--json")
    found = {row["check"]: row for row in json.loads(ended.stdout)}
    assert (ended.returncode, found["file"]["verdict"]) == (1, "wrong")
    assert "models[0]" in found["file"]["found"]


@pytest.mark.parametrize("text", ["99999999d", "36501d", "99999999999999999999w", "9" * 400 + "s"])
def test_a_length_of_time_has_an_end(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="longer than 100 years") as refused:
        seconds_of(text)
    assert len(refused.value.message) < 200
    assert seconds_of("36500d") == 36500 * 86400
    ended = run("usage", "--since", text, "--state", str(tmp_path / "s"))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "longer than 100 years" in ended.stderr


@pytest.mark.parametrize("at_unix", [1e18, -1e18, 253402300800.0, float("inf"), float("nan")])
def test_a_date_beyond_all_calendars_can_be_listed(at_unix: float) -> None:
    assert moment(at_unix) == "(beyond the calendar)"
    assert moment(0) == "1970-01-01 00:00 UTC"
    assert moment(None) == ""


@pytest.mark.parametrize("missing", ["pass", "0o700"])
def test_logs_of_an_empty_state_directory(tmp_path: Path, missing: str) -> None:
    listed = run("logs", "--state", str(tmp_path / missing))
    assert listed.returncode == 0
    assert "There are no logs" in listed.stdout


def test_logs_follow_what_is_written_and_a_rotation(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = folder / "chat-0.log"
    log.write_text("one\ntwo\n")
    command = [sys.executable, "-m", "swell.cli.main", "logs", "chat-0", "-f", "-n", "1", "--state", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        try:
            assert following.stdout is not None
            assert following.stdout.readline() == "two\n"
            with log.open("a") as appended:
                appended.write("three\n")
            assert following.stdout.readline() == "three\n"
            log.rename(folder / "chat-0.log.1")
            log.write_text("four\n")
            assert following.stdout.readline() == "four\n"
        finally:
            following.kill()
