"""The register-blocked products that every convolution and matrix product is made of.

    gemm      C[m, n] (+)= sum_{o < KO} sum_{k < KI} A[m*a_rs + o*a_ko + k*a_ki] * B[.. + n]
    lanewise  C[m, n] (+)= sum_{o < KO} sum_{k < KI} A[m*a_rs + o*a_ko + k*a_ki + n] * B[.. + n]
    gemm_nt   C[m, n] (+)= sum_{k < KI} A[m*a_rs + k*a_ki] * B[n*b_ko + k]
    outer     gemm where M is a multiple of ROWS, a_rs and KO are 1 and no bias is added, its
              outputs in the order in which they lie

with `B[..]` at o*b_ko + k*b_ki, C's rows c_rs apart, all strides free (in elements, also negative)
and n contiguous. Every output is ONE float32 sum: it starts from +0, or from the stored C when
`acc`, and adds o, then k ascending, each product rounded before it is added; the bias, if its
address is not 0, comes last. Where the address of weights, laid out as C and perhaps C itself, is
not 0, the sum is a gradient and what is stored is weights - rate * sum (`rate`: its address). With
`acc` 2 (gemm, outer) C is a velocity: the sum starts from momentum * C, or from momentum * C +
decay * weights where decay is not 0 (`pull`: the bits of both, momentum below);
it is stored in C, and weights - rate * sum where the weights lie. Tiles
only choose which outputs share the registers, so the bits depend neither on the tile nor on the
vector width, and a sum may be split over calls with `acc`. TINYTRAIN_FMA=1 in the environment gives
that up: a product is fused into its sum, where the processor can, with one rounding for both.

Each product is compiled once and called through a symbol: inlined into every kernel that uses it,
it would be optimised again in each.
"""

import contextlib
import os

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
    *("B", "b_ko", "b_ki", "KO", "KI", "bias", "weights", "rate", "pull"),
)
# Vectors of a tile. With one of AVX-512 a factor of A is broadcast by the product that reads it;
# with two it wants an instruction of its own, and the tile half as much time again (Zen 4).
_VECTORS = 1 if LANES == 16 else 2
# Where C has few rows, weights are read once: in pieces of so many vectors.
_FEW, _THIN = 4, 4
# A lanewise tile loads as much as it adds, so four rows are enough.
_ROWS = {"gemm": ROWS, "gemm_nt": ROWS, "outer": ROWS, "lanewise": 4}
# A tile of four k of B across is large: other heights are made of these.
_HEIGHTS = {"gemm_nt": (8, 4, 1)}
# Fused products are compiled by each process: the cache on disk holds the exact ones.
FUSED = os.environ.get("TINYTRAIN_FMA") == "1"
PRODUCT = types.void(*[types.int64] * len(_NAMES))


@contextlib.contextmanager
def _each(builder, count):
    """A loop over [0, count) that is not unrolled: with a tile's addresses twice, the registers do
    not hold them."""
    head, body, done = (builder.append_basic_block(name) for name in ("head", "body", "done"))
    before = builder.block
    builder.branch(head)
    builder.position_at_end(head)
    k = builder.phi(I64)
    k.add_incoming(I64(0), before)
    builder.cbranch(builder.icmp_signed("<", k, count), body, done)
    builder.position_at_end(body)
    yield k
    k.add_incoming(builder.add(k, I64(1)), builder.block)
    back = builder.branch(head)
    back.set_metadata("llvm.loop", _stays(builder.module))
    builder.position_at_end(done)


def _stays(module):
    """What marks a loop as one that is not unrolled: a node whose first part is itself."""
    mark = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
    node = ir.MDValue(module, [], name=str(len(module.metadata)))
    node.operands = node, mark
    return node


