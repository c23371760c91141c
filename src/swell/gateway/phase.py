"""Where a request is on its way through the gateway."""

from enum import Enum, auto


class Phase(Enum):
    """Where an exchange is; timeouts depend on it."""

    ADMITTING = auto()
    SHARES = auto()
    QUEUED = auto()
    CONNECTING = auto()
    SENT = auto()
    RELAYING = auto()
    ENDED = auto()
