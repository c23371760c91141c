"""A tiny Hugging Face Hub on loopback: one repository, ranged reads, a count of what was asked."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """Serves `files` as `repository`. `promised` replaces the sums that the API tells."""

    def __init__(self, repository: str, files: dict[str, bytes], promised: dict[str, str] | None = None) -> None:
        self.repository = repository
        self.files = files
        self.promised = promised or {}
        self.downloads: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "HubServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _entries(self, name_field: str) -> list[dict[str, Any]]:
        entries = []
        for name, content in self.files.items():
            sha256 = self.promised.get(name, hashlib.sha256(content).hexdigest())
            lfs = {"oid": sha256, "sha256": sha256, "size": len(content), "pointerSize": 100}
            entries.append({"type": "file", name_field: name, "size": len(content), "oid": "a" * 40, "lfs": lfs})
        return entries

    def _handler(hub) -> type[BaseHTTPRequestHandler]:  # noqa: N805  (`self` is the request's inside)
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                """Stay silent."""

            def do_HEAD(self) -> None:
                self._answer(body=False)

            def do_GET(self) -> None:
                self._answer(body=True)

            def _answer(self, *, body: bool) -> None:
                path = self.path.partition("?")[0]
                api, files = f"/api/models/{hub.repository}", f"/{hub.repository}/resolve/{COMMIT}/"
                if path in (f"{api}/revision/main", f"{api}/revision/{COMMIT}", api):
                    listing = {"id": hub.repository, "sha": COMMIT, "siblings": hub._entries("rfilename")}
                    self._send(json.dumps(listing).encode(), body)
                elif path.startswith(f"{api}/tree/"):
                    self._send(json.dumps(hub._entries("path")).encode(), body)
                elif path.startswith(files) and (name := path.removeprefix(files)) in hub.files:
                    if body:
                        hub.downloads.append(name)
                    self._send(hub.files[name], body, etag=hashlib.sha256(hub.files[name]).hexdigest())
                else:
                    self._send(b"{}", body, status=404, error="RepoNotFound")

            def _send(self, content: bytes, body: bool, *, status: int = 200, etag: str = "", error: str = "") -> None:
                first, last = 0, len(content) - 1
                asked = self.headers.get("Range", "")
                if asked.startswith("bytes=") and content:
                    start, _, end = asked.removeprefix("bytes=").partition("-")
                    first, last = int(start), int(end) if end else last
                    status = 206
                self.send_response(status)
                self.send_header("Content-Length", str(last - first + 1))
                self.send_header("Content-Type", "application/json")
                if status == 206:
                    self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
                if etag:
                    self.send_header("ETag", f'"{etag}"')
                    self.send_header("X-Repo-Commit", COMMIT)
                if error:
                    self.send_header("X-Error-Code", error)
                self.end_headers()
                if body:
                    self.wfile.write(content[first : last + 1])

        return Handler
