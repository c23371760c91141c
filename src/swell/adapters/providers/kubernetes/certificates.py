"""Certificates of Pods and gateways: issued here, or asked of cert-manager, and renewed long before they end.

What an installation's own authority is stands in a Secret beside what it signs, so that every server of it, one that
leads next as well, has the same. The authority's key is nowhere else: gateways are sent a certificate, never the means
to make one. What gateways show is made by the server in memory, for its own authority, and read from where cert-manager
keeps it otherwise. Level by level: a turn looks at all Secrets for TLS, and writes what is missing or due.
"""

import base64
import binascii
import hashlib
import logging
import math
import secrets
from collections.abc import Mapping

from swell.adapters.providers.kubernetes import manifests_tls, names
from swell.adapters.providers.kubernetes.api import CONFLICT, NOT_FOUND, UNREACHABLE, ApiProblem, Kind
from swell.adapters.providers.kubernetes.group import Group
from swell.adapters.providers.kubernetes.objects import Secret
from swell.adapters.providers.kubernetes.pacing import PacedApi
from swell.adapters.providers.kubernetes.settings import ClusterSettings
from swell.clock import Clock
from swell.errors import StateError
from swell.ports.provider import OWN_AUTHORITY
from swell.security.certificates import authority_begin, certificate_end, issue_certificate, make_authority
from swell.security.issued_check import spoilt
from swell.security.replica_tls import CA_FILE, CERTIFICATE_FILE, KEY_FILE, gateway_name, replica_name
from swell.state.snapshot import ClientIdentity

LIFETIME_SECONDS = 24 * 3600.0
RENEW_AFTER = 0.5  # of its lifetime; those of one installation are renewed over the tenth of it before
SPREAD = 0.1
CHECK_SECONDS = 60.0
RETRY_SECONDS = 5.0
EARLY_SECONDS = 300.0  # before an authority is good: so much clocks may differ; one that is for later is replaced
FILES = (CA_FILE, CERTIFICATE_FILE, KEY_FILE)

_log = logging.getLogger(__name__)


