"""The import order is a contract: `.importlinter` holds it, the architecture page prints it, and policy stays pure."""

import ast
import configparser
import re
import subprocess
import sys

import pytest
from source_tree import ROOT, called_name, sources

GATEWAY_PACKAGES = {"uvloop", "httptools", "msgspec"}  # requirements/gateway.in
BESIDE_THEM = {"cython_runtime", "typing_extensions"}  # made by uvloop; looked for by msgspec, which can do without


def _contract() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    return parser


def _layers() -> list[str]:
    """`adapters | simulator` and so on, without the brackets of layers that may be missing."""
    text = _contract()["importlinter:contract:layers"]["layers"]
    return [re.sub(r"[()]", "", line).strip() for line in text.strip().splitlines()]


def test_the_import_contract_holds() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-logo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_architecture_page_prints_the_same_order() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    block = re.search(r"```text layers\n(.*?)```", page, flags=re.DOTALL)
    assert block, "docs/architecture.md has no ```text layers block"
    assert [line.strip() for line in block[1].strip().splitlines()] == _layers()


def test_every_package_of_swell_has_a_place_in_the_order() -> None:
    listed = {name.strip() for line in _layers() for name in line.split("|")}
    there = {path.name.removesuffix(".py") for path in (ROOT / "src" / "swell").iterdir() if path.suffix in ("", ".py")}
    assert there - {"__init__", "__pycache__"} <= listed


def test_policy_awaits_nothing_and_rolls_only_the_dice_it_is_given() -> None:
    found = []
    for source in sources("src/swell/policy"):
        for node in ast.walk(source.tree):
            waits = isinstance(node, ast.Await | ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith)
            dice = isinstance(node, ast.Call) and re.match(r"random\.(?!Random$)", called_name(node))
            output = isinstance(node, ast.Call) and called_name(node) in ("print", "open", "input")
            if waits or dice or output:
                found.append(f"{source.name}:{node.lineno}")
    assert found == []


@pytest.mark.parametrize("module", ["gateway_worker", "gateway_arguments", "replica_sidecar"])
def test_a_gateway_imports_only_what_its_image_has(module: str) -> None:
    program = f"import sys; before = {{*sys.modules}}; import swell.server.{module}; print(*{{*sys.modules}} - before)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    loaded = {name.split(".")[0] for name in ended.stdout.split()}
    packages = {name for name in loaded - sys.stdlib_module_names if not name.startswith("_")}
    assert packages <= {"swell", *GATEWAY_PACKAGES, *BESIDE_THEM}


@pytest.mark.parametrize("package", ["swell.policy", "swell.state", "swell.errors", "swell.ports"])
def test_low_layers_start_nothing_when_imported(package: str) -> None:
    program = f"import threading, {package}; print(threading.active_count())"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "1"
