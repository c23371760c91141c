"""What objects in a cluster are called and marked with.

A workload and its fingerprint become one Deployment; a replica over several nodes, one LeaderWorkerSet. Everything that
Swell makes carries four labels: who made it, for which installation, of which workload, with which fingerprint; by them
it is watched, found again and cleared away. `.internal` is a domain that nobody can own, so no label of ours is ever
somebody else's.
"""

import hashlib
import re
from collections.abc import Mapping

DOMAIN = "swell.internal"
MANAGED_BY = "app.kubernetes.io/managed-by"
COMPONENT = "app.kubernetes.io/component"
MANAGER = "swell"  # also the field manager of what is made once
SCALE_MANAGER = "swell-scale"  # the field manager of what changes: how many, and for whom
REPLICA = "replica"
TLS = "tls"  # component of Secrets and Certificates for TLS between gateways and replicas
PREFETCH = "prefetch"

INSTALLATION = f"{DOMAIN}/installation"
WORKLOAD = f"{DOMAIN}/workload"
FINGERPRINT = f"{DOMAIN}/fingerprint"
PLACE = f"{DOMAIN}/place"
PREPARES = f"{DOMAIN}/prepares"  # label of a Pod: the Job or DaemonSet that it is of
DIGEST = f"{DOMAIN}/digest"  # annotation: of what was applied
CHILDREN = f"{DOMAIN}/children"  # annotation of a Deployment: the ids of the replicas that it is to run, one a line
CHILD = f"{DOMAIN}/child"  # annotation of a Pod: which of them it is; of a LeaderWorkerSet and its Secret, too
RUN = f"{DOMAIN}/run"  # annotation of a Pod: in which run of its container
FULL_NAME = f"{DOMAIN}/workload-name"  # annotation: the workload as people write it
ACCELERATOR = f"{DOMAIN}/accelerator"  # annotation of a Pod: what it asks for, as Swell names it
AUTHORITY = f"{DOMAIN}/authority"  # annotation of a Deployment: whose certificates its Pods show; none: plaintext
ISSUED_BY = f"{DOMAIN}/issued-by"  # annotation of a Secret: a digest of the authority whose certificate it holds
RENEW_AT = f"{DOMAIN}/renew-at"  # annotation of a Secret: when its certificate is to be replaced, in Unix time
SET_NAME = "leaderworkerset.sigs.k8s.io/name"  # label of a Pod, from that controller: its LeaderWorkerSet
SET_INDEX = "leaderworkerset.sigs.k8s.io/worker-index"  # and which of its Pods it is: 0 leads
SET_SIZE = "leaderworkerset.sigs.k8s.io/size"  # annotation of a Pod, from that controller: of how many it is one
SET_EXCLUSIVE = "leaderworkerset.sigs.k8s.io/exclusive-topology"  # annotation: nodes of one value of this label, alone
QUEUE = "kueue.x-k8s.io/queue-name"  # Kueue's own
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"

MAX_LABEL_LENGTH = 63
_STEM_LENGTH = 30  # leaves room in 63 for a digest, the ReplicaSet's and the Pod's endings
_DIGEST_LENGTH = 10
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def label_value(text: str) -> str:
    """`text` where it may be a label's value as it is, else a readable part of it and a digest."""
    if _LABEL.fullmatch(text):
        return text
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:_STEM_LENGTH].strip("._-")
    return f"{stem}-{_digest(text)}".lstrip("-")


def object_name(workload: str, fingerprint: str = "") -> str:
    """The name of a workload's objects: part of its name, and a digest that tells it from every other."""
    stem = re.sub(r"[^a-z0-9]+", "-", workload.lower())[:_STEM_LENGTH].strip("-")
    return f"{stem or 'model'}-{_digest(workload, fingerprint)}"


def certificate_name(deployment: str) -> str:
    """The Secret with the certificate of a Deployment's Pods, and what asks an issuer for it."""
    return f"{deployment}-tls"


def authority_name(installation: str) -> str:
    """The Secret with an installation's own authority."""
    return f"swell-authority-{_digest(installation)}"


def gateways_name(installation: str, authority: str) -> str:
    """The Secret with what an installation's gateways show, where an issuer makes it."""
    return f"swell-gateways-{_digest(installation, authority)}"


def set_name(workload: str, child_id: str) -> str:
    """The name of a replica's LeaderWorkerSet: that of a Service too, and so it begins with a letter."""
    name = object_name(workload, child_id)
    return name if name[0].isalpha() else f"model-{name}"


def selector(installation: str) -> dict[str, str]:
    """The labels of everything of an installation."""
    return {MANAGED_BY: MANAGER, INSTALLATION: label_value(installation)}


def replica_selector(installation: str) -> dict[str, str]:
    """The labels of what runs an installation's replicas."""
    return {**selector(installation), COMPONENT: REPLICA}


def prefetch_selector(installation: str) -> dict[str, str]:
    """The labels of what is got ready ahead of replicas, whatever the place is or was called."""
    return {**selector(installation), COMPONENT: PREFETCH}


def prefetch_labels(installation: str, place: str) -> dict[str, str]:
    """The same of what is got ready by the place of that name."""
    return {**prefetch_selector(installation), PLACE: label_value(place)}


def prefetch_name(what: str, digest: str) -> str:
    """The name of a Job or DaemonSet, from what tells it from every other."""
    return f"{what}-{_digest(digest)}"


def labels(installation: str, workload: str, fingerprint: str = "") -> dict[str, str]:
    """The labels of a workload's objects; without a fingerprint, those that all its fingerprints share."""
    shared = {**selector(installation), WORKLOAD: label_value(workload)}
    return {**shared, FINGERPRINT: label_value(fingerprint)} if fingerprint else shared


def group_key(carried: Mapping[str, str]) -> str:
    """What objects of one workload and fingerprint have in common, from their labels."""
    return f"{carried.get(WORKLOAD, '')}/{carried.get(FINGERPRINT, '')}"


def as_query(pairs: dict[str, str]) -> str:
    """Labels as a selector in a request's query."""
    return ",".join(f"{key}={value}" for key, value in pairs.items())


def _digest(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_LENGTH]
