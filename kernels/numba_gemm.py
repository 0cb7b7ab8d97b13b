"""The register-blocked products that every convolution and matrix product is made of.

    gemm      C[m, n] (+)= sum_{o < KO} sum_{k < KI} A[m*a_rs + o*a_ko + k*a_ki] * B[.. + n]
    lanewise  C[m, n] (+)= sum_{o < KO} sum_{k < KI} A[m*a_rs + o*a_ko + k*a_ki + n] * B[.. + n]
    gemm_nt   C[m, n] (+)= sum_{k < KI} A[m*a_rs + k*a_ki] * B[n*b_ko + k]

with `B[..]` at o*b_ko + k*b_ki, C's rows c_rs apart, all strides free (in elements, also negative)
and n contiguous. Every output is ONE float32 sum: it starts from +0, or from the stored C when
`acc`, and adds o, then k ascending, each product rounded before it is added; the bias, if its
address is not 0, comes last. Tiles only choose which outputs share the registers, so the bits
depend neither on the tile nor on the vector width, and a sum may be split over calls with `acc`.

Each product is compiled once and called through a symbol: inlined into every kernel that uses it,
it would be optimised again in each.
"""

import llvmlite.binding as llvm
from llvmlite import ir
from numba import cfunc, types
from numba.core import cgutils
from numba.extending import intrinsic

from .numba_lanes import (
    F32,
    I32,
    I64,
    LANES,
    MASKS,
    ROWS,
    broadcast,
    load_lanes,
    mask_of,
    offset,
    pointer,
    store_lanes,
)

# The operands of a product, all int64: sizes, flag, then addresses and strides.
_NAMES = (
    *("M", "N", "acc", "C", "c_rs", "A", "a_rs", "a_ko", "a_ki"),
    *("B", "b_ko", "b_ki", "KO", "KI", "bias"),
)
# Rows of the tiles, largest first. A lanewise tile loads as much as it adds, so four are enough.
_ROWS = {
    "gemm": (8, 4, 3, 2, 1) if ROWS == 8 else (4, 3, 2, 1),
    "gemm_nt": (8, 4, 1) if ROWS == 8 else (4, 1),
    "lanewise": (4, 2, 1),
}
PRODUCT = types.void(*[types.int64] * len(_NAMES))


class _Tile:
    """Emits one tile: `rows` x `vectors` accumulators of `lanes`, held in registers."""

    def __init__(self, builder, at, kind, rows, vectors, lanes, left):
        self.b, self.at, self.lanewise = builder, at, kind == "lanewise"
        self.rows, self.vectors, self.vector = rows, vectors, ir.VectorType(F32, lanes)
        # One lane is never a part of a vector: it needs no mask.
        self.mask = None if left is None or lanes == 1 else mask_of(builder, left, lanes)
        self.sums = [
            [cgutils.alloca_once(builder, self.vector) for _ in range(vectors)] for _ in range(rows)
        ]

    def _load(self, base, v):
        at = offset(self.b, base, I64(v * self.vector.count))
        return load_lanes(self.b, at, self.vector, self.mask)

    def _row(self, m):
        return offset(self.b, self.at["C"], (self.at["c_rs"], I64(m)))

    def _start(self):
        zero = ir.Constant(self.vector, [0.0] * self.vector.count)
        again = self.b.icmp_signed("!=", self.at["acc"], I64(0))
        with self.b.if_else(again) as (stored, fresh):
            with stored:
                for m, row in enumerate(self.sums):
                    for v, s in enumerate(row):
                        self.b.store(self._load(self._row(m), v), s)
            with fresh:
                for row in self.sums:
                    for s in row:
                        self.b.store(zero, s)

    def _step(self, a, bs):
        """Every sum gains one product."""
        for m, row in enumerate(self.sums):
            here = offset(self.b, a, (self.at["a_rs"], I64(m)))
            if not self.lanewise:
                one = self.b.load(pointer(self.b, here, F32), align=4)
                x = broadcast(self.b, one, self.vector.count)
            for v, s in enumerate(row):
                if self.lanewise:
                    x = self._load(here, v)
                self.b.store(self.b.fadd(self.b.load(s), self.b.fmul(x, bs[v])), s)

    def _finish(self):
        bias = self.at["bias"]
        with self.b.if_then(self.b.icmp_signed("!=", bias, I64(0))):
            for v in range(self.vectors):
                last = self._load(bias, v)
                for row in self.sums:
                    self.b.store(self.b.fadd(self.b.load(row[v]), last), row[v])
        for m, row in enumerate(self.sums):
            for v, s in enumerate(row):
                at = offset(self.b, self._row(m), I64(v * self.vector.count))
                store_lanes(self.b, self.b.load(s), at, self.mask)

    def emit(self):
        self._start()
        self._sum()
        self._finish()

    def _sum(self):
        at = self.at
        with cgutils.for_range(self.b, at["KO"]) as outer:
            a = offset(self.b, at["A"], (outer.index, at["a_ko"]))
            b = offset(self.b, at["B"], (outer.index, at["b_ko"]))
            with cgutils.for_range(self.b, at["KI"]) as inner:
                here = offset(self.b, b, (inner.index, at["b_ki"]))
                bs = [self._load(here, v) for v in range(self.vectors)]
                self._step(offset(self.b, a, (inner.index, at["a_ki"])), bs)


