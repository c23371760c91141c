"""The state directory: where everything that Swell keeps lies, and the lock that makes it one server's."""

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from swell.errors import StateError
from swell.security.private_files import create_private, read_private

DEFAULT_STATE = ".swell"
# A Unix socket's path has 108 bytes with its final zero; the longest name below is "control.sock".
_SOCKET_PATH_BYTES = 107
_LOCK_POLL_SECONDS = 0.02
_INSTALLATION_BYTES = 8


@dataclass(frozen=True)
class StateDirectory:
    """The paths of RFC 1 below `root`."""

    root: Path

    @property
    def lock(self) -> Path:
        """Locked by the living server (or by a command that works on the store alone); its text is the pid."""
        return self.root / "lock"

    @property
    def store(self) -> Path:
        """The encrypted database."""
        return self.root / "swell.db"

    @property
    def secrets(self) -> Path:
        """Store key, pepper, and the default key that `swell up` made."""
        return self.root / "secrets"

    @property
    def tls(self) -> Path:
        """The local certificate authority and its leaf."""
        return self.root / "tls"

    @property
    def admin_socket(self) -> Path:
        """Where commands reach the server."""
        return self.root / "admin.sock"

    @property
    def control_socket(self) -> Path:
        """Where gateway workers reach the server."""
        return self.root / "control.sock"

    @property
    def workers(self) -> Path:
        """Settings of each gateway worker."""
        return self.root / "workers"

    @property
    def spool(self) -> Path:
        """Usage that is not in the store yet."""
        return self.root / "spool"

    @property
    def logs(self) -> Path:
        """What the server, its workers and its replicas wrote."""
        return self.root / "logs"

    @property
    def places(self) -> Path:
        """Where replicas were run by this server and those before it."""
        return self.root / "places.json"

    @property
    def resources(self) -> Path:
        """The custom resources as they were last read, for when their cluster does not answer."""
        return self.root / "resources.json"

    @property
    def left(self) -> Path:
        """What the server that ended last could not end, in words, until somebody was told."""
        return self.root / "left"

    def note_left(self, sentence: str) -> None:
        """Add to what could not be ended. A disk that is full keeps nobody from ending."""
        with suppress(OSError), self.left.open("a", encoding="utf-8") as file:
            file.write(f"{sentence}\n")

    def take_left(self) -> str:
        """What could not be ended, a sentence a line, and forget it."""
        try:
            text = self.left.read_text(encoding="utf-8", errors="replace").strip()
            self.left.unlink()
        except OSError:
            return ""
        return text

    @property
    def installation_file(self) -> Path:
        """Where the installation's id is."""
        return self.root / "installation"

    def has_installation(self) -> bool:
        """Whether it has an id already."""
        return self.installation_file.exists()

    def installation(self) -> str:
        """What tells this installation from every other, wherever it lies; made on first use. Raises StateError."""
        self.keep_installation(secrets.token_hex(_INSTALLATION_BYTES))
        return read_private(self.installation_file, "the installation's id").decode("ascii", "replace").strip()

    def keep_installation(self, identity: str) -> None:
        """Be of that installation, unless it is of one already. Raises StateError."""
        path = self.installation_file
        try:
            create_private(path, identity.encode())
        except OSError as error:
            raise StateError(
                f"cannot write {path}: {error.strerror}; make room there, or choose another --state"
            ) from error

    @property
    def default_key(self) -> Path:
        """The text of the key that the first `swell up` made by itself, and of no other key."""
        return self.secrets / "default.key"

    def create(self) -> None:
        """Make the folders, readable by their owner alone. Raises StateError where that is impossible or unsafe.

        A folder that is there already keeps its mode, and must be empty or Swell's own.
        """
        if len(os.fsencode(self.control_socket)) > _SOCKET_PATH_BYTES:
            raise StateError(
                f"the path of the state directory is too long for a Unix socket: {self.root} "
                f"(choose one of at most {_SOCKET_PATH_BYTES - len('/control.sock')} bytes with --state)"
            )
        try:
            try:
                self.root.mkdir(mode=0o700, parents=True)
            except FileExistsError:
                self._require_usable()
            for folder in (self.secrets, self.workers, self.spool, self.logs):  # secrets first: it marks whose it is
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StateError(
                f"cannot use {self.root} as the state directory: {error.strerror}; choose another with --state"
            ) from error

    def _require_usable(self) -> None:
        if self.root.stat().st_mode & 0o022:
            raise StateError(
                f"others may write to {self.root}, so it cannot be the state directory; choose another with --state, "
                f"or, if nobody else uses it, run: chmod go-w {self.root}"
            )
        if not any(own.exists() for own in (self.lock, self.secrets, self.store)) and any(self.root.iterdir()):
            raise StateError(
                f"{self.root} holds other files, so it cannot be the state directory; "
                f"choose another with --state, such as {self.root / 'swell'}"
            )

    def holder(self) -> int | None:
        """Process id in the lock file, or None; says nothing about whether it still holds the lock."""
        try:
            return int(self.lock.read_text())
        except (OSError, ValueError):
            return None

    def is_locked(self) -> bool:
        """Whether somebody holds the lock now."""
        try:
            handle = os.open(self.lock, os.O_RDWR)
        except OSError:
            return False
        try:
            return not _try_lock(handle)
        finally:
            os.close(handle)

    @contextmanager
    def locked(self, *, wait_seconds: float = 0.0, advice: str = "") -> Iterator[None]:
        """Hold the lock, waiting at most `wait_seconds` for it. Raises StateError naming the holder.

        `advice`: how the holder is ended, where that is not a server.
        """
        handle = os.open(self.lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            tries_left = int(wait_seconds / _LOCK_POLL_SECONDS)
            while not _try_lock(handle):
                if tries_left <= 0:
                    raise StateError(
                        f"the state directory {self.root} is in use by process {self.holder() or 'unknown'}; "
                        f"{advice or f'stop it with: swell down --state {self.root}'} "
                        "(or choose another directory with --state)"
                    )
                tries_left -= 1
                time.sleep(_LOCK_POLL_SECONDS)
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
