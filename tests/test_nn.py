"""Modules: PyTorch's names and sums, state dicts, seeds, and the zoo's parameter counts."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import tinytrain as tt
from tinytrain import losses, models, nn
from tinytrain.nn.module import constant

has_torch = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not has_torch, reason="torch is missing")
RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def close(got, want, rtol=1e-4, atol=1e-5) -> None:
    np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)


# ---------------------------------------------------------------------------- the tree


class Net(nn.Module):
    def __init__(self):
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.heads = [nn.Linear(4, 2), nn.Linear(4, 3, bias=False)]
        self.scale = nn.Parameter((1,), constant(2.0))

    def forward(self, x):
        h = nn.GlobalAvgPool2d()(self.norm(self.conv(x)))
        return self.heads[0](h) * self.scale


def test_names_and_shapes():
    assert {name: p.shape for name, p in Net().named_leaves().items()} == {
        "conv.weight": (3, 3, 3, 4),
        "conv.bias": (4,),
        "norm.weight": (4,),
        "norm.bias": (4,),
        "norm.running_mean": (4,),
        "norm.running_var": (4,),
        "heads.0.weight": (4, 2),
        "heads.0.bias": (2,),
        "heads.1.weight": (4, 3),
        "scale": (1,),
    }
    assert "norm.running_mean" not in dict(Net().named_parameters())
    assert Net().count_parameters() == 108 + 4 + 8 + 8 + 2 + 12 + 1


def test_modes_reach_every_module():
    net = Net()
    assert all(m.training for m in net.modules())
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    assert net.train().norm.training
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())


def test_a_state_dict_goes_round():
    with nn.seeded(1):
        one = Net()
    with nn.seeded(2):
        two = Net()
    state = one.state_dict()
    assert (state["conv.weight"] != two.state_dict()["conv.weight"]).any()
    two.load_state_dict(state)
    for name, a in two.state_dict().items():
        np.testing.assert_array_equal(a, state[name])
    state["conv.weight"][...] = 9
    assert (one.conv.weight.data != 9).all(), "a state dict is a copy"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"conv.weight": None}, "conv.weight"),
        ({"extra": np.zeros(3)}, "extra"),
        ({"scale": np.zeros(2)}, "scale"),
        ({"scale": np.array([1j])}, "scale"),
        ({"scale": np.array(["one"])}, "scale"),
        ({"scale": np.array([None])}, "scale"),
    ],
    ids=["missing", "unknown", "shape", "complex", "text", "object"],
)
def test_a_state_dict_that_does_not_fit_changes_nothing(change, named):
    net = Net()
    before = net.state_dict()
    state = {name: a + 1 for name, a in before.items()} | change
    with pytest.raises(tt.InputError, match=named):
        net.load_state_dict({k: v for k, v in state.items() if v is not None})
    for name, a in net.state_dict().items():
        np.testing.assert_array_equal(a, before[name])


def test_seeds_make_the_weights():
    same, other = models.build("lenet5", seed=3), models.build("lenet5", seed=4)
    again = models.build("lenet5", seed=3).state_dict()
    for name, a in same.state_dict().items():
        np.testing.assert_array_equal(a, again[name])
        assert (a != other.state_dict()[name]).any() or "norm" in name
    a, b = same[0].weight.data, same[4].weight.data
    assert not np.array_equal(a.ravel()[:50], b.ravel()[:50]), "each has a key of its own"
    net = models.build("lenet5", seed=3)
    _ = net[len(net) - 1].weight.data  # the last first
    np.testing.assert_array_equal(net[0].weight.data, again["0.weight"])


def test_weights_start_within_pytorchs_bound():
    w = nn.Conv2d(16, 32, 3).weight.data
    bound = 1 / np.sqrt(9 * 16)
    assert -bound <= w.min() < -0.95 * bound
    assert 0.95 * bound < w.max() < bound
    assert abs(w.mean()) < 0.05 * bound


def test_a_parameter_takes_arrays_of_its_shape_only():
    p = nn.Linear(3, 2).weight
    p.data = np.arange(6).reshape(3, 2)
    assert p.data.dtype == np.float32
    for bad in (np.zeros((2, 3)), np.array([["a"] * 2] * 3), np.zeros((3, 2), complex)):
        with pytest.raises(tt.InputError):
            p.data = bad
    np.testing.assert_array_equal(p.data, np.arange(6).reshape(3, 2))


# ---------------------------------------------------------------------------- calling


def test_keyword_arguments_and_flags_reach_forward():
    class Scaled(nn.Module):
        def forward(self, x, mask=None, scale=1.0):
            y = x * scale
            return y if mask is None else y * mask

    x = normal(2, 3)
    close(Scaled()(x, scale=2.0).data, 2 * x)
    close(Scaled()(x, None, 3.0).data, 3 * x)


@pytest.mark.parametrize("kind", [tuple, list])
def test_tensors_in_a_tuple_keep_their_gradient(kind):
    """As LSTMs pass their state, and WaveNet blocks their two outputs."""

    class Pair(nn.Module):
        def forward(self, pair):
            return pair[0] * pair[1]

    a, b = (tt.Tensor(normal(2, 3), requires_grad=True) for _ in range(2))
    Pair()(kind([a, b])).sum().backward()
    close(a.grad, b.data)


def test_an_array_times_a_weight():
    """README's first line with a plain array on the left."""
    x, w = normal(4, 3), tt.Tensor(normal(3, 2), requires_grad=True)
    ((x @ w).relu()).mean().backward()
    assert w.grad.shape == (3, 2)
    close((x @ w).data, x @ w.data)


