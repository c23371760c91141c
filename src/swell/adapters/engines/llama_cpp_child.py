"""The process of one llama.cpp replica: load a model, serve it, on loopback unless told otherwise, end on SIGTERM.

Exit codes: 0 told to end, 2 wrong arguments, 3 the model could not be served (the last line on stderr says why).
"""

import argparse
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from swell.adapters.engines.llama_cpp import DEFAULT_CONTEXT_TOKENS, DEFAULT_PARALLEL, KEY_VARIABLE
from swell.ports.engine import LOOPBACK

EXIT_CANNOT_SERVE = 3
SPARE_HTTP_THREADS = 4  # the library gives every open request a thread; these are for /health and /metrics
MAX_HTTP_THREADS = 1024
MAX_BATCH_TOKENS = 2048  # an input to embed must fit one batch
PROMPT_CACHE_MIB = 256  # the library's own default is 8 GiB, per replica
_GGUF_MAGIC = b"GGUF"


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="llama_cpp_child", allow_abbrev=False)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--host", default=LOOPBACK)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--parallel", type=int, default=DEFAULT_PARALLEL, help="requests decoded at once")
    parser.add_argument("--context-tokens", type=int, default=DEFAULT_CONTEXT_TOKENS, help="per request")
    parser.add_argument("--max-in-flight", type=int, default=DEFAULT_PARALLEL, help="requests open at once")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as there are cores")
    parser.add_argument("--batch-tokens", type=int, default=0, help="0: the context, at most 2048")
    parser.add_argument("--gpu-layers", type=int, default=-1, help="-1: as many as fit")
    parser.add_argument("--prompt-cache-mib", type=int, default=PROMPT_CACHE_MIB)
    return parser.parse_args(argv)


def _problem_of(model: Path) -> str:
    """Why the file cannot be a model, or nothing. The library only says that loading failed."""
    try:
        with model.open("rb") as file:
            magic = file.read(len(_GGUF_MAGIC))
    except OSError as error:
        return f"cannot read the model file {model} ({error.strerror}); check `source` in the spec, or fetch it again"
    if magic != _GGUF_MAGIC:
        return f"{model} is not a GGUF file; llama.cpp serves GGUF only, so name one in `source` or use another engine"
    return ""


def _parameters(arguments: argparse.Namespace, key: str) -> Any:  # Any: the library ships no types
    import xllamacpp  # type: ignore[import-untyped, unused-ignore]

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(arguments.model)
    parameters.model_alias = {arguments.alias}
    parameters.hostnames = [arguments.host]
    parameters.port = arguments.port
    parameters.api_keys = [key] if key else []
    parameters.cors_origins = ""  # the default lets any page in a browser read from it
    parameters.ui = False
    parameters.endpoint_slots = False  # it shows other people's prompts
    parameters.endpoint_metrics = True
    parameters.n_threads_http = min(MAX_HTTP_THREADS, arguments.max_in_flight + SPARE_HTTP_THREADS)
    parameters.n_parallel = arguments.parallel
    parameters.n_ctx = arguments.parallel * arguments.context_tokens
    parameters.cont_batching = True
    parameters.cache_prompt = True
    parameters.cache_ram_mib = arguments.prompt_cache_mib
    parameters.use_jinja = True
    parameters.embedding = True
    parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    batch_tokens = arguments.batch_tokens or min(arguments.context_tokens, MAX_BATCH_TOKENS)
    parameters.n_batch = parameters.n_ubatch = batch_tokens
    parameters.n_gpu_layers = arguments.gpu_layers
    threads = arguments.threads or os.cpu_count() or 1
    parameters.cpuparams.n_threads = threads
    parameters.cpuparams_batch.n_threads = threads
    return parameters


def _fail(message: str) -> int:
    print(f"llama.cpp cannot serve: {message}", file=sys.stderr, flush=True)
    return EXIT_CANNOT_SERVE


def _serve(arguments: argparse.Namespace, key: str, servers: list[Any]) -> None:
    """Load and listen, in a thread of its own, because loading holds its thread for as long as it takes."""
    try:
        import xllamacpp

        servers.append(xllamacpp.Server(_parameters(arguments, key)))
    except Exception as error:  # whatever it was, without a server this process has no purpose
        code = _fail(
            f"{arguments.model} on port {arguments.port}: {error} (the lines above say more: a model it does not know, "
            f"too little memory, or a port that something else took)"
        )
        os._exit(code)


def main(argv: list[str]) -> int:
    """Serve until told to end."""
    arguments = _arguments(argv)
    problem = _problem_of(arguments.model)
    if problem:
        return _fail(problem)
    # Blocked before any thread exists, so that only sigwait below ever sees them.
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    servers: list[Any] = []
    loader = threading.Thread(target=_serve, args=(arguments, os.environ.pop(KEY_VARIABLE, ""), servers), daemon=True)
    loader.start()
    signal.sigwait(ends)
    if loader.is_alive():
        os._exit(0)  # still loading: nobody was served, nothing to finish
    servers.clear()  # ends the server; it waits up to 30 s for requests that are still running
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
