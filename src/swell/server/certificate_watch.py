"""Certificates of a running server: its own are made anew before they end, given ones are read when they change."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from swell.clock import Clock
from swell.errors import StateError
from swell.security.reloading import ReloadingContext
from swell.server.external_scaler_door import scaler_context
from swell.server.listener import renew_listener
from swell.server.state_directory import StateDirectory
from swell.spec import GatewaysSpec, ServerSpec

if TYPE_CHECKING:
    from swell.security.certificates import CertificateFiles


class CertificateWatch:
    """`say` reaches a person, once an hour at most with the same."""

    def __init__(self, spec: ServerSpec, state: StateDirectory, clock: Clock, say: Callable[[str], None]) -> None:
        self._spec = spec
        self._state = state
        self._clock = clock
        self._say = say
        self._control: ReloadingContext | None = None
        self._problem = ""  # with what clients are shown; told once
        self._scaler: ReloadingContext | None = None  # what KEDA is shown, once it was looked at

    def open_control(self, spec: GatewaysSpec) -> ReloadingContext:
        """What gateways are shown. Raises StateError."""
        from swell.server.gateway_credentials import control_context, server_certificate

        def ensure() -> "CertificateFiles":
            return server_certificate(spec, self._state, self._clock.unix())

        files = ensure()
        self._control = ReloadingContext(
            files.certificate,
            (files.private_key, *([files.ca] if files.ca else [])),
            lambda: control_context(spec, self._state, self._clock.unix()),
            ensure,
        )
        return self._control

    def look(self) -> None:
        """Once every LOOK_SECONDS. The gateway workers look at what clients are shown themselves."""
        problem = ""
        try:
            renew_listener(self._spec, self._state, self._clock)
        except StateError as error:
            problem = str(error)
        if problem and problem != self._problem:
            self._say(problem)
        self._problem = problem
        for shown in (self._control, self._shown_to_keda()):
            problem = "" if shown is None else shown.look(self._clock.unix())
            if problem:
                self._say(problem)

    def _shown_to_keda(self) -> ReloadingContext | None:
        """Read by the door itself at every handshake; here, so that a person hears of what nobody renews."""
        spec = self._spec.external_scaler
        if self._scaler is None and spec is not None and spec.certificate is not None:
            others = [Path(file) for file in (spec.private_key, spec.client_ca) if file is not None]
            with suppress(OSError, ValueError, StateError):  # written just now: the door has told, and shows the last
                self._scaler = ReloadingContext(Path(spec.certificate), others, lambda: scaler_context(spec))
        return self._scaler