def test_a_tensor_is_iterated_by_rows():
    x = normal(3, 2)
    close(np.stack([row.data for row in tt.Tensor(x)]), x)
    *_, last = tt.Tensor(x)
    close(last.data, x[2])


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(0, 3),
        lambda: nn.Linear(3, -1),
        lambda: nn.Linear(3, 0),
        lambda: nn.Conv2d(0, 4),
        lambda: nn.Conv2d(3, 4, groups=2),
        lambda: nn.Conv2d(4, 4, groups=0),
        lambda: nn.Conv2d(4, 4, kernel_size=0),
        lambda: nn.Conv1d(4, 4, 0),
        lambda: nn.Conv1d(4, 6, 3, groups=4),
        lambda: nn.MultiheadAttention(6, 4),
        lambda: nn.MultiheadAttention(6, 0),
        lambda: nn.LSTM(3, 0),
        lambda: nn.GroupNorm(3, 4),
        lambda: nn.GroupNorm(0, 4),
        lambda: nn.Dropout(1.5),
        lambda: nn.Dropout(-0.1),
        lambda: nn.Embedding(0, 3),
        lambda: nn.BatchNorm2d(0),
        lambda: models.build("resnet19"),
        lambda: models.build("resnet8", norm="instance"),
        lambda: models.build("resnet8", width=2),
        lambda: models.build("resnet8", input_shape=(32, 32)),
        lambda: models.build("resnet8", classes=0),
        lambda: models.build("digits_cnn", input_shape=(2, 2, 1)),
        lambda: models.build("mlp", seed=-1),
    ],
)
def test_layers_that_cannot_be_are_refused_when_made(make):
    with pytest.raises(tt.InputError):
        make()


