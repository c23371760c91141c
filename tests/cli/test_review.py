"""`swell review`: what it says to people and machines, what it writes, and what it refuses."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from review_catalogue import WRONG, write_catalogue
from swell.cli.main import application
from swell.server.assembly import open_store
from swell.server.state_directory import StateDirectory
from swell.spec import load_spec
from swell.state.records import SpoolPosition
from swell.testing.store_suite import audit_entry, key_record, usage_change

EXTERNAL = '  - {name: theirs, engine: external, endpoints: ["http://10.0.0.5:8000"]}\n'


class Folder:
    """A spec, a trace and a catalogue in a folder, and the command run on them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.file = root / "swell.yaml"
        self.file.write_text(WRONG)
        self.trace = root / "trace.csv"
        dice = np.random.default_rng(4)
        at = np.sort(dice.uniform(0, 1500.0, 200))
        rows = zip(at, dice.integers(100, 2000, 200), dice.integers(20, 200, 200), strict=True)
        lines = [f"{when:.3f},{prompt},{output}" for when, prompt, output in rows]
        self.trace.write_text("\n".join(["arrival_seconds,prompt_tokens,output_tokens", *lines]) + "\n")
        self.profiles, self.prices = write_catalogue(root)

    @property
    def options(self) -> list[str]:
        return ["-f", str(self.file), "--profiles", str(self.profiles), "--prices", str(self.prices), "--jobs", "1"]

    def run(self, *arguments: object) -> Result:
        app = application(("review", "version"))
        return CliRunner().invoke(app, ["review", *self.options, *(str(argument) for argument in arguments)])


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_people_get_a_table_a_diff_and_what_it_would_save(folder: Folder) -> None:
    ended = folder.run("--trace", folder.trace)
    assert ended.exit_code == 0, ended.output
    said = ended.stdout
    assert "chat: 200 requests in 0.4 hours" in said
    assert "100.00% meet the objective, 99.00% asked for" in said
    assert "Recommended: " in said
    assert "a month (confidence low)" in said
    assert f"--- {folder.file}" in said
    assert "-    replicas: {min: 20, max: 20}   # to be safe" in said
    assert "TINY is too slow" in said
    assert "besides, an objective of 4500 ms to the first token and 90 ms between tokens would" in said
    assert "never above" in said
    assert folder.file.read_text() == WRONG


def test_apply_writes_what_json_recommends_and_keeps_what_was(folder: Folder) -> None:
    ended = folder.run("--trace", folder.trace, "--apply", "--json")
    assert ended.exit_code == 0, ended.output
    assert ended.stderr == ""
    document = json.loads(ended.stdout)
    assert document["applied"] is True
    (model,) = document["models"]
    best = model["recommended"]
    assert best["after"]["reached"]
    assert best["saving_usd_nanos"] == best["before"]["cost_usd_nanos"] - best["after"]["cost_usd_nanos"]
    assert model["now"] == best["before"]
    assert document["idle_keys"] is None
    assert (folder.root / "swell.yaml.bak").read_text() == WRONG
    after = folder.file.read_text()
    assert "# Our fleet." in after
    assert "# what the app asks for" in after
    assert "# to be safe" in after
    chat = load_spec(folder.file).models[0]
    wanted = best["changes"]
    assert chat.replicas.min == wanted.get("replicas.min", 20)
    assert list(chat.accelerators) == wanted.get("accelerators", ["BIG"])
    added = {line[1:] for line in best["diff"].splitlines() if line.startswith("+") and not line.startswith("+++")}
    assert added == set(after.splitlines()) - set(WRONG.splitlines())


def test_a_file_that_is_not_edited_safely_is_left_with_lines_to_put_in(folder: Folder) -> None:
    shared = WRONG.replace("[BIG]", "&big [BIG]") + "  - {name: twin, source: hf://us/house-8b, accelerators: *big}\n"
    folder.file.write_text(shared)
    ended = folder.run("--trace", folder.trace, "--model", "chat", "--apply")
    assert ended.exit_code == 2
    assert "cannot be edited safely" in ended.stderr
    assert "put in by hand:\nmodels:\n  - name: chat\n" in ended.stdout
    assert folder.file.read_text() == shared
    assert not (folder.root / "swell.yaml.bak").exists()


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        ("models:\n" + EXTERNAL, [], "theirs: somebody else runs it"),
        (WRONG.replace("    accelerators: [BIG]\n", ""), [], "names no accelerators"),
        (WRONG.replace("house-8b", "unheard-of"), [], "there is no latency profile of unheard-of@BIG"),
        (WRONG, ["--days", "0.01"], "are needed"),
        (WRONG, ["--model", "embed"], "declares no model 'embed'; there are: chat"),
        (WRONG + WRONG.split("models:\n")[1].replace("chat", "twin"), [], "choose one with --model NAME"),
    ],
    ids=["external", "no accelerators", "no profile", "too few", "no such model", "several"],
)
def test_what_cannot_be_reviewed_says_why(folder: Folder, text: str, arguments: list[str], said: str) -> None:
    folder.file.write_text(text)
    if "--days" in arguments:
        folder.trace.write_text("arrival_seconds,prompt_tokens,output_tokens\n0,10,10\n9000,10,10\n")
    ended = folder.run("--trace", folder.trace, *arguments)
    assert ended.exit_code == 2
    assert said in ended.stderr


def test_format_goes_with_a_trace(folder: Folder) -> None:
    ended = folder.run("--format", "azure")
    assert ended.exit_code == 2
    assert "--format says how to read --trace" in ended.stderr


def review_of(folder: Folder, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "swell.cli.main", "review", *folder.options, "--state", str(folder.root / "state"),
         *arguments],
        capture_output=True, text=True, timeout=100, check=False, env=os.environ,
    )  # fmt: skip


@pytest.mark.process
def test_without_usage_it_says_how_to_get_some(folder: Folder) -> None:
    ended = review_of(folder)
    assert ended.returncode == 2
    assert "0 requests in the last 7 days" in ended.stderr
    assert "replay a file with --trace FILE --model chat" in ended.stderr


@pytest.mark.process
def test_the_ledger_is_replayed_and_idle_keys_and_models_are_named(folder: Folder) -> None:
    folder.file.write_text(WRONG + EXTERNAL)
    directory = StateDirectory(folder.root / "state")
    directory.create()
    store = open_store(directory)
    start = (int(time.time()) // 3600 - 1) * 3_600_000 - 600_000  # ten minutes before an hour begins
    changes = [
        usage_change(
            f"r{i}", "pair", reserved_at_unix_ms=start + i * 10_000, prompt_tokens=500, completion_tokens=50,
            cached_tokens=125, replica_id=f"chat-{i % 2}",
        )
        for i in range(120)
    ]  # fmt: skip
    store.apply_usage(changes, SpoolPosition("w1", 1, 1))
    store.insert_key(key_record("sleeper", tenant="default", expires_at_unix=None), audit_entry())
    store.close()
    ended = review_of(folder, "--json")
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    (model,) = document["models"]
    assert model["now"]["requests"] == 120
    assert 1150 < model["replayed_seconds"] < 1250
    assert document["not_reviewed"][0]["model"] == "theirs"
    # From the hour after the first hit on; an hour over two replicas, and none on one to compare it with.
    assert model["prefix_cache"] == {"cached_share": 0.25, "compared": False, "missed_hits": []}
    assert document["idle_models"] == ["theirs"]
    assert document["idle_keys"] == [{"id": "sleeper", "name": "laptop", "tenant": "default"}]