class _Tile:
    """Emits one tile: `rows` x `vectors` accumulators of `lanes`, held in registers."""

    def __init__(self, builder, at, kind, rows, vectors, lanes, left):
        self.b, self.at, self.lanewise = builder, at, kind == "lanewise"
        self.may_move = kind in ("gemm", "outer")
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

    def _factor(self, bits):
        """The float32 with these bits, in every lane."""
        one = self.b.bitcast(self.b.trunc(bits, I32), F32)
        return broadcast(self.b, one, self.vector.count)

    def _is(self, name, sign, value):
        return self.b.icmp_signed(sign, self.at[name], I64(value))

    def _begin_velocity(self):
        """momentum * what is stored, and decay * weights."""
        factor = self._factor(self.at["pull"])
        for row in self.sums:
            for s in row:
                self.b.store(self.b.fmul(self.b.load(s), factor), s)
        decay = self.b.lshr(self.at["pull"], I64(32))
        with self.b.if_then(self.b.icmp_signed("!=", decay, I64(0))):
            factor = self._factor(decay)
            for m, row in enumerate(self.sums):
                for v, s in enumerate(row):
                    more = self.b.fmul(factor, self._load(self._weight_row(m), v))
                    self.b.store(self.b.fadd(self.b.load(s), more), s)

    def _weight_row(self, m):
        return offset(self.b, self.at["weights"], (self.at["c_rs"], I64(m)))

    def _start(self):
        zero = ir.Constant(self.vector, [0.0] * self.vector.count)
        again = self.b.icmp_signed("!=", self.at["acc"], I64(0))
        with self.b.if_else(again) as (stored, fresh):
            with stored:
                for m, row in enumerate(self.sums):
                    for v, s in enumerate(row):
                        self.b.store(self._load(self._row(m), v), s)
                if self.may_move:
                    with self.b.if_then(self._is("acc", "==", 2)):
                        self._begin_velocity()
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
                self.b.store(self._plus(self.b.load(s), x, bs[v]), s)

    def _plus(self, s, x, y):
        """s + x * y."""
        if not FUSED:
            return self.b.fadd(s, self.b.fmul(x, y))
        shape = ir.FunctionType(self.vector, [self.vector] * 3)
        name = f"llvm.fma.v{self.vector.count}f32"
        fma = cgutils.get_or_insert_function(self.b.module, shape, name)
        return self.b.call(fma, [x, y, s])

    def _finish(self):
        bias = self.at["bias"]
        with self.b.if_then(self.b.icmp_signed("!=", bias, I64(0))):
            for v in range(self.vectors):
                last = self._load(bias, v)
                for row in self.sums:
                    self.b.store(self.b.fadd(self.b.load(row[v]), last), row[v])
        with self.b.if_then(self._is("weights", "!=", 0)):
            one = self.b.load(pointer(self.b, self.at["rate"], F32), align=4)
            rate = broadcast(self.b, one, self.vector.count)
            if not self.may_move:
                self._descend(rate)
                return
            with self.b.if_else(self._is("acc", "==", 2)) as (moves, stays):
                with moves:
                    self._move(rate)
                with stays:
                    self._descend(rate)

    def _new_weight(self, rate, m, v):
        step = self.b.fmul(rate, self.b.load(self.sums[m][v]))
        return self.b.fsub(self._load(self._weight_row(m), v), step)

    def _descend(self, rate):
        for m, row in enumerate(self.sums):
            for v, s in enumerate(row):
                self.b.store(self._new_weight(rate, m, v), s)

    def _move(self, rate):
        for m, row in enumerate(self.sums):
            for v in range(len(row)):
                self._put(self._new_weight(rate, m, v), self._weight_row(m), v)

    def _put(self, value, base, v):
        at = offset(self.b, base, I64(v * self.vector.count))
        store_lanes(self.b, value, at, self.mask)

    def _store(self):
        for m, row in enumerate(self.sums):
            for v, s in enumerate(row):
                self._put(self.b.load(s), self._row(m), v)

    def emit(self):
        self._start()
        self._sum()
        self._finish()
        self._store()

    def _sum(self):
        at = self.at
        with _each(self.b, at["KO"]) as o:
            a = offset(self.b, at["A"], (o, at["a_ko"]))
            b = offset(self.b, at["B"], (o, at["b_ko"]))
            with _each(self.b, at["KI"]) as k:
                here = offset(self.b, b, (k, at["b_ki"]))
                bs = [self._load(here, v) for v in range(self.vectors)]
                self._step(offset(self.b, a, (k, at["a_ki"])), bs)


