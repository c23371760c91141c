"""Inside the build stage: a root file system of Python, one application and the libraries that they use; nothing else.

No shell, no package manager, no compiler: what is not there cannot be used. Only the standard library is used here, of
the Python that the image shall have.
"""

import argparse
import compileall
import json
import py_compile
import shutil
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

PYTHON = (3, 11)  # that the lock files are for
HOME = Path("/opt/swell")
USER = 65532
LEFT_OUT = ("test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "ensurepip", "pydoc_data", "__pycache__")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
SYSTEM_FILES = (CERTIFICATES, "/etc/os-release", "/usr/lib/os-release", "/etc/nsswitch.conf")
# Where volumes are mounted: a new one takes over whose its folder is. Those below `state` may be several servers' own.
OWN_FOLDERS = ("state", "state/secrets", "state/control", "models", "credentials")
ELF = b"\x7fELF"


def main() -> None:
    arguments = _arguments()
    if sys.version_info[:2] != PYTHON:
        sys.exit(f"the base image has Python {sys.version.split()[0]}; choose one with {PYTHON[0]}.{PYTHON[1]} (BASE)")
    root: Path = arguments.root
    root.mkdir(parents=True)
    install(arguments.context)
    copy_python(root)
    shutil.copytree(HOME, root / HOME.relative_to("/"), symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
    link_python(root)
    libraries = copy_libraries(root)
    copy_system(root)
    for folder in (sysconfig.get_path("stdlib"), HOME):  # a read-only image cannot keep what it compiles
        compiled = root / Path(folder).relative_to("/")
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        compileall.compile_dir(compiled, stripdir=str(root), quiet=2, invalidation_mode=mode, workers=0)
    write_bill(arguments.context / "sbom.json", root / "usr/share/sbom" / f"{arguments.name}.cdx.json", libraries)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--context", type=Path, required=True, help="wheels/, requirements.txt and sbom.json")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--name", required=True)
    return parser.parse_args()


def run(*command: object) -> str:
    """What a command printed. Its failure is this program's."""
    return subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True).stdout


def install(context: Path) -> None:
    """The locked packages and Swell's own wheel, offline, into a virtual environment without pip."""
    run(sys.executable, "-m", "venv", "/opt/pip")
    run(sys.executable, "-m", "venv", "--without-pip", HOME)
    pip = [
        "/opt/pip/bin/python",
        "-m",
        "pip",
        "--python",
        HOME / "bin/python",
        "--disable-pip-version-check",
        "--quiet",
    ]
    pip += ["install", "--no-index", "--no-compile", "--no-deps"]
    run(*pip, "--find-links", context / "wheels", "--require-hashes", "-r", context / "requirements.txt")
    run(*pip, *context.glob("wheels/swell-*.whl"))


def copy_python(root: Path) -> None:
    """The interpreter and its standard library, at the paths they have."""
    interpreter = Path(HOME / "bin/python3").resolve()
    copy(interpreter, root)
    for name in ("stdlib", "platstdlib"):
        folder = Path(sysconfig.get_path(name))
        there = root / folder.relative_to("/")
        if not there.exists():
            ignore = shutil.ignore_patterns(*LEFT_OUT, "config-*", "site-packages", "dist-packages", "*.a")
            shutil.copytree(folder, there, symlinks=False, ignore=ignore)


def link_python(root: Path) -> None:
    """Point every name of the interpreter at its file, past links such as /usr/bin/python3, which are not copied."""
    folder = root / HOME.relative_to("/") / "bin"
    for link in [path for path in folder.iterdir() if path.is_symlink()]:
        target = (HOME / "bin" / link.name).resolve()
        link.unlink()
        link.symlink_to(target)
    for script in folder.glob("[aA]ctivate*"):  # for shells
        script.unlink()


def copy(path: Path, root: Path) -> None:
    """A file with the content of `path`, at that path."""
    target = root / path.relative_to("/")
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path.resolve(), target)


def copy_libraries(root: Path) -> set[Path]:
    """Every shared library that something in `root` is linked to; those that were copied."""
    copied: set[Path] = set()
    programs = list(elf_files(root))
    bundled = {path.name for path in programs}  # wheels bring libraries that find one another once they are loaded
    for path in programs:
        for library in linked(Path("/") / path.relative_to(root), bundled):
            if library not in copied and not library.is_relative_to(HOME):
                copy(library, root)
                copied.add(library)
    return copied


def elf_files(root: Path) -> Iterator[Path]:
    """Programs and shared libraries."""
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(len(ELF)) == ELF:
                    yield path


def linked(path: Path, bundled: set[str]) -> Iterator[Path]:
    """What the dynamic linker would load for it."""
    told = subprocess.run(["/usr/bin/ldd", str(path)], check=False, capture_output=True, text=True).stdout
    for line in told.splitlines():
        words = line.split()
        if "not found" in line:
            if words[0] in bundled:
                continue
            sys.exit(f"{path} needs {words[0]}, which the base image lacks; add its package to PACKAGES")
        place = words[2] if "=>" in words and len(words) > 2 else words[0] if words else ""
        if place.startswith("/"):
            yield Path(place)


def copy_system(root: Path) -> None:
    """Certificates, names, time, and folders that a non-root user may write where they are mounted."""
    for name in SYSTEM_FILES:
        if Path(name).exists():
            copy(Path(name), root)
    trusted = root / ssl.get_default_verify_paths().openssl_cafile.lstrip("/")
    trusted.parent.mkdir(parents=True, exist_ok=True)
    trusted.symlink_to(CERTIFICATES)
    (root / "etc/passwd").write_text(f"root:x:0:0:root:/:/bin/false\nswell:x:{USER}:{USER}:swell:/tmp:/bin/false\n")
    (root / "etc/group").write_text(f"root:x:0:\nswell:x:{USER}:\n")
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    for name in OWN_FOLDERS:
        (root / name).mkdir(mode=0o700)
        shutil.chown(root / name, USER, USER)


def write_bill(python: Path, target: Path, libraries: set[Path]) -> None:
    """The bill of materials: Python's packages, as it came, and the Debian packages that files were taken from."""
    bill = json.loads(python.read_text())
    interpreter = str(Path(HOME / "bin/python3").resolve())
    names = {owner for path in [*map(str, libraries), interpreter] for owner in owners(path)}
    for name in sorted(names):
        shown = run("dpkg-query", "--show", "--showformat=${Version} ${Architecture}", name).split()
        reference = f"pkg:deb/debian/{name}@{shown[0]}?arch={shown[1]}"
        component = {"type": "library", "name": name, "version": shown[0], "purl": reference, "bom-ref": reference}
        bill.setdefault("components", []).append(component)
    target.parent.mkdir(parents=True)
    target.write_text(json.dumps(bill, indent=1))


def owners(path: str) -> Iterator[str]:
    """The Debian package of a file, under each of the names that merged folders give it; none without dpkg."""
    if shutil.which("dpkg-query") is None:
        return
    for name in {path, str(Path(path).resolve()), path.removeprefix("/usr"), f"/usr{path}"}:
        asked = ["dpkg-query", "--search", name]
        told = subprocess.run(asked, check=False, capture_output=True, text=True).stdout
        for line in told.splitlines():
            yield line.partition(": ")[0].partition(":")[0]


if __name__ == "__main__":
    main()
