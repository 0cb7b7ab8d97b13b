"""The deep networks of the zoo: the published sizes, the gradients, and a planned step of each."""

from __future__ import annotations

import numpy as np
import pytest

import tinytrain as tt
from tinytrain import models, nn, ops, optim
from tinytrain.freeze import freeze, sample_specs
from tinytrain.lower import lower
from tinytrain.models.reversible import _Coupling, _Injective, _Stage
from tinytrain.plan import make_plan
from tinytrain.tensor import tape_of

REVNET_110 = {"units": (9, 9, 9), "widths": (32, 32, 64, 128)}
REVNET_164 = {**REVNET_110, "bottleneck": True}

SMALL = {  # arguments that leave every kind of block in, and few of each
    "revnet": {"units": (2, 2), "widths": (16, 16, 32)},
    "revnet-bottleneck": {"units": (2, 2), "widths": (8, 8, 16), "bottleneck": True},
    "revnet-plain": {"units": (2, 2), "widths": (16, 16, 32), "plain": True},
    "revnet-standardized": {"units": (2, 1), "widths": (8, 16, 16), "standardize": True},
    "irevnet": {"units": (2, 2, 1), "channels": 4},
    "irevnet-plain": {"units": (2, 2), "channels": 4, "plain": True},
    "wrn": {"depth": 10, "width": 1},
    "wrn-standardized": {"depth": 10, "standardize": True},
    "vgg16": {},
    "resnet18": {},
    "resnet18-large": {"stem": "large"},
}
SHAPE = (8, 8, 3)
CLASSES = 3
STEP = 1e-7  # of a direction over thousands of parameters: shorter, so that no ReLU changes sides


def small(case: str, **more) -> nn.Module:
    arguments = {"classes": CLASSES, "input_shape": SHAPE, **SMALL[case], **more}
    return models.build(case.partition("-")[0], **arguments)


def images(n: int, shape=SHAPE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, *shape)).astype(np.float32)


def forward_macs(net: nn.Module) -> int:
    """Of one image, from shapes alone."""
    frozen = freeze(net, sample_specs(net, None), 1, None, False, None)
    return make_plan(lower(frozen.tape), 1).macs


small_nets = pytest.mark.parametrize("case", SMALL)


# ---------------------------------------------------------------------------- published sizes


@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [
        ("irevnet", {}, 6_256_170),  # published: 6.26 M
        ("wrn", {}, 1_467_610),  # published: 1.5 M; the authors' code has this number
        ("resnet18", {}, 11_220_132),  # 100 classes, 3x3 stem; published: 11.2 M
        ("resnet18", {"classes": 1000, "input_shape": (224, 224, 3)}, 11_689_512),  # 11.7 M
        ("vgg16", {}, 14_714_688 + 512 * 10 + 10),  # VGG-16's convolutions and a small head
        ("revnet", {}, 573_642),
        ("revnet", REVNET_110, 1_854_506),
        ("revnet", REVNET_164, 1_981_994),
    ],
)
def test_parameter_counts(name, arguments, count):
    assert models.build(name, **arguments).count_parameters() == count


@pytest.mark.parametrize(
    ("arguments", "published", "within"),
    [({}, 0.46e6, 0.25), (REVNET_110, 1.73e6, 0.08), (REVNET_164, 1.75e6, 0.14)],
)
def test_revnets_are_larger_than_the_paper_s_by_their_plain_blocks(arguments, published, within):
    """The paper's two first blocks that stride are couplings of half the parameters."""
    net = models.build("revnet", **arguments)
    assert published < net.count_parameters() < (1 + within) * published
    stages = [m for m in net.modules() if isinstance(m, _Stage)]
    whole = sum(p.size for s in stages if s.first is not None for p in s.first.parameters())
    assert net.count_parameters() - whole / 2 == pytest.approx(published, rel=0.04)


def test_irevnet_s_forward_work_is_the_published_one():
    assert forward_macs(models.build("irevnet")) == pytest.approx(493e6, rel=0.005)


@pytest.mark.parametrize("name", ["revnet", "irevnet"])
def test_a_plain_twin_has_the_same_widths_and_about_the_same_activations(name):
    one, twin = (models.build(name, plain=plain) for plain in (False, True))
    kept = [tt.plan(net, batch=32).breakdown()["activations"] for net in (one, twin)]
    assert kept[1] == pytest.approx(kept[0], rel=0.04)
    if name == "irevnet":
        assert forward_macs(twin) == pytest.approx(forward_macs(one), rel=0.001)


@pytest.mark.parametrize(
    ("name", "arguments", "blocks"),
    [
        ("revnet", {}, 7),
        ("revnet", REVNET_110, 25),
        ("revnet", REVNET_164, 24),
        ("irevnet", {}, 54),
    ],
)
def test_the_number_of_couplings(name, arguments, blocks):
    net = models.build(name, **arguments)
    assert sum(isinstance(m, _Coupling | _Injective) for m in net.modules()) == blocks


# ---------------------------------------------------------------------------- shapes and arguments


