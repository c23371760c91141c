"""Certificates between gateways and Pods, over days of virtual time: who makes them, when, and who has the same."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from cryptography import x509
from kube_children import ISSUED_TLS, OWN_TLS, SETTINGS
from kube_world import World

from swell.adapters.providers.kubernetes import certificates, names
from swell.adapters.providers.kubernetes.objects import Secret
from swell.clock import ManualClock
from swell.control.replica import Replica
from swell.ports.provider import Needs, TlsSidecar
from swell.security.replica_tls import replica_name
from swell.testing.cluster import Refused

HOUR = 3600.0
FAST = 5 * 24 * HOUR  # of a clock
OWN = replace(SETTINGS, place="cluster", authority=OWN_TLS.authority)
ISSUED = replace(SETTINGS, place="cluster", authority=ISSUED_TLS.authority)
KILL_POINTS = range(1, 10)
BEGUN = ManualClock().unix()
FOREIGN = certificates.make_authority(BEGUN)


def _workload(world: World, tls: TlsSidecar = OWN_TLS, **changes: Any) -> Any:
    return world.workload(**{"needs": Needs(image="engine", tls=tls), **changes})


def _leaf(content: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(content)


def _mounted(world: World, name: str) -> dict[str, bytes]:
    """A Secret's content."""
    return {key: base64.b64decode(value) for key, value in world.cluster.objects["secrets"][name]["data"].items()}


def _names(leaf: x509.Certificate) -> list[str]:
    return leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)


def _check(world: World, replica: Replica) -> None:
    """What holds whenever a replica can be routed to: both sides have what the other takes, for hours to come."""
    assert replica.address is not None
    (deployment,) = (name for name in world.cluster.objects["deployments"] if name in replica.address.server_name)
    assert replica.address.server_name == replica_name(deployment, SETTINGS.namespace)
    assert (replica.address.port, replica.address.tls) == (8000, True)
    (identity,) = (each for each in world.provider.identities if each.identity_id == replica.address.identity)
    mounted = _mounted(world, names.certificate_name(deployment))
    shown, ca = _leaf(mounted["tls.crt"]), _leaf(identity.ca)
    assert _names(shown) == [replica.address.server_name]
    assert _names(_leaf(identity.certificate)) == ["inst-1.gateway.swell.internal"]
    now = datetime.fromtimestamp(world.clock.unix(), UTC)
    for leaf in (shown, _leaf(identity.certificate)):
        leaf.verify_directly_issued_by(ca)
        assert (leaf.not_valid_after_utc - now).total_seconds() > 11 * HOUR
    assert _leaf(mounted["ca.crt"]) == ca


@pytest.mark.parametrize(("settings", "tls"), [(OWN, OWN_TLS), (ISSUED, ISSUED_TLS)], ids=["own", "issued"])
async def test_certificates_are_renewed_in_time_for_days_and_nothing_else_happens(settings: Any, tls: Any) -> None:
    async with World(settings=settings) as world:
        world.want(_workload(world, tls, count=2), _workload(world, tls, name="code", count=1))
        await world.steps(24)
        before = [replica.child_id for replica in world.ready()]
        assert len(before) == 3
        for _ in range(3 * 24 * 4):
            await world.steps(seconds=HOUR / 4)
            for replica in world.ready():
                _check(world, replica)
        assert [replica.child_id for replica in world.ready()] == before
        assert world.controllers.created == 3
        writes = world.cluster.requests["patch secrets"]
        # The authority, two workloads' environments, and certificates: one each at first, and two a day or a few more.
        assert writes <= 1 + 2 + 2 * (1 + 3 * 3) if tls is OWN_TLS else writes == 2


async def test_the_authoritys_key_is_in_its_own_secret_and_nowhere_else() -> None:
    async with World(settings=OWN) as world:
        world.want(_workload(world, count=1))
        await world.steps(24)
        secrets = world.cluster.objects["secrets"]
        holder = names.authority_name(SETTINGS.installation)
        key = _mounted(world, holder)["authority.pem"].partition(b"-----BEGIN CERTIFICATE-----")[0]
        others = [name for name in secrets if name != holder]
        assert others
        assert not [name for name in others if any(key in value for value in _mounted(world, name).values())]
        assert not [each for each in world.provider.identities if key in each.private_key]
        deployment = next(iter(world.cluster.objects["deployments"].values()))
        assert key.splitlines()[1].decode() not in str(deployment)


