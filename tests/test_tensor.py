"""The eager Tensor: arithmetic, indexing, gradients that add up, dtypes, and errors that
say what was wrong and how to mend it.
"""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest

import tinytrain as tt
from tinytrain import tensor
from tinytrain.errors import InputError
from tinytrain.spec import Spec
from tinytrain.tensor import Tensor, recording

ops = tt.ops


def leaf(*shape: int, seed: int = 0) -> Tensor:
    values = np.random.default_rng(seed).uniform(0.5, 2, shape).astype(np.float32)
    return Tensor(values, requires_grad=True)


def of(*shape: int, dtype: str = "float32") -> Tensor:
    """Ones of a shape; what counts is whether they fit."""
    return Tensor(np.ones(shape, dtype))


# ------------------------------------------------------------------------- arithmetic

NUMBERS = [2, -3, 0.25, True, np.float64(1.5), np.float32(0.5), np.int64(3)]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda n: f"{type(n).__name__} {n}")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_number_on_either_side(dtype: str, number) -> None:
    a = np.array([[1.0, 2.0], [-4.0, 0.5]], dtype)
    x, n = Tensor(a), a.dtype.type(number)
    pairs = [
        (x + number, a + n),
        (number + x, n + a),
        (x - number, a - n),
        (number - x, n - a),
        (x * number, a * n),
        (number * x, n * a),
        (x / number, a / n),
        (number / x, n / a),
    ]
    for got, want in pairs:
        assert isinstance(got, Tensor) and got.dtype == dtype
        np.testing.assert_allclose(got.data, want, rtol=1e-6)


def test_operators_on_tensors_and_arrays() -> None:
    a, b = np.float32([[1, 2], [3, 4]]), np.float32([[0.5, 4], [2, 8]])
    x, y = Tensor(a), Tensor(b)
    for other in (y, b, b.tolist()):
        np.testing.assert_array_equal((x + other).data, a + b)
        np.testing.assert_array_equal((x - other).data, a - b)
        np.testing.assert_array_equal((x * other).data, a * b)
        np.testing.assert_array_equal((x / other).data, a / b)
        np.testing.assert_array_equal((x @ other).data, a @ b)
    for got, want in [(a + y, a + b), (a - y, a - b), (a * y, a * b), (a / y, a / b)]:
        assert isinstance(got, Tensor)
        np.testing.assert_array_equal(got.data, want)
    np.testing.assert_array_equal((-x).data, -a)
    np.testing.assert_allclose((x**2).data, a * a)
    np.testing.assert_allclose((x**-0.5).data, a**-0.5, rtol=1e-6)


def test_an_array_times_a_tensor_matrix() -> None:
    a, w = np.float32([[1, 2], [3, 4]]), leaf(2, 3)
    y = a @ w
    assert isinstance(y, Tensor)
    np.testing.assert_allclose(y.data, a @ w.data)


def test_a_number_with_a_fraction_is_not_cut_off_beside_integers() -> None:
    try:
        got = (Tensor(np.int32([1, 2])) + 2.5).data
    except InputError:
        return
    np.testing.assert_array_equal(got, [3.5, 4.5])


def test_methods_are_the_ops() -> None:
    x = leaf(2, 3)
    np.testing.assert_array_equal(x.relu().data, ops.relu(x).data)
    np.testing.assert_array_equal(x.max(1, True).data, x.data.max(1, keepdims=True))
    np.testing.assert_array_equal(x.sum(axis=0).data, ops.sum(x, axis=(0,)).data)
    np.testing.assert_allclose(x.softmax(-1).data.sum(-1), 1, rtol=1e-6)


def test_the_example_of_the_readme() -> None:
    x = np.random.default_rng(0).standard_normal((4, 3))
    w = Tensor(np.ones((3, 2)), requires_grad=True)
    loss = ((Tensor(x) @ w).relu()).mean()
    loss.backward()
    on = (x.sum(1, keepdims=True) > 0) * np.ones((1, 2))
    assert isinstance(w.grad, np.ndarray)
    np.testing.assert_allclose(w.grad, x.T @ on / 8)


# ------------------------------------------------------------------------- broadcasting undone

