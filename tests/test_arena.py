"""Does a placement keep apart what lives together, and is it as low as it can be?"""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytrain import arena, packing
from tinytrain.errors import InputError

Buffer = tuple[int, int, int]  # size, first, end

BUFFER: st.SearchStrategy[Buffer] = st.tuples(
    st.integers(0, 300), st.integers(-5, 12), st.integers(0, 9)
).map(lambda row: (row[0], row[1], row[1] + row[2]))
ALIGNS = st.sampled_from([1, 2, 3, 16, 64])

# On these all greedy orders miss the most that is alive at once, which can be met: (buffers,
# greedy's bytes, lower bound).
HARD: list[tuple[list[Buffer], int, int]] = [
    ([(64, 2, 4), (32, 3, 5), (96, 1, 3), (80, 4, 6), (80, 5, 6)], 176, 160),
    ([(48, 6, 7), (32, 4, 7), (48, 2, 5), (48, 5, 6), (64, 1, 4), (32, 0, 6)], 160, 144),
    ([(96, 4, 5), (16, 3, 4), (64, 1, 3), (32, 3, 5), (32, 2, 4), (48, 0, 4)], 160, 144),
    (
        list(
            zip(
                (80, 16, 80, 16, 48, 16, 32, 64),
                (5, 3, 1, 5, 2, 0, 3, 2),
                (7, 6, 3, 7, 5, 4, 7, 4),
                strict=True,
            )
        ),
        240,
        208,
    ),
    (
        list(
            zip(
                (16, 64, 48, 80, 64, 32, 96, 80, 96, 96, 32, 80),
                (2, 2, 5, 1, 0, 5, 0, 2, 4, 2, 3, 1),
                (6, 4, 6, 3, 6, 6, 5, 5, 6, 5, 5, 6),
                strict=True,
            )
        ),
        608,
        576,
    ),
]

needs_numba = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason="numba is missing"
)


def split(buffers: list[Buffer]) -> tuple[list[int], list[tuple[int, int]]]:
    return [size for size, _, _ in buffers], [(first, end) for _, first, end in buffers]


def check(buffers: list[Buffer], offsets: list[int], total: int, align: int) -> None:
    """Assert all that a placement promises, pair by pair."""
    assert len(offsets) == len(buffers)
    assert all(type(offset) is int and offset >= 0 and offset % align == 0 for offset in offsets)
    ends = [offset + size for offset, (size, _, _) in zip(offsets, buffers, strict=True)]
    assert total == max(ends, default=0)
    for i, j in combinations(range(len(buffers)), 2):
        (_, a, b), (_, c, d) = buffers[i], buffers[j]
        if max(a, c) < min(b, d):  # they live together
            assert ends[i] <= offsets[j] or ends[j] <= offsets[i]