class Certificates:
    """Looks after those of `groups`. The provider's loop calls `turn` when it `is_due`."""

    def __init__(self, api: PacedApi, settings: ClusterSettings, clock: Clock, groups: Mapping[str, Group]) -> None:
        self._api = api
        self._settings = settings
        self._clock = clock
        self._groups = groups
        self._authority = b""  # our own; empty: not looked for yet
        self._identities: dict[str, ClientIdentity] = {}  # by authority
        self._shown_by = ""  # of what gateways show that is our own: a digest of the authority
        self._renew_at = math.inf  # of the same, in Unix time
        self._asked: dict[str, str] = {}  # Certificates that were applied, by name: for which Deployment's uid
        self._good: dict[str, str] = {}  # versions of Secrets whose content was looked at, by name
        self._next_at = -math.inf
        self._has_begun = False
        self._unseen = ""  # why the Secrets could not be listed
        self._problems: dict[str, str] = {}  # by authority

    @property
    def identities(self) -> tuple[ClientIdentity, ...]:
        """What gateways show, as far as there is any."""
        return tuple(self._identities.values())

    def lacking(self, authority: str) -> str:
        """What gateways have not got yet that they would show such Pods, in words; nothing where it is there."""
        if authority in self._identities:
            return ""
        problem = self._problems.get(authority)
        return f"a certificate for gateways: {problem}" if problem else "a certificate for gateways"

    def identity_of(self, authority: str) -> str:
        """The id of what gateways show Pods whose certificates are that authority's, whether it is there or not."""
        return f"{self._settings.place}/{self._settings.namespace}/{authority}"

    def secrets(self) -> set[str]:
        """Names of Secrets that are in use."""
        authorities = self._authorities()
        found = {names.certificate_name(group.name) for group in self._groups.values() if group.authority}
        found |= {names.gateways_name(self._settings.installation, each) for each in authorities}
        return found | {names.authority_name(self._settings.installation)}  # whoever turns it on again has the same

    def are_asked_for(self, group: Group) -> bool:
        """Whether cert-manager makes those of a group."""
        return group.authority not in ("", OWN_AUTHORITY)

    def made(self, group: Group) -> None:
        """A Deployment is there: what is asked for its Pods belongs to it."""
        if self.are_asked_for(group):
            self._next_at = -math.inf

    def is_due(self, now: float) -> bool:
        """Whether to look again."""
        return now >= self._next_at and bool(self._authorities())

    async def begin(self) -> str:
        """Look for the first time, before anybody is told of a Pod. Why that is impossible now, or nothing."""
        if self._has_begun or not self._authorities():
            return ""
        await self.turn()
        self._has_begun = not self._unseen
        return self._unseen

    async def prepare(self, group: Group) -> None:
        """Have a certificate for a Deployment that is about to be made. Raises ApiProblem."""
        if group.authority != OWN_AUTHORITY:
            return
        try:
            await self._issue(group, await self._own())
        except StateError as error:
            raise ApiProblem(UNREACHABLE, str(error)) from error

    async def turn(self) -> None:
        """Write what is missing or due, and read what others made; what fails is tried again soon."""
        now, authorities = self._clock.monotonic(), self._authorities()
        self._next_at = now + CHECK_SECONDS
        try:
            found = await self._list()
        except ApiProblem as problem:
            self._next_at = now + max(RETRY_SECONDS, problem.retry_after_seconds)
            self._unseen = problem.message
            return
        self._unseen = ""
        for authority in sorted(authorities):
            try:
                if authority == OWN_AUTHORITY:
                    await self._look_after_own(found)
                else:
                    await self._look_after_issuer(authority, found)
            except (ApiProblem, StateError) as error:
                self._failed(authority, error)
            else:
                self._problems.pop(authority, None)
        for authority in self._identities.keys() - authorities:
            del self._identities[authority]
            self._shown_by = self._shown_by if authority != OWN_AUTHORITY else ""

    def _failed(self, authority: str, error: ApiProblem | StateError) -> None:
        problem, wait = str(error), RETRY_SECONDS
        if isinstance(error, ApiProblem):
            wait = max(wait, error.retry_after_seconds)
            if error.status == NOT_FOUND:
                problem = f"the cluster has no cert-manager, or another version of it: {problem}"
        self._next_at = min(self._next_at, self._clock.monotonic() + wait)
        if self._problems.get(authority) != problem:
            self._problems[authority] = problem
            _log.warning("certificates of %s could not be looked after: %s", authority, problem)

    def _authorities(self) -> set[str]:
        """What new Pods shall show, and what others show that are there."""
        found = {group.authority for group in self._groups.values()} | {self._settings.authority}
        return found - {""}

    async def _list(self) -> dict[str, Secret]:
        query = names.as_query(names.selector(self._settings.installation) | {names.COMPONENT: names.TLS})
        found: dict[str, Secret] = {}
        async for page in self._api.pages(Kind.SECRETS, query):
            found |= {item.metadata.name: item for item in page.items if isinstance(item, Secret)}
        return found

    # Our own authority.

    async def _own(self) -> bytes:
        if not self._authority:
            await self._find_authority(await self._list())
        return self._authority

    async def _find_authority(self, found: Mapping[str, Secret]) -> None:
        """The one that is kept. Where there is none, one is made; of several servers that try, one succeeds.

        Nobody takes what one signs that a fast clock made, so it is replaced by whoever knows better. What replaces it
        is good earlier, so those whose clocks are faster take it, and no two servers replace each other's.
        """
        name, now = names.authority_name(self._settings.installation), self._clock.unix()
        kept = found.get(name)
        if kept is None:
            manager = f"{names.MANAGER}-{secrets.token_hex(4)}"  # nobody else's: what is there already is a conflict
            self._authority = await self._put_authority(self._authority or make_authority(now), manager)
            return
        authority = _content(kept, manifests_tls.AUTHORITY_FILE)
        try:
            is_early = authority_begin(authority) > now + EARLY_SECONDS
        except StateError as error:
            raise StateError(f"Secret {name} holds no authority ({error}); delete it to have one made") from error
        if is_early:
            authority = await self._put_authority(make_authority(now), names.MANAGER, kept.metadata.resourceVersion)
            _log.warning("the authority in Secret %s was made by a fast clock; there is a new one", name)
        self._authority = authority

    async def _put_authority(self, made: bytes, manager: str, version: str = "") -> bytes:
        """The one that is kept then: this one, unless somebody was faster. `version` is of what it replaces."""
        manifest = manifests_tls.authority_secret(made, self._settings)
        name = manifest["metadata"]["name"]
        if version:
            manifest["metadata"]["resourceVersion"] = version
        try:
            await self._api.apply(Kind.SECRETS, name, manifest, manager=manager, force=bool(version))
        except ApiProblem as problem:
            if problem.status != CONFLICT:
                raise
            found = await self._list()
            if name not in found:
                raise
            return _content(found[name], manifests_tls.AUTHORITY_FILE)
        return made

    async def _look_after_own(self, found: Mapping[str, Secret]) -> None:
        await self._find_authority(found)
        self._good = {name: version for name, version in self._good.items() if name in found}
        authority, now = self._authority, self._clock.unix()
        if self._shown_by != _digest(authority) or not now < self._renew_at <= now + LIFETIME_SECONDS * RENEW_AFTER:
            name = gateway_name(self._settings.installation)
            made = issue_certificate(authority, name, now, lasts_seconds=LIFETIME_SECONDS, is_client=True)
            self._show(OWN_AUTHORITY, made.ca, made.certificate, made.private_key)
            self._shown_by, self._renew_at = _digest(authority), now + LIFETIME_SECONDS * RENEW_AFTER
        refused: ApiProblem | None = None
        for group in list(self._groups.values()):
            if group.authority == OWN_AUTHORITY and group.applied is not None:
                secret = found.get(names.certificate_name(group.name))
                try:
                    if secret is None or _is_due(secret, authority, now) or self._is_spoilt(secret, group, authority):
                        await self._issue(group, authority)
                except ApiProblem as problem:  # one that cannot be written keeps no other from being renewed
                    refused = problem
        if refused is not None:
            raise refused

    def _is_spoilt(self, secret: Secret, group: Group, authority: bytes) -> bool:
        """Whether somebody put something else into it. What is good is not looked at again until it changes."""
        name, version = secret.metadata.name, secret.metadata.resourceVersion
        if self._good.get(name) == version:
            return False
        why = _spoilt(secret, replica_name(group.name, self._settings.namespace), authority, self._clock.unix())
        if why:
            _log.warning("Secret %s is made anew, since somebody changed it: %s", name, why)
            return True
        self._good[name] = version
        return False

    async def _issue(self, group: Group, authority: bytes) -> None:
        now, spread = self._clock.unix(), _share(group.name) * SPREAD
        name = replica_name(group.name, self._settings.namespace)
        made = issue_certificate(authority, name, now, lasts_seconds=LIFETIME_SECONDS)
        renew_at = now + LIFETIME_SECONDS * (RENEW_AFTER - spread)
        manifest = manifests_tls.certificate_secret(
            group, made, self._settings, issued_by=_digest(authority), renew_at=renew_at
        )
        await self._api.apply(Kind.SECRETS, names.certificate_name(group.name), manifest, manager=names.MANAGER)

    # cert-manager.

    async def _look_after_issuer(self, authority: str, found: Mapping[str, Secret]) -> None:
        settings = self._settings
        own = names.gateways_name(settings.installation, authority)
        if own not in self._asked or own not in found:
            manifest = manifests_tls.gateways_certificate(authority, settings, LIFETIME_SECONDS)
            await self._ask(own, manifest, "")
        for group in list(self._groups.values()):
            name = names.certificate_name(group.name)
            is_asked = self._asked.get(name) == group.uid and name in found
            if group.authority == authority and group.uid and not is_asked:
                await self._ask(name, manifests_tls.replica_certificate(group, settings, LIFETIME_SECONDS), group.uid)
        secret = found.get(own)
        if secret is None or not secret.data.get(CERTIFICATE_FILE):
            raise StateError(f"cert-manager has made no Secret {own} by {authority} yet; look at that Certificate")
        ca = _content(secret, CA_FILE)
        certificate, key = _content(secret, CERTIFICATE_FILE), _content(secret, KEY_FILE)
        if ca.strip() == certificate.strip():
            raise StateError(f"{authority} signs nothing but itself; choose an issuer with a CA, of kind CA or Vault")
        if certificate_end(certificate) <= self._clock.unix():
            raise StateError(f"the certificate in Secret {own} has ended; see why cert-manager does not renew it")
        self._show(authority, ca, certificate, key)

    async def _ask(self, name: str, manifest: Mapping[str, object], uid: str) -> None:
        await self._api.apply(Kind.CERTIFICATES, name, manifest, manager=names.MANAGER)
        self._asked[name] = uid

    def _show(self, authority: str, ca: bytes, certificate: bytes, private_key: bytes) -> None:
        self._identities[authority] = ClientIdentity(self.identity_of(authority), ca, certificate, private_key)


