"""A solver's lines past `sys.stdout` are lost; what anybody else writes before and after is not."""

import os

import pytest

from swell.simulator.silence import solver_is_silent


def test_only_what_is_written_within_is_lost(capfd: pytest.CaptureFixture[str]) -> None:
    print("before")
    with solver_is_silent():
        os.write(1, b"the solver\n")
        os.write(2, b"an error\n")
    print("after")
    captured = capfd.readouterr()
    assert captured.out == "before\nafter\n"
    assert captured.err == "an error\n"


def test_standard_output_is_back_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="infeasible"), solver_is_silent():
        raise ValueError("infeasible")
    os.write(1, b"after\n")
    assert capfd.readouterr().out == "after\n"
