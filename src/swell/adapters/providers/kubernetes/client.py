"""The cluster's API through lightkube: credentials, TLS and URLs are its own, objects are decoded into ours.

`GenericAsyncClient`, the layer beneath lightkube's `AsyncClient`, is used because that one has no way to ask a watch
for bookmarks and begins a watch that ended anew without a pause.
"""

import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx2
import msgspec
from lightkube.config.client_adapter import ConnectionParams
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.core import decoders
from lightkube.core.exceptions import ApiError, ConfigError
from lightkube.core.generic_client import GenericAsyncClient
from lightkube.core.resource import ApiInfo, GlobalResource, NamespacedResourceG, Resource, ResourceDef
from lightkube.types import PatchType

from swell.adapters.providers.kubernetes import objects
from swell.adapters.providers.kubernetes.api import UNREACHABLE, ApiProblem, Change, Kind, Page
from swell.errors import UserError
from swell.spec.custom_resources import GROUP, VERSION

REQUEST_SECONDS = 10.0
WATCH_SECONDS = 290  # then the server ends it, and it is taken up again
SILENCE_SECONDS = 330.0  # longer: a connection that is dead without having said so
PAGE_OBJECTS = 500  # of a list, some four megabytes of Pods
_VERBS = ["get", "list", "watch", "patch", "delete"]


def _info(group: str, version: str, kind: str, plural: Kind) -> ApiInfo:
    return ApiInfo(resource=ResourceDef(group, version, kind), plural=plural.value, verbs=_VERBS)


class _Pod(NamespacedResourceG, objects.Pod):
    _api_info = _info("", "v1", "Pod", Kind.PODS)


class _Deployment(NamespacedResourceG, objects.Deployment):
    _api_info = _info("apps", "v1", "Deployment", Kind.DEPLOYMENTS)


class _Node(GlobalResource, objects.Node):
    _api_info = _info("", "v1", "Node", Kind.NODES)


class _Secret(NamespacedResourceG, objects.Secret):
    _api_info = _info("", "v1", "Secret", Kind.SECRETS)


class _Budget(NamespacedResourceG, objects.Plain):
    _api_info = _info("policy", "v1", "PodDisruptionBudget", Kind.DISRUPTION_BUDGETS)


class _Certificate(NamespacedResourceG, objects.Plain):
    _api_info = _info("cert-manager.io", "v1", "Certificate", Kind.CERTIFICATES)


class _LeaderWorkerSet(NamespacedResourceG, objects.LeaderWorkerSet):
    _api_info = _info("leaderworkerset.x-k8s.io", "v1", "LeaderWorkerSet", Kind.LEADER_WORKER_SETS)


class _Job(NamespacedResourceG, objects.Job):
    _api_info = _info("batch", "v1", "Job", Kind.JOBS)


class _DaemonSet(NamespacedResourceG, objects.DaemonSet):
    _api_info = _info("apps", "v1", "DaemonSet", Kind.DAEMON_SETS)


class _Model(NamespacedResourceG, objects.Resource):
    _api_info = _info(GROUP, VERSION, "Model", Kind.MODELS)


class _Tenant(NamespacedResourceG, objects.Resource):
    _api_info = _info(GROUP, VERSION, "Tenant", Kind.TENANTS)


_RESOURCES: Mapping[Kind, type[Resource]] = {
    Kind.PODS: _Pod,
    Kind.DEPLOYMENTS: _Deployment,
    Kind.NODES: _Node,
    Kind.SECRETS: _Secret,
    Kind.DISRUPTION_BUDGETS: _Budget,
    Kind.CERTIFICATES: _Certificate,
    Kind.LEADER_WORKER_SETS: _LeaderWorkerSet,
    Kind.JOBS: _Job,
    Kind.DAEMON_SETS: _DaemonSet,
    Kind.MODELS: _Model,
    Kind.TENANTS: _Tenant,
}


def find_config(kubeconfig: str, context: str) -> SingleConfig:
    """Credentials: those of a file where one is named, else the Pod's own, else of KUBECONFIG or the usual file.

    Raises UserError where there are none.
    """
    try:
        if not kubeconfig and not context:
            found = KubeConfig.from_env().get()
        else:
            file = KubeConfig.from_file(kubeconfig or os.environ.get("KUBECONFIG", "~/.kube/config"))
            found = file.get(context or None)
        if found is None:
            raise ConfigError("it names no context")
        return found
    except (ConfigError, OSError, KeyError, TypeError, msgspec.MsgspecError) as error:
        where = kubeconfig or "the Pod's service account, KUBECONFIG or ~/.kube/config"
        raise UserError(f"no credentials for the Kubernetes cluster in {where}: {error}") from error


