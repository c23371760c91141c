"""What is seen of Jobs and DaemonSets that prepare for replicas, and what to write about them now. Pure."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from swell.adapters.providers.kubernetes import names, objects
from swell.adapters.providers.kubernetes.api import Kind
from swell.adapters.providers.kubernetes.pods import FETCH
from swell.adapters.providers.kubernetes.prefetch_manifests import ASLEEP, IMAGE, KEPT_SECONDS, MODEL, Wanted
from swell.adapters.providers.kubernetes.seen import MAX_WAITING_CHARACTERS, waiting_for
from swell.ports.provider import Preparation, Progress

JOBS_AT_ONCE = 8  # that have not ended, where no queue says how many
CLOCK_SECONDS = 3600.0  # that a Job which goes by itself may seem to go too soon
RETRY_SECONDS = 3600.0  # from a Job that failed to the next one
ITS_PODS = "Pods of its own"  # what a DaemonSet waits for that was just written

Key = tuple[Kind, str]
"""Kind and name of an object."""


@dataclass(frozen=True, slots=True)
class WorkSeen:
    """One Job or DaemonSet. Of a DaemonSet, on how many nodes it shall be and is."""

    kind: Kind
    name: str
    digest: str
    progress: Progress
    says: str = ""
    nodes: int = 0
    ready: int = 0
    ended_at: float | None = None  # of a Job, in Unix time as the cluster has it


@dataclass(frozen=True, slots=True)
class PodSaid:
    """What one of their Pods waits for, or why it ended; empty where it does what it should."""

    of: str  # name of the Job or DaemonSet
    is_running: bool
    is_failed: bool
    words: str


@dataclass
class Remembered:
    """What is no longer to be seen: when, by a monotonic clock, Jobs were made here and had ended, and how."""

    made: dict[str, float] = field(default_factory=dict)
    done: dict[str, float] = field(default_factory=dict)
    failed: dict[str, float] = field(default_factory=dict)
    not_before: dict[Key, float] = field(default_factory=dict)  # of writes that failed
    failures: dict[Key, int] = field(default_factory=dict)  # in a row
    problems: dict[Key, str] = field(default_factory=dict)
    in_doubt: set[Key] = field(default_factory=set)  # applied, without having heard that it is there

    def forgive(self, key: Key) -> None:
        """Nothing failed: write it when it is due."""
        for each in (self.not_before, self.failures, self.problems):
            each.pop(key, None)


@dataclass(frozen=True)
class Steps:
    """What to write, deletions first. `next_at`: look again then, whatever happens."""

    deletions: tuple[Key, ...] = ()
    applies: tuple[Wanted, ...] = ()
    next_at: float = math.inf


def see_job(job: objects.Read) -> WorkSeen:
    """What matters of a Job."""
    assert isinstance(job, objects.Job)  # noqa: S101  it was decoded as one
    holds = {each.type: each for each in job.status.conditions if each.status == "True"}
    queue = job.metadata.labels.get(names.QUEUE, "")
    progress, says = Progress.WAITING, "a Pod"
    end = holds.get("Complete") or holds.get("Failed")
    if "Complete" in holds:
        progress, says = Progress.DONE, ""
    elif "Failed" in holds:
        progress, says = Progress.FAILED, f"{holds['Failed'].reason}: {holds['Failed'].message}".strip(": ")
    elif job.spec.suspend:
        says = f"the queue {queue} to admit it" if queue else "somebody to let it go on: it is suspended"
    ended_at = _moment(end.lastTransitionTime) if end is not None else None
    return WorkSeen(Kind.JOBS, job.metadata.name, _digest_of(job.metadata), progress, says, ended_at=ended_at)


def see_daemon_set(item: objects.Read) -> WorkSeen:
    """What matters of a DaemonSet."""
    assert isinstance(item, objects.DaemonSet)  # noqa: S101  it was decoded as one
    nodes, ready = item.status.desiredNumberScheduled, item.status.numberReady
    progress, says = Progress.DONE if ready >= nodes else Progress.RUNNING, f"on {ready} of {nodes} nodes"
    if item.status.observedGeneration < item.metadata.generation:
        progress, says = Progress.WAITING, ITS_PODS
    elif not nodes:
        progress, says = Progress.WAITING, "a node that it is for: there is none"
    return WorkSeen(Kind.DAEMON_SETS, item.metadata.name, _digest_of(item.metadata), progress, says, nodes, ready)


def see_prefetch_pod(pod: objects.Read) -> PodSaid:
    """What one of their Pods says."""
    assert isinstance(pod, objects.Pod)  # noqa: S101  it was decoded as one
    container = next((each for each in pod.status.containerStatuses if each.name in (FETCH, ASLEEP)), None)
    ended = container.state.terminated or container.lastState.terminated if container is not None else None
    of = pod.metadata.labels.get(names.PREPARES, "")
    if container is not None and container.state.running is not None:
        return PodSaid(of, is_running=True, is_failed=False, words="")
    if ended is not None and ended.exitCode:
        said = ended.message.strip().splitlines() or [f"it ended with code {ended.exitCode}"]
        return PodSaid(of, is_running=False, is_failed=True, words=said[-1][:MAX_WAITING_CHARACTERS])
    if pod.status.phase in ("Failed", "Succeeded"):
        words = f"{pod.status.reason}: {pod.status.message}" if pod.status.reason else ""
        failed = pod.status.phase == "Failed"
        return PodSaid(of, is_running=False, is_failed=failed, words=words[:MAX_WAITING_CHARACTERS])
    return PodSaid(of, is_running=False, is_failed=False, words=waiting_for(pod, container)[:MAX_WAITING_CHARACTERS])


def plan(
    wanted: Mapping[str, Wanted], seen: Iterable[WorkSeen], known: Remembered, queue: str, now: float, unix: float
) -> Steps:
    """What brings the cluster to what is wanted. Notes in `known` which Jobs have ended, and when."""
    there = {(each.kind, each.name): each for each in seen}
    for each in there.values():
        if each.kind is Kind.JOBS and each.progress in (Progress.DONE, Progress.FAILED):
            ended = known.done if each.progress is Progress.DONE else known.failed
            ended.setdefault(each.name, _ended_at(each, known, now, unix))
    known.failed = {name: at for name, at in known.failed.items() if (Kind.JOBS, name) in there}
    # What is wanted again later may have gone from where it was fetched to.
    known.done = {name: at for name, at in known.done.items() if name in wanted}
    known.made = {name: at for name, at in known.made.items() if name in wanted}
    deletions, moments = [], list[float]()
    for key, each in there.items():
        again_at = known.failed.get(each.name, math.inf) + RETRY_SECONDS
        if each.name not in wanted or again_at <= now:
            deletions.append(key)
        else:
            moments.append(again_at)
    deletions += [key for key in sorted(known.in_doubt) if key not in there and key[1] not in wanted]
    running = sum(each.kind is Kind.JOBS and each.progress in _UNDER_WAY for each in there.values())
    room = math.inf if queue else JOBS_AT_ONCE - running
    applies = []
    for each_wanted in wanted.values():
        is_job, key = each_wanted.kind is Kind.JOBS, (each_wanted.kind, each_wanted.name)
        if not _is_due(each_wanted, there.get(key), known, now):
            if key in there and key not in deletions:  # whatever was answered, it is there
                known.forgive(key)
                known.in_doubt.discard(key)
            continue
        if is_job and room <= 0:
            continue
        room -= is_job
        applies.append(each_wanted)
    held = {key: at for key, at in known.not_before.items() if at > now}
    return Steps(
        tuple(key for key in deletions if key not in held),
        tuple(each for each in applies if (each.kind, each.name) not in held),
        min((math.inf, *moments, *held.values())),
    )


def _ended_at(job: WorkSeen, known: Remembered, now: float, unix: float) -> float:
    """By the monotonic clock. Whatever the cluster's clock says, it was after this server made it, and not later."""
    ago = max(0.0, unix - job.ended_at) if job.ended_at is not None else 0.0
    return max(now - ago, known.made.get(job.name, -math.inf))


