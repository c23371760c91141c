"""What is installed is what was locked, and the wheel holds what the source tree holds."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from source_tree import ROOT, sources

import swell

LOCKS = ("requirements/local.txt", "requirements/dev.txt")
ADDRESS = re.compile(r"https?:|\bfile:|@ |--index|--extra-index|--find-links|--trusted-host")
# Import names that differ from what the package is called.
DISTRIBUTIONS = {"yaml": "pyyaml", "pydantic_core": "pydantic", "grpc": "grpcio", "google": "protobuf"}


def _locked(path: str) -> dict[str, str]:
    pins = r"^([A-Za-z0-9._-]+)(?:\[[^\]]+\])?==(\S+)"
    return dict(re.findall(pins, (ROOT / path).read_text(), flags=re.MULTILINE))


def _declared() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("path", LOCKS)
def test_locks_hold_hashes_and_no_addresses(path: str) -> None:
    text = (ROOT / path).read_text()
    assert ADDRESS.findall(text) == []
    entries = re.split(r"\n(?=[A-Za-z0-9])", text.strip())
    assert len(entries) > 20
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_the_node_lock_holds_hashes_and_no_addresses() -> None:
    text = (ROOT / "tests/sdk/node/package-lock.json").read_text()
    packages = {name: entry for name, entry in json.loads(text)["packages"].items() if name}
    assert packages
    assert all(entry["integrity"].startswith("sha512-") for entry in packages.values())
    assert "resolved" not in text
    assert ADDRESS.findall(text) == []


@pytest.mark.parametrize(
    "path", ["requirements/server.txt", "requirements/gateway.txt", "requirements/engine-llama.cpp.txt"]
)
def test_locks_of_images_hold_what_was_tested(path: str) -> None:
    text, dev = (ROOT / path).read_text(), _locked("requirements/dev.txt")
    assert ADDRESS.findall(text) == []
    assert {name: version for name, version in _locked(path).items() if dev.get(name) != version} == {}
    assert text.count("==") <= text.count("--hash=sha256:")


def test_both_locks_agree_and_name_every_dependency() -> None:
    local, dev = _locked(LOCKS[0]), _locked(LOCKS[1])
    assert {name: version for name, version in local.items() if dev.get(name) != version} == {}
    project = _declared()
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["local"], "setuptools"]
    names = {re.split(r"[<>=\[ ]", name)[0].lower().replace("_", "-") for name in wanted}
    assert names - {name.lower().replace("_", "-") for name in local} == set()


@pytest.mark.parametrize("path", LOCKS)
def test_locks_pin_what_is_required_with_extras_with_those_extras(path: str) -> None:
    """pip before 23.3 looks for a pin of `coverage[toml]` alone, and refuses the first release after the lock."""
    pinned = set(re.findall(r"^([A-Za-z0-9._-]+(?:\[[^\]]+\])?)==", (ROOT / path).read_text(), flags=re.MULTILINE))
    installed = {canonicalize_name(dist.metadata["Name"]): dist for dist in metadata.distributions()}
    needed = set()
    for name in pinned:
        for line in installed[canonicalize_name(name.partition("[")[0])].requires or ():
            requirement = Requirement(line)
            if requirement.extras and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
                needed.add(f"{requirement.name.lower()}[{','.join(sorted(requirement.extras))}]")
    assert needed - {name.lower().replace(" ", "") for name in pinned} == set()


def test_every_imported_package_is_declared() -> None:
    project = _declared()
    extras = project["optional-dependencies"]
    declared = [*project["dependencies"], *extras["local"], *extras["aws"], *extras["gcp"], *extras["postgres"]]
    declared += [*extras["kubernetes"], *extras["keda"]]
    names = {re.split(r"[<>=\[ ]", name)[0].lower().replace("-", "_") for name in declared}
    known = set(sys.stdlib_module_names) | {"swell"}
    imported = {(name, source.name) for source in sources("src") for name in _imports(source.tree)}
    # The shared port suites are tests that ship: whoever runs them has pytest.
    imported -= {
        (name, where) for name, where in imported if name == "pytest" and where.startswith("src/swell/testing/")
    }
    missing = {
        (name, where) for name, where in imported if name not in known and DISTRIBUTIONS.get(name, name) not in names
    }
    assert missing == set()


def test_every_dependency_has_its_reason_on_the_dependencies_page() -> None:
    project = _declared()
    declared = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    page = (ROOT / "docs/dependencies.md").read_text().lower()
    assert [name for name in declared if f"`{re.split(r'[<>=]', name)[0].lower()}`" not in page] == []


def test_a_wheel_holds_every_file_of_the_source_tree(tmp_path: Path) -> None:
    tree, wheels = tmp_path / "tree", tmp_path / "wheels"
    shutil.copytree(ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *offline, "--wheel-dir", str(wheels), str(tree)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = wheels.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    there = {str(path.relative_to(tree / "src")) for path in (tree / "src/swell").rglob("*") if path.is_file()}
    assert {name for name in there - held if "__pycache__" not in name} == set()
    assert [name for name in held if name.endswith(".pth")] == []


def test_public_names_are_these() -> None:
    assert [name for name in vars(swell) if not name.startswith("_") and name not in _submodules()] == []
    assert swell.__version__ == metadata.version("swell") == _declared()["version"]


def _submodules() -> set[str]:
    return {path.stem for path in (ROOT / "src/swell").iterdir()}


def _imports(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found
