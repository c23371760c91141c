"""The solver against trying every placement, and the greedy fallback against the solver."""

import numpy as np
import pytest
from placement_scene import cheapest_by_trying_all, keeps_the_rules, random_inputs, total_usd

from swell.policy.scaling import placement_greedy, placement_milp
from swell.policy.scaling.placement_milp import STRICT, Outcome
from swell.policy.scaling.placement_problem import missed_share, problem_of

WITHIN = 1.5  # of the solver's cost, on small instances where one replica is a large part of it


@pytest.mark.parametrize("block", range(6))
def test_the_solver_finds_what_trying_everything_finds(block: int) -> None:
    solved = 0
    for seed in range(block * 25, block * 25 + 25):
        inputs = random_inputs(seed)
        problem = problem_of(inputs)
        if problem.hopeless.any():
            continue
        expected = cheapest_by_trying_all(inputs)
        outcome = placement_milp.solve(problem, STRICT)
        if expected is None:
            assert outcome == Outcome(None, is_infeasible=True), f"seed {seed}"
            continue
        assert outcome.solution is not None, f"seed {seed}"
        found = total_usd(problem, outcome.solution.counts)
        assert found == pytest.approx(expected, rel=2e-3), f"seed {seed}"
        assert keeps_the_rules(problem, outcome.solution.counts), f"seed {seed}"
        solved += 1
    assert solved >= 5


def test_the_fallback_keeps_the_rules_and_is_within_a_factor_of_the_solver() -> None:
    ratios: list[float] = []
    missed = 0
    for seed in range(1000, 1150):
        problem = problem_of(random_inputs(seed, most_pools=4, most_replicas=30))
        outcome = placement_milp.solve(problem, STRICT)
        greedy = placement_greedy.solve(problem, STRICT)
        if problem.hopeless.any() or outcome.solution is None:
            assert greedy is None or outcome.solution is not None or problem.hopeless.any(), f"seed {seed}"
            continue
        if greedy is None:
            missed += 1
            continue
        assert keeps_the_rules(problem, greedy.counts), f"seed {seed}"
        assert np.all(greedy.served > 1 - 1e-6), f"seed {seed}"
        if problem.loss_share < 1:
            assert missed_share(problem, greedy.counts, greedy.shares) <= problem.loss_share + 1e-9, f"seed {seed}"
        best = total_usd(problem, outcome.solution.counts)
        ratios.append(total_usd(problem, greedy.counts) / best if best > 0 else 1.0)
    print(f"{len(ratios)} instances: mean {np.mean(ratios):.3f}, worst {max(ratios):.3f}; not found {missed}")
    assert len(ratios) > 60
    assert min(ratios) > 1 - 2e-3
    assert float(np.mean(ratios)) < 1.05
    assert max(ratios) < WITHIN
    assert missed <= 0.05 * len(ratios)


def test_solving_twice_gives_the_same_and_writes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for seed in range(20):
        problem = problem_of(random_inputs(seed, most_pools=6, most_replicas=50))
        one, two = (placement_milp.solve(problem, STRICT).solution for _ in range(2))
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            assert one.counts.tolist() == two.counts.tolist()
            assert one.shares.tolist() == two.shares.tolist()
    assert capfd.readouterr() == ("", "")