class LightkubeApi:
    """A namespace of a real cluster; an empty one is that of the credentials."""

    def __init__(self, config: SingleConfig, namespace: str) -> None:
        timeout = httpx2.Timeout(REQUEST_SECONDS)
        self._http = GenericAsyncClient(ConnectionParams(timeout=timeout), config, namespace=namespace or None)
        self.namespace = str(self._http.namespace)

    async def pages(self, kind: Kind, query: str) -> AsyncIterator[Page]:
        params = {"limit": str(PAGE_OBJECTS), "labelSelector": query or None}
        request = self._http.prepare_request("list", _RESOURCES[kind], params=params)
        chunks = self._http.list_chunks(request)
        while True:
            try:
                version, items = await anext(chunks)
            except StopAsyncIteration:
                return
            except Exception as error:
                raise _problem(error) from error
            yield Page(version or "", items)

    async def watch(self, kind: Kind, query: str, version: str) -> AsyncIterator[tuple[Change, objects.Read]]:
        resource = _RESOURCES[kind]
        params = {
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
            "resourceVersion": version,
            "labelSelector": query or None,
        }
        prepared = self._http.prepare_request("list", resource, watch=True, params=params)
        prepared.timeout = httpx2.Timeout(REQUEST_SECONDS, read=SILENCE_SECONDS)
        try:
            response = await self._http.send(self._http.build_adapter_request(prepared), stream=True)
        except Exception as error:
            raise _problem(error) from error
        try:
            if response.is_error:
                await response.aread()
            self._http.raise_for_status(response)
            async for line in response.aiter_lines():
                yield _event(line, resource)
        except ApiProblem:
            raise
        except (httpx2.HTTPError, msgspec.MsgspecError, KeyError) as error:
            raise _problem(error) from error
        finally:
            await response.aclose()

    async def apply(
        self, kind: Kind, name: str, manifest: Mapping[str, Any], *, manager: str, force: bool = True
    ) -> objects.Read:
        headers = {"Content-Type": PatchType.APPLY.value}
        params = {"fieldManager": manager, "force": "true" if force else "false"}
        applied: objects.Read = await self._request("patch", kind, name, obj=manifest, headers=headers, params=params)
        return applied

    async def annotate(self, pod: str, patch: Mapping[str, Any]) -> None:
        await self._request("patch", Kind.PODS, pod, obj=patch, headers={"Content-Type": PatchType.MERGE.value})

    async def write_status(self, kind: Kind, name: str, uid: str, status: Mapping[str, Any]) -> None:
        request = self._http.prepare_request(
            "patch",
            _RESOURCES[kind],
            obj={"metadata": {"uid": uid}, "status": status},
            name=name,
            headers={"Content-Type": PatchType.MERGE.value},
        )
        request.url += "/status"
        try:
            self._http.raise_for_status(await self._http.send(self._http.build_adapter_request(request)))
        except Exception as error:
            raise _problem(error) from error

    async def delete(self, kind: Kind, name: str, *, grace_seconds: int | None = None) -> None:
        seconds = None if grace_seconds is None else str(grace_seconds)
        params = {"gracePeriodSeconds": seconds, "propagationPolicy": "Background"}
        await self._request("delete", kind, name, params=params)

    async def read_log(self, pod: str, container: str, *, max_bytes: int, lines: int) -> str:
        request = self._http.prepare_request("get", _Pod, name=pod)
        request.url += "/log"
        request.params |= {"container": container, "tailLines": str(lines), "limitBytes": str(max_bytes)}
        try:
            response = await self._http.send(self._http.build_adapter_request(request))
            self._http.raise_for_status(response)
        except Exception as error:
            raise _problem(error) from error
        return str(response.text)

    async def close(self) -> None:
        await self._http.close()

    async def _request(self, method: str, kind: Kind, name: str, **options: Any) -> Any:
        try:
            return await self._http.request(method, _RESOURCES[kind], name=name, **options)
        except Exception as error:
            raise _problem(error) from error


def _event(line: str, resource: type[Resource]) -> tuple[Change, objects.Read]:
    event = decoders.decode_watch_event(line.encode())
    if event.type == "ERROR":
        status = decoders.decode_status(event.object)
        raise ApiProblem(status.code or UNREACHABLE, status.message or "the watch failed")
    return Change(event.type), decoders.decode_object(event.object, resource)


def _problem(error: Exception) -> ApiProblem:
    """The vendor's error as ours. Raises what is no answer of a server and no failure to reach one."""
    if isinstance(error, ApiError):
        code = error.status.code or (error.response.status_code if error.response is not None else UNREACHABLE)
        message = error.status.message or error.status.reason or f"status {code}"
        return ApiProblem(code, message, _retry_after(error))
    if isinstance(error, httpx2.HTTPStatusError):
        return ApiProblem(error.response.status_code, f"status {error.response.status_code}", _retry_after(error))
    if isinstance(error, httpx2.HTTPError | msgspec.MsgspecError | ConfigError | OSError | KeyError):
        return ApiProblem(UNREACHABLE, f"{type(error).__name__}: {error}".rstrip(": "))
    raise error


def _retry_after(error: httpx2.HTTPStatusError) -> float:
    """Seconds that the server asks to wait; it writes no dates here."""
    if error.response is None:
        return 0.0
    try:
        return max(0.0, float(error.response.headers.get("retry-after", "0")))
    except ValueError:
        return 0.0
