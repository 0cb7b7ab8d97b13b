"""Matrix products and the embedding."""

from __future__ import annotations

from tinytrain.errors import InputError
from tinytrain.op import register
from tinytrain.ops.elementwise import broadcast
from tinytrain.spec import Spec

BLOCK = 4096  # elements of a gradient that is made and used a few rows at a time


def _product(name, a, b, rows, inner_a, inner_b, columns):
    """Shape of a product whose operands are read along the named axes (-1 or -2)."""
    if a.ndim < 2 or b.ndim < 2:
        raise InputError(f"{name}: wants matrices, got shapes {a.shape} and {b.shape}")
    if a.dtype != b.dtype:
        raise InputError(f"{name}: dtypes differ, {a.dtype} and {b.dtype}; convert one of them")
    if a.shape[inner_a] != b.shape[inner_b]:
        raise InputError(
            f"{name}: {a.shape} and {b.shape} do not multiply "
            f"(inner sizes {a.shape[inner_a]} and {b.shape[inner_b]})"
        )
    lead = broadcast(name, Spec(a.shape[:-2]), Spec(b.shape[:-2])).shape
    return a.with_shape((*lead, a.shape[rows], b.shape[columns]))


def _matmul(a: Spec, b: Spec):
    return _product("matmul", a, b, -2, -1, -2, -1)


def _matmul_nt(a: Spec, b: Spec):
    return _product("matmul_nt", a, b, -2, -1, -1, -2)


def _matmul_tn(a: Spec, b: Spec, flat=False):
    if flat:  # leading axes are rows too: the gradient of a matrix shared by a batch
        return a.with_shape((a.shape[-1], b.shape[-1]))
    return _product("matmul_tn", a, b, -1, -2, -2, -1)


def _vjp_b(b, n, g):
    a, w = n.ins
    if b.spec(w).ndim == 2:
        return b.weight_grad("matmul_tn", a, g, flat=True)
    return b.grad("matmul_tn", b.get(a), g, flat=False)


def _macs(ins, outs, attrs):
    """Output elements x the inner size of a @ b or a @ b^T."""
    return outs[0].size * ins[0].shape[-1]


def _macs_tn(ins, outs, attrs):
    return ins[0].size * ins[1].shape[-1]


register(
    "matmul",
    _matmul,
    vjp=(lambda b, n, g: b.grad("matmul_nt", g, b.get(n.ins[1])), _vjp_b),
    saves=("x0", "x1"),
    macs=_macs,
)
# a @ b^T and a^T @ b.
register("matmul_nt", _matmul_nt, acc=True, macs=_macs)
register("matmul_tn", _matmul_tn, acc=True, macs=_macs_tn)


def _matmul_tn_sgd(p: Spec, a: Spec, b: Spec, lr: Spec, flat=False):
    return p


def _block(ins, outs, attrs):
    """A few rows of the gradient, about as much as a first-level cache holds."""
    m, n = outs[0].shape
    rows = max(8, BLOCK // max(n, 1) // 8 * 8)
    return (Spec((min(m, rows), n), outs[0].dtype),)


# p - lr * (a^T @ b), a few rows at a time: the gradient is never whole.
register(
    "matmul_tn_sgd",
    _matmul_tn_sgd,
    inplace=((0, 0),),
    work=_block,
    macs=lambda ins, outs, attrs: ins[1].size * ins[2].shape[-1],
)


def _matmul_tn_momentum(
    v: Spec, p: Spec, a: Spec, b: Spec, lr: Spec, momentum, weight_decay, flat=False
):
    return v, p


# velocity = momentum * v + weight_decay * p + a^T @ b, and p - lr * velocity: one pass over both.
register(
    "matmul_tn_momentum",
    _matmul_tn_momentum,
    inplace=((0, 0), (1, 1)),
    macs=lambda ins, outs, attrs: ins[2].size * ins[3].shape[-1],
)


def _embedding(table: Spec, indices: Spec):
    if table.ndim != 2:
        raise InputError(f"embedding: the table has shape {table.shape}, wants (rows, features)")
    if indices.is_float:
        raise InputError(f"embedding: indices are {indices.dtype}, want integers")
    return table.with_shape((*indices.shape, table.shape[1]))


def _embedding_vjp(g: Spec, indices: Spec, rows):
    return g.with_shape((rows, g.shape[-1]))


register(
    "embedding",
    _embedding,
    vjp=(
        lambda b, n, g: b.grad("embedding_vjp", g, b.get(n.ins[1]), rows=b.spec(n.ins[0]).shape[0]),
        None,
    ),
    saves=("x1",),
    indexes=(1, lambda specs, attrs: specs[0].shape[0]),
)
register("embedding_vjp", _embedding_vjp, acc=True)
