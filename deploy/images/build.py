"""`make images`: prepare each image's context from the lock files, then have docker or podman build it.

Wheels are fetched here, with their hashes checked, by the pip of this checkout and as it is configured; the build reads
nothing but its context and, where the base image lacks a Debian package, Debian's mirror. The images are for this
machine's architecture.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "deploy" / "images"
NAMES = ("gateway", "server", "engine-llama.cpp")
OFFLINE = ("--no-deps", "--no-build-isolation", "--no-index")


def main() -> None:
    arguments = _arguments()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    if shutil.which(arguments.tool) is None:
        sys.exit(f"{arguments.tool} is not installed; install docker or podman, or name another with IMAGE_TOOL=…")
    for name in arguments.images or NAMES:
        context = arguments.folder / name
        prepare(name, context)
        build(name, context, version, arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="*", metavar="IMAGE", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--tool", default="docker")
    parser.add_argument("--base", help="default: the one that the Containerfile names")
    parser.add_argument("--registry", default="", help="what stands before the names, such as registry.example/team/")
    parser.add_argument("--network", help="of the build, such as host")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "images", help="for contexts and bills")
    arguments = parser.parse_args()
    unknown = set(arguments.images) - set(NAMES)
    if unknown:
        parser.error(f"there is no image {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    return arguments


def run(*command: object, **options: object) -> str:
    """What a command printed. Its failure ends this program."""
    try:
        words = [str(word) for word in command]
        done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(map(str, command))} failed with {error.returncode}")
    return str(done.stdout)


def prepare(name: str, context: Path) -> None:
    """Wheels, lock file, bill of materials and the program that puts them together."""
    shutil.rmtree(context, ignore_errors=True)
    wheels = context / "wheels"
    wheels.mkdir(parents=True)
    lock = ROOT / "requirements" / f"{name}.txt"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--quiet")
    run(*pip, "download", "--require-hashes", "--no-deps", "--only-binary", ":all:", "-d", wheels, "-r", lock)
    run(*pip, "wheel", *OFFLINE, "--wheel-dir", wheels, ROOT)
    shutil.copy(lock, context / "requirements.txt")
    shutil.copy(HERE / "assemble.py", context)
    bill = run(
        sys.executable, "-m", "cyclonedx_py", "requirements", "--of", "JSON", "--output-reproducible",
        "--pyproject", ROOT / "pyproject.toml", lock, env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    (context / "sbom.json").write_text(json.dumps(json.loads(bill), indent=1))


def build(name: str, context: Path, version: str, arguments: argparse.Namespace) -> None:
    """One image, named `swell-NAME:VERSION`."""
    revision = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], check=False, capture_output=True, text=True
    )
    image = f"{arguments.registry}swell-{name}:{version}"
    options = ["--build-arg", f"VERSION={version}", "--build-arg", f"REVISION={revision.stdout.strip() or 'unknown'}"]
    options += ["--build-arg", f"BASE={arguments.base}"] if arguments.base else []
    options += ["--network", arguments.network] if arguments.network else []
    print(f"building {image}", flush=True)
    log = context.parent / f"{name}.log"
    with log.open("w") as output:
        command = [arguments.tool, "build", "--tag", image, *options, "--file", str(HERE / f"{name}.Containerfile")]
        ended = subprocess.run([*command, str(context)], check=False, stdout=output, stderr=subprocess.STDOUT)
    if ended.returncode:
        sys.exit(f"{image} could not be built:\n{log.read_text()[-3000:]}")


if __name__ == "__main__":
    main()
