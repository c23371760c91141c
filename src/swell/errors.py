"""The error tree. Every error that a user can meet carries a sentence that says what to do next.

    SwellError
    ├── UserError            the user must change something: exit code 2, never retried
    │   ├── SpecError        swell.yaml is wrong at a named path
    │   ├── StateError       the state directory is locked, unreadable or of another version
    │   │   ├── StoreInUse   another server or command has the store open
    │   │   └── StoreLost    another one has used it since this one last did: what this one knows is worth nothing
    │   ├── ModelUnavailable  a model of the spec cannot be made ready
    │   ├── SourceError      a model source cannot be had: missing, pickled, wrong checksum
    │   └── KeyFormatError   a key is mistyped (its checksum does not match)
    ├── RetryLater           worth trying again after `retry_after_seconds`
    │   └── AtCapacity       the provider or the store has no room right now
    │       └── SpotRefused  the spot market has no machine right now
    ├── AlreadyGone          the thing to stop or read no longer exists; callers treat it as success
    └── LaunchFailed         a child process ended before it was ready; `log_tail` says why

Adapters chain the vendor's error as `__cause__`; nothing above an adapter catches a vendor's type.
"""


class SwellError(Exception):
    """Base of everything that Swell raises on purpose."""


class UserError(SwellError):
    """What the user gave cannot work; `message` says what was wrong and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class SpecError(UserError):
    """The spec is refused; `path` names the field, such as `models[0].replicas.max`."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path


class StateError(UserError):
    """The state directory cannot be used as it is."""


class StoreInUse(StateError):
    """Another server or command has the store open."""


class StoreLost(StateError):
    """The store was another server's meanwhile, so nothing may be done any more by what this one knows of it."""


class ModelUnavailable(UserError):
    """`model` cannot be made ready to be served."""

    def __init__(self, model: str, message: str) -> None:
        super().__init__(message)
        self.model = model


class SourceError(UserError):
    """A model source cannot be fetched or is refused."""


class KeyFormatError(UserError):
    """The text is not a Swell key, or was mistyped."""


class RetryLater(SwellError):
    """The same call may work after `retry_after_seconds`."""

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class AtCapacity(RetryLater):
    """No room right now at a provider or in the store."""


class SpotRefused(AtCapacity):
    """The spot market has no machine right now: of this accelerator, in this zone; empty where nobody said."""

    def __init__(self, message: str, *, retry_after_seconds: float, zone: str = "", accelerator: str = "") -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.zone = zone
        self.accelerator = accelerator


class AlreadyGone(SwellError):
    """The thing no longer exists."""


class LaunchFailed(SwellError):
    """A child ended before it was ready."""

    def __init__(self, message: str, *, log_tail: str = "") -> None:
        super().__init__(message)
        self.log_tail = log_tail