def _shuffle(builder, a, b, lanes):
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(lanes)), lanes))


class _Rows:
    """Rows of B that are read across, one a lane; lanes from `left` on read the last row again."""

    def __init__(self, builder, at, step, lanes, left):
        self.b, self.lanes = builder, lanes
        last = I64(lanes - 1) if left is None else builder.sub(left, I64(1))
        self.starts = []
        for lane in range(lanes):
            inside = builder.icmp_signed("<", I64(lane), last)
            row = builder.select(inside, I64(lane), last)
            self.starts.append(offset(builder, at, (row, step)))

    def turned(self, k):
        """The lanes for k, k + 1, k + 2, k + 3."""
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
                    _shuffle(self.b, parts[p], parts[p + 1], both) for p in range(0, len(parts), 2)
                ]
            wide.append(parts[0])
        squares = range(0, self.lanes, 4)

        def mix(a, b, picks):
            lanes = [s + p if p < 4 else self.lanes + s + p - 4 for s in squares for p in picks]
            return _shuffle(self.b, a, b, lanes)

        low = [mix(wide[r], wide[r + 1], (0, 4, 1, 5)) for r in (0, 2)]
        high = [mix(wide[r], wide[r + 1], (2, 6, 3, 7)) for r in (0, 2)]
        return [mix(*pair, picks) for pair in (low, high) for picks in ((0, 1, 4, 5), (2, 3, 6, 7))]

    def gathered(self, k):
        """The lanes for one k."""
        value = ir.Constant(ir.VectorType(F32, self.lanes), ir.Undefined)
        for lane, start in enumerate(self.starts):
            one = self.b.load(pointer(self.b, offset(self.b, start, k), F32), align=4)
            value = self.b.insert_element(value, one, I32(lane))
        return value

    def each(self, count, emit):
        """emit(k, lanes) for every k below count."""
        whole = I64(0)
        if self.lanes >= 4:
            whole = self.b.shl(self.b.ashr(count, I64(2)), I64(2))
            with cgutils.for_range_slice(self.b, I64(0), whole, I64(4)) as (k, _):
                for t, value in enumerate(self.turned(k)):
                    emit(self.b.add(k, I64(t)), value)
        with cgutils.for_range_slice(self.b, whole, count, I64(1)) as (k, _):
            emit(k, self.gathered(k))


class _Across(_Tile):
    """A tile whose B is read across: lane n is B[n*b_ko + k]. Four k at a time are loaded from
    each row and turned in registers, so a transposed matrix needs no second copy. KO is 1."""

    def __init__(self, builder, at, kind, rows, vectors, lanes, left):
        super().__init__(builder, at, kind, rows, vectors, lanes, left)
        self.across = _Rows(builder, at["B"], at["b_ko"], lanes, left)

    def _sum(self):
        at = self.at
        self.across.each(
            at["KI"], lambda k, value: self._step(offset(self.b, at["A"], (k, at["a_ki"])), [value])
        )


def _repeat(builder, limit, start, size, emit):
    """emit(place) for every whole `size` from start up to limit; returns where that ends."""
    count = builder.sdiv(builder.sub(limit, start), I64(size))
    with cgutils.for_range(builder, count) as loop:
        emit(builder.add(start, builder.mul(loop.index, I64(size))))
    return builder.add(start, builder.mul(count, I64(size)))