@pytest.fixture(params=["interpreted", pytest.param("compiled", marks=needs_numba)])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every search of a test runs this way, whatever its length."""
    with pytest.MonkeyPatch.context() as patch:
        use(patch, request.param)
        yield request.param


def use(patch: pytest.MonkeyPatch, engine: str) -> None:
    patch.setattr(arena, "INTERPRETED_WORK", 0 if engine == "compiled" else 1 << 62)
    patch.setattr(packing, "is_prepared", lambda: False)


# --------------------------------------------------------------------------- what is promised


@given(st.lists(BUFFER, max_size=25), ALIGNS, st.none() | st.integers(0, 4000))
def test_buffers_that_live_together_lie_apart(
    buffers: list[Buffer], align: int, capacity: int | None
) -> None:
    sizes, lifetimes = split(buffers)
    offsets, total = arena.assign(sizes, lifetimes, align, capacity, steps=400)
    check(buffers, offsets, total, align)
    assert total >= arena.lower_bound(sizes, lifetimes)


@given(st.lists(BUFFER, max_size=20))
def test_lower_bound_is_the_most_alive_at_one_moment(buffers: list[Buffer]) -> None:
    alive = [sum(size for size, a, b in buffers if a <= t < b) for t in range(-5, 25)]
    assert arena.lower_bound(*split(buffers)) == max(alive)


@given(st.lists(BUFFER, max_size=5), st.sampled_from([1, 16]))
def test_small_instances_are_placed_as_low_as_any_order_can(
    buffers: list[Buffer], align: int
) -> None:
    # Placing one after another on top of what lives with it reaches every packing that has
    # fallen as low as it can, so the best of all orders is the best there is.
    best = min(stack(order, align) for order in permutations(buffers))
    assert arena.assign(*split(buffers), align, steps=50_000)[1] == best


def stack(order: tuple[Buffer, ...], align: int) -> int:
    placed: list[tuple[int, int, int]] = []  # end, padded; lifetime
    total = 0
    for size, a, b in order:
        low = max((top for top, c, d in placed if max(a, c) < min(b, d)), default=0)
        low = low if size and a < b else 0
        total = max(total, low + size)
        if size:
            placed.append((-(-(low + size) // align) * align, a, b))
    return total


@given(st.lists(BUFFER, max_size=25), ALIGNS, st.integers(0, 500))
def test_equal_steps_give_equal_answers(buffers: list[Buffer], align: int, steps: int) -> None:
    sizes, lifetimes = split(buffers)
    first = arena.assign(sizes, lifetimes, align, steps=steps)
    assert first == arena.assign(tuple(sizes), tuple(lifetimes), align, steps=steps)


def test_without_seconds_no_clock_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def read() -> float:
        raise AssertionError("a clock was read")

    use(monkeypatch, "interpreted")
    monkeypatch.setattr("time.perf_counter", read)
    buffers, _, bound = HARD[0]
    assert arena.assign(*split(buffers))[1] == bound
    with pytest.raises(AssertionError, match="a clock was read"):
        arena.assign(*split(buffers), seconds=1)


def test_more_steps_are_never_worse() -> None:
    sizes, lifetimes = split(cut(100))
    totals = [arena.assign(sizes, lifetimes, steps=steps)[1] for steps in (0, 4000, 16000)]
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] < totals[0]


def cut(count: int, seed: int = 0) -> list[Buffer]:
    """A rectangle of 40 moments and 16,000 bytes, cut into pieces: they fit it without a gap."""
    draw = random.Random(seed).random
    pieces = [(0, 40, 1000)]
    while len(pieces) < count:
        pieces.sort(key=lambda piece: (piece[0] - piece[1]) * piece[2])
        a, b, height = pieces.pop(int(draw() * min(3, len(pieces))))
        if (draw() < 0.5 and b - a > 1) or height < 2:
            middle = a + 1 + int(draw() * (b - a - 1))
            pieces += [(a, middle, height), (middle, b, height)]
        else:
            middle = 1 + int(draw() * (height - 1))
            pieces += [(a, b, middle), (a, b, height - middle)]
    return [(16 * height, a, b) for a, b, height in pieces]


# ------------------------------------------------------------------------------- the search


@pytest.mark.parametrize(("buffers", "greedy", "bound"), HARD)
def test_the_search_meets_what_greedy_misses(
    buffers: list[Buffer], greedy: int, bound: int, engine: str
) -> None:
    sizes, lifetimes = split(buffers)
    assert arena.lower_bound(sizes, lifetimes) == bound
    assert arena.assign(sizes, lifetimes, steps=0)[1] == greedy
    offsets, total = arena.assign(sizes, lifetimes)
    check(buffers, offsets, total, 16)
    assert total == bound


def test_the_last_buffer_is_not_padded(engine: str) -> None:
    # 17 bytes below 16 need 32 + 16; the other way up the padding hangs out of the arena.
    offsets, total = arena.assign([17, 16], [(0, 1), (0, 1)])
    assert (offsets, total) == ([16, 0], 33)


@pytest.mark.parametrize("capacity", [113, 114, 116, 127])
def test_a_capacity_between_two_units_is_met_exactly(capacity: int, engine: str) -> None:
    # Padded they need 48 + 48 + 32; with 33 on top 15 of those hang out.
    sizes, lifetimes = [40, 33, 20], [(0, 2)] * 3
    assert arena.assign(sizes, lifetimes, capacity=capacity)[1] <= capacity
    assert arena.assign(sizes, lifetimes, capacity=112)[1] == 113


@pytest.mark.parametrize("seed", range(4))
def test_a_rectangle_cut_to_pieces_is_put_together(seed: int, engine: str) -> None:
    buffers = cut(40, seed)
    offsets, total = arena.assign(*split(buffers), steps=40_000)
    check(buffers, offsets, total, 16)
    assert total == 16_000


def test_it_stops_at_the_capacity(monkeypatch: pytest.MonkeyPatch) -> None:
    buffers, greedy, bound = HARD[0]
    sizes, lifetimes = split(buffers)
    monkeypatch.setattr(packing, "run", no_search)
    assert arena.assign(sizes, lifetimes, capacity=greedy)[1] == greedy
    assert arena.assign(sizes, lifetimes, capacity=10 * greedy)[1] <= 10 * greedy
    assert arena.assign(sizes[:3], lifetimes[:3])[1] == 160  # greedy meets the bound
    with pytest.raises(AssertionError, match="searched"):
        arena.assign(sizes, lifetimes, capacity=bound)


def no_search(*args: Any) -> None:
    raise AssertionError("searched")


def test_a_capacity_that_nothing_meets_gives_the_best_there_is() -> None:
    buffers, _, bound = HARD[1]
    assert arena.assign(*split(buffers), capacity=bound - 1)[1] == bound


@needs_numba
@given(st.lists(BUFFER, min_size=2, max_size=25), ALIGNS, st.integers(100, 3000))
def test_compiled_and_interpreted_searches_agree(
    buffers: list[Buffer], align: int, steps: int
) -> None:
    answers = []
    for engine in ("interpreted", "compiled"):
        with pytest.MonkeyPatch.context() as patch:
            use(patch, engine)
            answers.append(arena.assign(*split(buffers), align, steps=steps))
    assert answers[0] == answers[1]


@needs_numba
def test_compiled_and_interpreted_searches_agree_step_by_step() -> None:
    sizes, lifetimes = split(cut(100))
    problem = arena.Problem.of(sizes, lifetimes, 16)
    instance = packing.instance_of(problem)
    orders = arena.Orders(problem, instance)
    tops = packing.tops_within(problem, problem.bound())
    spent = cuts = 0
    for attempt in range(6):
        rank = orders.rank(attempt)
        one = packing.run(instance, rank, tops, 700, compiled=False)
        assert one == packing.run(instance, rank, tops, 700, compiled=True)
        orders.learn(one.cuts)
        spent, cuts = spent + one.spent, cuts + sum(one.cuts)
    assert spent > 1000  # searches, not dives
    assert cuts > 500


def test_without_numba_the_search_is_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    buffers, _, bound = HARD[2]
    expected = arena.assign(*split(buffers))
    monkeypatch.setitem(sys.modules, "numba", None)  # import numba raises ImportError
    packing.compiled_search.cache_clear()
    try:
        use(monkeypatch, "compiled")
        assert packing.compiled_search() is None
        assert arena.assign(*split(buffers)) == expected
        assert expected[1] == bound
    finally:
        packing.compiled_search.cache_clear()
        packing.prepare.cache_clear()


def test_the_source_also_runs_on_numpy_arrays() -> None:
    numpy = pytest.importorskip("numpy", reason="numpy is missing")
    sizes, lifetimes = split(HARD[4][0])
    problem = arena.Problem.of(sizes, lifetimes, 16)
    instance = packing.instance_of(problem)
    rank, tops = list(range(len(sizes))), packing.tops_within(problem, problem.bound())
    plain = packing.run(instance, rank, tops, 500, compiled=False)
    row = packing.as_int64
    state, parts = packing.blank(instance, tops, row)
    verdict, spent = packing.search(
        packing.Instance(*map(row, instance)),
        row(rank),
        packing.Tops(*map(row, tops)),
        500,
        state,
        parts,
    )
    assert isinstance(state.offset, numpy.ndarray)
    assert (verdict, spent) == (plain.verdict, plain.spent)
    assert state.offset.tolist() == plain.offset


def test_seconds_bound_the_search() -> None:
    buffers = cut(200, seed=1)
    sizes, lifetimes = split(buffers)
    offsets, total = arena.assign(sizes, lifetimes, seconds=0.2)
    check(buffers, offsets, total, 16)
    greedy = arena.assign(sizes, lifetimes, steps=0)
    assert total <= greedy[1]
    assert arena.assign(sizes, lifetimes, seconds=0) == greedy
    # Loosely: far from the minutes that the steps alone would allow.
    begun = time.perf_counter()
    arena.assign(sizes, lifetimes, seconds=0.2, steps=10**9)
    assert time.perf_counter() - begun < 20


def test_luby_sequence() -> None:
    lengths = [arena._length(attempt) for attempt in range(4, 4 + 15)]
    assert lengths == [1, 1, 2, 1, 1, 2, 4, 1, 1, 2, 1, 1, 2, 4, 8]


# -------------------------------------------------------------------------------- the edges


def test_nothing_to_place() -> None:
    assert arena.assign([], []) == ([], 0)
    assert arena.lower_bound([], []) == 0
    assert arena.assign([0, 0], [(0, 5), (2, 2)]) == ([0, 0], 0)


def test_zero_sizes_and_empty_lifetimes_are_harmless() -> None:
    sizes, lifetimes = [64, 0, 48, 32], [(0, 4), (0, 4), (2, 2), (1, 3)]
    offsets, total = arena.assign(sizes, lifetimes)
    check([(s, a, b) for s, (a, b) in zip(sizes, lifetimes, strict=True)], offsets, total, 16)
    assert total == arena.lower_bound(sizes, lifetimes) == 96
    # What never lives is no load, but its bytes still lie inside the arena.
    assert arena.lower_bound([80], [(3, 3)]) == 0
    assert arena.assign([80, 16], [(3, 3), (0, 9)]) == ([0, 0], 80)


def test_lifetimes_are_half_open() -> None:
    assert arena.assign([100, 100], [(0, 1), (1, 2)]) == ([0, 0], 100)


def test_numpy_numbers_are_numbers() -> None:
    numpy = pytest.importorskip("numpy", reason="numpy is missing")
    sizes, lifetimes = split(HARD[0][0])
    answer = arena.assign(numpy.array(sizes), numpy.array(lifetimes), align=numpy.int64(16))
    assert answer == arena.assign(sizes, lifetimes)
    assert type(answer[1]) is int


@pytest.mark.parametrize(
    ("sizes", "lifetimes", "options", "message"),
    [
        ([1], [], {}, "sizes has 1 entries, lifetimes 0"),
        ([1, -2], [(0, 1), (0, 1)], {}, r"sizes\[1\] is -2"),
        ([1.5], [(0, 1)], {}, r"sizes\[0\] is 1.5, not a whole number"),
        (["64K"], [(0, 1)], {}, r"sizes\[0\] is '64K'"),
        ([1], [(0, 0.5)], {}, r"lifetimes\[0\] is 0.5"),
        ([1], [(2, 1)], {}, r"lifetimes\[0\] is \(2, 1\), which ends before it begins"),
        ([1], [(0, 1, 2)], {}, r"lifetimes\[0\] is \(0, 1, 2\): give a pair"),
        ([1], [3], {}, r"lifetimes\[0\] is 3: give a pair"),
        ([1], [(0, 1)], {"align": 0}, "align is 0"),
        ([1], [(0, 1)], {"align": 2.0}, "align is 2.0"),
        ([1], [(0, 1)], {"capacity": -1}, "capacity is -1"),
        ([1], [(0, 1)], {"capacity": "1M"}, "capacity is '1M'"),
        ([1], [(0, 1)], {"seconds": -1}, "seconds is -1"),
        ([1], [(0, 1)], {"seconds": float("nan")}, "seconds is nan"),
        ([1], [(0, 1)], {"steps": -1}, "steps is -1"),
        ([1], [(0, 1)], {"steps": 1.0}, "steps is 1.0"),
        ([1 << 58, 1 << 58], [(0, 1)] * 2, {}, "sizes: they add up"),
    ],
)
def test_bad_input_is_named(
    sizes: Any, lifetimes: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        arena.assign(sizes, lifetimes, **options)
    assert "\n" not in str(caught.value)


def test_lower_bound_names_bad_input_too() -> None:
    with pytest.raises(InputError, match=r"sizes\[0\] is -1"):
        arena.lower_bound([-1], [(0, 1)])


def test_importing_and_greedy_need_the_standard_library_alone(checkout: Path) -> None:
    # A bare package in place of tinytrain/__init__.py, which may import more.
    program = (
        "import sys, types\n"
        "package = types.ModuleType('tinytrain')\n"
        "package.__path__ = ['tinytrain']\n"
        "sys.modules['tinytrain'] = package\n"
        "before = set(sys.modules)\n"
        "import tinytrain.arena as arena\n"
        "arena.assign([64, 32, 16], [(0, 2), (1, 3), (2, 4)])\n"
        "new = set(sys.modules) - before\n"
        "print(*sorted(n for n in new if n.split('.')[0] not in sys.stdlib_module_names))\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["tinytrain.arena", "tinytrain.errors"]


# ------------------------------------------------------------------------ published instances


def test_minimalloc_instances_fit() -> None:
    if not os.environ.get("TINYTRAIN_DATA"):
        pytest.skip("TINYTRAIN_DATA is not set: no minimalloc instances")
    if importlib.util.find_spec("numba") is None:
        pytest.skip("numba is missing: interpreted, the hardest instances take minutes")
    from tinytrain.bench import arena as bench

    for file in bench.instance_files():
        sizes, lifetimes = bench.read(file)
        # Steps, not seconds, so that a busy machine changes nothing.
        offsets, total = arena.assign(sizes, lifetimes, capacity=bench.CAPACITY, steps=3_000_000)
        bench.verify(sizes, lifetimes, offsets, total)
        assert total <= bench.CAPACITY, file.name


def test_the_benchmark_names_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinytrain.bench import arena as bench

    monkeypatch.delenv("TINYTRAIN_DATA", raising=False)
    with pytest.raises(InputError, match="set TINYTRAIN_DATA"):
        bench.run()
    with pytest.raises(InputError, match="no such folder"):
        bench.run(str(tmp_path))
    (tmp_path / "minimalloc").mkdir()
    with pytest.raises(InputError, match="no CSV file"):
        bench.run(str(tmp_path))
    (tmp_path / "minimalloc" / "x.csv").write_text("id,size\n0,5\n")
    with pytest.raises(InputError, match="columns id,lower,upper,size"):
        bench.run(str(tmp_path))


def test_the_benchmark_finds_overlaps() -> None:
    from tinytrain.bench import arena as bench

    bench.verify([32, 16], [(0, 2), (1, 3)], [0, 32], 48)
    with pytest.raises(AssertionError, match="overlap"):
        bench.verify([32, 16], [(0, 2), (1, 3)], [0, 16], 32)
    with pytest.raises(AssertionError, match="end at 40"):
        bench.verify([32, 16], [(0, 2), (1, 3)], [0, 32], 40)
