"""What a cluster stores: objects by kind and name, versions that only grow, and the events that watches tell.

A stored object is never changed, only replaced, so that events may hold it as it was.
"""

import asyncio
import re
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from swell.clock import Clock
from swell.testing.cluster.apply import ConflictError, Path, apply, merge_patch, take_over

MAX_EVENTS = 50_000  # that a watch may still ask for
CLUSTER_WIDE = frozenset({"nodes"})
KINDS = {
    "pods": ("v1", "Pod"),
    "nodes": ("v1", "Node"),
    "secrets": ("v1", "Secret"),
    "deployments": ("apps/v1", "Deployment"),
    "replicasets": ("apps/v1", "ReplicaSet"),
    "certificates": ("cert-manager.io/v1", "Certificate"),
    "leaderworkersets": ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet"),
    "jobs": ("batch/v1", "Job"),
    "daemonsets": ("apps/v1", "DaemonSet"),
    "poddisruptionbudgets": ("policy/v1", "PodDisruptionBudget"),
    "models": ("swell.internal/v1alpha1", "Model"),
    "tenants": ("swell.internal/v1alpha1", "Tenant"),
}

Object = dict[str, Any]


class Refused(Exception):  # noqa: N818  named for what it is
    """What the API answers instead: a status of HTTP, a reason, and how long to wait."""

    def __init__(self, status: int, message: str, retry_after: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after


@dataclass(frozen=True)
class Event:
    """One change, as watches tell it."""

    version: int
    kind: str
    change: str
    item: Object


class FakeCluster:
    """One namespace and its nodes. Faults, to be set by tests:

    `refuse_next`: what the next requests are answered, first one first. `before_request` is told every request's verb
    and kind, and may raise. Kinds in `absent` are not installed. `validate` is called with every manifest that is
    applied.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.version = 1
        self.objects: dict[str, dict[str, Object]] = {kind: {} for kind in KINDS}
        self.requests: Counter[str] = Counter()  # by verb and kind
        self.absent: set[str] = set()
        self.refuse_next: deque[Refused] = deque()
        self.before_request: Callable[[str, str], None] = lambda verb, kind: None
        self.validate: Callable[[Mapping[str, Any]], None] = lambda manifest: None
        self.logs: dict[str, str] = {}  # by Pod
        self._managed: dict[tuple[str, str], dict[str, set[Path]]] = defaultdict(dict)
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._oldest = 1  # version after which events are known
        self._watches: set[asyncio.Queue[Event | None]] = set()

    # What clients ask for.

    def request(self, verb: str, kind: str) -> None:
        """Count a request, or answer it as a test said."""
        self.requests[f"{verb} {kind}"] += 1
        self.before_request(verb, kind)
        if kind in self.absent:
            raise Refused(404, "the server could not find the requested resource")
        if self.refuse_next:
            raise self.refuse_next.popleft()

    def list(self, kind: str, selector: Mapping[str, str]) -> list[Object]:
        """All objects that carry these labels, by name."""
        return [item for _, item in sorted(self.objects[kind].items()) if matches(item, selector)]

    def get(self, kind: str, name: str) -> Object:
        """One object. Raises Refused 404."""
        if name not in self.objects[kind]:
            raise Refused(404, f'{kind} "{name}" not found')
        return self.objects[kind][name]

    def apply(self, kind: str, name: str, manifest: Object, *, manager: str, force: bool) -> Object:
        """Server-side apply. Raises Refused."""
        live = self.objects[kind].get(name)
        uid = manifest.get("metadata", {}).get("uid")
        if uid and (live is None or live["metadata"]["uid"] != uid):
            raise Refused(409, f"Precondition failed: UID in precondition: {uid}")
        version = manifest.get("metadata", {}).get("resourceVersion")
        if version and (live is None or live["metadata"]["resourceVersion"] != version):
            raise Refused(409, "the object has been modified; please apply your changes to the latest version")
        self.validate(manifest)
        if live is None:
            self._managed.pop((kind, name), None)
        try:
            applied = apply(live, self._managed[kind, name], manifest, manager=manager, force=force)
        except ConflictError as error:
            raise Refused(409, str(error)) from error
        problem = problem_of(kind, applied)
        if problem:
            raise Refused(422, f"{KINDS[kind][1]} {name!r} is invalid: {problem}")
        return self.create(kind, applied) if live is None else self.put(kind, applied)

    def patch(self, kind: str, name: str, patch: Mapping[str, Any]) -> Object:
        """Merge. Raises Refused."""
        return self.put(kind, merge_patch(self.get(kind, name), patch))

    def patch_status(self, kind: str, name: str, patch: Mapping[str, Any]) -> Object:
        """Merge into the status and nothing else. Raises Refused: 409 for an object of another uid."""
        item = self.get(kind, name)
        uid = patch.get("metadata", {}).get("uid", item["metadata"]["uid"])
        if uid != item["metadata"]["uid"]:
            raise Refused(409, f"Precondition failed: UID in precondition: {uid}")
        status = merge_patch(item.get("status", {}), patch.get("status", {}))
        return self.put(kind, {**item, "status": status})

    def delete(self, kind: str, name: str, grace_seconds: int | None = None) -> None:
        """Delete, or, for a Pod that a kubelet runs, say that it shall end. Raises Refused 404."""
        item = self.get(kind, name)
        metadata = item["metadata"]
        if kind != "pods" or grace_seconds == 0 or not item["spec"].get("nodeName"):
            self.remove(kind, name)
            return
        grace = item["spec"].get("terminationGracePeriodSeconds", 30) if grace_seconds is None else grace_seconds
        ends_at = self.clock.monotonic() + grace
        if "deletionTimestamp" in metadata and metadata["endsAt"] <= ends_at:
            return
        changed = {"deletionTimestamp": self.stamp(), "deletionGracePeriodSeconds": grace, "endsAt": ends_at}
        self.put(kind, {**item, "metadata": {**metadata, **changed}})

    async def watch(self, kind: str, selector: Mapping[str, str], version: int) -> AsyncIterator[tuple[str, Object]]:
        """Changes after `version`, until `break_watches`. Raises Refused 410 where they are no longer known."""
        if version < self._oldest:
            raise Refused(410, f"too old resource version: {version} ({self._oldest})")
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        for event in self._events:
            if event.version > version:
                queue.put_nowait(event)
        self._watches.add(queue)
        known = {item["metadata"]["name"] for item in self.list(kind, selector)}
        try:
            while (told := await queue.get()) is not None:
                if told.kind not in (kind, ""):
                    continue
                name = told.item["metadata"].get("name", "")
                if told.kind and not matches(told.item, selector) and name not in known:
                    continue
                known.add(name)
                yield told.change, told.item
        finally:
            self._watches.discard(queue)

    # What controllers and tests do.

    def create(self, kind: str, item: Object) -> Object:
        """Store a new object."""
        api_version, name = KINDS[kind][0], item["metadata"]["name"]
        if name in self.objects[kind]:
            raise Refused(409, f'{kind} "{name}" already exists')
        metadata = {
            **item["metadata"],
            "uid": str(uuid.uuid4()),
            "generation": 1,
            "creationTimestamp": self.stamp(),
            "createdAt": self.clock.monotonic(),
        }
        fresh = {"apiVersion": api_version, "kind": KINDS[kind][1], **item, "metadata": metadata}
        return self._store(kind, fresh, "ADDED")

    def put(self, kind: str, item: Object) -> Object:
        """Store an object's next state; nothing happens where nothing differs."""
        old = self.objects[kind][item["metadata"]["name"]]
        if item == old:
            return old
        item = {**item, "metadata": {**item["metadata"]}}
        if item.get("spec") != old.get("spec"):
            item["metadata"]["generation"] = old["metadata"]["generation"] + 1
        return self._store(kind, item, "MODIFIED")

    def update(self, kind: str, item: Object, *, manager: str) -> Object:
        """Store an object's next state as a client of that name, who owns then what differs."""
        name = item["metadata"]["name"]
        take_over(self.objects[kind][name], item, self._managed[kind, name], manager=manager)
        return self.put(kind, item)

    def set_status(self, kind: str, name: str, status: Mapping[str, Any]) -> None:
        """Change members of an object's status."""
        item = self.objects[kind][name]
        self.put(kind, {**item, "status": {**item.get("status", {}), **status}})

    def remove(self, kind: str, name: str) -> None:
        """Take an object away."""
        item = self.objects[kind].pop(name)
        item = {**item, "metadata": {**item["metadata"]}}
        self._managed.pop((kind, name), None)
        self._publish(kind, item, "DELETED")

    def forget_events(self) -> None:
        """What happened before now can no longer be watched: the next watch from there is too old."""
        self._events.clear()
        self._oldest = self.version

    def break_watches(self) -> None:
        """End every watch, as a restarted API server does."""
        for queue in self._watches:
            queue.put_nowait(None)

    def bookmark(self) -> None:
        """Tell watches how far they have come, though nothing happened to what they watch."""
        item = {"metadata": {"resourceVersion": str(self.version)}}
        for queue in self._watches:
            queue.put_nowait(Event(self.version, "", "BOOKMARK", item))

    def stamp(self) -> str:
        """The time, as objects carry it."""
        return datetime.fromtimestamp(self.clock.unix(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _store(self, kind: str, item: Object, change: str) -> Object:
        self.objects[kind][item["metadata"]["name"]] = item
        self._publish(kind, item, change)
        return self.objects[kind][item["metadata"]["name"]]

    def _publish(self, kind: str, item: Object, change: str) -> None:
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        event = Event(self.version, kind, change, item)
        if len(self._events) == MAX_EVENTS:
            self._oldest = self._events[0].version
        self._events.append(event)
        for queue in self._watches:
            queue.put_nowait(event)


def matches(item: Mapping[str, Any], selector: Mapping[str, str]) -> bool:
    """Whether an object carries all these labels."""
    labels = item["metadata"].get("labels", {})
    return all(labels.get(key) == value for key, value in selector.items())


def problem_of(kind: str, item: Mapping[str, Any]) -> str:
    """What Kubernetes would say of it, for the few rules that tests rely on."""
    if kind == "leaderworkersets":
        return _problem_of_set(item)
    if kind not in ("deployments", "daemonsets", "jobs"):
        return ""
    spec = item.get("spec", {})
    template = spec.get("template", {})
    if not template.get("spec", {}).get("containers"):
        return "spec.template.spec.containers: Required value"
    if kind == "jobs":
        never = template["spec"].get("restartPolicy") in ("Never", "OnFailure")
        return "" if never else 'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'
    wanted = spec.get("selector", {}).get("matchLabels", {})
    if not wanted or not wanted.items() <= template.get("metadata", {}).get("labels", {}).items():
        return "spec.template.metadata.labels: `selector` does not match template `labels`"
    if spec.get("replicas", 1) < 0:
        return "spec.replicas: must be greater than or equal to 0"
    return ""


def _problem_of_set(item: Mapping[str, Any]) -> str:
    """What the webhook of LeaderWorkerSet would say."""
    group = item.get("spec", {}).get("leaderWorkerTemplate", {})
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", item["metadata"]["name"]):
        return "metadata.name: a DNS-1035 label must start with an alphabetic character"
    if group.get("size", 1) < 1:
        return "spec.size: size must be equal or greater than 1"
    if not group.get("workerTemplate", {}).get("spec", {}).get("containers"):
        return "spec.leaderWorkerTemplate.workerTemplate.spec.containers: Required value"
    return ""
