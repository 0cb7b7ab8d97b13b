"""One side of the speed benchmark, run as a process: it takes turns, and decides nothing.

    python -m tinytrain.bench.speed_turns ours | peers

It reads a JSON object a line from stdin and answers with one: {"net": name, "batch": n} makes the
contestants and tells their names, each with the loss of its second step; {"turn": name,
"seconds": s} runs steps for that long, two at least, and tells the median seconds of one. What
cannot be imported is left out by name.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinytrain import Trainer, models, optim
from tinytrain.errors import InputError

# So small that the weights hardly move: sure predictions make subnormal gradients, and units that
# no sample reaches any more make subnormal velocities, which are slow on either side.
RATE, MOMENTUM = 1e-10, 0.9
Step = Callable[[], float]


def _threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", "1"))


def data(name: str, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """The same noise and classes for everybody, channels last."""
    net = models.build(name)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *net.input_shape), dtype=np.float32)
    return x, rng.integers(0, 10, batch, dtype=np.int32)


def ours(name: str, batch: int, backends: Sequence[str] = ("c", "numba")) -> dict[str, Step]:
    """A whole `Trainer.step` by backend."""
    found = {}
    x, y = data(name, batch)
    for backend in backends:
        optimizer = optim.SGD(lr=RATE, momentum=MOMENTUM)
        try:
            trainer = Trainer(models.build(name), optimizer=optimizer, batch=batch, backend=backend)
        except InputError as error:
            print(f"{backend} is left out: {error}", file=sys.stderr)
            continue
        found[backend] = _ours(trainer, x, y)
    return found


def _ours(trainer: Trainer, x: np.ndarray, y: np.ndarray) -> Step:
    return lambda: trainer.step(x, y)


def peers(name: str, batch: int) -> dict[str, Step]:
    """PyTorch's variants; with the multi-layer perceptron, autograd and mygrad too."""
    found = {}
    x, y = data(name, batch)
    sides = {"PyTorch": _torch}
    if name == "mlp":
        sides |= {"autograd": _autograd, "mygrad": _mygrad}
    for side, make in sides.items():
        try:
            found.update(make(name, x, y))
        except ImportError as error:
            print(f"{side} is left out: {error}", file=sys.stderr)
    return found


def _torch(name: str, x: np.ndarray, y: np.ndarray) -> dict[str, Step]:
    import torch

    from tinytrain.bench import torch_nets

    torch.set_num_threads(_threads())
    images = torch.from_numpy(np.moveaxis(x, -1, 1).copy())
    labels = torch.from_numpy(y.astype(np.int64))
    last = torch.channels_last
    variants: dict[str, tuple[Any, Any, dict[str, bool]]] = {
        "PyTorch eager": (torch_nets.build(name), images, {}),
        "PyTorch fused SGD": (torch_nets.build(name), images, {"fused": True}),
    }
    if name != "mlp":
        net = torch_nets.build(name).to(memory_format=last)
        variants["PyTorch channels last"] = (net, images.to(memory_format=last), {})
    return {n: _torch_step(torch, labels, *given) for n, given in variants.items()}


def _torch_step(torch: Any, labels: Any, net: Any, images: Any, more: dict[str, bool]) -> Step:
    sgd = torch.optim.SGD(net.parameters(), lr=RATE, momentum=MOMENTUM, **more)

    def step() -> float:
        sgd.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        sgd.step()
        return loss.item()

    return step


def _dense() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = ((784, 128), (128,), (128, 10), (10,))
    return [rng.standard_normal(s, dtype=np.float32) * np.float32(0.05) for s in shapes]


def _update(parameters: list[Any], moments: list[np.ndarray], gradients: list[Any]) -> None:
    for p, v, g in zip(parameters, moments, gradients, strict=True):
        v *= np.float32(MOMENTUM)
        v += g
        p -= np.float32(RATE) * v


def _autograd(name: str, x: np.ndarray, y: np.ndarray) -> dict[str, Step]:
    import autograd.numpy as anp
    from autograd import value_and_grad

    flat, rows, parameters = x.reshape(len(x), -1), np.arange(len(y)), _dense()
    moments = [np.zeros_like(p) for p in parameters]

    def loss_of(p: list[Any]) -> Any:
        z = anp.dot(anp.maximum(anp.dot(flat, p[0]) + p[1], 0), p[2]) + p[3]
        z = z - anp.max(z, axis=1, keepdims=True)
        return anp.mean(anp.log(anp.sum(anp.exp(z), axis=1)) - z[rows, y])

    both = value_and_grad(loss_of)

    def step() -> float:
        loss, gradients = both(parameters)
        _update(parameters, moments, gradients)
        return float(loss)

    return {"autograd": step}


def _mygrad(name: str, x: np.ndarray, y: np.ndarray) -> dict[str, Step]:
    import mygrad
    from mygrad.nnet.activations import relu
    from mygrad.nnet.losses import softmax_crossentropy

    flat, parameters = x.reshape(len(x), -1), [mygrad.tensor(p) for p in _dense()]
    moments = [np.zeros_like(p.data) for p in parameters]

    def step() -> float:
        a, b, c, d = parameters
        loss = softmax_crossentropy(relu(flat @ a + b) @ c + d, y)
        loss.backward()
        _update([p.data for p in parameters], moments, [p.grad for p in parameters])
        return float(loss.data)

    return {"mygrad": step}


def turn(step: Step, seconds: float, clock: Callable[[], float]) -> float:
    """The median seconds of a step, among as many as fit into `seconds`, two at least."""
    taken: list[float] = []
    begin = now = clock()
    while len(taken) < 2 or now - begin < seconds:
        step()
        before, now = now, clock()
        taken.append(now - before)
    return statistics.median(taken)


def main() -> None:
    """Answer until stdin ends."""
    make = {"ours": ours, "peers": peers}[sys.argv[1]]
    clock = time.process_time if _threads() == 1 else time.perf_counter
    steps: dict[str, Step] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if "turn" in asked:
            answer: Any = turn(steps[asked["turn"]], asked["seconds"], clock)
        else:
            steps.clear()
            steps.update(make(asked["net"], asked["batch"]))
            answer = {name: [step(), step()][1] for name, step in steps.items()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
