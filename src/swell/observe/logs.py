"""Structured logs: one JSON object a line, allow-listed fields, rotated by size.

A log line holds an event (a constant sentence) and fields. Only the fields in `FIELDS` are written;
everything else that a caller or a library attaches is dropped, so a prompt or a key cannot slip in by
an innocent `extra=`. Of an exception that is not ours only the type and the place are written, because
its text may quote what it choked on.
"""

import logging
import os
import traceback
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

import msgspec

from swell.errors import SwellError

FIELDS = frozenset(
    {
        "alert_id", "attempt", "count", "engine", "exit_code", "gateway", "host", "incarnation", "key_id", "limit",
        "loop", "model", "path", "phase", "pid", "port", "provider", "reason", "replica_id", "retry_after_seconds",
        "seconds", "sequence", "signal", "sink", "tenant", "version", "worker_id",
    }
)  # fmt: skip
DEFAULT_FILE_BYTES = 16 * 1024 * 1024
DEFAULT_FILES = 5
_ERROR_TEXT_CHARACTERS = 500
_FRAMES = 12
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class JsonFormatter(logging.Formatter):
    """One record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, event, the allow-listed fields, and what went wrong."""
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage() if record.name.startswith("swell") else f"{record.name} reported",
        }
        line.update((name, value) for name, value in record.__dict__.items() if name in FIELDS)
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = describe_error(record.exc_info[1])
        return msgspec.json.encode(line, enc_hook=str).decode()


def describe_error(error: BaseException) -> dict[str, object]:
    """An exception as loggable values: the type, our own text, and the places it passed through."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    described: dict[str, object] = {
        "type": type(error).__name__,
        "frames": [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames],
    }
    if isinstance(error, SwellError | OSError):
        described["text"] = str(error)[:_ERROR_TEXT_CHARACTERS]
    return described


class _PrivateFile(RotatingFileHandler):
    """A rotating file that only its owner may read."""

    def _open(self):  # type: ignore[no-untyped-def]  # the base's annotation is private to typeshed
        os.close(os.open(self.baseFilename, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
        return super()._open()


def log_to_file(
    path: Path, *, level: str = "INFO", file_bytes: int = DEFAULT_FILE_BYTES, files: int = DEFAULT_FILES
) -> logging.Handler:
    """Send this process's log to `path`, keeping `files` rotated ones of `file_bytes` each.

    Libraries are heard from warnings upward. Returns the handler; `stop_logging` removes it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return _installed(_PrivateFile(path, maxBytes=file_bytes, backupCount=files, encoding="utf-8"), level)


def log_to_stream(stream: TextIO, *, level: str = "INFO") -> logging.Handler:
    """The same to an open stream, for a process whose output is collected."""
    handler = logging.StreamHandler(stream)
    return _installed(handler, level)


def _installed(handler: logging.Handler, level: str) -> logging.Handler:
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("swell").setLevel(level.upper() if level.upper() in _LEVELS else "INFO")
    return handler


def stop_logging(handler: logging.Handler) -> None:
    """Undo `log_to_file`."""
    logging.getLogger().removeHandler(handler)
    handler.close()
