"""What PyTorch saves between forward and backward for a recorded network; it trains nothing.

The twin is made from the tape: each node is run as PyTorch's own function of that name, channels
first, on random values. Parameters are not counted; what several functions save is counted once.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from tinytrain.errors import InputError
from tinytrain.tape import Node, Tape

FIRST = {0: 0, 1: 2, 2: 3, 3: 1}  # the place of each axis of (N, H, W, C) in (N, C, H, W)


def installed() -> bool:
    """Whether there is a PyTorch to measure."""
    return importlib.util.find_spec("torch") is not None


def saved_bytes(tape: Tape, device: str = "meta") -> int:
    """Bytes of the unique storages that autograd holds at the end of the forward pass of a tape
    with a loss, inputs and labels included where they are held.

    InputError for an op that has no counterpart here.
    """
    torch = importlib.import_module("torch")
    held: dict[int, Any] = {}

    def pack(t: Any) -> Any:
        storage = t.untyped_storage()
        held.setdefault(storage._cdata, storage)  # held, so that no address is used again
        return t

    values: dict[int, Any] = {}
    ours = set()
    for v, leaf in tape.leaves.items():
        values[v] = _leaf(torch, tape, v, device)
        if leaf.kind == "parameter":
            ours.add(values[v].untyped_storage()._cdata)
    with torch.device(device), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        for node in tape.nodes:
            if node.op != "running_average":
                out = _run(torch, node, [None if v is None else values[v] for v in node.ins])
                values[node.outs[0]] = out
                shape = _first(tape.specs[node.outs[0]].shape)
                assert tuple(out.shape) == shape, f"{node.op}: {tuple(out.shape)}, wants {shape}"
        values = {v: t for v, t in values.items() if v == tape.loss}  # the graph holds the rest
    return sum(s.nbytes() for at, s in held.items() if at not in ours)


def _first(shape: tuple) -> tuple:
    """A shape, or another thing for each axis, channels first."""
    return (shape[0], shape[3], shape[1], shape[2]) if len(shape) == 4 else shape


def _leaf(torch: Any, tape: Tape, v: int, device: str) -> Any:
    spec, leaf = tape.specs[v], tape.leaves[v]
    if not spec.is_float:
        return torch.zeros(spec.shape, dtype=torch.int64, device=device)
    shape = _first(spec.shape)
    if leaf.kind == "parameter" and len(shape) == 4:
        kh, kw, c, o = spec.shape
        shape = (o, c, kh, kw)
    return torch.randn(shape, device=device).requires_grad_(
        leaf.kind == "parameter" and leaf.trainable
    )


def _run(torch: Any, node: Node, ins: list[Any]) -> Any:
    """One node; its first output."""
    known = _POINTWISE.get(node.op) or _WINDOWS.get(node.op) or _SHAPES.get(node.op)
    if known is None:
        raise InputError(f"no PyTorch counterpart of {node.op} is written down")
    return known(torch, torch.nn.functional, ins, node.attrs)


def _padded(f: Any, x: Any, a: dict[str, Any], kernel: Any, value: float = 0.0) -> tuple[Any, Any]:
    """The input and a padding that PyTorch takes. Uneven ones become even where that gives the
    same size, as people write it there; else they are a step of their own."""
    top, bottom, left, right = a["padding"]
    dilation = a.get("dilation", (1, 1))

    def size(axis: int, both: int) -> int:
        reach = (kernel[axis] - 1) * dilation[axis] + 1
        return (x.shape[2 + axis] + both - reach) // a["stride"][axis]

    even = max(top, bottom), max(left, right)
    same = size(0, top + bottom) == size(0, 2 * even[0])
    if same and size(1, left + right) == size(1, 2 * even[1]):
        return x, even
    return f.pad(x, (left, right, top, bottom), value=value), 0


def _conv2d(torch: Any, f: Any, ins: list[Any], a: dict[str, Any]) -> Any:
    w = ins[1] if ins[1].is_leaf else ins[1].permute(1, 3, 0, 2)  # reshaped, it lies as values do
    x, padding = _padded(f, ins[0], a, w.shape[2:])
    bias = ins[2] if len(ins) > 2 else None
    return f.conv2d(x, w, bias, a["stride"], padding, a["dilation"], a["groups"])


def _max_pool2d(torch: Any, f: Any, ins: list[Any], a: dict[str, Any]) -> Any:
    x, padding = _padded(f, ins[0], a, a["kernel_size"], float("-inf"))
    return f.max_pool2d(x, a["kernel_size"], a["stride"], padding)


def _avg_pool2d(torch: Any, f: Any, ins: list[Any], a: dict[str, Any]) -> Any:
    x, padding = _padded(f, ins[0], a, a["kernel_size"])
    return f.avg_pool2d(x, a["kernel_size"], a["stride"], padding)


def _axis(x: Any, axis: int) -> int:
    return FIRST[axis] if x.dim() == 4 else axis


def _mean(torch: Any, f: Any, ins: list[Any], a: dict[str, Any]) -> Any:
    axes = a["axis"] if a["axis"] is not None else tuple(range(ins[0].dim()))
    return ins[0].mean([_axis(ins[0], k) for k in axes], keepdim=a["keepdims"])


def _max(torch: Any, f: Any, ins: list[Any], a: dict[str, Any]) -> Any:
    axes = a["axis"] if a["axis"] is not None else tuple(range(ins[0].dim()))
    return ins[0].amax([_axis(ins[0], k) for k in axes])


def _slice(torch: Any, f: Any, ins: list[Any], a: dict[str, Any]) -> Any:
    ends = zip(_first(a["begin"]), _first(a["end"]), strict=True)
    return ins[0][tuple(slice(b, e) for b, e in ends)]


def _pad(torch: Any, f: Any, ins: list[Any], a: dict[str, Any]) -> Any:
    widths = [w for pair in reversed(_first(a["widths"])) for w in pair]
    return f.pad(ins[0], widths, value=a["value"])


_POINTWISE: dict[str, Any] = {
    "add": lambda t, f, ins, a: ins[0] + ins[1],
    "sub": lambda t, f, ins, a: ins[0] - ins[1],
    "mul": lambda t, f, ins, a: ins[0] * ins[1],
    "exp": lambda t, f, ins, a: ins[0].exp(),
    "tanh": lambda t, f, ins, a: ins[0].tanh(),
    "sigmoid": lambda t, f, ins, a: ins[0].sigmoid(),
    "scale": lambda t, f, ins, a: ins[0] * a["factor"],
    "matmul": lambda t, f, ins, a: ins[0] @ ins[1],
    "relu": lambda t, f, ins, a: f.relu(ins[0]),
    "relu6": lambda t, f, ins, a: f.relu6(ins[0]),
    "dropout": lambda t, f, ins, a: f.dropout(ins[0], a["p"]),
    "cross_entropy": lambda t, f, ins, a: f.cross_entropy(ins[0], ins[1]),
    "mse": lambda t, f, ins, a: f.mse_loss(ins[0], ins[1]),
}
_WINDOWS: dict[str, Any] = {
    "conv2d": _conv2d,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "mean": _mean,
    "max": _max,
    "batch_norm": lambda t, f, ins, a: f.batch_norm(ins[0], None, None, *ins[1:], True),
    "batch_norm_frozen": lambda t, f, ins, a: f.batch_norm(ins[0], *ins[3:], *ins[1:3]),
    "group_norm": lambda t, f, ins, a: f.group_norm(ins[0], a["groups"], *ins[1:], a["eps"]),
}
_SHAPES: dict[str, Any] = {
    "fill": lambda t, f, ins, a: t.full(_first(a["shape"]), a["value"]),
    "reshape": lambda t, f, ins, a: ins[0].reshape(_first(a["shape"])),
    "concat": lambda t, f, ins, a: t.cat(ins, _axis(ins[0], a["axis"])),
    "slice": _slice,
    "pad": _pad,
    "space_to_depth": lambda t, f, ins, a: f.pixel_unshuffle(ins[0], a["block"]),
}
