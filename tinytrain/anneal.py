"""Annealing: random changes to a trial, worse ones accepted within a shrinking threshold.

Threshold accepting (Dueck and Scheuer 1990): no exponential is asked for, and its generator is its
own, so that every machine goes the same way. It never gives back anything worse than it was given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinytrain.lower import Decisions

if TYPE_CHECKING:
    from tinytrain.solver import Solver, Trial

MOVES = 600  # at most, however small the program
THRESHOLD = 50  # at first, what is worse by a 50th is taken
PENALTY = 4  # a budget exceeded by 1 % counts as so many percent of work


class Draw:
    """A linear congruential generator (Knuth's MMIX constants), the same everywhere."""

    def __init__(self, seed: int):
        self.state = seed

    def below(self, n: int) -> int:
        """A whole number of 0 to n - 1."""
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % n


def anneal(solver: Solver, trial: Trial, budget: int, lowerings: int, seed: int = 0) -> Trial:
    """The best trial on a random walk of so many steps lowered: the least work within the budget;
    where nothing fits, the lowest peak."""
    moves = min(MOVES, lowerings // max(len(trial.live), 1))
    draw, now, best = Draw(seed), trial, trial
    fits = trial.peak <= budget

    def energy(t: Trial) -> int:
        if not fits:
            return t.peak
        over = max(t.peak - budget, 0)
        return t.work + PENALTY * trial.work * over // budget

    def order(t: Trial) -> tuple[int, int, int]:
        return (int(t.peak > budget), t.work, t.peak) if fits else (0, t.peak, t.work)

    limit = solver.spent + lowerings
    for k in range(moves):
        if solver.spent >= limit:
            break
        tried = solver.trial(_changed(solver, now.decisions, draw, seed % 2 == 1))
        if tried is None:
            continue
        threshold = energy(trial) * (moves - k) // (moves * THRESHOLD)
        if energy(tried) <= energy(now) + threshold:
            now = tried
        if order(tried) < order(best):
            best = tried
    return best


def _changed(solver: Solver, d: Decisions, draw: Draw, small: bool) -> Decisions:
    """One to three random changes; half of them to any value if `small`, else to large ones."""
    for _ in range(1 + draw.below(3)):
        kind = draw.below(8) if solver.dear else 2
        v = solver.dear[draw.below(len(solver.dear))] if kind < 2 else 0
        if kind == 0 and solver.masks:
            d = d.flipped([v])
            continue
        if kind == 1 and solver.orders:
            d = d.turned(v)
            continue
        pool = solver.values if small and draw.below(2) == 0 else solver.large
        values = [pool[draw.below(len(pool))]]
        if draw.below(4) == 0:
            values = solver.alike(values[0])
        changes = [*solver.changes(d, values)]
        d = changes[draw.below(len(changes))]
    return d
