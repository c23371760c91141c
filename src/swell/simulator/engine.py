"""One simulated replica: continuous batching with chunked prompts, from event to event.

Between two events nothing but decoding happens, and time is computed, never stepped. With B sequences whose contexts
sum to S tokens, k decode steps take  k·(s + q·B + t·S) + t·B·k(k-1)/2  milliseconds, since every step adds B tokens to
the contexts; its inverse says how many steps fit into a time. Steps are counted in fractions.

While prompts wait, each engine step takes up to `chunk_tokens` of them beside one token of every running sequence, as
vLLM and SGLang do: that is how prompts delay decoding. A prompt's first token comes with its last chunk. When the KV
cache is full, the sequence that joined last is put back and its tokens are computed again.
"""

from collections import OrderedDict, deque
from heapq import heappop, heappush
from math import inf, sqrt

from swell.state.scaling import LatencyProfile

MIN_CHUNK_TOKENS = 64  # however many sequences decode, so that prompts always go on


class Job:
    """One request on its way. Times are seconds on the simulator's clock."""

    __slots__ = (
        "arrival", "blocks", "cached", "deadline", "first_at", "index", "is_batch", "joined_step", "last_step", "left",
        "output", "prompt", "replica", "reserved", "tokens", "ttft_limit",
    )  # fmt: skip

    def __init__(self, index: int, arrival: float, prompt: int, output: int, ttft_limit: float) -> None:
        self.index = index
        self.arrival = arrival
        self.prompt = prompt
        self.output = output
        self.ttft_limit = ttft_limit  # seconds
        self.deadline = arrival + ttft_limit
        self.first_at = -1.0
        self.left = prompt  # of the prompt, still to be computed
        self.tokens = 0  # of the output, produced before it was put back
        self.cached = 0
        self.last_step = 0.0
        self.joined_step = 0.0
        self.reserved = 0  # outstanding tokens, as the router books them
        self.blocks: tuple[int, ...] = ()
        self.replica: object | None = None
        self.is_batch = False  # promised no time