async def test_a_server_that_follows_has_the_same_authority_and_cuts_nobody_off() -> None:
    async with World(settings=OWN) as world:
        world.want(_workload(world, count=2))
        await world.steps(24)
        (before,), addresses = world.provider.identities, [replica.address for replica in world.ready()]
        authority = _mounted(world, names.authority_name(SETTINGS.installation))
        writes = world.cluster.requests["patch secrets"]
        await world.restart()
        (after,) = world.provider.identities  # as soon as it has adopted, before any gateway is told anything
        await world.steps(12)
        assert (after.ca, after.identity_id) == (before.ca, before.identity_id)
        assert [replica.address for replica in world.ready()] == addresses
        assert _mounted(world, names.authority_name(SETTINGS.installation)) == authority
        assert world.cluster.requests["patch secrets"] == writes
        for replica in world.ready():
            _check(world, replica)


async def test_of_two_servers_that_make_an_authority_at_once_one_does() -> None:
    async with World() as world:
        name = names.authority_name(SETTINGS.installation)
        theirs = certificates.make_authority(world.clock.unix())
        manifest = certificates.manifests_tls.authority_secret(theirs, SETTINGS)

        def meanwhile(verb: str, kind: str) -> None:
            if (verb, kind) == ("patch", "secrets") and name not in world.cluster.objects["secrets"]:
                world.cluster.before_request = lambda verb, kind: None
                world.cluster.apply("secrets", name, manifest, manager="another", force=True)

        world.cluster.before_request = meanwhile
        world.settings = OWN
        await world.restart()
        world.want(_workload(world, count=1))
        await world.steps(24)
        assert _mounted(world, name)["authority.pem"] == theirs
        (replica,) = world.ready()
        _check(world, replica)


async def test_there_are_as_many_writes_as_points_at_which_a_server_is_killed() -> None:
    async with World() as world:
        world.settings, world.wanted = OWN, (_workload(world, count=2),)
        await world.restart()
        await world.steps(120)
        assert world.doom.writes == KILL_POINTS[-1]


async def test_a_clock_that_was_fast_leaves_no_certificates_for_later() -> None:
    async with World(settings=OWN) as world:
        right = world.clock.unix()
        world.clock.advance(300.0)
        world.want(_workload(world, count=1))
        await world.steps(24)
        authority = _mounted(world, names.authority_name(SETTINGS.installation))
        world.clock.jump_unix(5 * 24 * HOUR)
        world.want(_workload(world, count=1), _workload(world, name="code", count=1))
        await world.steps(24)
        world.clock.jump_unix(-5 * 24 * HOUR)
        await world.steps(40, seconds=HOUR / 4)
        assert _mounted(world, names.authority_name(SETTINGS.installation)) == authority
        now = datetime.fromtimestamp(world.clock.unix(), UTC)
        assert now.timestamp() > right
        assert len(world.ready()) == 2
        for replica in world.ready():
            _check(world, replica)
            assert replica.address is not None
            (deployment,) = (n for n in world.cluster.objects["deployments"] if n in replica.address.server_name)
            assert _leaf(_mounted(world, names.certificate_name(deployment))["tls.crt"]).not_valid_before_utc <= now
        (shown,) = world.provider.identities
        assert _leaf(shown.certificate).not_valid_before_utc <= now


async def test_an_authority_that_a_fast_clock_made_is_replaced_once_and_both_sides_take_the_new_one() -> None:
    async with World() as world:
        name = names.authority_name(SETTINGS.installation)
        world.clock.jump_unix(FAST)
        world.settings, world.wanted = OWN, (_workload(world, count=2),)
        await world.restart()
        await world.steps(24)
        early, replicas = _mounted(world, name), {replica.child_id for replica in world.ready()}
        world.clock.jump_unix(-FAST)
        await world.restart()  # one whose clock is right leads next
        await world.steps(12, seconds=20.0)
        late = _mounted(world, name)
        assert late != early
        now = datetime.fromtimestamp(world.clock.unix(), UTC)
        (identity,) = world.provider.identities
        assert identity.ca in late["authority.pem"]
        for pem in (identity.ca, identity.certificate):
            assert _leaf(pem).not_valid_before_utc <= now
        for replica in world.ready():
            _check(world, replica)
        for jump in (FAST, -FAST, FAST, -FAST):  # the two of them lead in turns
            world.clock.jump_unix(jump)
            await world.restart()
            await world.steps(12, seconds=20.0)
            assert _mounted(world, name) == late
        assert {replica.child_id for replica in world.ready()} == replicas