@pytest.mark.parametrize("side", [32, 128, 224])
def test_resnet18_s_stem_follows_the_size_of_the_image(side):
    net = models.build("resnet18", input_shape=(side, side, 3))
    large = side >= 128
    assert any(isinstance(m, nn.MaxPool2d) for m in net.modules()) == large
    weight = next(iter(net.parameters()))
    assert weight.shape == ((7, 7, 3, 64) if large else (3, 3, 3, 64))


@pytest.mark.parametrize(("side", "pools"), [(1, 0), (8, 3), (16, 4), (32, 5), (48, 5)])
def test_vgg16_takes_any_size(side, pools):
    net = models.build("vgg16", input_shape=(side, side, 3))
    assert sum(isinstance(m, nn.MaxPool2d) for m in net.modules()) == pools
    assert tt.plan(net, batch=2).fits


def test_vgg16_keeps_the_scale_of_its_signal():
    """Thirteen layers of PyTorch's default would shrink it by 6 ** 6.5."""
    net = models.build("vgg16")
    features = nn.Sequential(*net.layers[:-2])
    assert 0.1 < float(np.std(features(images(2, (32, 32, 3))).data)) < 10


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("revnet", {"units": ()}),
        ("revnet", {"units": (3, 3)}),
        ("revnet", {"units": (3, 0, 3)}),
        ("revnet", {"widths": (32, 32, 63, 112)}),
        ("revnet", {"norm": "layer"}),
        ("irevnet", {"units": ()}),
        ("irevnet", {"channels": 6}),
        ("irevnet", {"input_shape": (30, 32, 3)}),
        ("irevnet", {"input_shape": (32, 32, 40)}),
        ("wrn", {"depth": 27}),
        ("wrn", {"depth": 4}),
        ("wrn", {"width": 0}),
        ("resnet18", {"stem": "tiny"}),
    ],
)
def test_what_cannot_be_made_is_refused(name, arguments):
    with pytest.raises(tt.InputError, match=name):
        models.build(name, **arguments)


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@small_nets
def test_the_norm_is_the_one_asked_for(case, norm):
    net = small(case, norm=norm)
    kinds = {type(m).__name__ for m in net.modules()}
    assert ("BatchNorm2d" in kinds) == (norm == "batch")
    assert ("GroupNorm" in kinds) == (norm == "group")
    plan = tt.plan(net, batch=2)
    assert plan.arena_bytes <= 1.02 * plan.lower_bound
    plan.check()


def test_weights_are_standardized_in_every_branch():
    net = small("revnet-standardized", norm="group")
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.standardize]
    stages = [m for m in net.modules() if isinstance(m, _Stage)]
    couplings = sum(len(s.couplings) for s in stages)
    firsts = sum(s.first is not None for s in stages)
    assert len(convolutions) == 4 * couplings + 2 * firsts > 0


# ---------------------------------------------------------------------------- the couplings


class Held(tt.Tensor):
    """Running statistics in float64, which nothing here looks at."""

    def assign(self, value: tt.Tensor) -> None:
        pass


class Doubled:
    """A module whose parameters are float64, and arguments of a function to check."""

    def __init__(self, module: nn.Module, seed: int = 0):
        self.module, self.places, self.arrays = module, [], []
        rng = np.random.default_rng(seed)
        for m in module.modules():
            for name, p in list(vars(m).items()):
                if isinstance(p, nn.Buffer):
                    setattr(m, name, Held(p.data.astype(np.float64)))
                elif isinstance(p, nn.Parameter):
                    far = 0.3 if len(p.shape) == 1 else 0.0  # no norm shall be the identity
                    self.places.append((m, name))
                    self.arrays.append(p.data + far * rng.standard_normal(p.shape))
        self.put([tt.Tensor(np.asarray(a, np.float64)) for a in self.arrays])

    def put(self, tensors) -> None:
        for (m, name), t in zip(self.places, tensors, strict=True):
            setattr(m, name, t)

    def check(self, *xs: np.ndarray) -> None:
        """The gradients of the inputs and of all parameters, along one random direction."""

        def run(*given):
            self.put(given[len(xs) :])
            y = self.module.forward(*given[: len(xs)])
            return ops.concat(y, axis=-1) if isinstance(y, tuple) else y

        tt.check.gradients(run, *xs, *self.arrays, rtol=1e-5, step=STEP)


def coupling(norm: str) -> Doubled:
    stage = next(m for m in small("revnet", norm=norm).modules() if isinstance(m, _Stage))
    return Doubled(stage.couplings[0])


def injective(stride: int) -> Doubled:
    return Doubled(next(b for b in small("irevnet").blocks if b.stride == stride))


def streams(channels: int) -> list[np.ndarray]:
    return [images(2, (6, 6, channels), seed).astype(np.float64) for seed in (1, 2)]


norms = pytest.mark.parametrize("norm", ["batch", "group", "none"])
strides = pytest.mark.parametrize("stride", [1, 2])


