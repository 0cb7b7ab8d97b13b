"""Gives every buffer of a step its offset in one arena, so that no two that live together overlap.

It refuses to move a buffer once placed, to split one, and to look at what a buffer holds: sizes
and lifetimes are all it knows. Importing it costs neither NumPy nor Numba.
"""

from __future__ import annotations

import math
import operator
import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from tinytrain.errors import InputError

if TYPE_CHECKING:
    from tinytrain import packing

# The search's steps when neither `steps` nor `seconds` is given. Most plans need none, because a
# greedy order meets the bound; the rest gain most in the first few restarts.
DEFAULT_STEPS = 4_000

# Steps per buffer in the shortest search: a search that went wrong early rarely recovers, so most
# are short. Found by trial on MiniMalloc's instances (bench/arena.py).
SHORTEST_SEARCH = 8

# The attempts whose order is fixed (Orders); those after them are drawn.
FIXED_ORDERS = 4

# Searches stay interpreted up to this much work (steps times buffers; about a second), so that an
# instance with little to do never waits for Numba's import, let alone a compile.
INTERPRETED_WORK = 2_000_000

# Steps of the first search under a clock: enough to time, and a blink even interpreted.
PROBE = 64

# The compiled search counts in 64 bits and keeps 2**60 free to mean "nowhere".
MOST_BYTES = 1 << 59
LINE = 64  # bytes of a line of a host's cache


def assign(
    sizes: Sequence[int],
    lifetimes: Sequence[tuple[int, int]],
    align: int = 16,
    capacity: int | None = None,
    seconds: float | None = None,
    steps: int | None = None,
    spare: int = 0,
) -> tuple[list[int], int]:
    """Place buffers in an arena and return (offsets, total), both in bytes.

    sizes: bytes of each buffer, 0 or more. lifetimes: for each a half-open (first, end) in whole
    steps of any unit; buffers whose lifetimes meet only at an end may share bytes, and one with
    first == end may share with all. align: every offset is a multiple of it.

    total is max(offset + size), not rounded up: the arena ends with the last byte of its last
    buffer. It is the best total found, also when it misses `capacity`: compare the two. Without a
    capacity it may be larger by up to `spare` bytes, so that buffers of whole lines of a cache
    begin with one.

    Four greedy orders come first, then a restarted depth-first search (see `packing`) until
    total <= capacity, or, without a capacity, until nothing can be lower; or until `steps`
    (buffers tried at a place; 0 is greedy alone) or `seconds` are spent, whichever is first.
    Without `seconds` no clock is read: the answer depends on the arguments alone, on every
    machine, with or without Numba. With neither, steps = DEFAULT_STEPS. `seconds` does not count
    compiling the search (once a machine) or loading it (once a process).

    Raises InputError for lengths that differ, numbers that are not whole, a negative size,
    capacity, steps or seconds, end < first, align < 1, and sizes that add up to 2**59 bytes.
    """
    begun = None if seconds is None else time.perf_counter()
    sizes, lifetimes = _checked(sizes, lifetimes)
    align, capacity, steps = _checked_limits(align, capacity, seconds, steps)
    spare = _integer(spare, "spare")
    live = [i for i, (a, b) in enumerate(lifetimes) if sizes[i] > 0 and a < b]
    # What never lives still has to lie inside the arena; at offset 0 it bothers nobody.
    floor = max((size for size, (a, b) in zip(sizes, lifetimes, strict=True) if a == b), default=0)
    offsets = [0] * len(sizes)
    if not live:
        return offsets, floor

    problem = Problem.of([sizes[i] for i in live], [lifetimes[i] for i in live], align)
    if sum(problem.size) * problem.unit >= MOST_BYTES:
        raise InputError(f"sizes: they add up to 2**59 bytes or more at align={align}; give bytes")
    goal = max(problem.bound(), floor, capacity or 0)
    near = Near(problem)
    placed = _greedy(problem, near, goal)
    if problem.total(placed) > goal and steps != 0:
        deadline = None if seconds is None or begun is None else begun + seconds
        placed = _improve(problem, placed, goal, deadline, steps)
    if capacity is None and steps != 0:
        placed = _on_lines(problem, near, placed, spare)
    for i, offset in zip(live, placed, strict=True):
        offsets[i] = offset * problem.unit
    return offsets, max(floor, problem.total(placed))