async def test_of_two_servers_that_replace_an_authority_at_once_one_does() -> None:
    async with World(settings=OWN) as world:
        name = names.authority_name(SETTINGS.installation)
        world.want(_workload(world, count=1))
        await world.steps(24)
        early, theirs = (certificates.make_authority(world.clock.unix() + ahead) for ahead in (FAST, 0.0))

        def put(authority: bytes, manager: str) -> None:
            manifest = certificates.manifests_tls.authority_secret(authority, SETTINGS)
            world.cluster.apply("secrets", name, manifest, manager=manager, force=True)

        def meanwhile(verb: str, kind: str) -> None:
            if (verb, kind) == ("patch", "secrets"):
                world.cluster.before_request = lambda verb, kind: None
                put(theirs, "another")

        put(early, "one")
        world.cluster.before_request = meanwhile
        await world.steps(12, seconds=20.0)
        assert _mounted(world, name)["authority.pem"] == theirs
        (replica,) = world.ready()
        _check(world, replica)


@pytest.mark.parametrize("dies_after", [False, True])
@pytest.mark.parametrize("kill_at", KILL_POINTS)
async def test_a_server_killed_at_any_write_leaves_what_its_successor_finishes(kill_at: int, dies_after: bool) -> None:
    async with World() as world:
        world.settings, world.wanted = OWN, (_workload(world, count=2),)
        world.doom.kill_at, world.doom.dies_after = kill_at, dies_after
        await world.restart()
        await world.steps(120)
        assert world.doom.deaths == 1
        assert len(world.ready()) == 2
        for replica in world.ready():
            _check(world, replica)
        deployments = world.cluster.objects["deployments"].keys()
        wanted = {*deployments, *map(names.certificate_name, deployments), names.authority_name("inst-1")}
        assert set(world.cluster.objects["secrets"]) == wanted


async def test_turning_it_on_and_off_replaces_replicas_and_both_kinds_serve_meanwhile() -> None:
    async with World(settings=SETTINGS) as world:
        world.want(world.workload(count=1))
        await world.steps(24)
        for settings, workload in ((OWN, _workload(world, fingerprint="v2")), (SETTINGS, world.workload())):
            before = world.ready()
            world.settings, world.wanted = settings, (workload,)
            await world.restart()
            seen = set()
            for _ in range(120):
                await world.steps()
                assert world.ready()
                for replica in world.ready():
                    assert replica.address is not None
                    seen.add(replica.address.tls)
                    if replica.address.tls:
                        _check(world, replica)
            assert seen == {False, True}
            assert not {replica.child_id for replica in before} & {replica.child_id for replica in world.ready()}
        secrets = set(world.cluster.objects["secrets"])
        assert secrets == {*world.cluster.objects["deployments"], names.authority_name("inst-1")}


async def test_what_goes_takes_its_certificates_with_it() -> None:
    async with World(settings=ISSUED) as world:
        world.want(_workload(world, ISSUED_TLS, count=1))
        await world.steps(24)
        world.want(_workload(world, ISSUED_TLS, fingerprint="v2", count=1))
        await world.steps(60)
        (deployment,) = world.cluster.objects["deployments"]
        gateways = names.gateways_name("inst-1", ISSUED_TLS.authority)
        assert set(world.cluster.objects["certificates"]) == {names.certificate_name(deployment), gateways}
        assert set(world.cluster.objects["secrets"]) == {
            deployment, names.certificate_name(deployment), gateways,
        }  # fmt: skip


