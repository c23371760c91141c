"""One `swell up` with its default model (SmolLM2 on llama.cpp) for every SDK."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from swell_process import SwellProcess

MODEL = "smollm2"


@pytest.fixture(scope="session")
def server(model_file: Path, session_swell_up: Callable[..., SwellProcess]) -> SwellProcess:
    """Serves `smollm2` with no file given, as `make up` does."""
    assert model_file.exists()
    running = session_swell_up(None)
    running.wait_model(MODEL)
    return running


@pytest.fixture
def client(server: SwellProcess) -> Iterator[OpenAI]:
    """The official Python client, which retries nothing."""
    with OpenAI(base_url=server.base_url, api_key=server.key, max_retries=0, timeout=60) as made:
        yield made
