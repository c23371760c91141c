"""Fetching in containers: each of them is process 1 of its own, and several do the same to one cache."""

import os
import threading
from pathlib import Path

import pytest

from swell.adapters.sources import fetch

BOTH = 2
ROUNDS = 200


def test_pods_that_link_to_one_model_at_once_are_not_in_each_others_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)  # as in every container
    folder, link = tmp_path / "views" / "abc", tmp_path / "links" / "chat"
    folder.mkdir(parents=True)
    barrier, problems = threading.Barrier(BOTH), list[Exception]()

    def one_pod() -> None:
        for _ in range(ROUNDS):
            barrier.wait()
            try:
                fetch._link(link, folder)
            except OSError as error:
                problems.append(error)

    pods = [threading.Thread(target=one_pod) for _ in range(BOTH)]
    for pod in pods:
        pod.start()
    for pod in pods:
        pod.join()
    assert problems == []
    assert link.samefile(folder)
    assert [path.name for path in link.parent.iterdir()] == ["chat"]
