"""A snapshot and the deltas after it say the same as a new snapshot."""

from hypothesis import given
from hypothesis import strategies as st

from swell.server.publish import LOG_DELTAS, Picture, Publication
from swell.state.snapshot import (
    ClientIdentity,
    Delta,
    KeyDigest,
    KeyEntry,
    Limits,
    ModelEntry,
    ReplicaEntry,
    Snapshot,
    TenantEntry,
)

EPOCH = 7
NAMES = st.sampled_from(["a", "b", "c", "d"])


def keyed(entries: st.SearchStrategy) -> st.SearchStrategy:
    return st.dictionaries(NAMES, entries, max_size=4)


REPLICAS = st.lists(st.builds(ReplicaEntry, NAMES, st.just("127.0.0.1"), st.integers(1, 9)), max_size=2).map(tuple)
PICTURES = st.builds(
    lambda workers, models, keys, tenants, identities: Picture(
        workers,
        tuple(ModelEntry(name, name, ("/v1/completions",), replicas=replicas) for name, replicas in models.items()),
        tuple(KeyEntry(name, "t", (KeyDigest(digest),)) for name, digest in keys.items()),
        tuple(TenantEntry(name, Limits(limit)) for name, limit in tenants.items()),
        identities=tuple(ClientIdentity(name, b"ca", content, b"key") for name, content in identities.items()),
    ),
    st.integers(0, 3),
    keyed(REPLICAS),
    keyed(st.binary(min_size=1, max_size=2)),
    keyed(st.none() | st.integers(0, 2)),
    keyed(st.binary(min_size=1, max_size=2)),
)


def applied(snapshot: Snapshot, delta: Delta) -> Snapshot:
    """What a worker that follows the contract of swell.state.snapshot knows after `delta`."""
    assert (delta.epoch, delta.sequence) == (snapshot.epoch, snapshot.sequence + 1)

    def merged(old, changed, removed, name):
        entries = {getattr(entry, name): entry for entry in old} | {getattr(entry, name): entry for entry in changed}
        return tuple(entry for key, entry in entries.items() if key not in removed)

    return Snapshot(
        delta.epoch,
        delta.sequence,
        snapshot.workers if delta.workers is None else delta.workers,
        merged(snapshot.models, delta.models, delta.removed_models, "name"),
        merged(snapshot.keys, delta.keys, delta.removed_keys, "key_id"),
        merged(snapshot.tenants, delta.tenants, delta.removed_tenants, "name"),
        identities=snapshot.identities if delta.identities is None else delta.identities,
    )


def content(snapshot: Snapshot) -> tuple:
    return (
        snapshot.epoch, snapshot.sequence, snapshot.workers, {m.name: m for m in snapshot.models},
        {k.key_id: k for k in snapshot.keys}, {t.name: t for t in snapshot.tenants},
    )  # fmt: skip


@given(st.lists(PICTURES, min_size=1, max_size=8), st.data())
def test_deltas_since_any_moment_lead_to_the_present(pictures: list[Picture], data: st.DataObject) -> None:
    publication = Publication(EPOCH, pictures[0])
    known = [publication.since(0, 0)[0]]
    for picture in pictures[1:]:
        if publication.update(picture):
            known.append(publication.since(0, 0)[0])
    then = data.draw(st.sampled_from(known))
    assert isinstance(then, Snapshot)
    for message in publication.since(then.epoch, then.sequence):
        assert isinstance(message, Delta)
        then = applied(then, message)
    assert content(then) == content(known[-1])
    assert publication.picture == pictures[-1]


def test_an_equal_picture_is_no_change() -> None:
    publication = Publication(EPOCH, Picture(workers=1))
    assert publication.update(Picture(workers=1)) is None
    assert publication.sequence == 1


def test_a_worker_of_another_epoch_or_away_too_long_is_sent_everything() -> None:
    publication = Publication(EPOCH, Picture())
    for workers in range(1, LOG_DELTAS + 2):
        publication.update(Picture(workers=workers))
    newest = publication.picture.numbered(EPOCH, publication.sequence)
    assert publication.since(EPOCH - 1, publication.sequence) == [newest]
    assert publication.since(EPOCH, 1) == [newest]
    assert publication.since(EPOCH, publication.sequence + 1) == [newest]
    assert len(publication.since(EPOCH, 2)) == LOG_DELTAS
    assert publication.since(EPOCH, publication.sequence) == []
