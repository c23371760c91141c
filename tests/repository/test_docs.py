"""Documentation that can be checked is: links, paths, verbs, commands, and every swell.yaml example."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from source_tree import ROOT

from swell.spec import parse_spec, spec_json_schema
from swell.spec.yaml_text import read_yaml

PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md")),
    *(path for folder in ("docs", "deploy") for path in sorted((ROOT / folder).rglob("*.md"))),
]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    paths = re.findall(r"`((?:src|tests|docs|benchmarks|requirements|\.ci)/[\w./-]*)`", text)
    dead = [link for link in links if not (page.parent / link).exists()]
    dead += [path for path in paths if not (ROOT / path).exists()]
    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_pages_speak_of_no_particular_machine(page: Path) -> None:
    text = page.read_text()
    assert re.findall(r"/(?:home|root|work|tmp|mnt|opt)/\S*", text) == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_verbs_named_are_verbs_there_are(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", page.read_text())) <= targets


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_examples_of_the_spec_are_valid(page: Path) -> None:
    examples = [block for block in _blocks(page.read_text(), "yaml") if "models:" in block]
    specs = [parse_spec(example, origin=page.name, base=ROOT) for example in examples]
    assert all(spec.models for spec in specs)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_examples_of_the_spec_are_valid_by_the_schema_that_editors_get(page: Path) -> None:
    validator = Draft202012Validator(spec_json_schema())
    examples = [block for block in _blocks(page.read_text(), "yaml") if "models:" in block]
    found = [(error.json_path, error.message) for text in examples for error in validator.iter_errors(read_yaml(text))]
    assert found == []


def test_the_readme_shows_the_two_commands_first_and_an_example() -> None:
    text = (ROOT / "README.md").read_text()
    first = re.search(r"^```\w*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    assert first
    assert re.findall(r"make (\w+)", first[1])[:2] == ["up", "test"]
    assert [block for block in _blocks(text, "yaml") if "models:" in block]


def test_the_readme_lists_every_command() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "swell.cli.main", "--help"],
        env={**os.environ, "COLUMNS": "300"},  # one line per command
        capture_output=True,
        text=True,
        check=True,
    )
    commands = set(re.findall(r"^[│|]\s+([a-z]+)\s", ended.stdout, flags=re.MULTILINE))
    listed = set(re.findall(r"^\| `swell ([a-z]+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE))
    assert commands
    assert commands == listed
