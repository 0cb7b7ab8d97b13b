"""Elementwise rows: arithmetic with broadcasting, and the activations.

A gradient here has its operands' broadcast shape; lowering sums it back to the input's (the one
place where broadcasting is undone).
"""

from __future__ import annotations

from tinytrain.errors import InputError
from tinytrain.op import register
from tinytrain.spec import Spec


def broadcast(name: str, a: Spec, b: Spec) -> Spec:
    """The broadcast of two specs of one dtype."""
    if a.dtype != b.dtype:
        raise InputError(f"{name}: dtypes differ, {a.dtype} and {b.dtype}; convert one of them")
    shape = []
    for k in range(max(a.ndim, b.ndim)):
        m = a.shape[-1 - k] if k < a.ndim else 1
        n = b.shape[-1 - k] if k < b.ndim else 1
        if m != n and 1 not in (m, n):
            raise InputError(
                f"{name}: shapes {a.shape} and {b.shape} do not broadcast (axis {-1 - k}: {m}, {n})"
            )
        shape.append(n if m == 1 else m)
    return Spec(tuple(reversed(shape)), a.dtype)


def _binary(name, vjp, saves=(), integers=True, inverse=None):
    def shape(a: Spec, b: Spec):
        return broadcast(name, a, b)

    row = {"vjp": vjp, "saves": saves, "integers": integers, "inverse": inverse}
    register(name, shape, inplace=((0, 0), (0, 1)), **row)


def _unary(name, vjp, saves=()):
    def shape(x: Spec):
        return x

    register(name, shape, vjp=(vjp,), saves=saves, inplace=((0, 0),))


def _unary_vjp(name, inplace=((0, 0), (0, 1))):
    def shape(g: Spec, saved: Spec):
        return g

    register(name, shape, inplace=inplace)


def _minus(other):
    """An operand of a sum from the sum and the other operand (Gomez et al. 2017)."""
    return lambda b, n: b.emit("sub", b.get(n.outs[0]), b.get(n.ins[other]))


_binary("add", (lambda b, n, g: g, lambda b, n, g: g), inverse=(_minus(1), _minus(0)))
_binary("sub", (lambda b, n, g: g, lambda b, n, g: b.grad("neg", g)))
_binary(
    "mul",
    (
        lambda b, n, g: b.grad("mul", g, b.get(n.ins[1])),
        lambda b, n, g: b.grad("mul", g, b.get(n.ins[0])),
    ),
    saves=("x0", "x1"),
)
_binary(
    "div",
    (
        lambda b, n, g: b.grad("div", g, b.get(n.ins[1])),
        lambda b, n, g: b.grad("div_vjp_b", g, b.get(n.outs[0]), b.get(n.ins[1])),
    ),
    saves=("x1", "y0"),
    integers=False,
)


def _div_vjp_b(g: Spec, y: Spec, b: Spec):
    return g


register("div_vjp_b", _div_vjp_b, inplace=((0, 0), (0, 1)))

_unary("neg", lambda b, n, g: b.grad("neg", g))
_unary("exp", lambda b, n, g: b.grad("mul", g, b.get(n.outs[0])), saves=("y0",))
_unary("log", lambda b, n, g: b.grad("div", g, b.get(n.ins[0])), saves=("x0",))
# From the output where it suffices: its buffer is then the next op's input as well.
for _name in ("sqrt", "tanh", "sigmoid"):
    _unary(
        _name,
        lambda b, n, g, vjp=f"{_name}_vjp": b.grad(vjp, g, b.get(n.outs[0])),
        saves=("y0",),
    )
    _unary_vjp(f"{_name}_vjp")
for _name in ("relu", "relu6"):  # gates: a mask of one bit serves as well as the output
    _unary(
        _name,
        lambda b, n, g, vjp=f"{_name}_vjp": b.gate(vjp, g, n.outs[0]),
        saves=("y0",),
    )
    _unary_vjp(f"{_name}_vjp")


def _gate_mask(y: Spec, gate):
    return Spec((-(-y.size // 8),), "uint8")


def _gate_mask_vjp(g: Spec, mask: Spec):
    return g


register("gate_mask", _gate_mask)
register("gate_mask_vjp", _gate_mask_vjp, inplace=((0, 0),))
for _name in ("abs", "silu", "gelu"):
    _unary(
        _name,
        lambda b, n, g, vjp=f"{_name}_vjp": b.grad(vjp, g, b.get(n.ins[0])),
        saves=("x0",),
    )
    _unary_vjp(f"{_name}_vjp")


def _leaky_relu(x: Spec, negative_slope=0.01):
    if not 0 < negative_slope < 1:
        raise InputError(f"leaky_relu: negative_slope {negative_slope} is not within (0, 1)")
    return x


def _leaky_relu_vjp(g: Spec, y: Spec, negative_slope):
    return g


register(
    "leaky_relu",
    _leaky_relu,
    vjp=(lambda b, n, g: b.grad("leaky_relu_vjp", g, b.get(n.outs[0]), **n.attrs),),
    saves=("y0",),
    inplace=((0, 0),),
)
register("leaky_relu_vjp", _leaky_relu_vjp, inplace=((0, 0), (0, 1)))


def _pow(x: Spec, exponent):
    return x


def _pow_vjp(g: Spec, x: Spec, exponent):
    return g


def _pow_canon(attrs, x):
    if not isinstance(attrs["exponent"], int | float):
        raise InputError("pow: the exponent is a Python number; for a tensor use exp(log(x) * y)")
    return {"exponent": float(attrs["exponent"])}


register(
    "pow",
    _pow,
    canon=_pow_canon,
    vjp=(lambda b, n, g: b.grad("pow_vjp", g, b.get(n.ins[0]), **n.attrs),),
    saves=("x0",),
    inplace=((0, 0),),
)
register("pow_vjp", _pow_vjp, inplace=((0, 0), (0, 1)))


def _scale(x: Spec, factor):
    return x


register(
    "scale",
    _scale,
    canon=lambda attrs, x: {"factor": float(attrs["factor"])},
    vjp=(lambda b, n, g: b.grad("scale", g, **n.attrs),),
    inplace=((0, 0),),
)


def _snap(x: Spec, bits=10):
    if not (isinstance(bits, int) and 0 <= bits < 24):
        raise InputError(f"snap: bits is {bits!r}, wants 0 to 23")
    return x


# Onto the grid of 2^-bits, where float32 adds and subtracts without rounding while values stay
# below 2^(24 - bits): a coupling whose branch is snapped inverts bit for bit. The gradient passes
# straight through (Bengio et al. 2013).
register("snap", _snap, vjp=(lambda b, n, g: g,), inplace=((0, 0),))
