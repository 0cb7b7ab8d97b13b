"""How long a training step takes beside PyTorch's (the baseline), one thread, processor time.

The same layers, batch and optimizer (AdamW), channels first there. Turns of some steps each
alternate, so that what else the machine does meets both; medians.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tinytrain import Trainer, models, nn, optim
from tinytrain.bench.learn import Nets, Row

BATCHES = {"spoken_cnn": 64, "character_cnn": 180, "surface_cnn": 64, "stroke_cnn": 50}
TURNS, STEPS = 7, 2


def rows(data: str | None, nets: Nets) -> list[Row]:
    """A row for each network; none where PyTorch is missing."""
    if importlib.util.find_spec("torch") is None:
        return []
    found = []
    for name, batch in BATCHES.items():
        sides = [_ours(name, batch), _peers(name, batch)]
        times: list[list[float]] = [[], []]
        for _ in range(TURNS):
            for side, each in zip(sides, times, strict=True):
                begin = time.process_time()
                for _ in range(STEPS):
                    side()
                each.append((time.process_time() - begin) / STEPS)
        ours, theirs = (float(np.median(each[1:])) for each in times)
        found.append(Row(f"{name}, batch {batch}", ours, theirs, theirs, "0", seconds=True))
    return found


def _batch(name: str, batch: int) -> tuple[Any, np.ndarray, np.ndarray]:
    """The network, without its learned scale and with outputs for classes, and random samples."""
    net = models.build(name)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *net.input_shape)).astype(np.float32)
    return net, x, rng.integers(0, 6, batch).astype(np.int32)


def _ours(name: str, batch: int) -> Callable[[], Any]:
    net, x, y = _batch(name, batch)
    trainer = Trainer(net, loss="cross_entropy", optimizer=optim.AdamW(lr=1e-3), batch=batch)
    return lambda: trainer.step(x, y)


def _peers(name: str, batch: int) -> Callable[[], Any]:
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    net, x, y = _batch(name, batch)
    twin = torch.nn.Sequential(*(m for layer in net.layers for m in _twin(torch, layer)))
    given = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    wanted = torch.from_numpy(y).long()
    optimizer = torch.optim.AdamW(twin.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(twin(given), wanted).backward()
        optimizer.step()

    return step


def _twin(torch: Any, layer: Any) -> list[Any]:
    """PyTorch's layers of one of ours; a learned scale, which costs nothing, has none."""
    if isinstance(layer, nn.Conv2d):
        kh, _, a, b = layer.weight.shape
        attrs = {k: layer.attrs[k] for k in ("stride", "padding")}
        return [torch.nn.Conv2d(a, b, kh, bias=layer.bias is not None, **attrs)]
    if isinstance(layer, nn.GroupNorm):
        return [torch.nn.GroupNorm(layer.groups, layer.weight.shape[0])]
    if isinstance(layer, nn.Linear):
        return [torch.nn.Linear(*layer.weight.shape)]
    if isinstance(layer, nn.GlobalAvgMaxPool2d):
        return [_avg_max_pool(torch)]
    simple = {nn.ReLU: torch.nn.ReLU, nn.Flatten: torch.nn.Flatten}
    if type(layer) in simple:
        return [simple[type(layer)]()]
    if isinstance(layer, nn.Dropout):
        return [torch.nn.Dropout(layer.p)]
    return [torch.nn.MaxPool2d(2)] if isinstance(layer, nn.MaxPool2d) else []


def _avg_max_pool(torch: Any) -> Any:
    class Pool(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)

    return Pool()