SHAPES = [((3,), (2, 3)), ((2, 1), (2, 3)), ((), (2, 3)), ((1, 1), (2, 3)), ((1, 3), (2, 1))]


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
@pytest.mark.parametrize("shapes", [*SHAPES, *[s[::-1] for s in SHAPES]], ids=str)
def test_a_gradient_has_its_tensors_shape(name: str, shapes) -> None:
    a, b = leaf(*shapes[0]), leaf(*shapes[1], seed=1)
    y = getattr(ops, name)(a, b)
    y.sum().backward()
    slopes = {
        "add": (1, 1),
        "sub": (1, -1),
        "mul": (b.data, a.data),
        "div": (1 / b.data, -a.data / b.data**2),
    }
    for t, slope in zip((a, b), slopes[name], strict=True):
        whole = np.broadcast_to(slope, y.shape).astype(np.float32)
        lead = tuple(range(y.ndim - t.ndim))
        kept = whole.sum(lead)
        ones = tuple(k for k, n in enumerate(t.shape) if n == 1)
        assert t.grad.shape == t.shape
        np.testing.assert_allclose(t.grad, kept.sum(ones, keepdims=True), rtol=1e-5)


# ------------------------------------------------------------------------- indexing, shapes

INDEXES = [
    0,
    -1,
    slice(1, 3),
    slice(None, -1),
    slice(-2, None),
    ...,
    (0, 1),
    (..., 0),
    (0, ...),
    (slice(None), 1),
    (1, slice(0, 1), -1),
    (slice(0, 1), ..., slice(1, 2)),
    (2, 1, 4),
    (slice(None, None, 1),),
]


@pytest.mark.parametrize("index", INDEXES, ids=str)
def test_indexing_as_numpy(index) -> None:
    x = leaf(3, 4, 5)
    y = x[index]
    np.testing.assert_array_equal(y.data, x.data[index])
    (y * 2).sum().backward()
    want = np.zeros_like(x.data)
    want[index] = 2
    np.testing.assert_array_equal(x.grad, want)


BAD_INDEXES = [
    3,
    -4,
    slice(None, None, 2),
    slice(2, 2),
    None,
    "a",
    (0, 0, 0, 0),
    (..., ...),
    [0, 1],
    np.array([0, 1]),
    1.0,
]


@pytest.mark.parametrize("index", BAD_INDEXES, ids=repr)
def test_an_index_that_does_not_fit(index) -> None:
    with pytest.raises((InputError, IndexError)) as caught:
        leaf(3, 4, 5)[index]
    assert "(3, 4, 5)" in str(caught.value)


def test_iterating_ends() -> None:
    x = leaf(3, 2)
    rows = list(x)
    assert len(rows) == len(x) == 3
    np.testing.assert_array_equal(rows[2].data, x.data[2])
    a, b = leaf(2)
    assert a.shape == b.shape == ()


def test_reshape() -> None:
    x = leaf(2, 3, 4)
    for shape in [(6, 4), (-1,), (4, -1), (2, -1, 2), (1, 24, 1)]:
        np.testing.assert_array_equal(x.reshape(shape).data, x.data.reshape(shape))
        np.testing.assert_array_equal(x.reshape(*shape).data, x.data.reshape(shape))
    assert x.flatten().shape == (2, 12)
    assert x.flatten(0).shape == (24,)
    assert Tensor(3.0).reshape(-1).shape == (1,)


@pytest.mark.parametrize("shape", [(5,), (-1, 7), (-1, -1), (-2, -12), (0, -1), (2, 3)], ids=str)
def test_reshape_that_does_not_fit(shape) -> None:
    with pytest.raises(InputError, match="reshape: "):
        leaf(2, 3, 4).reshape(shape)


def test_transposes() -> None:
    x = leaf(2, 3, 4)
    np.testing.assert_array_equal(x.T.data, x.data.T)
    np.testing.assert_array_equal(x.transpose().data, x.data.T)
    for axes in [(1, 0, 2), (2, 0, 1), (0, -1, 1)]:
        np.testing.assert_array_equal(x.transpose(*axes).data, x.data.transpose(axes))
        np.testing.assert_array_equal(x.transpose(axes).data, x.data.transpose(axes))
    for axes in [(0, 1), (0, 0, 1), (0, 1, 3)]:
        with pytest.raises(InputError, match="transpose: "):
            x.transpose(*axes)


# ------------------------------------------------------------------------- gradients


