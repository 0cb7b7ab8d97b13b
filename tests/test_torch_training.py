"""Twenty steps here and in PyTorch from the same weights on the same data: the losses agree."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import tinytrain as tt
from tinytrain import models, nn, optim

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is missing"
)
needs_numba = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason="numba is missing"
)
BACKENDS = ["numpy", pytest.param("numba", marks=needs_numba)]

STEPS, BATCH = 20, 16
# Relative, of every one of the 20 losses, in float32: sums in another order, carried on by 20
# updates. Where one of them moves a ReLU over its kink the runs part for good, and with batch norm
# that happens soon at larger rates, to two builds of PyTorch as well: so the rates are small there.
TOLERANCE = 1e-4
RATES = {"resnet8": {"momentum": 0.002, "adam": 1e-4}}
DEFAULT_RATES = {"momentum": 0.02, "adam": 1e-3}


def make(name: str):
    """Our net and its PyTorch twin, untrained."""
    if name == "mlp":
        return models.build("mlp", input_shape=(8, 8, 1), hidden=(32, 16)), torch_mlp()
    if name == "lenet5":
        return models.build("lenet5"), torch_lenet5()
    if name == "resnet8":
        return models.build("resnet8", input_shape=(16, 16, 3)), torch_resnet8()
    return separable(), torch_separable()


def separable() -> nn.Module:
    """A strided convolution and two depthwise separable blocks with ReLU6."""
    with nn.seeded(0):
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.ReLU6(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.ReLU6(),
            nn.Conv2d(8, 16, 1),
            nn.ReLU6(),
            nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16),
            nn.ReLU6(),
            nn.Conv2d(16, 24, 1),
            nn.ReLU6(),
            nn.GlobalAvgPool2d(),
            nn.Linear(24, 10),
        )
    net.input_shape = (12, 12, 3)
    return net


def torch_mlp():
    from torch import nn as tn

    layers = [tn.Flatten(), tn.Linear(64, 32), tn.ReLU(), tn.Linear(32, 16), tn.ReLU()]
    return tn.Sequential(*layers, tn.Linear(16, 10))


def torch_lenet5():
    from torch import nn as tn

    return tn.Sequential(
        tn.Conv2d(1, 6, 5, padding=2),
        tn.ReLU(),
        tn.AvgPool2d(2),
        tn.Conv2d(6, 16, 5),
        tn.ReLU(),
        tn.AvgPool2d(2),
        tn.Flatten(),
        tn.Linear(400, 120),
        tn.ReLU(),
        tn.Linear(120, 84),
        tn.ReLU(),
        tn.Linear(84, 10),
    )


def torch_separable():
    from torch import nn as tn

    return tn.Sequential(
        tn.Conv2d(3, 8, 3, stride=2, padding=1),
        tn.ReLU6(),
        tn.Conv2d(8, 8, 3, padding=1, groups=8),
        tn.ReLU6(),
        tn.Conv2d(8, 16, 1),
        tn.ReLU6(),
        tn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16),
        tn.ReLU6(),
        tn.Conv2d(16, 24, 1),
        tn.ReLU6(),
        tn.AdaptiveAvgPool2d(1),
        tn.Flatten(),
        tn.Linear(24, 10),
    )


def torch_resnet8():
    """As the zoo's, with its "same" padding: at stride 2 all of it lies right and below."""
    import torch
    from torch import nn as tn
    from torch.nn import functional as tf

    class Same(tn.Conv2d):
        def forward(self, x):
            if self.stride == (2, 2) and self.kernel_size == (3, 3):
                x = tf.pad(x, (0, 1, 0, 1))
            return super().forward(x)

    def conv(a, b, size, stride):
        return Same(a, b, size, stride, padding=(size // 2 if stride == 1 else 0))

    class Block(tn.Module):
        def __init__(self, a, b, stride):
            super().__init__()
            first = [conv(a, b, 3, stride), tn.BatchNorm2d(b), tn.ReLU()]
            self.branch = tn.Sequential(*first, conv(b, b, 3, 1), tn.BatchNorm2d(b))
            self.shortcut = tn.Identity() if stride == 1 else conv(a, b, 1, stride)

        def forward(self, x):
            return torch.relu(self.branch(x) + self.shortcut(x))

    stem = [conv(3, 16, 3, 1), tn.BatchNorm2d(16), tn.ReLU()]
    blocks = [Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2)]
    return tn.Sequential(*stem, *blocks, tn.AdaptiveAvgPool2d(1), tn.Flatten(), tn.Linear(64, 10))


def copy_weights(ours, theirs, flattened: tuple[int, int, int] | None) -> None:
    """Ours into theirs, in order; `flattened`: (H, W, C) that the first dense layer reads, whose
    rows are in another order there."""
    import torch

    state = ours.state_dict()
    wanted = [(k, v) for k, v in theirs.state_dict().items() if "num_batches" not in k]
    assert len(state) == len(wanted)
    with torch.no_grad():
        for (name, a), (_, target) in zip(state.items(), wanted, strict=True):
            if a.ndim == 4:
                a = a.transpose(3, 2, 0, 1)
            elif a.ndim == 2:
                if flattened is not None:
                    a = a.reshape(*flattened, -1).transpose(2, 0, 1, 3).reshape(len(a), -1)
                    flattened = None
                a = a.T
            assert tuple(target.shape) == a.shape, name
            target.copy_(torch.from_numpy(a.copy()))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize("name", ["mlp", "lenet5", "resnet8", "separable"])
def test_twenty_losses_agree_with_pytorch(name, optimizer, backend):
    import torch

    torch.set_num_threads(1)
    ours, theirs = make(name)
    copy_weights(ours, theirs, (5, 5, 16) if name == "lenet5" else None)
    rng = np.random.default_rng(0)
    xs = rng.standard_normal((STEPS, BATCH, *ours.input_shape)).astype(np.float32)
    ys = rng.integers(0, 10, (STEPS, BATCH))
    lr = RATES.get(name, DEFAULT_RATES)[optimizer]
    if optimizer == "adam":
        mine, peer = optim.Adam(lr), torch.optim.Adam(theirs.parameters(), lr)
    else:
        mine = optim.SGD(lr, momentum=0.9, weight_decay=1e-3)
        peer = torch.optim.SGD(theirs.parameters(), lr, momentum=0.9, weight_decay=1e-3)
    trainer = tt.Trainer(ours, optimizer=mine, batch=BATCH, backend=backend)
    got, want = [], []
    for x, y in zip(xs, ys, strict=True):
        got.append(trainer.step(x, y))
        peer.zero_grad()
        outputs = theirs(torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))))
        loss = torch.nn.functional.cross_entropy(outputs, torch.from_numpy(y))
        loss.backward()
        peer.step()
        want.append(loss.item())
    np.testing.assert_allclose(got, want, rtol=TOLERANCE)
    theirs.eval()
    x = xs[0]
    with torch.no_grad():
        peers = theirs(torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))).numpy()
    np.testing.assert_allclose(trainer.predict(x), peers, rtol=50 * TOLERANCE, atol=50 * TOLERANCE)