def _height(builder, rest, most, heights):
    """The rows of the next tile, of `rest`: no tile of one or two is left over where it can be
    helped."""
    rows = I64(0)
    if heights:
        for height in reversed(heights):
            rows = builder.select(builder.icmp_signed(">=", rest, I64(height)), I64(height), rows)
        return rows
    rows = builder.select(builder.icmp_signed("<", rest, I64(most)), rest, I64(most))
    for left, height in ((10, 5), (9, 5), (7, 4)) if most == 8 else ():
        rows = builder.select(builder.icmp_signed("==", rest, I64(left)), I64(height), rows)
    return rows


def _emit_tiles(builder, count, most, heights, emit):
    """emit(rows, m) for tiles that are `count` rows together."""
    at = cgutils.alloca_once_value(builder, I64(0))
    builder.store(I64(0), at)
    head, done = (builder.append_basic_block(name) for name in ("tile", "done"))
    builder.branch(head)
    builder.position_at_end(head)
    m = builder.load(at)
    choice = builder.switch(_height(builder, builder.sub(count, m), most, heights), done)
    for rows in heights or (k for k in range(1, most + 1) if k != 7):
        block = builder.append_basic_block(f"rows{rows}")
        choice.add_case(I64(rows), block)
        builder.position_at_end(block)
        emit(rows, m)
        builder.store(builder.add(m, I64(rows)), at)
        builder.branch(head)
    builder.position_at_end(done)


def _emit_tile(builder, at, kind, m, n, rows, vectors, lanes, left=None):
    """The tile whose first output is in row m, column n."""

    def moved(name, *parts):
        """An address that may be missing."""
        none = builder.icmp_signed("==", at[name], I64(0))
        return builder.select(none, at[name], offset(builder, at[name], *parts))

    here, b = dict(at), n
    if kind == "gemm_nt":
        b = builder.mul(n, at["b_ko"])
    here["C"] = offset(builder, at["C"], (m, at["c_rs"]), n)
    here["A"] = offset(builder, at["A"], (m, at["a_rs"]), *([n] if kind == "lanewise" else []))
    here["B"] = offset(builder, at["B"], b)
    here["bias"] = moved("bias", n)
    here["weights"] = moved("weights", (m, at["c_rs"]), n)
    make = _Across if kind == "gemm_nt" else _Tile
    make(builder, here, kind, rows, vectors, lanes, left).emit()