@pytest.mark.parametrize(
    ("layer", "shape", "named"),
    [
        (nn.Linear(4, 3), (2, 5), "4 features"),
        (nn.Linear(4, 3), (4,), "4"),
        (nn.Conv2d(3, 4), (2, 8, 8, 1), "3 input channels"),
        (nn.Conv2d(3, 4), (2, 3, 8, 8), "channels"),
        (nn.Conv2d(3, 4, 5), (2, 3, 3, 3), "kernel"),
        (nn.Conv1d(3, 4, 3), (2, 8), "conv1d"),
        (nn.BatchNorm2d(3), (2, 4, 4, 5), "batch_norm"),
        (nn.GroupNorm(1, 3), (2, 4, 4, 5), "group_norm"),
        (nn.LayerNorm(3), (2, 5), "norm"),
        (nn.MaxPool2d(3), (2, 2, 2, 1), "max_pool2d"),
        (nn.LSTM(3, 4), (2, 3), "LSTM"),
        (nn.GRU(3, 4), (2, 5, 2), "matmul|GRU"),
        (nn.MultiheadAttention(4, 2), (2, 5, 3), "4 features"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_inputs_that_do_not_fit_a_layer_are_named(layer, shape, named):
    with pytest.raises(tt.InputError, match=named):
        layer(tt.Tensor(np.zeros(shape, np.float32)))


@pytest.mark.parametrize("bad", [5, -1])
def test_an_index_beyond_the_table_is_named(bad):
    with pytest.raises(tt.InputError, match=str(bad)):
        nn.Embedding(5, 3)(np.array([[0, bad]]))


# ---------------------------------------------------------------------------- layers by hand


def test_dropout_scales_what_it_keeps_and_rests_in_eval():
    layer, x = nn.Dropout(0.25), np.ones((200, 50), np.float32)
    y = layer(x).data
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.75)}
    assert abs((y == 0).mean() - 0.25) < 0.02
    assert (layer(x).data != y).any(), "each call draws anew"
    np.testing.assert_array_equal(layer.eval()(x).data, x)


def test_attention_is_causal():
    with nn.seeded(0):
        layer = nn.MultiheadAttention(8, 2, causal=True)
    x = normal(2, 6, 8)
    y = layer(tt.Tensor(x)).data
    changed = x.copy()
    changed[:, 4:] += 1
    z = layer(tt.Tensor(changed)).data
    close(z[:, :4], y[:, :4])
    assert np.abs(z[:, 4:] - y[:, 4:]).max() > 0.01


def test_attention_does_not_see_what_is_masked():
    with nn.seeded(0):
        layer = nn.MultiheadAttention(8, 2)
    x, memory = normal(2, 3, 8), normal(2, 5, 8)
    mask = np.zeros((2, 1, 1, 5), np.float32)
    mask[..., 3:] = -1e9
    y = layer(tt.Tensor(x), tt.Tensor(memory), tt.Tensor(mask)).data
    memory[:, 3:] = 7
    close(layer(tt.Tensor(x), tt.Tensor(memory), tt.Tensor(mask)).data, y)


@pytest.mark.parametrize("dilation", [1, 3])
def test_causal_convolutions_see_nothing_later(dilation):
    with nn.seeded(0):
        layer = nn.CausalConv1d(2, 4, 3, dilation=dilation)
        block = nn.WaveNetBlock(2, 5, kernel_size=3, dilation=dilation)
    x = normal(2, 12, 2)
    changed = x.copy()
    changed[:, 7:] += 1
    for each in (layer, lambda v: block(v)[0], lambda v: block(v)[1]):
        y, z = each(tt.Tensor(x)).data, each(tt.Tensor(changed)).data
        assert y.shape[1] == 12
        close(z[:, :7], y[:, :7])
        assert np.abs(z[:, 7:] - y[:, 7:]).max() > 1e-3


def test_recurrent_layers_give_all_states_or_the_last():
    for kind in (nn.LSTM, nn.GRU):
        with nn.seeded(0):
            every = kind(3, 4)
        with nn.seeded(0):
            last = kind(3, 4, last_only=True)
        x = tt.Tensor(normal(2, 5, 3))
        assert every(x).shape == (2, 5, 4)
        close(last(x).data, every(x).data[:, -1])


def test_weight_standardization():
    layer = nn.Conv2d(3, 4, 3, standardize=True, bias=False)
    x = normal(1, 3, 3, 3)
    w = layer.weight.data.astype(np.float64)
    w = (w - w.mean((0, 1, 2))) / np.sqrt(w.var((0, 1, 2)) + 1e-5) / np.sqrt(27)
    close(layer(x).data.reshape(4), np.tensordot(x[0], w, 3))


# ---------------------------------------------------------------------------- the zoo

COUNTS = {
    "mlp": 101_770,
    "lenet5": 61_706,
    "vgg6": 204_570,
    "resnet8": 78_186,
    "digits_cnn": 3_706,
    "revnet": 573_642,
    "irevnet": 6_256_170,
    "wrn": 1_467_610,
    "vgg16": 14_719_818,
    "resnet18": 11_220_132,
    "spoken_cnn": 52_722,
    "wavenet": 16_018,
    "character_cnn": 69_793,
    "surface_cnn": 50_094,
    "stroke_cnn": 39_098,
    "stroke_gru": 16_522,
    "clothes_cnn": 73_306,
    "transformer": 1_310_208,
    "attention_gru": 681_088,
}


@pytest.mark.parametrize("name", models.names())
def test_parameter_counts(name):
    count = models.build(name).count_parameters()
    if name in COUNTS:
        assert count == COUNTS[name]
    elif name == "ds_cnn":
        assert 23_500 <= count <= 24_500
    elif name == "autoencoder":
        assert 265_000 <= count <= 271_000
    else:
        assert 350_000 <= count <= 650_000, "MobileNetV2 at 0.35 with ten classes"


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize(
    "name",
    [n for n in models.names() if models.takes(n, "norm") and n not in ("mlp", "autoencoder")],
)
def test_every_convolutional_net_takes_every_norm(name, norm):
    shape = {"ds_cnn": (12, 8, 1), "digits_cnn": (8, 8, 1)}.get(name, (16, 16, 3))
    net = models.build(name, classes=5, input_shape=shape, norm=norm)
    assert net(normal(2, *shape)).shape == (2, 5)
    kinds = {type(m).__name__ for m in net.modules()}
    assert ("BatchNorm2d" in kinds) == (norm == "batch")
    assert ("GroupNorm" in kinds) == (norm == "group")
    tt.plan(net, batch=2)


def test_each_net_of_the_zoo_knows_shape_loss_and_optimizer():
    for name in models.names():
        net = models.build(name)
        assert net.input_shape
        assert losses.resolve(net.loss)
        assert tt.plan(net, batch=1).fits


@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 3, 4)])
def test_an_mlp_flattens_any_shape(shape):
    net = models.build("mlp", input_shape=shape, hidden=(6,), classes=2)
    assert net(normal(3, *shape)).shape == (3, 2)


