"""Runs a lowered program in fresh arrays and in a planned arena, and compares every bit. The arena
is full of 0xFF before a step, and every byte that dies is 0xFF again.
"""

from __future__ import annotations

import numpy as np

from tinytrain.op import OPS
from tinytrain.plan import Plan, make_plan
from tinytrain.run import POISON, Executor, HighWater, new_arena, run_fresh
from tinytrain.steps import Program

Values = dict[int, np.ndarray]


def leaf_values(program: Program, leaves) -> Values:
    """An array for every leaf: the tensors', zero optimizer state, 0.1 for what the host sets."""
    values = {v: t.data for v, t in leaves.items()}
    for v, leaf in program.leaves.items():
        if v not in values:
            spec = program.specs[v]
            values[v] = np.full(spec.shape, 0.1 if leaf.kind == "hyper" else 0, spec.dtype)
    return values


def fresh(program: Program, values: Values, backend: str) -> Values:
    """What the program computes when every value has memory of its own."""
    return run_fresh(program, {v: a.copy() for v, a in values.items()}, backend)


def same_bits(got: np.ndarray, want: np.ndarray, what: str) -> None:
    """AssertionError unless both are the same bytes under the same shape."""
    same = got.shape == want.shape and got.dtype == want.dtype and got.tobytes() == want.tobytes()
    assert same, f"{what} differs:\nplanned {got}\nfresh   {want}"


def write(executor: Executor, values: Values) -> None:
    """Put the leaves where the plan wants them."""
    for v, a in values.items():
        executor.view(v)[...] = a


def results(program: Program) -> dict[int, int]:
    """What can be looked at after the last step: value -> the value whose buffer it lies in."""
    last = {program.home[v]: v for s in program.steps for v in s.writes() if v in program.home}
    return {v: v for v in program.kept} | {v: leaf for leaf, v in last.items()}


def check_sharing(plan: Plan) -> None:
    """No step writes over what it still reads, unless its row allows that pair, element by element.
    NumPy copies operands that overlap, so that no value would show it; a board does not."""
    program = plan.program

    def bytes_of(v: int) -> range:
        start = plan.offset(v)
        return range(start, start + program.specs[v].nbytes)

    for k, step in enumerate(program.steps):
        written = [(o, v) for o, v in enumerate(step.outs) if v is not None]
        places = [bytes_of(v) for v in step.writes()]
        for i, here in enumerate(places):
            assert not any(overlap(here, there) for there in places[:i]), f"step {k}, {step.op}"
        for o, out in written:
            for i, v in enumerate(step.ins):
                if v is None or not overlap(bytes_of(out), bytes_of(v)):
                    continue
                same = bytes_of(out) == bytes_of(v) and program.specs[out] == program.specs[v]
                assert same and (o, i) in OPS[step.op].inplace, (
                    f"step {k}, {step.op}: output {o} lies over input {i}"
                )
        if step.acc is not None and overlap(bytes_of(step.outs[0]), bytes_of(step.acc)):
            assert bytes_of(step.outs[0]) == bytes_of(step.acc), f"step {k}, {step.op}"
        for v in step.work:
            reads = [bytes_of(r) for r in step.reads()]
            assert not any(overlap(bytes_of(v), there) for there in reads), f"step {k}, {step.op}"


def overlap(a: range, b: range) -> bool:
    return max(a.start, b.start) < min(a.stop, b.stop)


def planned_equals_fresh(
    program: Program, values: Values, backend: str, inplace: bool, runs: int = 1
) -> Plan:
    """Plan the program, run it under poison, and compare; the plan, to look at."""
    want = fresh(program, values, backend)
    plan = make_plan(program, batch=1, inplace=inplace)
    plan.check()
    check_sharing(plan)
    arena = new_arena(plan.arena_bytes)
    arena.fill(POISON)
    executor = Executor(plan, backend, arena, poison=True)
    for _ in range(runs):
        write(executor, values)
        executor.run()
        for v, at in results(program).items():
            same_bits(executor.view(at), want[v], plan.name(v))
        homes = set(program.home.values())
        for buffer in plan.buffers:
            v = buffer.owner
            if buffer.persistent and v not in homes:
                same_bits(executor.view(v), values[v], f"the leaf {plan.name(v)} after the step")
    return plan


def high_water(plan: Plan, values: Values, backend: str) -> int:
    """The highest byte that two steps write, measured."""
    floor = max((b.offset + b.nbytes for b in plan.buffers if b.persistent), default=0)
    executor = Executor(plan, backend)
    water = HighWater(executor.arena, floor)
    passing = [v for v in values if not plan.buffers[plan.buffer_of[v]].persistent]
    for _ in range(2):
        write(executor, values)
        water.before([executor.view(v) for v in passing])
        executor.run()
        water.after()
    return water.nbytes