class _Across(_Tile):
    """A tile whose B is read across: lane n is B[n*b_ko + k]. Four k at a time are loaded from
    each row and turned in registers, so a transposed matrix needs no second copy. KO is 1."""

    def __init__(self, builder, at, kind, rows, vectors, lanes, left):
        super().__init__(builder, at, kind, rows, vectors, lanes, left)
        # Lanes that are not stored read the last row again, which is there.
        last = I64(lanes - 1) if left is None else builder.sub(left, I64(1))
        self.starts = []
        for lane in range(lanes):
            inside = builder.icmp_signed("<", I64(lane), last)
            row = builder.select(inside, I64(lane), last)
            self.starts.append(offset(builder, at["B"], (row, at["b_ko"])))

    def _shuffle(self, a, b, lanes):
        return self.b.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(lanes)), lanes))

    def _turned(self, k):
        """B's lanes for k, k + 1, k + 2, k + 3."""
        four = ir.VectorType(F32, 4)
        rows = [
            self.b.load(pointer(self.b, offset(self.b, start, k), four), align=4)
            for start in self.starts
        ]
        # Register r: rows r, 4 + r, 8 + r, ... side by side; then each square of four is turned.
        wide = []
        for r in range(4):
            parts = rows[r::4]
            while len(parts) > 1:
                both = list(range(2 * parts[0].type.count))
                parts = [
                    self._shuffle(parts[p], parts[p + 1], both) for p in range(0, len(parts), 2)
                ]
            wide.append(parts[0])
        count = self.vector.count
        squares = range(0, count, 4)

        def mix(a, b, picks):
            lanes = [s + p if p < 4 else count + s + p - 4 for s in squares for p in picks]
            return self._shuffle(a, b, lanes)

        low = [mix(wide[r], wide[r + 1], (0, 4, 1, 5)) for r in (0, 2)]
        high = [mix(wide[r], wide[r + 1], (2, 6, 3, 7)) for r in (0, 2)]
        return [mix(*pair, picks) for pair in (low, high) for picks in ((0, 1, 4, 5), (2, 3, 6, 7))]

    def _gathered(self, k):
        """B's lanes for one k."""
        value = ir.Constant(self.vector, ir.Undefined)
        for lane, start in enumerate(self.starts):
            one = self.b.load(pointer(self.b, offset(self.b, start, k), F32), align=4)
            value = self.b.insert_element(value, one, I32(lane))
        return value

    def _sum(self):
        at, whole = self.at, I64(0)
        if self.vector.count >= 4:
            whole = self.b.shl(self.b.ashr(at["KI"], I64(2)), I64(2))
            with cgutils.for_range_slice(self.b, I64(0), whole, I64(4)) as (k, _):
                for t, value in enumerate(self._turned(k)):
                    here = self.b.add(k, I64(t))
                    self._step(offset(self.b, at["A"], (here, at["a_ki"])), [value])
        with cgutils.for_range_slice(self.b, whole, at["KI"], I64(1)) as (k, _):
            self._step(offset(self.b, at["A"], (k, at["a_ki"])), [self._gathered(k)])