def test_a_typo_is_answered_with_the_nearest_name():
    with pytest.raises(tt.InputError, match="did you mean 'lenet5'"):
        models.build("lenet")


# ---------------------------------------------------------------------------- against PyTorch


def as_torch(x: np.ndarray):
    """A torch tensor; (N, H, W, C) or (N, L, C) becomes channels first."""
    import torch

    order = {4: (0, 3, 1, 2), 3: (0, 2, 1)}.get(x.ndim)
    return torch.from_numpy(np.ascontiguousarray(x if order is None else x.transpose(order)))


def from_torch(y) -> np.ndarray:
    a = y.detach().numpy()
    order = {4: (0, 2, 3, 1), 3: (0, 2, 1)}.get(a.ndim)
    return a if order is None else a.transpose(order)


def copy_norm(ours, theirs) -> None:
    import torch

    with torch.no_grad():
        for name in ("weight", "bias"):
            values = normal(*getattr(ours, name).shape)
            getattr(ours, name).data = values
            getattr(theirs, name).copy_(torch.from_numpy(values))


def same_gradients(ours, theirs, x: np.ndarray, first: bool) -> None:
    """Outputs and the gradients of sum(y^2) over x, weight and bias."""
    import torch

    ox = tt.Tensor(x, requires_grad=True)
    tx = (as_torch(x) if first else torch.from_numpy(x)).requires_grad_()
    oy, ty = ours(ox), theirs(tx)
    close(oy.data, from_torch(ty) if first else ty.detach().numpy())
    (oy * oy).sum().backward()
    (ty * ty).sum().backward()
    close(ox.grad, from_torch(tx.grad) if first else tx.grad.numpy(), atol=1e-4)
    for name in ("weight", "bias"):
        close(getattr(ours, name).grad, getattr(theirs, name).grad.numpy(), atol=1e-3)


@needs_torch
@pytest.mark.parametrize("shape", [(4, 3, 5, 6), (2, 1, 1, 6), (7, 6), (3, 5, 6)])
def test_batch_norm_is_pytorchs(shape):
    import torch

    kind = torch.nn.BatchNorm2d if len(shape) == 4 else torch.nn.BatchNorm1d
    ours, theirs = nn.BatchNorm2d(6), kind(6)
    copy_norm(ours, theirs)
    for _ in range(2):
        same_gradients(ours, theirs, normal(*shape), len(shape) > 2)
        ours.weight.grad = ours.bias.grad = None
        theirs.zero_grad()
    close(ours.running_mean.data, theirs.running_mean.numpy())
    close(ours.running_var.data, theirs.running_var.numpy())
    same_gradients(ours.eval(), theirs.eval(), normal(*shape), len(shape) > 2)