def lower_bound(sizes: Sequence[int], lifetimes: Sequence[tuple[int, int]]) -> int:
    """The most bytes alive at one moment, which no placement can beat.

    Arguments and errors as for `assign`; alignment is left out, so a placement with `align` > 1
    may be unable to meet it.
    """
    sizes, lifetimes = _checked(sizes, lifetimes)
    changes = [(a, size) for size, (a, b) in zip(sizes, lifetimes, strict=True) if a < b]
    changes += [(b, -size) for size, (a, b) in zip(sizes, lifetimes, strict=True) if a < b]
    most = alive = 0
    for _, change in sorted(changes):  # at one moment ends sort before starts: half-open
        alive += change
        most = max(most, alive)
    return most


# ----------------------------------------------------------------------------------- the input


def _checked(
    sizes: Iterable[Any], lifetimes: Iterable[Any]
) -> tuple[list[int], list[tuple[int, int]]]:
    """Both as lists of Python integers, or InputError naming the first entry that is wrong."""
    sizes, lifetimes = list(sizes), list(lifetimes)
    if len(sizes) != len(lifetimes):
        raise InputError(
            f"sizes has {len(sizes)} entries, lifetimes {len(lifetimes)}: give each buffer both"
        )
    whole = [_integer(size, f"sizes[{i}]") for i, size in enumerate(sizes)]
    for i, size in enumerate(whole):
        if size < 0:
            raise InputError(f"sizes[{i}] is {size}: give its bytes, 0 or more")
    spans = []
    for i, lifetime in enumerate(lifetimes):
        try:
            first, end = lifetime
        except (TypeError, ValueError):
            raise InputError(f"lifetimes[{i}] is {lifetime!r}: give a pair (first, end)") from None
        first, end = _integer(first, f"lifetimes[{i}]"), _integer(end, f"lifetimes[{i}]")
        if end < first:
            raise InputError(
                f"lifetimes[{i}] is ({first}, {end}), which ends before it begins: "
                "give a half-open (first, end) with end >= first"
            )
        spans.append((first, end))
    return whole, spans


def _checked_limits(
    align: Any, capacity: Any, seconds: Any, steps: Any
) -> tuple[int, int | None, int | None]:
    """(align, capacity, steps) as integers; `steps` has its default filled in."""
    align = _integer(align, "align")
    if align < 1:
        raise InputError(f"align is {align}: give 1 or more bytes")
    if capacity is not None:
        capacity = _integer(capacity, "capacity")
        if capacity < 0:
            raise InputError(f"capacity is {capacity}: give 0 or more bytes, or None for no limit")
    if seconds is not None and (not isinstance(seconds, int | float) or not seconds >= 0):
        raise InputError(f"seconds is {seconds!r}: give a number >= 0, or None for no clock")
    if steps is not None:
        steps = _integer(steps, "steps")
        if steps < 0:
            raise InputError(f"steps is {steps}: give 0 or more, or None")
    elif seconds is None:
        steps = DEFAULT_STEPS
    return align, capacity, steps


