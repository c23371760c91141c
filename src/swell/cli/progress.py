"""The bar that people see while something is replayed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def replaying(*, shown: bool) -> Iterator[Callable[[float], None]]:
    """A bar on standard error, told the share that is done.

    It has no thread of its own: replays are forked from this process.
    """
    if not shown:
        yield lambda done: None
        return
    from rich import progress as rich
    from rich.console import Console

    bar = rich.Progress(
        rich.TextColumn("{task.description}"), rich.BarColumn(), rich.TaskProgressColumn(), rich.TimeElapsedColumn(),
        console=Console(stderr=True), auto_refresh=False, transient=True,
    )  # fmt: skip
    task = bar.add_task("Replaying", total=1.0)

    def told(done: float) -> None:
        bar.update(task, completed=done, refresh=True)

    with bar:
        told(0.0)
        yield told