@needs_torch
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm_is_pytorchs(groups):
    import torch

    ours, theirs = nn.GroupNorm(groups, 6), torch.nn.GroupNorm(groups, 6)
    copy_norm(ours, theirs)
    same_gradients(ours, theirs, normal(3, 4, 5, 6), True)


@needs_torch
@pytest.mark.parametrize("shape", [(3, 6), (2, 4, 6)])
def test_layer_norm_is_pytorchs(shape):
    import torch

    ours, theirs = nn.LayerNorm(6), torch.nn.LayerNorm(6)
    copy_norm(ours, theirs)
    same_gradients(ours, theirs, normal(*shape), False)


@needs_torch
@pytest.mark.parametrize(("stride", "padding", "groups"), [(1, 0, 1), (2, 1, 2), (1, 2, 4)])
def test_convolutions_are_pytorchs(stride, padding, groups):
    import torch

    ours = nn.Conv2d(4, 8, 3, stride, padding, groups=groups)
    theirs = torch.nn.Conv2d(4, 8, 3, stride, padding, groups=groups)
    line = nn.Conv1d(4, 8, 3, stride, padding, groups=groups)
    their_line = torch.nn.Conv1d(4, 8, 3, stride, padding, groups=groups)
    with torch.no_grad():
        theirs.weight.copy_(torch.from_numpy(ours.weight.data.transpose(3, 2, 0, 1).copy()))
        theirs.bias.copy_(torch.from_numpy(ours.bias.data))
        their_line.weight.copy_(torch.from_numpy(line.weight.data.transpose(2, 1, 0).copy()))
        their_line.bias.copy_(torch.from_numpy(line.bias.data))
        x = normal(2, 7, 6, 4)
        close(ours(x).data, from_torch(theirs(as_torch(x))))
        x = normal(2, 9, 4)
        close(line(x).data, from_torch(their_line(as_torch(x))))


@needs_torch
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_recurrent_layers_are_pytorchs(kind):
    import torch

    ours = getattr(nn, kind)(3, 5)
    theirs = getattr(torch.nn, kind)(3, 5, batch_first=True)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    with torch.no_grad():
        for name in names:
            value = getattr(ours.cell, name).data
            getattr(theirs, f"{name}_l0").copy_(torch.from_numpy(value.T.copy()))
    x = normal(2, 4, 3)
    ox, tx = tt.Tensor(x, requires_grad=True), torch.from_numpy(x).requires_grad_()
    oy, ty = ours(ox), theirs(tx)[0]
    close(oy.data, ty.detach().numpy())
    (oy * oy).sum().backward()
    (ty * ty).sum().backward()
    close(ox.grad, tx.grad.numpy())
    for name in names:
        close(getattr(ours.cell, name).grad, getattr(theirs, f"{name}_l0").grad.numpy().T)


@needs_torch
@pytest.mark.parametrize("causal", [True, False])
def test_attention_is_pytorchs(causal):
    import torch

    ours = nn.MultiheadAttention(8, 2, causal=causal)
    theirs = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    parts = (ours.query, ours.key, ours.value)
    with torch.no_grad():
        weight = np.concatenate([p.weight.data.T for p in parts])
        theirs.in_proj_weight.copy_(torch.from_numpy(weight))
        theirs.in_proj_bias.copy_(torch.from_numpy(np.concatenate([p.bias.data for p in parts])))
        theirs.out_proj.weight.copy_(torch.from_numpy(ours.out.weight.data.T.copy()))
        theirs.out_proj.bias.copy_(torch.from_numpy(ours.out.bias.data))
        x = normal(2, 5, 8)
        tx = torch.from_numpy(x)
        hidden = torch.triu(torch.full((5, 5), -torch.inf), 1) if causal else None
        close(ours(tt.Tensor(x)).data, theirs(tx, tx, tx, attn_mask=hidden)[0].numpy())


@needs_torch
@pytest.mark.parametrize(
    "kind", ["ReLU", "ReLU6", "LeakyReLU", "Tanh", "Sigmoid", "SiLU", "Softmax", "GELU"]
)
def test_activations_are_pytorchs(kind):
    import torch

    arguments = {"GELU": {"approximate": "tanh"}, "Softmax": {"dim": -1}}.get(kind, {})
    x = normal(4, 7) * 4
    theirs = getattr(torch.nn, kind)(**arguments)(torch.from_numpy(x))
    close(getattr(nn, kind)()(x).data, theirs.numpy())