_UNDER_WAY = (Progress.WAITING, Progress.RUNNING)


def _is_due(wanted: Wanted, seen: WorkSeen | None, known: Remembered, now: float) -> bool:
    """Whether it is to be applied. A Job that has done its work goes by itself; one that goes sooner was deleted."""
    if seen is not None:
        return wanted.kind is Kind.DAEMON_SETS and seen.digest != wanted.digest
    done_at = known.done.get(wanted.name)
    return done_at is None or now < done_at + KEPT_SECONDS - CLOCK_SECONDS


def rows(
    wanted: Mapping[str, Wanted],
    seen: Iterable[WorkSeen],
    pods: Iterable[PodSaid],
    known: Remembered,
    denied: Mapping[Kind, str],
) -> list[Preparation]:
    """How everything fares that is there or shall be. Of kinds that may not be seen, `denied` has the reason."""
    there = {each.name: each for each in seen}
    said: dict[str, list[PodSaid]] = {}
    for pod in pods:
        said.setdefault(pod.of, []).append(pod)
    found = []
    for name, each in wanted.items():
        progress, says = _fares(name, there.get(name), said.get(name, []), known)
        if problem := denied.get(each.kind, ""):
            progress, says = Progress.FAILED, _told(problem)
        elif problem := known.problems.get((each.kind, name), ""):
            says = problem
        found.append(Preparation(each.what, each.subject, each.models, progress, says))
    for kind, name in dict.fromkeys([*((left.kind, name) for name, left in there.items()), *sorted(known.in_doubt)]):
        if name not in wanted:
            found.append(Preparation(_WHAT[kind], name, (), Progress.LEAVING, known.problems.get((kind, name), "")))
    for kind, problem in denied.items():
        # Pods may always be seen: those of what may not be say that it is there.
        for name in said.keys() - wanted.keys() - there.keys():
            if name.startswith(f"{_WHAT[kind]}-"):
                found.append(Preparation(_WHAT[kind], name, (), Progress.LEAVING, _told(problem)))
    return found


