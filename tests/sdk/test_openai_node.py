"""Runs the official OpenAI client for Node: `node/openai.test.mjs` against the same server."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from swell_process import SwellProcess

FOLDER = Path(__file__).parent / "node"
TESTS = 9

pytestmark = [pytest.mark.process, pytest.mark.model, pytest.mark.node]


@pytest.fixture
def node() -> str:
    """The path of `node`."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("Node is not installed; install Node 20 or later with npm and run `make test` again")
    if not (FOLDER / "node_modules" / "openai").exists():
        pytest.skip("the OpenAI client for Node is not installed; `make test` does it where npm is present")
    return found


def test_the_node_client_passes(node: str, server: SwellProcess) -> None:
    ended = subprocess.run(
        [node, "--test", "--test-reporter=tap", "openai.test.mjs"],
        cwd=FOLDER,
        env={**os.environ, "OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": server.key, "MODEL": "smollm2"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.findall(r"^# (pass|fail) (\d+)$", ended.stdout, flags=re.MULTILINE) == [
        ("pass", str(TESTS)),
        ("fail", "0"),
    ]
