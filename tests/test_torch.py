"""Values and gradients against PyTorch in float64, channels last against channels first. Skipped
where torch is not installed: it is a peer, never a dependency.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tinytrain import ops
from tinytrain.tensor import Tensor

torch = pytest.importorskip("torch", reason="torch is missing")
F = torch.nn.functional

TOLERANCE = 1e-9  # of the largest element


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((*shape, seed)).standard_normal(shape)


def near(got: np.ndarray, want: np.ndarray, what: str) -> None:
    assert got.shape == want.shape, f"{what}: {got.shape} and {want.shape}"
    np.testing.assert_allclose(
        got, want, rtol=0, atol=TOLERANCE * max(1.0, np.abs(want).max(initial=0)), err_msg=what
    )


def same(ours: Callable, theirs: Callable, *arrays: np.ndarray) -> None:
    """Equal values, and equal gradients for every array along one random weighting. `theirs`
    takes tensors in our layout and gives our layout back."""
    tensors = [Tensor(a, requires_grad=True) for a in arrays]
    peers = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, z = ours(*tensors), theirs(*peers)
    near(y.data, z.detach().numpy(), "the values")
    weight = normal(*y.shape, seed=9)
    (y * Tensor(weight)).sum().backward()
    (z * torch.tensor(weight)).sum().backward()
    for k, (t, p) in enumerate(zip(tensors, peers, strict=True)):
        near(t.grad, p.grad.numpy(), f"gradient {k}")


def first(x):
    """(N, H, W, C) or (N, L, C) with its channels first."""
    return x.movedim(-1, 1)


def last(x):
    return x.movedim(1, -1)


def kernels(w):
    """(kh, kw, C, O) or (k, C, O) as PyTorch has them: (O, C, ...)."""
    return w.movedim((-1, -2), (0, 1))


# ------------------------------------------------------------------------- convolution

CONVOLUTIONS = [
    # kernel, channels in and out, and attrs
    ((3, 3), 2, 4, {}),
    ((3, 3), 2, 4, {"padding": 1}),
    ((3, 3), 3, 2, {"stride": 2, "padding": 1}),
    ((2, 3), 3, 2, {"stride": (1, 2), "padding": (1, 0)}),
    ((1, 1), 4, 3, {"stride": 2}),
    ((5, 5), 1, 2, {"padding": 2}),
    ((3, 3), 4, 6, {"groups": 2, "padding": 1}),
    ((3, 3), 4, 4, {"groups": 4, "padding": 1}),
    ((3, 3), 4, 8, {"groups": 4, "stride": 2}),
    ((3, 3), 2, 3, {"dilation": 2, "padding": 2}),
    ((2, 3), 2, 2, {"dilation": (3, 1), "stride": (2, 1), "groups": 2}),
]


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize(("kernel", "cin", "cout", "attrs"), CONVOLUTIONS, ids=str)
def test_conv2d(kernel, cin, cout, attrs, bias) -> None:
    arrays = [normal(2, 7, 6, cin), normal(*kernel, cin // attrs.get("groups", 1), cout)]
    same(
        lambda x, w, b=None: ops.conv2d(x, w, b, **attrs),
        lambda x, w, b=None: last(F.conv2d(first(x), kernels(w), b, **attrs)),
        *arrays,
        *([normal(cout)] if bias else []),
    )


@pytest.mark.parametrize(
    "attrs",
    [{}, {"padding": 2}, {"stride": 3, "padding": 1}, {"dilation": 2}, {"groups": 2}],
    ids=str,
)
def test_conv1d(attrs) -> None:
    same(
        lambda x, w, b: ops.conv1d(x, w, b, **attrs),
        lambda x, w, b: last(F.conv1d(first(x), kernels(w), b, **attrs)),
        normal(2, 9, 4),
        normal(3, 4 // attrs.get("groups", 1), 6),
        normal(6),
    )


def test_causal_conv1d() -> None:
    same(
        lambda x, w: ops.conv1d(x, w, padding=(4, 0), dilation=2),
        lambda x, w: last(F.conv1d(F.pad(first(x), (4, 0)), kernels(w), dilation=2)),
        normal(2, 9, 3),
        normal(3, 3, 2),
    )


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("size", [(7, 6), (4, 4)], ids=str)
@pytest.mark.parametrize("kernel", [(3, 3), (2, 3), (4, 4)], ids=str)
def test_same_padding(kernel, size) -> None:
    same(
        lambda x, w: ops.conv2d(x, w, padding="same"),
        lambda x, w: last(F.conv2d(first(x), kernels(w), padding="same")),
        normal(2, *size, 2),
        normal(*kernel, 2, 3),
    )


# ------------------------------------------------------------------------- pools

POOLS = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2},
    {"kernel_size": 3, "stride": 1, "padding": 1},
    {"kernel_size": (2, 3), "stride": (2, 1), "padding": (1, 0)},
    {"kernel_size": 1, "stride": 2},
]


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize("attrs", POOLS, ids=str)
def test_pools(name: str, attrs) -> None:
    same(
        lambda x: getattr(ops, name)(x, **attrs),
        lambda x: last(getattr(F, name)(first(x), **attrs)),
        normal(2, 7, 6, 3),
    )


def test_max_pool_gives_ties_to_the_first() -> None:
    flat = np.zeros((1, 4, 4, 2))
    same(
        lambda x: ops.max_pool2d(x, 3, 1, 1),
        lambda x: last(F.max_pool2d(first(x), 3, 1, 1)),
        flat,
    )


def test_global_avg_pool() -> None:
    same(ops.global_avg_pool, lambda x: x.mean(dim=(1, 2)), normal(2, 3, 5, 4))


# ------------------------------------------------------------------------- norms

EPS = [1e-5, 1e-2]


@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize("shape", [(6, 3), (2, 4, 5, 3)], ids=str)
def test_batch_norm(shape, eps) -> None:
    same(
        lambda x, gamma, beta: ops.batch_norm(x, gamma, beta, eps=eps),
        lambda x, gamma, beta: last(
            F.batch_norm(first(x), None, None, gamma, beta, training=True, eps=eps)
        ),
        normal(*shape),
        normal(3, seed=1),
        normal(3, seed=2),
    )


@pytest.mark.parametrize("eps", EPS)
def test_batch_norm_frozen(eps) -> None:
    mean, var = normal(3, seed=3), 0.5 + np.random.default_rng(0).random(3)
    same(
        lambda x, gamma, beta: ops.batch_norm(x, gamma, beta, mean, var, eps),
        lambda x, gamma, beta: last(
            F.batch_norm(first(x), torch.tensor(mean), torch.tensor(var), gamma, beta, eps=eps)
        ),
        normal(2, 4, 5, 3),
        normal(3, seed=1),
        normal(3, seed=2),
    )


@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("shape", [(2, 4, 5, 6), (3, 4, 6)], ids=str)
def test_group_norm(shape, groups, eps) -> None:
    same(
        lambda x, gamma, beta: ops.group_norm(x, gamma, beta, groups, eps),
        lambda x, gamma, beta: last(F.group_norm(first(x), groups, gamma, beta, eps)),
        normal(*shape),
        normal(6, seed=1),
        normal(6, seed=2),
    )


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 4, 5)], ids=str)
def test_layer_norm(shape) -> None:
    same(
        ops.layer_norm,
        lambda x, g, b: F.layer_norm(x, (5,), g, b),
        normal(*shape),
        normal(5),
        normal(5, seed=1),
    )


def test_weight_standardize() -> None:
    def theirs(w):
        var, mean = torch.var_mean(w, dim=(0, 1, 2), correction=0)
        return (w - mean) / torch.sqrt(var + 1e-5)

    same(ops.weight_standardize, theirs, normal(3, 3, 2, 4))


# ------------------------------------------------------------------------- losses


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("lead", [(4,), (2, 3)], ids=str)
def test_cross_entropy(lead, smoothing) -> None:
    labels = np.random.default_rng(0).integers(0, 5, lead)
    same(
        lambda x: ops.cross_entropy(x, labels, label_smoothing=smoothing),
        lambda x: F.cross_entropy(
            x.reshape(-1, 5), torch.tensor(labels).reshape(-1), label_smoothing=smoothing
        ),
        3 * normal(*lead, 5),
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_with_a_mask(smoothing) -> None:
    labels, mask = np.array([0, 4, 2, 1]), np.array([1.0, 0.0, 1.0, 1.0])
    ignored = np.where(mask > 0, labels, -100)
    same(
        lambda x: ops.cross_entropy(x, labels, mask, label_smoothing=smoothing),
        lambda x: F.cross_entropy(x, torch.tensor(ignored), label_smoothing=smoothing),
        normal(4, 5),
    )


def test_losses_far_out() -> None:
    """Logits of a thousand, where a naive form overflows."""
    x = 1000 * normal(4, 3)
    targets = np.random.default_rng(0).random((4, 3))
    same(
        lambda x: ops.cross_entropy(x, [0, 1, 2, 0]),
        lambda x: F.cross_entropy(x, torch.tensor([0, 1, 2, 0])),
        x,
    )
    same(
        lambda x: ops.binary_cross_entropy_with_logits(x, targets),
        lambda x: F.binary_cross_entropy_with_logits(x, torch.tensor(targets)),
        x,
    )


@pytest.mark.parametrize("masked", [True, False], ids=["masked", "plain"])
@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("binary_cross_entropy_with_logits", "binary_cross_entropy_with_logits"),
        ("mse", "mse_loss"),
    ],
)
def test_pointwise_losses(name: str, peer: str, masked: bool) -> None:
    rng = np.random.default_rng(0)
    targets = rng.random((4, 3))
    mask = rng.integers(0, 2, (4, 3)).astype(np.float64) if masked else None

    def theirs(x):
        each = getattr(F, peer)(x, torch.tensor(targets), reduction="none")
        return each.mean() if mask is None else (each * torch.tensor(mask)).sum() / mask.sum()

    same(lambda x: getattr(ops, name)(x, targets, mask), theirs, normal(4, 3))


# ------------------------------------------------------------------------- the rest

ACTIVATIONS = {
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "exp": torch.exp,
    "abs": torch.abs,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    same(getattr(ops, name), ACTIVATIONS[name], 4 * normal(40))


@pytest.mark.parametrize("name", ["silu", "sigmoid", "tanh", "gelu"])
def test_activations_far_out(name: str) -> None:
    same(getattr(ops, name), ACTIVATIONS[name], np.array([-1e3, -100.0, -30.0, 30.0, 1e3]))


@pytest.mark.parametrize("name", ["relu", "relu6", "leaky_relu", "abs"])
def test_activations_at_a_kink(name: str) -> None:
    same(getattr(ops, name), ACTIVATIONS[name], np.array([0.0, 6.0, -0.0]))


@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax(name: str, axis: int) -> None:
    same(
        lambda x: getattr(ops, name)(x, axis=axis),
        lambda x: getattr(F, name)(x, dim=axis),
        5 * normal(3, 4, 5),
    )


def test_embedding() -> None:
    indices = np.array([[0, 3, 3], [6, 0, 1]])
    same(
        lambda table: ops.embedding(table, indices),
        lambda table: F.embedding(torch.tensor(indices), table),
        normal(7, 4),
    )


@pytest.mark.parametrize(
    "shapes",
    [((3, 4), (4, 2)), ((2, 3, 4), (4, 2)), ((3, 4), (2, 4, 5)), ((2, 1, 3, 4), (5, 4, 2))],
    ids=str,
)
def test_matmul(shapes) -> None:
    same(lambda a, b: a @ b, lambda a, b: a @ b, *(normal(*s) for s in shapes))


@pytest.mark.parametrize("axis", [None, 0, (0, 2)], ids=str)
def test_reductions(axis) -> None:
    x = normal(3, 4, 5)
    dim = (0, 1, 2) if axis is None else axis
    same(lambda x: x.sum(axis), lambda x: x.sum(dim), x)
    same(lambda x: x.mean(axis, True), lambda x: x.mean(dim, keepdim=True), x)
    same(lambda x: x.max(axis), lambda x: x.amax(dim), x)