def _is_due(secret: Secret, authority: bytes, now: float) -> bool:
    """Whether a certificate is to be made anew: it is time, or it is another authority's.

    One that is to be renewed later than a new one would be was made by a clock that was fast, and may not be good yet.
    """
    annotations = secret.metadata.annotations
    try:
        renew_at = float(annotations.get(names.RENEW_AT, ""))
    except ValueError:
        return True
    is_kept = now < renew_at <= now + LIFETIME_SECONDS * RENEW_AFTER
    return not is_kept or annotations.get(names.ISSUED_BY) != _digest(authority)


def _spoilt(secret: Secret, host: str, authority: bytes, now: float) -> str:
    """Why the Pods could not use what is in it, in words; nothing where they can."""
    try:
        ca, certificate, key = (base64.b64decode(secret.data[name], validate=True) for name in FILES)
    except KeyError as error:
        return f"it has no {error.args[0]}"
    except binascii.Error:
        return "its content is not base64"
    return spoilt(authority, host, now, ca=ca, certificate=certificate, private_key=key)


def _content(secret: Secret, key: str) -> bytes:
    """A value of a Secret. Raises StateError where it has none, with what to do."""
    try:
        content = base64.b64decode(secret.data[key], validate=True)
    except (KeyError, binascii.Error) as error:
        name = secret.metadata.name
        advice = "choose an issuer with a CA of its own" if key == CA_FILE else "delete it to have it made anew"
        raise StateError(f"Secret {name} has no {key}; {advice}") from error
    return content


def _digest(authority: bytes) -> str:
    return hashlib.sha256(authority).hexdigest()[:16]


def _share(name: str) -> float:
    """A number from 0 to 1 that is the name's own."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