def test_grad_adds_up_over_two_backward_calls() -> None:
    for shape in [(2, 3), ()]:
        x = leaf(*shape)
        (x * x).sum().backward()
        once = x.grad.copy()
        np.testing.assert_allclose(once, 2 * x.data)
        (x * 3.0).sum().backward()
        assert isinstance(x.grad, np.ndarray)
        assert x.grad.shape == shape and x.grad.dtype == np.float32
        np.testing.assert_allclose(x.grad, once + 3)
        x.grad = None
        (x * 3.0).sum().backward()
        np.testing.assert_allclose(x.grad, np.full(shape, 3))


def test_backward_twice_from_one_result() -> None:
    x = leaf(3)
    loss = (x * x).sum()
    loss.backward()
    loss.backward()
    np.testing.assert_allclose(x.grad, 4 * x.data)


def test_grad_is_the_users_own_array() -> None:
    a, b = leaf(2, 2), leaf(2, 2, seed=1)
    (a + b).sum().backward()
    a.grad[:] = 7
    assert (b.grad == 1).all()


def test_what_the_loss_does_not_depend_on_has_no_grad() -> None:
    a, b = leaf(2), leaf(2)
    (a * 1.0).sum().backward()
    assert b.grad is None
    constant = Tensor(np.ones(2, np.float32))
    (a * constant).sum().backward()
    assert constant.grad is None


def test_backward_on_a_leaf() -> None:
    x = Tensor(3.0, requires_grad=True)
    x.backward()
    assert x.grad == 1


def test_backward_wants_a_scalar() -> None:
    x = leaf(2, 3)
    with pytest.raises(InputError, match=r"backward: wants a scalar.*\(2, 3\).*sum it") as caught:
        (x * 2.0).backward()
    assert "\n" not in str(caught.value)
    assert x.grad is None
    (x.sum() * 2.0).reshape(1, 1).backward()
    assert (x.grad == 2).all()


def test_backward_wants_something_that_requires_a_gradient() -> None:
    with pytest.raises(InputError, match=r"nothing .* requires a gradient"):
        of(2).sum().backward()
    with pytest.raises(InputError, match=r"nothing .* requires a gradient"):
        leaf(2).detach().sum().backward()
    with pytest.raises(InputError, match="int32 has no gradient"):
        Tensor([1, 2], requires_grad=True)


def test_gradients_stop_at_integers_and_masks() -> None:
    table, mask = leaf(4, 3), Tensor(np.float32([1, 0]))
    logits = ops.embedding(table, [1, 1])
    ops.cross_entropy(logits, [0, 2], mask=mask).backward()
    assert (table.grad[[0, 2, 3]] == 0).all() and (table.grad[1] != 0).all()
    assert mask.grad is None


def test_a_value_that_is_used_many_times() -> None:
    """A chain of 500 ops, and 2 ** 30 paths through it: backward is linear in the ops."""
    x = Tensor(np.float64(1.0), requires_grad=True)
    y = x
    for _ in range(30):
        y = y + y
    for _ in range(470):
        y = y * 1.0
    y.backward()
    assert x.grad == 2**30


# ------------------------------------------------------------------------- reading while recording


def symbol(*shape: int) -> Tensor:
    return Tensor.symbol(Spec(shape), "input", "x")