@norms
def test_revnet_s_coupling_can_be_inverted(norm):
    block = coupling(norm).module
    x1, x2 = streams(8)
    y1, y2 = block(tt.Tensor(x1), tt.Tensor(x2))
    back2 = y2 - block.g(y1)
    back1 = y1 - block.f(back2)
    np.testing.assert_allclose(back2.data, x2, rtol=0, atol=1e-12)
    np.testing.assert_allclose(back1.data, x1, rtol=0, atol=1e-12)
    assert np.abs(y1.data - x1).max() > 1e-3


@strides
def test_irevnet_s_block_can_be_inverted(stride):
    block = injective(stride).module
    x1, x2 = streams(4)
    y1, y2 = block(tt.Tensor(x1), tt.Tensor(x2))
    assert y1.shape == y2.shape == (2, 6 // stride, 6 // stride, 4 * stride**2)
    back2 = ops.depth_to_space(y1, stride)
    np.testing.assert_array_equal(back2.data, x2)
    back1 = ops.depth_to_space(y2 - block.branch(back2), stride)
    np.testing.assert_allclose(back1.data, x1, rtol=0, atol=1e-12)


@norms
def test_gradients_of_revnet_s_coupling(norm):
    coupling(norm).check(*streams(8))


@strides
def test_gradients_of_irevnet_s_block(stride):
    injective(stride).check(*streams(4))


@pytest.mark.parametrize("case", [c for c in SMALL if not c.startswith(("vgg", "resnet"))])
def test_gradients_through_the_whole_net(case):
    norm = "none" if case.startswith("irevnet") else "group"
    Doubled(small(case, norm=norm)).check(images(2))


# ---------------------------------------------------------------------------- what a planner sees


def nodes_of(case: str) -> list:
    net = small(case)
    return tape_of([net(images(1))])[0].nodes


def test_a_stage_of_revnet_splits_once_and_joins_once():
    nodes = nodes_of("revnet")
    found = [n.op for n in nodes]
    assert found.count("concat") == 2
    assert found.count("slice") == 4
    # Stage 1: 2 couplings of 2 adds; stage 2: a plain first block and one coupling.
    assert found.count("add") == 4 + 1 + 2 + 1  # and the dense layer's bias


def test_irevnet_is_pad_space_to_depth_and_add():
    found = [n.op for n in nodes_of("irevnet")]
    assert found.count("pad") == 1
    assert found.count("space_to_depth") == 2 * 2
    assert found.count("slice") == 2
    assert found.count("concat") == 1
    assert found.count("add") == 5 + 1
    assert "batch_norm" not in found


def test_irevnet_s_first_block_has_no_relu_and_no_layer_has_a_bias():
    net = models.build("irevnet")
    kinds = [type(m).__name__ for m in net.blocks[0].branch.layers if type(m) is not nn.Identity]
    assert kinds == ["Conv2d", "ReLU", "Conv2d", "ReLU", "Conv2d"]
    kinds = [type(m).__name__ for m in net.blocks[1].branch.layers if type(m) is not nn.Identity]
    assert kinds[0] == "ReLU"
    assert [n for n, p in net.named_parameters() if len(p.shape) == 1] == ["dense.bias"]


# ---------------------------------------------------------------------------- steps


@small_nets
def test_forward_and_backward_run_eagerly(case):
    net = small(case)
    y = net(images(2))
    assert y.shape == (2, CLASSES)
    tt.losses.cross_entropy(y, tt.Tensor(np.array([0, 2]))).backward()
    for name, p in net.named_parameters():
        assert p.grad is not None, name
        assert p.grad.shape == p.shape
        assert np.isfinite(p.grad).all(), name


@small_nets
def test_a_planned_step_fills_its_arena(case):
    net = small(case)
    trainer = tt.Trainer(net, optimizer=optim.SGD(lr=0.01, momentum=0.9), batch=2, backend="numpy")
    x, y = images(2), np.array([0, 2])
    before = {name: p.data.copy() for name, p in net.named_parameters()}
    losses = [trainer.step(x, y) for _ in range(2)]
    assert np.isfinite(losses).all()
    assert trainer.high_water_bytes == trainer.arena_bytes
    still = [n for n, p in net.named_parameters() if np.array_equal(p.data, before[n])]
    assert len(still) < len(before) / 2, still


@pytest.mark.parametrize("case", ["revnet", "irevnet", "wrn"])
def test_a_small_net_learns_four_images(case):
    net = small(case, norm="none" if case == "irevnet" else "group")
    trainer = tt.Trainer(net, optimizer=optim.SGD(lr=0.05, momentum=0.9), batch=4, backend="numpy")
    x, y = images(4), np.arange(4) % CLASSES
    losses = [trainer.step(x, y) for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]


def test_a_checkpoint_builds_the_same_net_again(tmp_path):
    net = small("revnet", norm="group")
    trainer = tt.Trainer(net, batch=2, backend="numpy")
    trainer.step(images(2), np.array([0, 1]))
    path = str(tmp_path / "net.npz")
    trainer.save(path)
    again = tt.Trainer.restore(path, backend="numpy")
    np.testing.assert_array_equal(again.predict(images(2)), trainer.predict(images(2)))
