"""What kubelets do: run what was put on their nodes, tell how it fares, and end it.

Faults, to be set by tests: images in `pulling` do not come, nodes in `lost` do nothing; and by what Pods carry in the
label `fault_label`: `stubborn` containers end only when killed, `failing` ones end by themselves with exit code 1 as
soon as they run, `unready` ones run and are not ready. A container that is to run once (`restartPolicy: Never`) ends
well as soon as it has run, unless its command holds a word of `lasting`, or of `refused`, which says its last words.
"""

from collections.abc import Mapping
from typing import Any

from swell.testing.cluster.objects import FakeCluster, Object

SIGKILL_CODE, SIGTERM_CODE = 137, 143
RESTART_SECONDS = 10.0  # of back-off, after the first restart, which comes at once; doubled each time
MAX_RESTART_SECONDS = 300.0


class Kubelet:
    """All nodes' kubelets."""

    def __init__(self, cluster: FakeCluster, fault_label: str) -> None:
        self.cluster = cluster
        self.fault_label = fault_label
        self.lost: set[str] = set()  # nodes
        self.pulling: set[str] = set()  # images
        self.stubborn: set[str] = set()
        self.failing: set[str] = set()
        self.unready: set[str] = set()
        self.lasting: set[str] = set()
        self.refused: dict[str, str] = {}
        self.restarts = True  # whether containers that ended are started again
        self.address_of = _address_of  # of the so-manieth Pod
        self._addresses = 0

    def step(self) -> None:
        """Do what is to be done by now on every node."""
        for name, pod in list(self.cluster.objects["pods"].items()):
            node = pod["spec"].get("nodeName")
            if not node or node in self.lost:
                continue
            if "deletionTimestamp" in pod["metadata"]:
                self._end(name, pod)
            elif pod["status"]["phase"] not in ("Failed", "Succeeded"):
                self._run(name, pod)

    def crash(self, name: str, exit_code: int = SIGKILL_CODE) -> None:
        """End a Pod's container, as a fault of its own would."""
        pod = self.cluster.get("pods", name)
        self._tell(name, pod, self._ended(pod, exit_code, self.cluster.logs.get(name, "")), ready=False)

    def fail(self, name: str, reason: str) -> None:
        """Put an end to a whole Pod, as an eviction for want of memory does."""
        pod = self.cluster.get("pods", name)
        status = self._ended(pod, SIGKILL_CODE, "")
        self._tell(name, pod, status, ready=False)
        self.cluster.set_status("pods", name, {"phase": "Failed", "reason": reason, "message": "The node was low."})

    def _is(self, pod: Object, named: set[str]) -> bool:
        return pod["metadata"]["labels"].get(self.fault_label, "") in named

    def _run(self, name: str, pod: Object) -> None:
        container = pod["spec"]["containers"][0]
        statuses = pod["status"].get("containerStatuses", [])
        now = self.cluster.clock.monotonic()
        if not statuses and not self._has_secrets(pod):
            return  # what it mounts is not there yet
        if not statuses:
            if container["image"] in self.pulling:
                state = {"waiting": {"reason": "ImagePullBackOff", "message": f"Back-off pulling {container['image']}"}}
                self._tell(name, pod, _status(container, state, 0), ready=False)
                return
            self._begin(name, pod, 0, {})
            return
        (status,) = statuses
        if pod["spec"].get("restartPolicy") == "Never":
            self._run_once(name, pod, status)
        elif "running" in status["state"]:
            self._tell(name, pod, status, ready=not self._is(pod, self.unready))
        elif "waiting" in status["state"] and status["restartCount"] == 0 and not status["lastState"]:
            if container["image"] not in self.pulling:
                self._begin(name, pod, 0, {})
        elif self.restarts:
            self._restart(name, pod, status, now)

    def _has_secrets(self, pod: Object) -> bool:
        volumes = pod["spec"].get("volumes", [])
        wanted = {each["secret"]["secretName"] for each in volumes if "secret" in each}
        return wanted <= self.cluster.objects["secrets"].keys()

    def _run_once(self, name: str, pod: Object, status: Mapping[str, Any]) -> None:
        container = pod["spec"]["containers"][0]
        words = container.get("command", [])
        if "waiting" in status["state"]:
            if container["image"] not in self.pulling:
                self._begin(name, pod, 0, {})
        elif not self.lasting & set(words):
            said = next((said for word, said in self.refused.items() if word in words), None)
            self._tell(name, pod, self._ended(pod, 0 if said is None else 3, said or ""), ready=False)
            self.cluster.set_status("pods", name, {"phase": "Succeeded" if said is None else "Failed"})

    def _restart(self, name: str, pod: Object, status: Mapping[str, Any], now: float) -> None:
        ended = status["state"].get("terminated") or status["lastState"]["terminated"]
        count = status["restartCount"]
        wait = 0.0 if count == 0 else min(MAX_RESTART_SECONDS, RESTART_SECONDS * 2 ** (count - 1))
        if now >= ended["endedAt"] + wait:
            self._begin(name, pod, count + 1, {"terminated": ended})
        elif "terminated" in status["state"]:
            message = f"back-off {wait:g}s restarting failed container"
            waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
            again = {**status, "state": waiting, "lastState": {"terminated": ended}}
            self._tell(name, pod, again, ready=False)

    def _begin(self, name: str, pod: Object, restarts: int, last: Mapping[str, Any]) -> None:
        if not pod["status"].get("podIP"):
            self._addresses += 1
            address = self.address_of(self._addresses)
            self.cluster.set_status("pods", name, {"podIP": address, "phase": "Running"})
            pod = self.cluster.get("pods", name)
        self.cluster.logs[name] = "steady\n"
        running = {"running": {"startedAt": self.cluster.stamp()}}
        status = {**_status(pod["spec"]["containers"][0], running, restarts), "lastState": dict(last)}
        self._tell(name, pod, status, ready=not self._is(pod, self.unready))
        if self._is(pod, self.failing):
            self.crash(name, 1)

    def _end(self, name: str, pod: Object) -> None:
        """SIGTERM, which most obey; what is left at the end of the grace is killed."""
        statuses = pod["status"].get("containerStatuses", [])
        if statuses and "running" in statuses[0]["state"]:
            is_stubborn = self._is(pod, self.stubborn)
            if is_stubborn and self.cluster.clock.monotonic() < pod["metadata"]["endsAt"]:
                return
            code = SIGKILL_CODE if is_stubborn else SIGTERM_CODE
            self._tell(name, pod, self._ended(pod, code, ""), ready=False)
        self.cluster.remove("pods", name)

    def _tell(self, name: str, pod: Object, status: Mapping[str, Any], *, ready: bool) -> None:
        conditions = [each for each in pod["status"].get("conditions", []) if each["type"] != "Ready"]
        told = {**status, "ready": ready, "lastState": status.get("lastState", {})}
        changed: dict[str, Any] = {
            "containerStatuses": [told],
            "conditions": [*conditions, condition("Ready", "True" if ready else "False")],
        }
        if ready and not has_condition(pod, "Ready"):
            changed["readyAt"] = self.cluster.clock.monotonic()
        self.cluster.set_status("pods", name, changed)

    def _ended(self, pod: Object, exit_code: int, log: str) -> dict[str, Any]:
        (status,) = pod["status"]["containerStatuses"]
        ended = {
            "exitCode": exit_code,
            "reason": "Completed" if exit_code == 0 else "Error",
            "message": log,
            "endedAt": self.cluster.clock.monotonic(),
        }
        return {**status, "state": {"terminated": ended}}


def condition(kind: str, status: str, reason: str = "", message: str = "") -> dict[str, str]:
    """A condition of an object."""
    return {"type": kind, "status": status, "reason": reason, "message": message}


def has_condition(item: Mapping[str, Any], kind: str) -> bool:
    """Whether a condition is true."""
    return any(each["type"] == kind and each["status"] == "True" for each in item["status"].get("conditions", []))


def _status(container: Mapping[str, Any], state: Mapping[str, Any], restarts: int) -> dict[str, Any]:
    return {"name": container["name"], "state": dict(state), "lastState": {}, "restartCount": restarts}


def _address_of(number: int) -> str:
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