READERS = {
    "bool": lambda t: bool(t.sum()),
    "float": lambda t: float(t.sum()),
    "int": lambda t: int(t.sum()),
    "if": lambda t: 1 if t.mean() else 2,
    "data": lambda t: t.data,
    "numpy": lambda t: t.numpy(),
    "item": lambda t: t.sum().item(),
    "asarray": lambda t: np.asarray(t),
    "detach": lambda t: (t * 2.0).detach(),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
def test_reading_a_value_while_recording_names_the_line(read) -> None:
    x = symbol(2, 3)
    line = read.__code__.co_firstlineno
    with pytest.raises(InputError, match="value is read while the step is recorded") as caught:
        read(x)
    assert f"test_tensor.py:{line}:" in str(caught.value)


def test_a_concrete_tensor_has_no_value_while_recording_either() -> None:
    x = leaf(2)
    x.kind = "parameter"
    with recording():
        y = x * 2.0
        with pytest.raises(InputError, match=r"test_tensor\.py:\d+: a value is read"):
            float(y.sum())
    assert (x * 2.0).sum().item() == pytest.approx(2 * x.data.sum())


def test_shapes_are_known_while_recording() -> None:
    x = symbol(2, 3)
    y = (x @ Tensor(np.ones((3, 4), np.float32))).relu().T
    assert (y.shape, y.dtype, y.ndim, y.size, len(y)) == ((4, 2), "float32", 2, 8, 4)
    assert "shape=(4, 2)" in repr(y)
    assert "array" not in repr(y)


# ------------------------------------------------------------------------- dtypes


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (np.zeros(2, np.float64), "float64"),
        (np.zeros(2, np.float32), "float32"),
        (np.zeros(2, np.float16), "float32"),
        (np.zeros(2, np.longdouble), "float64"),
        (np.zeros(2, bool), "float32"),
        (np.zeros(2, np.int8), "int32"),
        (np.zeros(2, np.int16), "int32"),
        (np.zeros(2, np.uint16), "int32"),
        (np.zeros(2, np.int64), "int32"),
        (np.zeros(2, np.uint64), "int32"),
        (np.zeros(2, np.uint32), "uint32"),
        (np.zeros(2, np.uint8), "uint8"),
        (np.float64(1), "float64"),
        (np.zeros(2, ">f4"), "float32"),
        (np.zeros(2, ">f8"), "float64"),
        (np.zeros(2, ">i4"), "int32"),
        ([1.0, 2.0], "float32"),
        ([1, 2], "int32"),
        ([True], "float32"),
        (1.0, "float32"),
        (1, "int32"),
    ],
    ids=repr,
)
def test_dtypes(given, kept: str) -> None:
    t = Tensor(given)
    assert t.dtype == kept == str(t.data.dtype)
    assert t.data.dtype.isnative
    np.testing.assert_array_equal(t.data, np.asarray(given))


def test_integers_are_checked_against_32_bits() -> None:
    edge = np.array([2**31 - 1, -(2**31)])
    np.testing.assert_array_equal(Tensor(edge).data, edge)
    for value in (2**31, -(2**31) - 1, 2**62):
        with pytest.raises(InputError, match="32 bits"):
            Tensor(np.array([0, value]))
        with pytest.raises(InputError):
            Tensor([0, value])


@pytest.mark.parametrize(
    "given",
    [
        "text",
        ["a", "b"],
        [b"a"],
        None,
        [None, 1.0],
        pytest.param(object(), id="object"),
        {"a": 1},
        {1, 2},
        np.zeros(2, complex),
        1j,
        np.zeros(2, "datetime64[s]"),
        np.array([1, "a"], object),
        [[1, 2], [3]],
        10**30,
    ],
    ids=repr,
)
def test_what_is_not_numbers_is_refused(given) -> None:
    with pytest.raises(InputError, match="tensor") as caught:
        Tensor(given)
    assert "\n" not in str(caught.value)


def test_layout_is_made_plain() -> None:
    a = np.arange(24, dtype=np.float32).reshape(4, 6)
    for view in (a.T, a[:, ::2], a[::-1], np.asfortranarray(a)):
        t = Tensor(view)
        assert t.data.flags.c_contiguous
        np.testing.assert_array_equal(t.data, view)
        np.testing.assert_array_equal((t * 2.0).data, view * 2)


@pytest.mark.parametrize("name", ["add", "mul", "matmul"])
def test_dtypes_are_not_mixed(name: str) -> None:
    with pytest.raises(
        InputError, match=f"{name}: dtypes differ, b is float64 beside float32; convert"
    ):
        getattr(ops, name)(of(2, 2), of(2, 2, dtype="float64"))