class Engine:
    """The batch of one replica. `submit` and `run_to` move it; `next_event` says when `run_to` must be called."""

    __slots__ = (
        "_a", "_b", "_block_tokens", "_blocks", "_c", "_chunk", "_chunk_tokens", "_fixed", "_kv_tokens", "_max",
        "_per_context", "_per_sequence", "_prefilling_tokens", "_step_ends",
        "batch", "busy_seconds", "context", "decoded", "now", "order", "preempted", "running", "steps", "waiting",
    )  # fmt: skip

    def __init__(self, profile: LatencyProfile, now: float, block_tokens: int = 512) -> None:
        self._a = profile.prefill_fixed_ms / 1000
        self._b = profile.prefill_ms_per_token / 1000
        self._c = profile.prefill_ms_per_token2 / 1000
        self._fixed = profile.step_fixed_ms / 1000
        self._per_sequence = profile.step_ms_per_sequence / 1000
        self._per_context = profile.step_ms_per_context_token / 1000
        self._kv_tokens = profile.kv_tokens
        self._max = profile.max_sequences
        self._chunk_tokens = profile.chunk_tokens
        self._block_tokens = block_tokens
        self._blocks: OrderedDict[int, None] = OrderedDict()  # prefix cache, least recently used first
        self._chunk: list[tuple[Job, int]] = []  # the engine step under way: prompts and how much of them
        self._step_ends = inf
        self._prefilling_tokens = 0  # of prompts that have begun and have not joined
        self.now = now
        self.steps = 0.0  # decode steps since it began
        self.batch = 0  # sequences that decode
        self.context = 0.0  # tokens of their contexts
        self.decoded = 0.0
        self.busy_seconds = 0.0
        self.preempted = 0
        self.running: list[tuple[float, int, Job]] = []  # by the step at which they end
        self.order: dict[Job, None] = {}  # those that decode, in the order in which they joined
        self.waiting: deque[Job] = deque()

    @property
    def kv_used(self) -> float:
        """Share of the KV cache that is taken."""
        return (self.context + self._prefilling_tokens) / self._kv_tokens

    def produced(self, now: float) -> float:
        """Output tokens up to `now`, also those of the time since it last moved (about)."""
        if self._step_ends != inf or not self.batch:
            return self.decoded
        per_step = self._fixed + self._per_sequence * self.batch + self._per_context * self.context
        return self.decoded + self.batch * (now - self.now) / per_step

    def submit(self, job: Job, now: float) -> None:
        """Take a request; the engine must have been run to `now`."""
        self.waiting.append(job)
        if self._step_ends == inf:
            self._advance(now)
            self._begin_step(now)

    def next_event(self) -> float:
        """When something happens next; infinity while it is idle."""
        if self._step_ends != inf:
            return self._step_ends
        if not self.batch:
            return inf
        steps = self.running[0][0] - self.steps
        room = self._kv_tokens - self.context
        if steps * self.batch > room and self.batch > 1:  # a single one goes on whatever it takes
            steps = max(0.0, room / self.batch)
        return self.now + self._seconds(steps)

    def run_to(self, now: float) -> list[Job]:
        """Move to `now`, its own next event; returns the requests that ended then."""
        ended: list[Job] = []
        if self._step_ends != inf:
            self._end_step(now, ended)
        else:
            self._advance(now)
        running = self.running
        due = self.steps + 1e-6
        while running and running[0][0] <= due:
            _, _, job = heappop(running)
            if job in self.order:
                self._leave(job)
                ended.append(job)
        if self.batch > 1 and self.context >= self._kv_tokens - 1e-6:
            self._preempt()
        if self.waiting and self._step_ends == inf:
            self._begin_step(now)
        self._drop_stale()
        return ended

    def lose(self) -> list[Job]:
        """The replica is gone: every request that was on it, in no state to go on."""
        lost = dict.fromkeys([*self.order, *(job for job, _ in self._chunk), *self.waiting])
        self.order.clear()
        self.running.clear()
        self.waiting.clear()
        self._chunk = []
        self._step_ends = inf
        self.batch, self.context, self._prefilling_tokens = 0, 0.0, 0
        return list(lost)

    # Decoding

    def _seconds(self, steps: float) -> float:
        per_step = self._fixed + self._per_sequence * self.batch + self._per_context * self.context
        return steps * per_step + self._per_context * self.batch * steps * max(0.0, steps - 1) / 2

    def _advance(self, now: float) -> None:
        """Decode until `now`."""
        passed = now - self.now
        self.now = now
        batch = self.batch
        if passed <= 0 or not batch:
            return
        per_step = self._fixed + self._per_sequence * batch + self._per_context * self.context
        growth = self._per_context * batch / 2
        linear = per_step - growth
        if growth * passed > 1e-12 and passed > per_step:
            steps = (sqrt(linear * linear + 4 * growth * passed) - linear) / (2 * growth)
        else:
            steps = passed / per_step
        self.steps += steps
        self.context += batch * steps
        self.decoded += batch * steps
        self.busy_seconds += passed

    def _leave(self, job: Job) -> None:
        del self.order[job]
        self.batch -= 1
        self.context -= job.prompt + job.output
        if not self.batch:
            self.context = 0.0

    def _preempt(self) -> None:
        job = next(reversed(self.order))
        produced = int(self.steps - job.joined_step)
        del self.order[job]
        self.batch -= 1
        self.context -= job.prompt + 1 + (self.steps - job.joined_step)
        job.tokens += produced
        job.prompt += produced  # computed again with what it had produced
        job.output -= produced
        job.left = job.prompt
        self.preempted += 1
        self.waiting.appendleft(job)

    def _drop_stale(self) -> None:
        """What was put back is still in the heap: remove it from its top, so that the top is the next to end."""
        running = self.running
        while running and (running[0][2] not in self.order or running[0][2].last_step != running[0][0]):
            heappop(running)

    # Prompts

    def _begin_step(self, now: float) -> None:
        """Begin an engine step with prompts in it, if one fits."""
        budget = max(MIN_CHUNK_TOKENS, self._chunk_tokens - self.batch)
        chunk, seconds, fixed = self._chunk, 0.0, self._fixed
        joining = 0
        while self.waiting and budget > 0 and self.batch + joining < self._max:
            job = self.waiting[0]
            if job.left == job.prompt:
                if self.context + self._prefilling_tokens + job.prompt > self._kv_tokens and (self.batch or chunk):
                    break
                fixed = max(fixed, self._a)
                self._prefilling_tokens += job.prompt
                if job.blocks and not job.cached:
                    job.cached = self._find_prefix(job)
                    job.left -= job.cached
            tokens = min(job.left, budget)
            done = job.prompt - job.left
            seconds += self._b * tokens + self._c * tokens * (tokens + 2 * done)
            budget -= tokens
            chunk.append((job, tokens))
            if tokens < job.left:
                break
            joining += 1
            self.waiting.popleft()
        if chunk:
            seconds += fixed + self._per_sequence * self.batch + self._per_context * self.context
            self._step_ends = now + seconds
            self.busy_seconds += seconds

    def _end_step(self, now: float, ended: list[Job]) -> None:
        """One token for each running sequence, and the prompts that are complete join them."""
        self.now = now
        self._step_ends = inf
        self.steps += 1
        self.context += self.batch
        self.decoded += self.batch
        chunk, self._chunk = self._chunk, []
        for job, tokens in chunk:
            job.left -= tokens
            if job.left:
                continue
            self._prefilling_tokens -= job.prompt
            if job.first_at < 0:
                job.first_at = now
            if job.blocks:
                self._keep_prefix(job)
            self.decoded += 1
            if job.output <= 1:
                ended.append(job)
                continue
            job.joined_step = self.steps
            job.last_step = self.steps + job.output - 1
            self.batch += 1
            self.context += job.prompt + 1
            self.order[job] = None
            heappush(self.running, (job.last_step, job.index, job))

    # Prefix cache

    def _find_prefix(self, job: Job) -> int:
        """Tokens of the prompt that are cached; the last one is always computed."""
        found = 0
        for block in job.blocks:
            if block not in self._blocks:
                break
            self._blocks.move_to_end(block)
            found += 1
        return min(found * self._block_tokens, job.prompt - 1)

    def _keep_prefix(self, job: Job) -> None:
        blocks = self._blocks
        for block in job.blocks:
            blocks[block] = None
            blocks.move_to_end(block)
        while len(blocks) > self._kv_tokens // self._block_tokens:
            blocks.popitem(last=False)