def _each_column(builder, at, kind, emit):
    """emit(n, vectors, lanes, left) for all columns from n on; `left` of them are there if they are
    less than a vector."""

    def columns(vectors, lanes):
        return lambda n: emit(n, vectors, lanes, None)

    n = I64(0)
    if kind == "gemm":
        few = builder.icmp_signed("<=", at["M"], I64(_FEW))
        wide = builder.select(few, at["N"], I64(0))
        n = _repeat(builder, wide, n, _THIN * LANES, columns(_THIN, LANES))
    if kind != "gemm_nt" and _VECTORS > 1:  # there, four k of one vector are what registers hold
        n = _repeat(builder, at["N"], n, _VECTORS * LANES, columns(_VECTORS, LANES))
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
                emit(n, 1, LANES // 2, left)
            with most:
                emit(n, 1, LANES, left)


def _emit_product(builder, at, kind):
    def rows_of(n, vectors, lanes, left):
        most = _FEW if vectors > _VECTORS else _ROWS[kind]
        heights = _HEIGHTS.get(kind) if most == 8 else None

        def tile(rows, m):
            _emit_tile(builder, at, kind, m, n, rows, vectors, lanes, left)

        _emit_tiles(builder, at["M"], most, heights, tile)

    _each_column(builder, at, kind, rows_of)


def _emit_outer(builder, at, kind):
    at = {**at, "a_rs": I64(1), "KO": I64(1), "bias": I64(0)}

    def columns_of(m):
        def tile(n, *size):
            _emit_tile(builder, at, kind, m, n, ROWS, *size)

        _each_column(builder, at, kind, tile)

    _repeat(builder, at["M"], I64(0), ROWS, columns_of)


def _product(kind):
    @intrinsic
    def body(typing, operands):
        def codegen(context, builder, sig, args):
            at = dict(zip(_NAMES, cgutils.unpack_tuple(builder, args[0]), strict=True))
            emit = _emit_outer if kind == "outer" else _emit_product
            emit(builder, at, kind)
            return context.get_dummy_value()

        return types.void(types.UniTuple(types.int64, len(_NAMES))), codegen

    return body


_gemm_body, _gemm_nt_body, _lanewise_body = map(_product, ("gemm", "gemm_nt", "lanewise"))
_outer_body = _product("outer")


@cfunc(PRODUCT, cache=not FUSED)
def _gemm(
    m, n, acc, c, c_rs, a, a_rs, a_ko, a_ki, b, b_ko, b_ki, ko, ki, bias, weights, rate, pull
):
    _gemm_body(
        (m, n, acc, c, c_rs, a, a_rs, a_ko, a_ki, b, b_ko, b_ki, ko, ki, bias, weights, rate, pull)
    )


@cfunc(PRODUCT, cache=not FUSED)
def _gemm_nt(
    m, n, acc, c, c_rs, a, a_rs, a_ko, a_ki, b, b_ko, b_ki, ko, ki, bias, weights, rate, pull
):
    _gemm_nt_body(
        (m, n, acc, c, c_rs, a, a_rs, a_ko, a_ki, b, b_ko, b_ki, ko, ki, bias, weights, rate, pull)
    )


@cfunc(PRODUCT, cache=not FUSED)
def _lanewise(
    m, n, acc, c, c_rs, a, a_rs, a_ko, a_ki, b, b_ko, b_ki, ko, ki, bias, weights, rate, pull
):
    _lanewise_body(
        (m, n, acc, c, c_rs, a, a_rs, a_ko, a_ki, b, b_ko, b_ki, ko, ki, bias, weights, rate, pull)
    )


@cfunc(PRODUCT, cache=not FUSED)
def _outer(
    m, n, acc, c, c_rs, a, a_rs, a_ko, a_ki, b, b_ko, b_ki, ko, ki, bias, weights, rate, pull
):
    _outer_body(
        (m, n, acc, c, c_rs, a, a_rs, a_ko, a_ki, b, b_ko, b_ki, ko, ki, bias, weights, rate, pull)
    )


TURN = types.void(*[types.int64] * 6)


@intrinsic
def _turn_body(typing, operands):
    def codegen(context, builder, sig, args):
        to, step, source, stride, lanes, count = cgutils.unpack_tuple(builder, args[0])

        def columns(left):
            def emit(n):
                rows = _Rows(builder, offset(builder, source, (n, stride)), stride, LANES, left)
                mask = None if left is None else mask_of(builder, left, LANES)

                def put(k, value):
                    store_lanes(builder, value, offset(builder, to, (k, step), n), mask)

                rows.each(count, put)

            return emit

        n = _repeat(builder, lanes, I64(0), LANES, columns(None))
        left = builder.sub(lanes, n)
        with builder.if_then(builder.icmp_signed(">", left, I64(0))):
            columns(left)(n)
        return context.get_dummy_value()

    return types.void(types.UniTuple(types.int64, 6)), codegen


@cfunc(TURN, cache=True)
def _turn(to, step, source, stride, lanes, count):
    _turn_body((to, step, source, stride, lanes, count))


def symbol(name, function, sig):
    """The compiled `function` by a name that machine code from the cache finds again, wherever
    it lies this time."""
    llvm.add_symbol(name, function.address)
    return types.ExternalFunction(name, sig)


gemm = symbol("tinytrain_gemm", _gemm, PRODUCT)
gemm_nt = symbol("tinytrain_gemm_nt", _gemm_nt, PRODUCT)
outer = symbol("tinytrain_outer", _outer, PRODUCT)
lanewise = symbol("tinytrain_lanewise", _lanewise, PRODUCT)
# turn(to, step, from, stride, lanes, count): to[k * step + lane] = from[lane * stride + k].
turn = symbol("tinytrain_turn", _turn, TURN)