FLOATS_ONLY = {
    "exp": lambda i: i.exp(),
    "relu": lambda i: i.relu(),
    "scale": lambda i: ops.scale(i, 2.0),
    "pow": lambda i: i**2,
    "leaky_relu": lambda i: i.leaky_relu(),
    "div": lambda i: i / i,
    "mean": lambda i: i.mean(),
    "softmax": lambda i: i.softmax(),
    "log_softmax": lambda i: i.log_softmax(),
    "dropout": lambda i: ops.dropout(i, np.zeros(3, np.uint32)),
    "batch_norm": lambda i: ops.batch_norm(i),
    "group_norm": lambda i: ops.group_norm(i),
    "layer_norm": lambda i: ops.layer_norm(i),
    "mse": lambda i: ops.mse(i, i),
    "binary_cross_entropy_with_logits": lambda i: ops.binary_cross_entropy_with_logits(i, i),
    "cross_entropy": lambda i: ops.cross_entropy(i, [0, 0]),
    "avg_pool2d": lambda i: ops.avg_pool2d(i.reshape(1, 2, 2, 1)),
    "max_pool2d": lambda i: ops.max_pool2d(i.reshape(1, 2, 2, 1)),
}


@pytest.mark.parametrize("name", FLOATS_ONLY)
def test_integers_where_floats_are_wanted(name: str) -> None:
    """Refused by name: an int32 result would be cut off, or NumPy would say something else."""
    with pytest.raises(InputError, match="int32"):
        FLOATS_ONLY[name](Tensor(np.int32([[1, 2], [3, 4]])))


MIXED = {
    "conv2d": lambda x, d: ops.conv2d(x.reshape(1, 2, 2, 2), d.reshape(2, 2, 2, 1)),
    "the bias of conv2d": lambda x, d: ops.conv2d(
        x.reshape(1, 2, 2, 2), x.reshape(2, 2, 2, 1), d.reshape(-1)[:1]
    ),
    "gamma of batch_norm": lambda x, d: ops.batch_norm(x, d[0]),
    "gamma of group_norm": lambda x, d: ops.group_norm(x, d[0]),
    "gamma of layer_norm": lambda x, d: ops.layer_norm(x, d[0]),
    "targets of mse": lambda x, d: ops.mse(x, d),
    "concat": lambda x, d: ops.concat([x, d]),
}


@pytest.mark.parametrize("name", MIXED)
def test_two_widths_of_float(name: str) -> None:
    with pytest.raises(InputError, match="float64"):
        MIXED[name](of(4, 2), of(4, 2, dtype="float64"))


# ------------------------------------------------------------------------- shapes that do not fit

X, W = (2, 8, 8, 3), (3, 3, 3, 4)  # an image of three channels, and kernels for it