async def test_without_cert_manager_replicas_wait_and_say_for_what() -> None:
    async with World(settings=ISSUED) as world:
        world.cert_manager.away = True
        world.want(_workload(world, ISSUED_TLS, count=1))
        await world.steps(24)
        assert world.ready() == []
        world.cert_manager.away = False
        await world.steps(40)
        (replica,) = world.ready()
        _check(world, replica)
        world.cert_manager.away = True
        for gateways_have_none in (False, True):
            if gateways_have_none:
                world.cluster.remove("secrets", names.gateways_name("inst-1", ISSUED_TLS.authority))
            await world.restart()
            await world.steps(400)
            assert [each.child_id for each in world.ready()] == [replica.child_id]  # it is not to blame
            assert bool(world.provider.identities) is not gateways_have_none
        world.cert_manager.away = False
        await world.steps(40)
        _check(world, replica)


async def test_a_cluster_that_knows_no_certificates_is_told_of_in_words() -> None:
    def refuse(verb: str, kind: str) -> None:
        if kind == "certificates":
            raise Refused(404, "the server could not find the requested resource")

    async with World(settings=ISSUED) as world:
        world.cluster.before_request = refuse
        world.want(_workload(world, ISSUED_TLS, count=1))
        await world.steps(24)
        (replica,) = world.fleet.replicas
        assert world.ready() == []
        assert replica.waiting.startswith("its container to be made and a certificate for gateways: the cluster has no")


async def test_an_issuer_that_signs_itself_alone_is_told_of_in_words() -> None:
    async with World(settings=ISSUED) as world:
        world.cert_manager.self_signed = True
        world.want(_workload(world, ISSUED_TLS, count=1))
        await world.steps(60)
        (replica,) = world.fleet.replicas
        assert "ClusterIssuer/company-ca signs nothing but itself; choose an issuer with a CA" in replica.waiting
        assert world.ready() == []


async def test_one_that_cannot_be_written_keeps_no_other_from_being_renewed() -> None:
    async with World(settings=OWN) as world:
        world.want(_workload(world, count=1), _workload(world, name="code", count=1))
        await world.steps(24)
        refused = {names.certificate_name(name) for name in world.cluster.objects["deployments"] if "chat" in name}

        def validate(manifest: Mapping[str, Any]) -> None:
            if manifest["metadata"]["name"] in refused:
                raise Refused(403, "forbidden by a policy")

        world.cluster.validate = validate
        for _ in range(24):
            await world.steps(seconds=HOUR)
        now = datetime.fromtimestamp(world.clock.unix(), UTC)
        ends = {name: _leaf(_mounted(world, name)["tls.crt"]).not_valid_after_utc for name in _certificates(world)}
        assert {name for name, end in ends.items() if end < now + timedelta(hours=11)} == refused
        world.cluster.validate = lambda manifest: None
        await world.steps(4, seconds=20.0)
        for replica in world.ready():
            _check(world, replica)


def _certificates(world: World) -> list[str]:
    return [name for name in world.cluster.objects["secrets"] if name.endswith("-tls")]


async def test_a_secret_that_somebody_spoilt_or_deleted_is_made_again() -> None:
    async with World(settings=OWN) as world:
        world.want(_workload(world, count=1))
        await world.steps(24)
        (deployment,) = world.cluster.objects["deployments"]
        name = names.certificate_name(deployment)
        authority = _mounted(world, names.authority_name("inst-1"))
        for spoil in (
            lambda: world.cluster.remove("secrets", name),
            lambda: world.cluster.remove("secrets", names.authority_name("inst-1")),
            lambda: world.cluster.patch("secrets", name, {"data": {"tls.key": None}}),
        ):
            spoil()
            await world.steps(8, seconds=20.0)
            (replica,) = world.ready()
            _check(world, replica)
        assert _mounted(world, names.authority_name("inst-1")) == authority


def _garbage(content: dict[str, bytes]) -> dict[str, bytes | str]:
    return {"tls.crt": b"\x00 no certificate", "tls.key": b"neither"}


def _no_base64(content: dict[str, bytes]) -> dict[str, bytes | str]:
    return {"tls.crt": "!"}


