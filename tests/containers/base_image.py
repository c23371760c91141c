"""The image of the tests that need no engine: a minimal Debian with Python, made from its packages, not pulled.

`tests/services.sh` makes the archive once; it stays in `.cache`.
"""

from pathlib import Path

from swell.testing.docker_daemon import DockerDaemon

ROOT = Path(__file__).parents[2]
ARCHIVE = ROOT / ".cache" / "containers" / "base.tar"
IMAGE = "localhost/swell-tests/base:1"  # podman puts that host before names without one
NO_ARCHIVE = f"the base image {ARCHIVE.relative_to(ROOT)} is missing: make test-services makes it"


def require_base(daemon: DockerDaemon) -> str:
    """The image's name; it is imported where it is not there yet."""
    if not daemon.has_image(IMAGE):
        daemon.import_image(ARCHIVE, IMAGE)
    return IMAGE
