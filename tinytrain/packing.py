"""Searches depth-first for a packing under a given height; it mends none that it is given.

The idea is MiniMalloc's (Google, Apache-2.0; M. D. Moffitt, "MiniMalloc: A Lightweight Memory
Allocator for Hardware-Accelerated Machine Learning", ASPLOS 2023): search only the canonical
packings, cut a branch when some section of time can no longer hold what must still go there, and
divide what is left where no buffer crosses. The code is our own.

One source runs interpreted (lists) and compiled by Numba (int64 arrays), with equal results step
by step; only speed depends on which. Numba is imported by the first search that asks for it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tinytrain.arena import Problem

Ints = list[int]  # a list of Python integers or, compiled, an int64 array

FOUND, NONE_EXISTS, OUT_OF_STEPS = 1, 0, -1  # what a search says

NOWHERE = 1 << 60  # above every place; what is added to it stays within 64 bits


# -------------------------------------------------------------------------------- the instance


class Instance(NamedTuple):
    """The buffers as the search sees them; `near[nears[v]:nears[v + 1]]` live together with v."""

    size: Ints
    first: Ints
    last: Ints
    nears: Ints
    near: Ints


class Tops(NamedTuple):
    """How high a packing may be: the highest place of each buffer, the highest top in a section.

    All tops are equal but where the aim is not a whole number of units.
    """

    highest: Ints
    ceiling: Ints


def instance_of(problem: Problem) -> Instance:
    """The buffers of `problem`, and who lives with whom."""
    lists = problem.meetings(range(len(problem.size)))
    nears = [0]
    for each in lists:
        nears.append(nears[-1] + len(each))
    near = [u for each in lists for u in each]
    return Instance(problem.size, problem.first, problem.last, nears, near)


def tops_within(problem: Problem, aim: int) -> Tops:
    """What a total of `aim` bytes allows; exact also where the last buffer's padding hangs out."""
    highest = [(aim - nbytes) // problem.unit for nbytes in problem.nbytes]
    ceiling = [0] * len(problem.load)
    for v, place in enumerate(highest):
        for t in range(problem.first[v], problem.last[v]):
            ceiling[t] = max(ceiling[t], place + problem.size[v])
    return Tops(highest, ceiling)


# --------------------------------------------------------------------------------- one search
#
# Every packing can be let fall until each buffer lies on the bottom or on another. Placed from low
# to high (equals by `rank`), each then goes exactly on top of what is placed: its `base`. So the
# search only chooses who is next, and never goes back down.
#
# When no unplaced buffer crosses some moment, the two sides are independent. They become parts of
# their own, and a part that fails sends the search straight back to the buffer that made it.
#
# The functions below are what Numba compiles: integers, arrays and loops only.


class State(NamedTuple):
    """What is placed, by buffer, and what is not, by section; `log` takes it back."""

    pool: Ints  # all buffers; a part's are pool[begin:end]
    base: Ints  # the lowest place on top of what is placed
    placed: Ints  # 0 or 1
    offset: Ints  # where each was placed last
    load: Ints  # by section: units not placed yet
    low: Ints  # by section: scratch
    cuts: Ints  # by section: branches it ended
    log: Ints  # buffers changed, in order
    was: Ints  # their base before, or -1: placed


class Parts(NamedTuple):
    """Parts of the rest, in the order they were made; each places one buffer."""

    begin: Ints
    end: Ints
    left: Ints  # its sections
    right: Ints
    parent: Ints  # the part whose buffer made it
    after: Ints  # the part to do next
    waiting: Ints  # the first part that waited when this one began
    logged: Ints  # the log's length when it began
    made: Ints  # the number of parts when it began
    at: Ints  # the place tried last, and the rank of the buffer tried there
    turn: Ints
    free: Ints  # 1: that buffer touches no other of this part, so no other choice can do better


def search(
    instance: Instance, rank: Ints, tops: Tops, budget: int, state: State, parts: Parts
) -> tuple[int, int]:
    """Look for a packing within `tops`: (verdict, steps spent), with the places in state.offset."""
    _start(instance, state, parts)
    here, logged, spent = 0, 0, 0
    while True:
        logged = _take_back(instance, state, logged, parts.logged[here])
        spot = _choose(instance, rank, state, parts, here)
        if spot < 0:
            here = parts.parent[here]  # this part cannot be packed
            if here < 0:
                return NONE_EXISTS, spent
        elif spent == budget:
            return OUT_OF_STEPS, spent
        else:
            spent += 1
            logged = _place(instance, rank, state, parts, here, spot, logged)
            if _fits(instance, rank, tops, state, parts, here):
                pending, made = _divide(instance, state, parts, here)
                if pending < 0:
                    return FOUND, spent
                here = pending
                parts.waiting[here] = parts.after[here]
                parts.logged[here] = logged
                parts.made[here] = made
                parts.free[here] = 0


def _start(instance: Instance, state: State, parts: Parts) -> None:
    """Everything is one part, and nothing is placed."""
    count = len(instance.size)
    for v in range(count):
        state.pool[v] = v
        for t in range(instance.first[v], instance.last[v]):
            state.load[t] += instance.size[v]
    parts.begin[0], parts.end[0] = 0, count
    parts.left[0], parts.right[0] = 0, len(state.load)
    parts.parent[0], parts.waiting[0] = -1, -1
    parts.at[0], parts.turn[0] = -1, -1
    parts.made[0] = 1


def _take_back(instance: Instance, state: State, logged: int, mark: int) -> int:
    """Undo the log's entries from `mark` on; return its length."""
    while logged > mark:
        logged -= 1
        u, before = state.log[logged], state.was[logged]
        if before >= 0:
            state.base[u] = before
        else:
            state.placed[u] = 0
            for t in range(instance.first[u], instance.last[u]):
                state.load[t] += instance.size[u]
    return logged


def _choose(instance: Instance, rank: Ints, state: State, parts: Parts, here: int) -> int:
    """The index in `pool` of the next buffer to try: the least (base, rank) after the last tried.

    -1 when there is none. A place as high as some buffer's top could be is too high: that buffer
    would have fitted underneath.
    """
    if parts.free[here]:
        return -1
    size, base, pool = instance.size, state.base, state.pool
    at, turn = parts.at[here], parts.turn[here]
    spot, where, who, lowest_top = -1, NOWHERE, NOWHERE, NOWHERE
    for i in range(parts.begin[here], parts.end[here]):
        u = pool[i]
        place = base[u]
        if place + size[u] < lowest_top:
            lowest_top = place + size[u]
        untried = place > at or (place == at and rank[u] > turn)
        if untried and (place < where or (place == where and rank[u] < who)):
            spot, where, who = i, place, rank[u]
    if where >= lowest_top:
        return -1
    return spot


def _place(
    instance: Instance, rank: Ints, state: State, parts: Parts, here: int, spot: int, logged: int
) -> int:
    """Put pool[spot] on its base and raise what lives with it; return the log's length.

    The buffer moves to the front of its part's stretch of the pool.
    """
    pool, base, log, was = state.pool, state.base, state.log, state.was
    v, front = pool[spot], parts.begin[here]
    pool[spot], pool[front] = pool[front], v
    where = base[v]
    top = where + instance.size[v]
    parts.at[here], parts.turn[here] = where, rank[v]
    state.offset[v], state.placed[v] = where, 1
    log[logged], was[logged] = v, -1
    logged += 1
    for t in range(instance.first[v], instance.last[v]):
        state.load[t] -= instance.size[v]
    free = 1
    for i in range(instance.nears[v], instance.nears[v + 1]):
        u = instance.near[i]
        if not state.placed[u]:
            free = 0
            if base[u] < top:
                log[logged], was[logged] = u, base[u]
                logged += 1
                base[u] = top
    parts.free[here] = free
    return logged


def _fits(
    instance: Instance, rank: Ints, tops: Tops, state: State, parts: Parts, here: int
) -> bool:
    """Whether each section of the part can still hold its load above the lowest place left there.

    Counts the section that cannot in `cuts`.
    """
    first, last, base, low = instance.first, instance.last, state.base, state.low
    begin, left, right = parts.begin[here], parts.left[here], parts.right[here]
    where, turn = parts.at[here], parts.turn[here]
    if where > tops.highest[state.pool[begin]]:
        return False
    for t in range(left, right):
        low[t] = NOWHERE
    for i in range(begin + 1, parts.end[here]):
        u = state.pool[i]
        place = base[u]
        if place < where or (place == where and rank[u] < turn):
            place = _passed_over(instance, state, u, where)
        if place > tops.highest[u]:
            return False
        for t in range(first[u], last[u]):
            if place < low[t]:
                low[t] = place
    for t in range(left, right):
        if state.load[t] > 0 and low[t] + state.load[t] > tops.ceiling[t]:
            state.cuts[t] += 1
            return False
    return True


def _passed_over(instance: Instance, state: State, u: int, where: int) -> int:
    """The lowest place left to a buffer whose turn is over: on top of one still to come."""
    place = NOWHERE
    for i in range(instance.nears[u], instance.nears[u + 1]):
        w = instance.near[i]
        if not state.placed[w]:
            place = min(place, max(state.base[w], where) + instance.size[w])
    return place


def _divide(instance: Instance, state: State, parts: Parts, here: int) -> tuple[int, int]:
    """Make parts of what is left in `here`; return (the part to do next or -1, number of parts)."""
    first, last, pool, reach = instance.first, instance.last, state.pool, state.low
    start, end = parts.begin[here] + 1, parts.end[here]
    pending, made = parts.waiting[here], parts.made[here]
    for t in range(parts.left[here], parts.right[here]):
        reach[t] = 0  # the last end of those that begin at t
    for i in range(start, end):
        u = pool[i]
        if last[u] > reach[first[u]]:
            reach[first[u]] = last[u]
    t = parts.left[here]
    while start < end:
        while reach[t] == 0:
            t += 1
        left, right = t, reach[t]
        while t < right:
            if reach[t] > right:
                right = reach[t]
            t += 1
        parts.left[made], parts.right[made] = left, right
        parts.begin[made] = start
        for i in range(start, end):
            u = pool[i]
            if first[u] < right:
                pool[i], pool[start] = pool[start], u
                start += 1
        parts.end[made] = start
        pending = _queue(parts, here, made, pending)
        made += 1
    return pending, made


def _queue(parts: Parts, here: int, part: int, pending: int) -> int:
    """Put a new part of `here` among its sisters, smallest first; return the first to do."""
    parts.at[part], parts.turn[part] = parts.at[here], parts.turn[here]
    parts.parent[part] = here
    length = parts.end[part] - parts.begin[part]
    before, x = -1, pending
    while x != parts.waiting[here] and parts.end[x] - parts.begin[x] < length:
        before, x = x, parts.after[x]
    parts.after[part] = x
    if before < 0:
        return part
    parts.after[before] = part
    return pending


# ------------------------------------------------------------------- interpreted and compiled


class Outcome(NamedTuple):
    """What a search found: places in units (when FOUND), cuts by section, steps spent."""

    verdict: int
    offset: list[int]
    cuts: list[int]
    spent: int


def run(instance: Instance, rank: Ints, tops: Tops, budget: int, compiled: bool) -> Outcome:
    """One search of at most `budget` steps; `compiled` without Numba is interpreted."""
    engine = compiled_search() if compiled else None
    row: Callable[[list[int]], Any] = list if engine is None else as_int64
    state, parts = blank(instance, tops, row)
    verdict, spent = (engine or search)(
        Instance(*map(row, instance)), row(rank), Tops(*map(row, tops)), budget, state, parts
    )
    return Outcome(verdict, list(map(int, state.offset)), list(map(int, state.cuts)), spent)


def as_int64(values: list[int]) -> Any:
    """The array that the compiled search works on."""
    import numpy

    return numpy.array(values, dtype=numpy.int64)


def blank(instance: Instance, tops: Tops, row: Callable[[list[int]], Any]) -> tuple[State, Parts]:
    """Memory for one search, all zero: lists (row=list) or arrays (row=as_int64)."""
    buffers, sections = len(instance.size), len(tops.ceiling)
    changes = buffers + len(instance.near) // 2  # each buffer is placed once, raised once a pair
    lengths = [buffers] * 4 + [sections] * 3 + [changes] * 2
    state = State(*(row([0] * length) for length in lengths))
    return state, Parts(*(row([0] * (buffers + 1)) for _ in Parts._fields))


@functools.cache
def compiled_search() -> Any:
    """`search` as Numba's dispatcher, which compiles when first called; None without Numba."""
    try:
        import numba
        from numba.extending import register_jitable
    except ImportError:
        return None
    for piece in (_start, _take_back, _choose, _place, _fits, _passed_over, _divide, _queue):
        register_jitable(piece)
    try:
        return numba.njit(cache=True)(search)
    except RuntimeError:  # nowhere to write a cache: compile once a process
        return numba.njit(search)


@functools.cache
def prepare() -> float:
    """Load or compile the search; the seconds that took (the first time, when called again)."""
    begun = time.perf_counter()
    one = Instance([1], [0], [1], [0, 0], [])
    run(one, [0], Tops([0], [1]), 1, True)
    return time.perf_counter() - begun


def is_prepared() -> bool:
    """Whether `prepare` has run in this process."""
    return prepare.cache_info().currsize > 0
