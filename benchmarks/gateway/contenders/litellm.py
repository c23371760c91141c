"""LiteLLM's proxy: one worker, a master key, no database."""

import secrets

import yaml

from benchmarks.gateway.contenders.base import Contender
from benchmarks.gateway.environments import program
from benchmarks.gateway.processes import CONTENDER_CORE, launch, wait_http
from benchmarks.gateway.work import MODEL


class LiteLlm(Contender):
    """It refuses short keys, and would fetch a price list if it were not told to use its own."""

    def start(self) -> None:
        path = program("litellm", "litellm[proxy]==1.106.*", "litellm")
        self.key = "sk-" + secrets.token_hex(32)
        configuration = {
            "model_list": [
                {
                    "model_name": MODEL,
                    "litellm_params": {
                        "model": f"hosted_vllm/{MODEL}",
                        "api_base": f"{self.setup.upstream_url}/v1",
                        "api_key": "none",
                    },
                }
            ],
            "general_settings": {"master_key": self.key},
            "litellm_settings": {"telemetry": False},
        }
        file = self.setup.folder / "litellm.yaml"
        file.write_text(yaml.safe_dump(configuration))
        self.process = launch(
            [path, "--config", file, "--host", "127.0.0.1", "--port", str(self.port), "--num_workers", "1"],
            core=CONTENDER_CORE,
            log=self.log,
            environment={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "NO_PROXY": "127.0.0.1"},
        )
        wait_http(f"http://127.0.0.1:{self.port}/health/liveliness", self.process, self.log)