def _half(content: dict[str, bytes]) -> dict[str, bytes | str]:
    return {"tls.key": content["tls.key"][: len(content["tls.key"]) // 2]}


def _another_key(content: dict[str, bytes]) -> dict[str, bytes | str]:
    theirs = certificates.issue_certificate(FOREIGN, "a", BEGUN, lasts_seconds=HOUR)
    return {"tls.key": theirs.private_key}


def _another_authority(content: dict[str, bytes]) -> dict[str, bytes | str]:
    return {"ca.crt": certificates.issue_certificate(FOREIGN, "a", BEGUN, lasts_seconds=HOUR).ca}


def _foreign(content: dict[str, bytes]) -> dict[str, bytes | str]:
    (name,) = _names(_leaf(content["tls.crt"]))
    made = certificates.issue_certificate(FOREIGN, name, BEGUN, lasts_seconds=24 * HOUR)
    return {"tls.crt": made.certificate, "tls.key": made.private_key}


@pytest.mark.parametrize("spoil", [_garbage, _no_base64, _half, _another_key, _another_authority, _foreign])
async def test_a_secret_with_something_else_in_it_is_made_anew_and_the_log_says_so_once(
    spoil: Callable[[dict[str, bytes]], dict[str, bytes | str]], caplog: pytest.LogCaptureFixture
) -> None:
    async with World(settings=OWN) as world:
        world.want(_workload(world, count=1), _workload(world, name="code", count=1))
        await world.steps(24)
        name, other = (names.certificate_name(deployment) for deployment in world.cluster.objects["deployments"])
        before = _mounted(world, other)
        with caplog.at_level("WARNING", certificates.__name__):
            await world.steps(8, seconds=20.0)
            assert caplog.messages == []
            data = {
                key: base64.b64encode(value).decode() if isinstance(value, bytes) else value
                for key, value in spoil(_mounted(world, name)).items()
            }
            world.cluster.patch("secrets", name, {"data": data})
            await world.steps(12, seconds=20.0)
        for replica in world.ready():
            _check(world, replica)
        assert len(world.ready()) == 2
        assert _mounted(world, other) == before
        (told,) = caplog.messages
        assert told.startswith(f"Secret {name} is made anew, since somebody changed it: ")


async def test_an_authority_that_somebody_puts_in_the_place_of_ours_is_taken_by_both_sides_at_once() -> None:
    async with World(settings=OWN) as world:
        world.want(_workload(world, count=1))
        await world.steps(24)
        theirs = certificates.make_authority(world.clock.unix())
        manifest = certificates.manifests_tls.authority_secret(theirs, SETTINGS)
        world.cluster.apply("secrets", names.authority_name("inst-1"), manifest, manager="operator", force=True)
        await world.steps(8, seconds=20.0)
        (replica,) = world.ready()
        _check(world, replica)
        (identity,) = world.provider.identities
        assert identity.ca in theirs


@pytest.mark.parametrize("has_key", [True, False], ids=["of another", "none"])
async def test_an_authority_without_the_key_of_its_certificate_changes_nothing_and_the_log_says_what_to_do(
    has_key: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with World(settings=OWN) as world:
        world.want(_workload(world, count=1))
        await world.steps(24)
        name, begin = names.authority_name(SETTINGS.installation), b"-----BEGIN CERTIFICATE-----"
        theirs = FOREIGN.partition(begin)[0] if has_key else b""
        mixed = theirs + begin + _mounted(world, name)["authority.pem"].partition(begin)[2]
        manifest = certificates.manifests_tls.authority_secret(mixed, SETTINGS)
        world.cluster.apply("secrets", name, manifest, manager="somebody", force=True)
        before = world.cluster.requests["patch secrets"]
        await world.steps(100, seconds=10.0)
        assert world.cluster.requests["patch secrets"] == before
        assert world.ready()
        (told,) = (text for text in caplog.messages if name in text)
        assert "holds no authority" in told
        assert "delete it to have one made" in told
        del world.cluster.objects["secrets"][name]
        await world.steps(20, seconds=10.0)
        for replica in world.ready():
            _check(world, replica)


async def test_a_secret_shows_nothing_of_its_content_where_it_is_printed() -> None:
    async with World(settings=OWN) as world:
        world.want(_workload(world, count=1))
        await world.steps(24)
        secrets = [msgspec.convert(item, Secret) for item in world.cluster.objects["secrets"].values()]
        assert any(secret.data for secret in secrets)
        assert not [
            secret.metadata.name for secret in secrets for value in secret.data.values() if value in repr(secret)
        ]