MISFITS = {
    "add: shapes (2, 3) and (2, 4) do not broadcast": lambda: of(2, 3) + of(2, 4),
    "mul: shapes (3, 2, 3) and (2, 2, 3) do not": lambda: of(3, 2, 3) * of(2, 2, 3),
    "matmul: wants matrices": lambda: of(3) @ of(3, 2),
    "matmul: (2, 3) and (4, 5) do not multiply": lambda: of(2, 3) @ of(4, 5),
    "matmul: shapes (2,) and (3,)": lambda: of(2, 3, 3) @ of(3, 3, 3),
    "conv2d: x wants (N, H, W, C)": lambda: ops.conv2d(of(8, 8, 3), of(*W)),
    "conv2d: weight expects 6 input channels, x has 3": lambda: ops.conv2d(of(*X), of(3, 3, 6, 4)),
    "conv2d: weight expects 3 input channels, x has 8 (shape (2, 3, 8, 8)); is x channels-last?": (
        lambda: ops.conv2d(of(2, 3, 8, 8), of(*W))
    ),
    "conv2d: 4 output channels do not divide into 3 groups": lambda: ops.conv2d(
        of(*X), of(3, 3, 1, 4), groups=3
    ),
    "conv2d: bias has shape (3,), wants (4,)": lambda: ops.conv2d(of(*X), of(*W), of(3)),
    "conv2d: the height 2 with its padding is 2, the kernel reaches 3": lambda: ops.conv2d(
        of(1, 2, 8, 3), of(*W)
    ),
    "conv2d: the width 2 with its padding is 4, the kernel reaches 5": lambda: ops.conv2d(
        of(1, 8, 2, 3), of(*W), padding=1, dilation=2
    ),
    "conv2d: stride is 0": lambda: ops.conv2d(of(*X), of(*W), stride=0),
    "conv2d: stride is (1, 2, 3)": lambda: ops.conv2d(of(*X), of(*W), stride=(1, 2, 3)),
    "conv2d: padding is -1": lambda: ops.conv2d(of(*X), of(*W), padding=-1),
    "conv2d: padding is 'full'": lambda: ops.conv2d(of(*X), of(*W), padding="full"),
    "conv2d: dilation is 0": lambda: ops.conv2d(of(*X), of(*W), dilation=0),
    "conv2d: unknown argument 'strides'": lambda: ops.conv2d(of(*X), of(*W), strides=2),
    "conv2d: missing argument 'w'": lambda: ops.conv2d(of(*X)),
    "conv2d: argument 'w' is given twice": lambda: ops.conv2d(of(*X), of(*W), w=of(*W)),
    "relu: takes 1 arguments (x)": lambda: ops.relu(of(2), of(2)),
    "conv1d: wants (N, L, C)": lambda: ops.conv1d(of(2, 8, 8, 3), of(*W)),
    "conv1d: weight expects 3 input channels, x has 8": lambda: ops.conv1d(
        of(2, 3, 8), of(3, 3, 4)
    ),
    "conv1d: padding is 1.5": lambda: ops.conv1d(of(2, 8, 3), of(3, 3, 4), padding=1.5),
    "max_pool2d: x wants (N, H, W, C)": lambda: ops.max_pool2d(of(8, 8, 3)),
    "max_pool2d: the height 8 with its padding is 8, the kernel": lambda: ops.max_pool2d(of(*X), 9),
    "avg_pool2d: padding (2, 2, 2, 2) is more than half": lambda: ops.avg_pool2d(of(*X), 3, 1, 2),
    "avg_pool2d: kernel_size is 0": lambda: ops.avg_pool2d(of(*X), 0),
    "global_avg_pool: wants (N, H, W, C)": lambda: ops.global_avg_pool(of(2, 3)),
    "concat: float32[2, 4] does not go with float32[2, 3]": lambda: ops.concat(
        [of(2, 3), of(2, 4)]
    ),
    "concat: axis 2 does not exist": lambda: ops.concat([of(2, 3)], axis=2),
    "concat: no tensors": lambda: ops.concat([]),
    "split: axis 1 of (2, 5) does not divide into 2": lambda: ops.split(of(2, 5), 2),
    "split: [2, 2] do not sum to 5": lambda: ops.split(of(2, 5), [2, 2]),
    "split: axis 2 does not": lambda: ops.split(of(2, 5), 5, axis=2),
    "slice: (0,) to (4,) does not lie within (3,)": lambda: ops.slice(of(3), (0,), (4,)),
    "slice: begin (0,) and end (1,) want 2 numbers": lambda: ops.slice(of(2, 3), (0,), (1,)),
    "pad: widths ((1, 1),) want 2 pairs": lambda: ops.pad(of(2, 3), [(1, 1)]),
    "pad: widths ((-1, 0),) want": lambda: ops.pad(of(3), [(-1, 0)]),
    "pad: widths": lambda: ops.pad(of(3), 1),
    "space_to_depth: (2, 7, 8, 3) wants": lambda: ops.space_to_depth(of(2, 7, 8, 3)),
    "depth_to_space: (2, 8, 8, 3) wants": lambda: ops.depth_to_space(of(*X)),
    "broadcast_to: (3,) does not broadcast to (2, 4)": lambda: ops.broadcast_to(of(3), (2, 4)),
    "broadcast_to: ": lambda: ops.broadcast_to(of(3), 4),
    "sum: axis 2 does not exist in 2 dimensions": lambda: of(2, 3).sum(2),
    "mean: axis -3 does not": lambda: of(2, 3).mean((0, -3)),
    "max: axis 0 does not": lambda: of().max(0),
    "softmax: axis 1 does not": lambda: of(3).softmax(1),
    "layer_norm: ": lambda: ops.layer_norm(of()),
    "batch_norm: x wants at least two dimensions": lambda: ops.batch_norm(of(3)),
    "batch_norm: a parameter has shape (2,), x has 3 channels": lambda: ops.batch_norm(
        of(4, 3), of(2)
    ),
    "batch_norm: ": lambda: ops.batch_norm(of(4, 3), mean=of(3)),
    "group_norm: 3 channels do not divide into 2": lambda: ops.group_norm(of(*X), groups=2),
    "embedding: the table has shape (3,)": lambda: ops.embedding(of(3), [0]),
    "embedding: indices are float32, want integers": lambda: ops.embedding(of(3, 2), [0.0]),
    "cross_entropy: labels have shape (3,), logits (2, 4)": lambda: ops.cross_entropy(
        of(2, 4), [0, 1, 2]
    ),
    "cross_entropy: labels are float32, want integers": lambda: ops.cross_entropy(
        of(2, 4), [0.0, 1.0]
    ),
    "cross_entropy: label_smoothing 1.0": lambda: ops.cross_entropy(
        of(2, 4), [0, 1], label_smoothing=1.0
    ),
    "cross_entropy: the mask has shape (3,), wants (2,)": lambda: ops.cross_entropy(
        of(2, 4), [0, 1], mask=of(3)
    ),
    "mse: targets are float32[2, 1], outputs float32[2]": lambda: ops.mse(of(2), of(2, 1)),
    "binary_cross_entropy_with_logits: targets": lambda: ops.binary_cross_entropy_with_logits(
        of(2), of(3)
    ),
    "dropout: p is 1.0": lambda: ops.dropout(of(2), np.zeros(3, np.uint32), p=1.0),
    "dropout: the key is int32[3]": lambda: ops.dropout(of(2), [0, 0, 0]),
    "leaky_relu: negative_slope 2": lambda: of(2).leaky_relu(2),
    "pow: the exponent is a Python number": lambda: of(2) ** of(2),
}