def _integer(value: Any, name: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise InputError(f"{name} is {value!r}, not a whole number: give an int") from None


# --------------------------------------------------------------------------------- the problem


class Problem(NamedTuple):
    """Buffers that live and are not empty, in whole units of space and sections of time.

    `unit` is the greatest common divisor of the aligned sizes. A packing whose buffers have all
    fallen as low as they can stacks whole buffers, so no offset in between is worth a look.
    """

    unit: int  # bytes
    nbytes: list[int]  # exact bytes of each buffer
    size: list[int]  # the same in units, rounded up to `align`
    first: list[int]  # the sections in which it lives, half-open
    last: list[int]
    load: list[int]  # units alive in each section

    @classmethod
    def of(cls, nbytes: list[int], lifetimes: list[tuple[int, int]], align: int) -> Problem:
        """From bytes, all above 0, and lifetimes, none empty.

        Sections are the stretches between one start and the next.

        What is alive together is alive together at a start, so moments in between need no section.
        """
        starts = sorted({a for a, _ in lifetimes})
        first = [bisect_left(starts, a) for a, _ in lifetimes]
        last = [bisect_left(starts, b) for _, b in lifetimes]
        padded = [-(-n // align) * align for n in nbytes]
        unit = math.gcd(*padded)
        size = [n // unit for n in padded]
        load = [0] * (len(starts) + 1)
        for units, a, b in zip(size, first, last, strict=True):
            load[a] += units
            load[b] -= units
        for t in range(1, len(starts)):
            load[t] += load[t - 1]
        return cls(unit, nbytes, size, first, last, load[:-1])

    def total(self, offset: list[int]) -> int:
        """The exact bytes up to the end of the last buffer, for offsets in units."""
        return max(
            place * self.unit + nbytes for place, nbytes in zip(offset, self.nbytes, strict=True)
        )

    def bound(self) -> int:
        """Bytes below which no placement can go: `lower_bound` with alignment.

        All buffers alive in a section are padded but the one on top.
        """
        spare = [0] * len(self.load)
        for nbytes, size, a, b in zip(self.nbytes, self.size, self.first, self.last, strict=True):
            unused = size * self.unit - nbytes
            for t in range(a, b) if unused else ():
                spare[t] = max(spare[t], unused)
        return max(
            units * self.unit - unused for units, unused in zip(self.load, spare, strict=True)
        )

    def meetings(self, buffers: Iterable[int]) -> list[list[int]]:
        """For every buffer, which of these it lives with, if it is one of them."""
        lists: list[list[int]] = [[] for _ in self.size]
        alive: list[int] = []
        for v in sorted(buffers, key=self.first.__getitem__):
            alive = [u for u in alive if self.last[u] > self.first[v]]
            for u in alive:
                lists[u].append(v)
            lists[v].extend(alive)
            alive.append(v)
        return lists

    def next_total(self, aim: int) -> int:
        """The least total above `aim` bytes that some buffer on top could give."""
        return min(aim + 1 + (nbytes - aim - 1) % self.unit for nbytes in self.nbytes)


# -------------------------------------------------------------------------------------- greedy


def _greedy(problem: Problem, near: Near, goal: int) -> list[int]:
    """The best of four greedy placements, in units; stops at the first that meets `goal`.

    Lowest place first by the load a buffer meets, first fit by size (what most planners do), the
    same with equals in order of time (which colours buffers of one size with no more places than
    live at once), and lowest place first by area: each wins on some real programs.
    """
    _, _, size, first, last, load = problem
    span = [b - a for a, b in zip(first, last, strict=True)]
    peak = [max(load[a:b]) for a, b in zip(first, last, strict=True)]
    buffers = range(len(size))
    by_peak = sorted(buffers, key=lambda v: (-peak[v], -span[v], -size[v]))
    by_size = sorted(buffers, key=lambda v: (-size[v], -span[v]))
    by_time = sorted(buffers, key=lambda v: (-size[v], first[v]))
    by_area = sorted(buffers, key=lambda v: -size[v] * span[v])
    best: list[int] = []
    orders = ((_lowest_first, by_peak), (_first_fit, by_size), (_first_fit, by_time))
    for place, order in (*orders, (_lowest_first, by_area)):
        offset = place(problem.size, near, order)
        if not best or problem.total(offset) < problem.total(best):
            best = offset
        if problem.total(best) <= goal:
            break
    return best


def _first_fit(size: list[int], near: Near, order: list[int]) -> list[int]:
    """Each buffer in turn, in the lowest gap that holds it."""
    offset, placed = [0] * len(size), [False] * len(size)
    for v in order:
        place = 0
        for low, high in sorted((offset[u], offset[u] + size[u]) for u in near(v) if placed[u]):
            if low - place >= size[v]:
                break
            place = max(place, high)
        offset[v], placed[v] = place, True
    return offset


def _on_lines(problem: Problem, near: Near, offset: list[int], spare: int) -> list[int]:
    """The same again from the lowest up, but first what fills whole lines of a cache: it falls on
    its like alone, and so begins with a line. The placement as it is if all do so already, or if
    it would be larger by more than `spare` bytes."""
    ragged = [nbytes % LINE > 0 for nbytes in problem.nbytes]
    if all(r or place * problem.unit % LINE == 0 for r, place in zip(ragged, offset, strict=True)):
        return offset
    order = sorted(range(len(offset)), key=lambda v: (ragged[v], offset[v]))
    fallen = _first_fit(problem.size, near, order)
    return fallen if problem.total(fallen) <= problem.total(offset) + spare else offset


def _lowest_first(size: list[int], near: Near, order: list[int]) -> list[int]:
    """Always the buffer that can go lowest, on top of what is placed; ties in the given order."""
    offset, placed = [0] * len(size), [False] * len(size)
    turn = [0] * len(size)
    for k, v in enumerate(order):
        turn[v] = k
    heap = [(0, k) for k in range(len(order))]  # sorted, so a heap; raised ones are pushed again
    while heap:
        place, k = heappop(heap)
        v = order[k]
        if placed[v] or place < offset[v]:
            continue
        placed[v], top = True, place + size[v]
        for u in near(v):
            if offset[u] < top and not placed[u]:
                offset[u] = top
                heappush(heap, (top, turn[u]))
    return offset


class Near:
    """Who lives together with whom. Those that always live, as parameters do, are listed once:
    there may be hundreds of them beside tens of thousands of short lives."""

    def __init__(self, problem: Problem):
        _, _, size, first, last, load = problem
        spans = list(zip(first, last, strict=True))
        self.always = [v for v, span in enumerate(spans) if span == (0, len(load))]
        self.everyone = range(len(size))
        self.constant = {*self.always}
        self.others = problem.meetings(v for v in self.everyone if v not in self.constant)

    def __call__(self, v: int) -> Iterable[int]:
        """All that live when v does; v itself may be among them."""
        return self.everyone if v in self.constant else chain(self.always, self.others[v])


# ------------------------------------------------------------------------------------ restarts


def _improve(
    problem: Problem, offset: list[int], goal: int, deadline: float | None, steps: int | None
) -> list[int]:
    """Return offsets (units) whose total is `goal` bytes or less, or the lowest found.

    offset: a packing to start from. goal: bytes, not below problem.bound(). deadline: on the
    clock of time.perf_counter, put off by what compiling takes; None never reads the clock.
    steps: how many buffers may be tried at a place, None for no limit.
    """
    from tinytrain import packing  # loaded only when greedy was not enough

    instance = packing.instance_of(problem)
    orders = Orders(problem, instance)
    allowance = _Allowance(len(offset), deadline, steps)
    total, attempt = problem.total(offset), 0
    while total > goal:
        budget = allowance.grant(SHORTEST_SEARCH * len(offset) * _length(attempt))
        if budget == 0:
            break
        aim = _aim(attempt, goal, total)
        tops = packing.tops_within(problem, aim)
        rank = orders.rank(attempt)
        outcome = allowance.search(instance, rank, tops, budget)
        if outcome.verdict == packing.OUT_OF_STEPS and outcome.spent < budget:
            continue  # cut short to learn the speed: the same again, in full
        orders.learn(outcome.cuts)
        attempt += 1
        if outcome.verdict == packing.FOUND:
            offset, total = outcome.offset, problem.total(outcome.offset)
        elif outcome.verdict == packing.NONE_EXISTS:
            goal = problem.next_total(aim)
    return offset


def _aim(attempt: int, goal: int, total: int) -> int:
    """The bytes that a search aims at, from `goal` to below `total`.

    Not always the goal: for a better answer if that is never reached, and to learn where the
    trouble is. The first eight mostly try a quarter of the way, for those who give few steps.
    """
    if attempt < 8:
        return goal if attempt % 4 == 2 else (goal + 3 * (total - 1)) // 4
    return goal if attempt % 4 < 3 else (goal + total - 1) // 2


def _length(attempt: int) -> int:
    """How long a search is, in SHORTEST_SEARCH: 2 for each fixed order, then Luby's sequence.

    1 1 2 1 1 2 4 1 1 2 ...: within a constant of the best restart policy for any distribution of
    run times (Luby, Sinclair and Zuckerman, 1993).
    """
    if attempt < FIXED_ORDERS:
        return 2
    k = attempt - FIXED_ORDERS + 1
    while k & (k + 1):  # not the last of a doubled stretch: the same as earlier in the stretch
        k -= (1 << (k.bit_length() - 1)) - 1
    return (k + 1) >> 1


class _Allowance:
    """The steps and the time left; grants the length of a search and decides how it runs."""

    def __init__(self, buffers: int, deadline: float | None, steps: int | None):
        self.buffers, self.deadline, self.steps = buffers, deadline, steps
        self.speed = 0.0  # steps a second in the last search, 0 before one was timed
        self.work = 0

    def grant(self, wanted: int) -> int:
        """The steps of the next search, at most `wanted`; 0 when one packing is too much."""
        if self.steps is not None:
            wanted = min(wanted, self.steps)
        if self.deadline is not None:
            left = self.deadline - time.perf_counter()
            if left <= 0:
                return 0
            if self.speed:
                wanted = int(min(wanted, left * self.speed))
        return wanted if wanted >= self.buffers else 0

    def search(
        self, instance: packing.Instance, rank: list[int], tops: packing.Tops, budget: int
    ) -> packing.Outcome:
        """Run one search of at most `budget` steps and take what it spends off the allowance."""
        from tinytrain import packing

        compiled = self._compiled(budget)
        if self.deadline is None:
            outcome = packing.run(instance, rank, tops, budget, compiled)
        else:
            if not self.speed:  # a short one first, to learn how long it may be
                budget = min(budget, PROBE)
            begun = time.perf_counter()
            outcome = packing.run(instance, rank, tops, budget, compiled)
            self.speed = max(outcome.spent, 1) / max(time.perf_counter() - begun, 1e-6)
        self.work += outcome.spent * self.buffers
        if self.steps is not None:
            self.steps -= outcome.spent
        return outcome

    def _compiled(self, budget: int) -> bool:
        """Whether a search of `budget` steps runs compiled; to compile puts the deadline off."""
        from tinytrain import packing

        if packing.is_prepared():
            return True
        if self.work + budget * self.buffers <= INTERPRETED_WORK:
            return False
        waited = packing.prepare()
        self.speed = 0.0
        if self.deadline is not None:
            self.deadline += waited
        return True


class Orders:
    """The order in which each attempt prefers buffers: four fixed, then random mixes.

    A mix weighs how troubled a buffer's sections were (or how loaded), its span and its size.
    """

    def __init__(self, problem: Problem, instance: packing.Instance):
        self.first, self.last = problem.first, problem.last
        self.size, nears = problem.size, instance.nears
        self.span = [b - a for a, b in zip(self.first, self.last, strict=True)]
        self.peak = self._worst(problem.load)
        area = [size * span for size, span in zip(self.size, self.span, strict=True)]
        met = [b - a for a, b in pairwise(nears)]
        peak, span = self.peak, self.span
        self.fixed = ((peak, span, area), (peak, span, self.size), (peak, met), (span, area))
        self.trouble = [0.0] * len(problem.load)
        import random  # few searches come so far

        self.random = random.Random(0)  # the same draws on every machine

    def rank(self, attempt: int) -> list[int]:
        """The place of each buffer in the order, 0 first."""
        key: list[Any]
        if attempt < FIXED_ORDERS:
            key = list(zip(*self.fixed[attempt], strict=True))
        else:
            key = self._mix()
        rank = [0] * len(key)
        # reverse=True keeps equals in the order of their numbers
        for place, v in enumerate(sorted(range(len(key)), key=key.__getitem__, reverse=True)):
            rank[v] = place
        return rank

    def learn(self, cuts: list[int]) -> None:
        """Remember where the last search was cut; what is older fades."""
        scale = 1000 / (sum(cuts) or 1)
        self.trouble = [
            0.9 * old + scale * new for old, new in zip(self.trouble, cuts, strict=True)
        ]

    def _mix(self) -> list[float]:
        draw = self.random.random
        worst = self.peak if draw() < 0.3 else [1 + x for x in self._worst(self.trouble)]
        x, y, z = 2 * draw(), draw(), draw()
        columns = zip(_spread(worst), _spread(self.span), _spread(self.size), strict=True)
        return [x * trouble + y * span + z * size for trouble, span, size in columns]

    def _worst(self, by_section: Sequence[float]) -> list[Any]:
        """For each buffer the most in any section it lives in."""
        return [max(by_section[a:b]) for a, b in zip(self.first, self.last, strict=True)]


def _spread(values: Sequence[float]) -> list[float]:
    """From 0 to 1 on a scale of powers of two (no math.log: its last bit differs by machine)."""
    scale = [exponent + 2 * mantissa for mantissa, exponent in map(math.frexp, values)]
    least, most = min(scale), max(scale)
    return [(x - least) / ((most - least) or 1.0) for x in scale]
