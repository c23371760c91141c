"""The fake cluster's API over HTTP, on loopback: as much of Kubernetes' as a client of four kinds uses."""

import asyncio
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from swell.testing.cluster.objects import FakeCluster, Object, Refused

MAX_BODY_BYTES = 4 * 1024 * 1024
_URL = re.compile(
    r"/(?:api/v1|apis/[^/]+/v1(?:alpha1)?)(?:/namespaces/(?P<namespace>[^/]+))?/(?P<kind>[a-z]+)"
    r"(?:/(?P<name>[^/]+))?(?:(?P<log>/log)|(?P<status>/status))?"
)
_APPLY, _MERGE = "application/apply-patch+yaml", "application/merge-patch+json"


class ApiServer:
    """Serves a `FakeCluster`. `async with` it; `url` is where, `token` what clients must show."""

    token = "fake-token"  # noqa: S105  nothing real is behind it

    def __init__(self, cluster: FakeCluster, namespace: str = "models") -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.url = ""
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._rest: dict[str, tuple[int, list[Object]]] = {}  # of lists that are read page by page
        self._tokens = 0

    async def __aenter__(self) -> "ApiServer":
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._exchange(reader, writer):
                    pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request, *lines = head.split("\r\n")
        method, target, _ = request.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        length = int(headers.get("content-length", "0"))
        body = await reader.readexactly(min(length, MAX_BODY_BYTES))
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query))
        try:
            if headers.get("authorization") != f"Bearer {self.token}":
                raise Refused(401, "Unauthorized")
            found = _URL.fullmatch(unquote(parts.path))
            if found is None or found["namespace"] not in (None, self.namespace):
                raise Refused(404, "the server could not find the requested resource")
            if query.get("watch") == "true":
                return await self._watch(writer, found["kind"], query)
            answer = self._answer(method, found, query, headers.get("content-type", ""), body)
        except Refused as refused:
            _respond(writer, refused.status, _status(refused), refused.retry_after)
        else:
            _respond(writer, 200, answer)
        await writer.drain()
        return True

    def _answer(
        self, method: str, found: "re.Match[str]", query: Mapping[str, str], content_type: str, body: bytes
    ) -> Any:
        cluster, kind, name = self.cluster, found["kind"], found["name"]
        verb = "list" if method == "GET" and not name else "log" if found["log"] else method.lower()
        cluster.request(verb, kind)
        match verb:
            case "list":
                return self._page(kind, query)
            case "log":
                cluster.get(kind, name)
                return cluster.logs.get(name, "")
            case "get":
                return cluster.get(kind, name)
            case "patch" if content_type == _APPLY:
                force = query.get("force") == "true"
                return cluster.apply(kind, name, json.loads(body), manager=query["fieldManager"], force=force)
            case "patch" if found["status"]:
                return cluster.patch_status(kind, name, json.loads(body))
            case "patch" if content_type == _MERGE:
                return cluster.patch(kind, name, json.loads(body))
            case "delete":
                grace = query.get("gracePeriodSeconds")
                cluster.delete(kind, name, None if grace is None else int(grace))
                return {"kind": "Status", "status": "Success"}
        raise Refused(415, f"the body's type {content_type!r} is not known")

    def _page(self, kind: str, query: Mapping[str, str]) -> Any:
        """Later pages are of the moment of the first one."""
        token = query.get("continue", "")
        if token and token not in self._rest:
            raise Refused(410, "The provided continue parameter is too old")
        if token:
            version, rest = self._rest.pop(token)
        else:
            version, rest = self.cluster.version, self.cluster.list(kind, _selector(query))
        most = int(query.get("limit", "0")) or len(rest) or 1
        metadata = {"resourceVersion": str(version)}
        if len(rest) > most:
            self._tokens += 1
            metadata["continue"] = str(self._tokens)
            self._rest[metadata["continue"]] = version, rest[most:]
        return {"kind": "List", "metadata": metadata, "items": rest[:most]}

    async def _watch(self, writer: asyncio.StreamWriter, kind: str, query: Mapping[str, str]) -> bool:
        self.cluster.request("watch", kind)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            async for change, item in self.cluster.watch(kind, _selector(query), int(query["resourceVersion"])):
                if change != "BOOKMARK" or query.get("allowWatchBookmarks") == "true":
                    _chunk(writer, {"type": change, "object": item})
                    await writer.drain()
        except Refused as refused:
            _chunk(writer, {"type": "ERROR", "object": _status(refused)})
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


def _selector(query: Mapping[str, str]) -> dict[str, str]:
    text = query.get("labelSelector", "")
    return dict(pair.split("=", 1) for pair in text.split(",") if pair)


def _status(refused: Refused) -> dict[str, Any]:
    return {"kind": "Status", "status": "Failure", "code": refused.status, "message": refused.message}


def _chunk(writer: asyncio.StreamWriter, value: Any) -> None:
    data = msgspec.json.encode(value) + b"\n"
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))


def _respond(writer: asyncio.StreamWriter, status: int, answer: Any, retry_after: int = 0) -> None:
    kind, data = ("text/plain", answer.encode()) if isinstance(answer, str) else ("application/json", _encoded(answer))
    head = f"HTTP/1.1 {status} As-Said\r\ncontent-type: {kind}\r\ncontent-length: {len(data)}\r\n"
    head += f"retry-after: {retry_after}\r\n" if retry_after else ""
    writer.write(head.encode() + b"\r\n" + data)


def _encoded(answer: Any) -> bytes:
    return msgspec.json.encode(answer)
