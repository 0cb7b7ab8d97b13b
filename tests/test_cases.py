"""The case list's questions: is the gradient right, do the backends agree, does it run planned as
it runs eager? And is the list complete? Speed is asked by `bench/`.
"""

from __future__ import annotations

import importlib.util
import inspect

import hypothesis.strategies as st
import numpy as np
import pytest
from cases import CASES, UPDATES, Call, Case, Update, as_dtype, needed
from hypothesis import given, settings
from planned import fresh, high_water, leaf_values, planned_equals_fresh, same_bits

from tinytrain import run, tensor
from tinytrain.check import gradients
from tinytrain.kernels import c_, numpy_
from tinytrain.lower import backward_of, lower
from tinytrain.op import OPS
from tinytrain.spec import Spec

# Of the largest element of each result, in float32: sums of up to a hundred terms in another order,
# of terms about 1 that may all but cancel. Below SMALL the difference counts, not the ratio.
AGREEMENT = 5e-5
SMALL = 0.05

has_numba = importlib.util.find_spec("numba") is not None
needs_numba = pytest.mark.skipif(not has_numba, reason="numba is missing")
needs_c = pytest.mark.skipif(not c_.is_there(), reason="a C compiler is missing")
COMPILED = [pytest.param("numba", marks=needs_numba), pytest.param("c", marks=needs_c)]
BACKENDS = ["numpy", *COMPILED]
fewer = settings(max_examples=settings.default.max_examples * 2 // 5)  # what plans takes longer
each_case = pytest.mark.parametrize("case", CASES, ids=str)


def traced(case: Case, call: Call, twice: bool, dtype: str = "float32", moving=None):
    """Run the case: its output, a scalar loss over it and the tensors; `twice` so that every
    gradient is added onto another. `moving`: which of the floating arrays are parameters."""
    moving = moving or [True] * len(call.arrays)
    tensors = []
    for a, moves in zip(call.arrays, moving, strict=True):
        t = tensor.Tensor(as_dtype(a, dtype), requires_grad=a.dtype.kind == "f" and moves)
        t.kind = "parameter" if t.requires_grad else "input"
        t.name = f"array {len(tensors)}"
        tensors.append(t)
    out = doubled(case, call, twice, dtype)(*tensors)
    weight = np.random.default_rng(1).standard_normal(out.shape).astype(dtype)
    return out, (out * tensor.Tensor(weight)).sum(), tensors


def doubled(case: Case, call: Call, twice: bool, dtype: str = "float64"):
    """The case's function, or the sum of two applications of it."""
    function = case.function(call, dtype)
    return (lambda *ts: function(*ts) * 0.5 + function(*ts)) if twice else function


@st.composite
def some_moving(draw, call: Call):
    """Which arrays are parameters: at least one floating one; the others are inputs."""
    floating = [k for k, a in enumerate(call.arrays) if a.dtype.kind == "f"]
    chosen = draw(st.sets(st.sampled_from(floating), min_size=1))
    return [k in chosen for k in range(len(call.arrays))]


# ------------------------------------------------------------------------- is the gradient right


@each_case
@given(data=st.data())
def test_gradient(case: Case, data) -> None:
    call, twice = data.draw(case.calls), data.draw(st.booleans())
    gradients(doubled(case, call, twice), *call.arrays, rtol=1e-6, atol=1e-8)


@each_case
@given(data=st.data())
def test_a_case_applies_its_row(case: Case, data) -> None:
    if case.op in OPS:
        out, _, _ = traced(case, data.draw(case.calls), twice=False)
        nodes = tensor.tape_of([out])[0].nodes
        assert case.op in {node.op for node in nodes}


# ------------------------------------------------------------------------- do the backends agree


def near(got: np.ndarray, want: np.ndarray, what: str) -> None:
    scale = max(float(np.abs(want).max(initial=0)), SMALL)
    assert got.dtype == want.dtype and got.shape == want.shape
    worst = float(np.abs(got.astype(np.float64) - want).max(initial=0)) / scale
    assert worst <= AGREEMENT, f"{what} differs by {worst:.2g} of its largest element"


@pytest.mark.parametrize("backend", COMPILED)
@each_case
@fewer
@given(data=st.data())
def test_backends_agree(case: Case, backend: str, data) -> None:
    call, twice = data.draw(case.calls), data.draw(st.booleans())
    found = {}
    for name in ("numpy", backend):
        with tensor.backend(name):
            out, loss, tensors = traced(case, call, twice)
            loss.backward()
        found[name] = [out.data, *(t.grad for t in tensors if t.requires_grad)]
    for k, (got, want) in enumerate(zip(found[backend], found["numpy"], strict=True)):
        near(got, want, f"gradient {k - 1}" if k else "the output")


def update_arrays(update: Update, size: int) -> list[np.ndarray | None]:
    rng = np.random.default_rng(size)
    made = {
        "v": lambda: rng.standard_normal(size),
        "+": lambda: rng.random(size),
        "": lambda: rng.uniform(0.1, 1),
        "2": lambda: rng.uniform(0.1, 1, 2),
        "m": lambda: rng.integers(0, 256, -(-size // 8)),
        "n": lambda: size,
    }
    dtypes = {"m": np.uint8, "n": np.uint32}
    return [
        None if k is None else np.asarray(made[k](), dtypes.get(k, np.float32)) for k in update.ins
    ]


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("size", [1, 7, 100])
@pytest.mark.parametrize("update", UPDATES, ids=str)
def test_backends_agree_on_updates(update: Update, size: int, backend: str) -> None:
    ins = update_arrays(update, size)
    specs = tuple(None if a is None else Spec(a.shape, str(a.dtype)) for a in ins)
    outs, attrs = OPS[update.op].infer(specs, update.attrs)
    both = [run.call(update.op, ins, outs, attrs, name) for name in (backend, "numpy")]
    for got, want in zip(*both, strict=True):
        near(got, want, update.op)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_check_finite_says_which(backend: str, bad: float, position: int) -> None:
    arrays = [np.ones(9, np.float32) for _ in range(3)]
    arrays[position][4] = bad
    (flag,) = run.call("check_finite", arrays, (Spec((), "uint32"),), {}, backend)
    assert flag == position + 1


# ------------------------------------------------------------------------- planned as eager


@pytest.mark.parametrize("backend", BACKENDS)
@each_case
@fewer
@given(data=st.data())
def test_planned_gradient_equals_eager(case: Case, backend: str, data) -> None:
    call, twice = data.draw(case.calls), data.draw(st.booleans())
    moving = data.draw(some_moving(call))
    with tensor.backend(backend):
        out, loss, _ = traced(case, call, twice, moving=moving)
        loss.backward()
    tape, leaves = tensor.tape_of([out], loss)
    wrt = {v for v, t in leaves.items() if t.requires_grad}
    program = backward_of(tape, wrt)
    assert set(program.grads) == wrt
    program.kept += [v for v in (*tape.outputs, tape.loss) if data.draw(st.booleans())]
    values = leaf_values(program, leaves)
    apart = planned_equals_fresh(program, values, backend, inplace=False)
    plan = planned_equals_fresh(program, values, backend, inplace=True)
    assert plan.lower_bound <= apart.lower_bound
    assert plan.lower_bound <= plan.arena_bytes
    want = fresh(program, values, backend)
    for v in wrt:
        same_bits(want[program.grads[v]], leaves[v].grad, f"the gradient of {leaves[v].name}")
    measured = high_water(plan, values, backend)
    on_top = {b.owner for b in plan.buffers if b.offset + b.nbytes == plan.arena_bytes}
    # Compiled kernels may leave scratch alone that the reference and the boards need.
    spared = backend != "numpy" and {program.kinds[v] for v in on_top} == {"workspace"}
    assert measured == plan.arena_bytes or (spared and measured < plan.arena_bytes)


@pytest.mark.parametrize("backend", BACKENDS)
@each_case
@fewer
@given(data=st.data())
def test_planned_forward_equals_eager(case: Case, backend: str, data) -> None:
    """Inference: what only a gradient would read is left out."""
    with tensor.backend(backend):
        out, _, _ = traced(case, data.draw(case.calls), data.draw(st.booleans()))
    tape, leaves = tensor.tape_of([out])
    program = lower(tape)
    values = leaf_values(program, leaves)
    plan = planned_equals_fresh(program, values, backend, data.draw(st.booleans()))
    assert high_water(plan, values, backend) == plan.arena_bytes
    same_bits(fresh(program, values, backend)[tape.outputs[0]], out.data, "the output")


# ------------------------------------------------------------------------- is the list complete


def kernels() -> dict[str, object]:
    """The public functions that numpy_.py itself defines, by row name."""
    return {
        name.removesuffix("_"): function
        for name, function in inspect.getmembers(numpy_, inspect.isfunction)
        if not name.startswith("_") and function.__module__ == numpy_.__name__
    }


def test_every_op_has_a_gradient_case() -> None:
    missing = needed() - {case.op for case in CASES}
    assert not missing, f"no line in tests/cases.py for {sorted(missing)}"


def test_every_case_is_of_an_op() -> None:
    unknown = {case.op for case in CASES} - needed()
    assert not unknown, f"tests/cases.py has lines for {sorted(unknown)}, which are no public ops"


def test_every_row_without_a_gradient_is_tried() -> None:
    """The rest of the rows: run by a gradient (`_vjp`, and the forms of matmul), or an update, or
    another form of a row, which test_lean.py compares with it."""
    rest = set(OPS) - needed() - {update.op for update in UPDATES}
    untried = {n for n in rest if "_vjp" not in n} - {"matmul_nt", "matmul_tn", "sum_to"}
    untried -= {"conv2d_lines", "matmul_tn_sgd", "matmul_tn_momentum", "bitmap_matmul_tn"}
    assert not untried, f"no line in UPDATES of tests/cases.py for {sorted(untried)}"


def test_every_row_has_a_kernel() -> None:
    missing = {name for name, row in OPS.items() if not row.view} - set(kernels())
    assert not missing, f"kernels/numpy_.py has no kernel for {sorted(missing)}"


def test_every_kernel_has_a_row() -> None:
    unknown = set(kernels()) - set(OPS)
    assert not unknown, f"kernels/numpy_.py has kernels without a row: {sorted(unknown)}"


@pytest.mark.parametrize("name", sorted(OPS))
def test_a_kernel_takes_what_its_row_gives(name: str) -> None:
    """`kernel(*outs, *ins, *work, *attrs[, acc])`: attrs by name, in the row's order."""
    row = OPS[name]
    if row.view:
        return
    parameters = list(inspect.signature(kernels()[name]).parameters.values())
    if row.variadic:
        assert any(p.kind is p.VAR_POSITIONAL for p in parameters)
        return
    names = [p.name for p in parameters]
    tail = [*row.attrs, *(["acc"] if row.acc else [])]
    assert names[len(names) - len(tail) :] == tail


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_square_is_not_transposed_over_itself(backend: str) -> None:
    """No element by element: its input's buffer, free as it is, stays another."""
    x = tensor.Tensor(np.arange(36, dtype=np.float32).reshape(6, 6), requires_grad=True)
    x.kind, x.name = "parameter", "x"
    out = (x * 2.0).transpose(1, 0) * 1.0
    tape, leaves = tensor.tape_of([out], out.sum())
    program = lower(tape)
    planned_equals_fresh(program, leaf_values(program, leaves), backend, inplace=True)