def _repeat(builder, limit, start, size, emit):
    """emit(place) for every whole `size` from start up to limit; returns where that ends."""
    count = builder.sdiv(builder.sub(limit, start), I64(size))
    with cgutils.for_range(builder, count) as loop:
        emit(builder.add(start, builder.mul(loop.index, I64(size))))
    return builder.add(start, builder.mul(count, I64(size)))


def _emit_columns(builder, at, kind, n, vectors, lanes, left=None):
    """All rows of the columns from n on; `left` of them if they are less than a vector."""
    make = _Across if kind == "gemm_nt" else _Tile

    def tile(rows):
        def emit(m):
            here, b = dict(at), n
            if kind == "gemm_nt":
                b = builder.mul(n, at["b_ko"])
            here["C"] = offset(builder, at["C"], (m, at["c_rs"]), n)
            here["A"] = offset(
                builder, at["A"], (m, at["a_rs"]), *([n] if kind == "lanewise" else [])
            )
            here["B"] = offset(builder, at["B"], b)
            none = builder.icmp_signed("==", at["bias"], I64(0))
            here["bias"] = builder.select(none, at["bias"], offset(builder, at["bias"], n))
            make(builder, here, kind, rows, vectors, lanes, left).emit()

        return emit

    m = I64(0)
    for rows in _ROWS[kind]:
        m = _repeat(builder, at["M"], m, rows, tile(rows))


def _emit_product(builder, at, kind):
    def columns(vectors, lanes):
        return lambda n: _emit_columns(builder, at, kind, n, vectors, lanes)

    n = I64(0)
    if kind != "gemm_nt":  # there, four k of one vector are what the registers hold
        n = _repeat(builder, at["N"], n, 2 * LANES, columns(2, LANES))
    n = _repeat(builder, at["N"], n, LANES, columns(1, LANES))
    if not MASKS:
        _repeat(builder, at["N"], n, 1, columns(1, 1))
        return
    left = builder.sub(at["N"], n)
    with builder.if_then(builder.icmp_signed(">", left, I64(0))):
        # Half a vector costs half where a whole one is split in two, and 3 or 6 channels fit it.
        small = builder.icmp_signed("<=", left, I64(LANES // 2))
        with builder.if_else(small) as (half, most):
            with half:
                _emit_columns(builder, at, kind, n, 1, LANES // 2, left)
            with most:
                _emit_columns(builder, at, kind, n, 1, LANES, left)


def _product(kind):
    @intrinsic
    def body(typing, operands):
        def codegen(context, builder, sig, args):
            at = dict(zip(_NAMES, cgutils.unpack_tuple(builder, args[0]), strict=True))
            _emit_product(builder, at, kind)
            return context.get_dummy_value()

        return types.void(types.UniTuple(types.int64, len(_NAMES))), codegen

    return body


_gemm_body, _gemm_nt_body, _lanewise_body = map(_product, ("gemm", "gemm_nt", "lanewise"))


@cfunc(PRODUCT, cache=True)
def _gemm(m, n, acc, c, c_rs, a, a_rs, a_ko, a_ki, b, b_ko, b_ki, ko, ki, bias):
    _gemm_body((m, n, acc, c, c_rs, a, a_rs, a_ko, a_ki, b, b_ko, b_ki, ko, ki, bias))


@cfunc(PRODUCT, cache=True)
def _gemm_nt(m, n, acc, c, c_rs, a, a_rs, a_ko, a_ki, b, b_ko, b_ki, ko, ki, bias):
    _gemm_nt_body((m, n, acc, c, c_rs, a, a_rs, a_ko, a_ki, b, b_ko, b_ki, ko, ki, bias))


@cfunc(PRODUCT, cache=True)
def _lanewise(m, n, acc, c, c_rs, a, a_rs, a_ko, a_ki, b, b_ko, b_ki, ko, ki, bias):
    _lanewise_body((m, n, acc, c, c_rs, a, a_rs, a_ko, a_ki, b, b_ko, b_ki, ko, ki, bias))


def symbol(name, function, sig):
    """The compiled `function` by a name that machine code from the cache finds again, wherever
    it lies this time."""
    llvm.add_symbol(name, function.address)
    return types.ExternalFunction(name, sig)


gemm = symbol("tinytrain_gemm", _gemm, PRODUCT)
gemm_nt = symbol("tinytrain_gemm_nt", _gemm_nt, PRODUCT)
lanewise = symbol("tinytrain_lanewise", _lanewise, PRODUCT)
