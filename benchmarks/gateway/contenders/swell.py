"""Swell with everything on: keys, three limits and two budgets that never bind, usage into the store, metrics."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks.gateway.contenders.base import Contender
from benchmarks.gateway.processes import CONTENDER_CORE, BenchmarkError, launch, tree, wait_http
from benchmarks.gateway.work import MODEL

_UNREACHED = 10**12
_UNREACHED_USD = 10**9
_WORKER_MODULE = "swell.server.gateway_worker"
KEY_SECONDS = 60.0


class Swell(Contender):
    """`swell up` with one gateway worker and one external endpoint; server and worker share the contender's core."""

    has_budgets = True

    def start(self) -> None:
        folder = self.setup.folder / f"swell-{self.port}"
        folder.mkdir()
        self.state = folder / "state"
        (folder / "swell.yaml").write_text(yaml.safe_dump(self._spec()))
        swell = Path(sys.executable).with_name("swell")
        where: list[str | Path] = ["--state", self.state]
        self.process = launch(
            [swell, "up", "-f", folder / "swell.yaml", "--port", str(self.port), "--workers", "1", *where],
            core=CONTENDER_CORE,
            log=self.log,
        )
        wait_http(f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/readyz", self.process, self.log)
        limits = ["--rpm", str(_UNREACHED), "--tpm", str(_UNREACHED), "--concurrent", "1000000"]
        self.key = self._create_key([str(swell), "keys", "create", "bench", *limits, "--json", *map(str, where)])

    def groups(self) -> dict[str, list[int]]:
        if self.process is None:
            return {}
        everything = tree(self.process.pid)
        return {"all": everything, "worker": [pid for pid in everything if _is_worker(pid)]}

    def _spec(self) -> dict[str, Any]:
        limits = {
            "requests_per_minute": _UNREACHED,
            "tokens_per_minute": _UNREACHED,
            "concurrent_requests": 1_000_000,
        }
        spec: dict[str, Any] = {
            "models": [{"name": MODEL, "engine": "external", "endpoints": [self.setup.upstream_url]}],
            "tenants": [{"name": "default", "limits": limits}],
        }
        if self.has_budgets:
            rates = {"usd_per_million_prompt_tokens": "0.15", "usd_per_million_completion_tokens": "0.60"}
            spec["prices"] = {MODEL: rates}
            spec["organisation"] = {"budget": {"usd": _UNREACHED_USD, "period": "month"}}
            spec["tenants"][0]["budget"] = {"usd": _UNREACHED_USD, "period": "day"}
        if self.tls:
            files = {"certificate": str(self.setup.certificate), "private_key": str(self.setup.private_key)}
            spec["server"] = {"tls": files}
        return spec

    def _create_key(self, argv: list[str]) -> str:
        made = subprocess.run(argv, capture_output=True, text=True, timeout=KEY_SECONDS, check=False)
        if made.returncode:
            raise BenchmarkError(f"swell keys create failed: {made.stderr.strip()}")
        return str(json.loads(made.stdout)["key"])


class SwellWithoutBudgets(Swell):
    """The same without prices and budgets: what they cost is the difference."""

    has_budgets = False


class SwellTls(Swell):
    """The same behind TLS, with nginx's certificate."""

    tls = True


def _is_worker(pid: int) -> bool:
    try:
        return _WORKER_MODULE in Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