@pytest.mark.parametrize("message", MISFITS)
def test_a_misfit_is_named(message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        MISFITS[message]()
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------- out of range


@pytest.mark.parametrize("bad", [-1, 4, 2**31 - 1])
def test_a_label_out_of_range(bad: int) -> None:
    with pytest.raises(
        InputError, match=rf"cross_entropy: labels: value {bad} at position 1 .*0 to 3"
    ):
        ops.cross_entropy(of(3, 4), [0, bad, 1])


@pytest.mark.parametrize("bad", [-1, 5])
def test_an_index_out_of_range(bad: int) -> None:
    with pytest.raises(
        InputError, match=rf"embedding: indices: value {bad} at position 3 .*0 to 4"
    ):
        ops.embedding(of(5, 2), [[0, 1], [2, bad]])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.int64, np.int8, np.uint16])
def test_labels_of_any_integer_type(dtype) -> None:
    """As they come out of a file of images: one byte a label."""
    labels = np.array([0, 3, 1], dtype)
    want = ops.cross_entropy(of(3, 4), [0, 3, 1]).item()
    assert ops.cross_entropy(of(3, 4), labels).item() == want
    assert ops.embedding(of(4, 2), labels).shape == (3, 2)


# ------------------------------------------------------------------------- odds and ends


def test_looking_at_a_tensor() -> None:
    x = leaf(2, 3)
    assert np.asarray(x) is not x.data
    np.testing.assert_array_equal(np.asarray(x), x.data)
    assert np.asarray(x, np.float64).dtype == np.float64
    assert x.sum().item() == float(x.sum()) == pytest.approx(x.data.sum())
    assert "requires_grad=True" in repr(x)
    assert bool(Tensor(1.0)) and not bool(Tensor(0))
    with pytest.raises(TypeError, match="len"):
        len(Tensor(1.0))


def test_an_unknown_backend() -> None:
    with pytest.raises(InputError, match="unknown backend 'cuda'; there are auto, numpy"):
        tensor.backend("cuda").__enter__()


def test_the_backend_is_given_back() -> None:
    before = tensor._backend
    with pytest.raises(ZeroDivisionError), tensor.backend("numpy"):
        raise ZeroDivisionError
    assert tensor._backend == before


def test_nothing_is_said_about_nan() -> None:
    """Division by zero and overflow are values, not warnings; the guard looks at them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = Tensor(np.float32([0, 1, 200]), requires_grad=True)
        y = 1.0 / x + x.exp() + x.log()
        y.sum().backward()
        assert np.isinf(y.data).any()


@pytest.mark.parametrize("exponent", [0, 1, 2, 3])
def test_a_power_at_zero(exponent: int) -> None:
    x = Tensor(np.float32([0.0, 2.0]), requires_grad=True)
    (x**exponent).sum().backward()
    want = [1.0 if exponent == 1 else 0.0, exponent * 2.0 ** (exponent - 1)]
    np.testing.assert_array_equal(x.grad, np.float32(want))
