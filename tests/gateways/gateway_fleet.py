"""A real server without workers, and real gateways of it."""

import http.client
import json
from dataclasses import dataclass
from typing import Any

from gateway_process import GatewayProcess
from swell_process import SwellProcess

SPEC = """
models:
  - {{name: m, engine: external, endpoints: ["{url}"]}}
server:
  workers: 0
  gateways: {{port: {port}}}
"""


@dataclass
class Fleet:
    """A server and its gateways, which serve the same keys."""

    server: SwellProcess
    gateways: list[GatewayProcess]
    port: int  # where gateways reach the server

    def at(
        self, gateway: int, method: str, path: str, body: dict[str, Any] | None = None, **more: str
    ) -> tuple[int, bytes]:
        """One request to that gateway, with `more` headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.gateways[gateway].port, timeout=30)
        headers = {"authorization": f"Bearer {self.server.key}", "content-type": "application/json", **more}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def chat(self, gateway: int) -> int:
        """The status of a short chat."""
        body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
        return self.at(gateway, "POST", "/v1/chat/completions", body)[0]

    def rows(self) -> list[dict[str, Any]]:
        """The ledger."""
        found: list[dict[str, Any]] = self.server.command("usage")
        return found

    def known(self) -> dict[str, dict[str, Any]]:
        """What the server says of its gateways, by name; nothing where it does not run."""
        return {each["gateway"]: each for each in self.server.command("status", check=False).get("gateways", ())}