_WHAT = {Kind.JOBS: MODEL, Kind.DAEMON_SETS: IMAGE}


def _told(problem: str) -> str:
    return f"the cluster's API says: {problem}"


def _fares(name: str, seen: WorkSeen | None, pods: list[PodSaid], known: Remembered) -> tuple[Progress, str]:
    if seen is None:
        return (Progress.DONE, "") if name in known.done else (Progress.WAITING, "")
    words = next((pod.words for pod in pods if pod.words and pod.is_failed), "")
    waits = next((pod.words for pod in pods if pod.words and not pod.is_failed), "")
    if seen.kind is Kind.DAEMON_SETS:
        trouble = words or waits
        is_told = trouble and seen.progress is not Progress.DONE
        return seen.progress, f"{seen.says}; one waits for {trouble}" if is_told else seen.says
    if seen.progress is Progress.FAILED:
        return seen.progress, words or seen.says
    if seen.progress is Progress.WAITING and any(pod.is_running for pod in pods):
        return Progress.RUNNING, f"tried again after: {words}" if words else ""
    if seen.progress is Progress.WAITING and (waits or words):
        return seen.progress, waits or f"to be tried again after: {words}"
    return seen.progress, seen.says


def _moment(text: str | None) -> float | None:
    """Unix time of a moment as Kubernetes writes it."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        return None


def _digest_of(metadata: objects.Meta) -> str:
    return metadata.annotations.get(names.DIGEST, "")
