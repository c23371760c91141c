"""What happened to one model's requests in this worker: sums that only grow, for the autoscaler. Batch is apart.

The server takes differences, so that a report that is lost, or comes twice, does no harm. Per request there are a few
additions; what a report needs of requests that are still open is added up when it is made.
"""

import msgspec

from swell.state.messages import ModelLoad
from swell.state.snapshot import ModelEntry

OK = 200
TOO_MANY = 429  # refused because it waited too long, or by an engine that has too much to do
CLIENT_LEFT = 499


class Tally:
    """Of one model, and batch or all other classes. Lengths are tokens, times seconds."""

    __slots__ = (
        "arrivals", "arrived_prompt_tokens", "attained", "completed", "cut_tokens", "itl_sum", "missed", "n2_sum",
        "n_sum", "no_sum", "o2_sum", "o_sum", "open_seconds", "ttft_sum",
    )  # fmt: skip

    def __init__(self) -> None:
        self.arrivals = 0
        self.arrived_prompt_tokens = 0  # as estimated on arrival
        self.completed = 0
        self.n_sum = self.n2_sum = self.o_sum = self.o2_sum = self.no_sum = 0
        self.cut_tokens = 0  # that were generated for requests that were not completed
        self.attained = 0  # of the completed
        self.missed = 0  # neither completed nor the client's own fault
        self.ttft_sum = 0.0  # seconds, over the completed
        self.itl_sum = 0.0
        self.open_seconds = 0.0  # from arrival to end, of ended requests

    def ends(self, model: ModelEntry, status: int, n: int, o: int, seconds: float, first: float, waited: float) -> None:
        """A request ended: a prompt of n tokens, o tokens out, the first of them after `first` (< 0: unknown).

        An answer that was no stream does not show when its first token was there. It is judged as if all its tokens,
        the first one too, had taken equally long once it was sent, `waited` seconds after it arrived.
        """
        self.open_seconds += seconds
        if status != OK:
            self._fails(model, status, n, o, seconds, first)
            return
        if o > 1:
            if first < 0:
                gap = (seconds - waited) / o
                first = waited + gap
            else:
                gap = (seconds - first) / (o - 1)
        else:
            gap = 0.0
            if first < 0:
                first = seconds
        self.completed += 1
        self.n_sum += n
        self.n2_sum += n * n
        self.o_sum += o
        self.o2_sum += o * o
        self.no_sum += n * o
        self.ttft_sum += first
        self.itl_sum += gap
        limit = model.ttft_ms
        if model.ttft_ms_per_1k_prompt_tokens:
            limit += model.ttft_ms_per_1k_prompt_tokens * n / 1000
        if first * 1000 <= limit and gap * 1000 <= model.itl_ms:
            self.attained += 1

    def _fails(self, model: ModelEntry, status: int, n: int, o: int, seconds: float, first: float) -> None:
        """It was not answered. A client that left counts if it had waited for the first token longer than promised."""
        self.cut_tokens += o
        if status >= 500 or status == TOO_MANY:
            self.missed += 1
        elif status == CLIENT_LEFT and first < 0:
            self.missed += seconds * 1000 > model.ttft_ms + model.ttft_ms_per_1k_prompt_tokens * n / 1000

    def report(
        self, name: str, *, decoded: int, open_seconds: float, in_flight: int, queued: int, oldest_seconds: float = 0.0
    ) -> ModelLoad:
        """The sums as they are now; `decoded` and `open_seconds` are those of requests that are still open."""
        return ModelLoad(
            name=name,
            arrivals=self.arrivals,
            arrived_prompt_tokens=self.arrived_prompt_tokens,
            completed=self.completed,
            n_sum=self.n_sum,
            n2_sum=self.n2_sum,
            o_sum=self.o_sum,
            o2_sum=self.o2_sum,
            no_sum=self.no_sum,
            decoded_tokens=self.o_sum + self.cut_tokens + decoded,
            judged=self.completed + self.missed,
            attained=self.attained,
            ttft_ms_sum=self.ttft_sum * 1000,
            itl_ms_sum=self.itl_sum * 1000,
            open_seconds=self.open_seconds + open_seconds,
            in_flight=in_flight,
            queued=queued,
            oldest_queued_seconds=oldest_seconds,
        )


def with_batch(others: ModelLoad, batch: ModelLoad) -> ModelLoad:
    """What happened to all requests of a model, and what of it to those of priority batch."""
    sums = {name: getattr(others, name) + getattr(batch, name) for name in _SUMS}
    return msgspec.structs.replace(others, **sums, batch=batch)


_SUMS = [name for name in ModelLoad.__struct_fields__ if name not in ("name", "oldest_queued_seconds", "batch")]
