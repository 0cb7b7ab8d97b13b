"""The one serialization of a trainer for every port: flat 32-bit words. It writes no file.

`encode(trainer)` gives unsigned ints; floats are there by their bits, negatives in two's
complement, what is absent as NONE. Positions count words from the start, offsets count bytes from
the start of the arena.

    header   0 MAGIC  1 VERSION  2 number of words  3 CRC-32 of the words from 4 on (as
             little-endian bytes)
             4 bytes of the arena  5 end of its persistent part  6 slices that an update takes
             7 samples of a slice  8 learning rate of the first step  9 a slice's share of the batch
             10, 11, 12, 13 Adam's b1 and b2 as fractions of 2^64 (high word, low word), or 0
             14 leaves: position  15 how many   16 programs: position  17 how many
             18 data: position  19 how many words
    leaf     what persists, in four words: kind (LEAVES), offset, bytes, position of its first
             value in the data or NONE (it starts as zero). Frozen parameters are no leaves: they
             are read in flash, and offsets are the plan's less the bytes that this frees
    program  sixteen words: kind (PROGRAMS), samples, positions of its steps: prologue, body,
             epilogue, end; offsets or NONE: loss, lr, corrections (two floats), share, key (three
             uint32: seed, step, first sample of the slice); position of its ports, number of
             inputs, of labels, of outputs; position behind the last STOP of its body
    port     an array that comes from or goes to the user, in four words: offset, elements, dtype
             (DTYPES), bound (integers must lie in [0, bound); 0: any)
    step     one word: opcode + operands * 2^8 + words * 2^16; then the operands, outs, ins and
             work as in the reference kernel: an offset, FLASH + byte position in this table, or
             NONE; then the words of `kernels/geometry.py`
    STOP     opcode 0, a step of its own kind: its operands are flags (uint32); if one is not 0,
             the program ends here and the word with the same number (REASONS) says why
    spill    steps of their own kind, too: the operand is a buffer that goes to the port's block
    fetch    device, or comes back; the words: where on the device (a multiple of 512), bytes, and
             its number among what the program stores

The body runs for each slice of a batch, the epilogue behind the last one; the prologue comes within
the first slice, behind the last STOP of the body, before which nothing persistent changes and all
that is spilled is written. A bitmap
that overflows (REASONS 5) asks for the body of the guaranteed program instead.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tinytrain.errors import InputError
from tinytrain.kernels import geometry
from tinytrain.losses import takes_mask
from tinytrain.op import OPS
from tinytrain.plan import ALIGN, Plan
from tinytrain.steps import OVERFLOW, TRANSFERS, Step

MAGIC, VERSION = 0x31545454, 1  # "TTT1"
NONE, FLASH = 0xFFFFFFFF, 0x80000000
LEAVES = ("parameter", "state", "constant", "hyper", "optimizer", "accumulator")
PROGRAMS = ("train", "guaranteed", "infer")
DTYPES = ("float32", "int32", "uint32", "uint8")
REASONS = ("", "the input", "the network's output", "the loss", "a gradient", OVERFLOW)
# A number is an instruction's for good: add behind the last.
INSTRUCTIONS = (
    "stop", "move", "concat", "pad", "slice_vjp", "fill", "add", "sub", "mul", "div", "div_vjp_b",
    "neg", "exp", "log", "sqrt", "sqrt_vjp", "abs", "abs_vjp", "tanh", "tanh_vjp", "sigmoid",
    "sigmoid_vjp", "relu", "relu_vjp", "relu6", "relu6_vjp", "silu", "silu_vjp", "gelu", "gelu_vjp",
    "leaky_relu", "leaky_relu_vjp", "scale", "pow", "pow_vjp", "snap", "gate_mask", "gate_mask_vjp",
    "bitmap_pack", "bitmap_unpack", "bitmap_gate_vjp", "sum", "max", "max_vjp", "sum_to", "softmax",
    "softmax_vjp", "log_softmax", "log_softmax_vjp", "matmul", "embedding", "embedding_vjp",
    "conv2d", "conv2d_vjp_x", "conv2d_vjp_w", "max_pool2d", "max_pool2d_vjp", "avg_pool2d",
    "avg_pool2d_vjp", "batch_norm", "batch_norm_vjp_params", "batch_norm_vjp_x",
    "batch_norm_frozen", "batch_norm_frozen_vjp_x", "group_norm", "group_norm_vjp_params",
    "group_norm_vjp_x", "running_average", "cross_entropy", "binary_cross_entropy_with_logits",
    "mse", "dropout", "decay", "sgd", "nesterov", "adam", "add_scaled", "square_sum", "clip_factor",
    "check_finite", "check_capacity", "conv2d_lines", "conv2d_vjp_x_lines", "conv2d_vjp_w_sgd",
    "matmul_tn_sgd", "bitmap_conv2d_vjp_w", "bitmap_matmul_tn", "topk_pack", "zero_pruned",
    "spill", "fetch", "index_pack", "index_unpack", "matmul_tn_momentum",
)  # fmt: skip
_HEADER = 20


def encode(trainer: Any, port: str = "this port", lacks: Iterable[str] = ()) -> list[int]:
    """The words of a `Trainer`'s training step, its guaranteed form where it may overflow, and its
    inference for one sample; parameters and running statistics as they are now, optimizer state
    zero. InputError for what no port can run, or what `port` `lacks` (instructions)."""
    size, batch = trainer.plan.microbatch, trainer.plan.batch
    if batch % size:
        raise InputError(
            f"{port}: a batch of {batch} in slices of {size} leaves a smaller one over; "
            f"choose a batch that is a multiple of the slice"
        )
    if batch > size and len(trainer._train.labels) == 2 and takes_mask(trainer.loss):
        raise InputError(
            f"{port}: a slice's share of a masked loss depends on the masks of all slices, which a "
            f"board has not seen yet; choose microbatch={batch}"
        )
    parts = {"train": trainer._train}
    if any(what == OVERFLOW for _, flags in trainer.plan.program.marks for _, what in flags):
        parts["guaranteed"] = trainer._for("guaranteed", size)
    parts["infer"] = trainer._for("predict", 1)
    table = _Table(trainer, port, frozenset(lacks))
    for kind, bound in parts.items():
        table.program(kind, bound)
    return table.finish(trainer, max(bound.plan.arena_bytes for bound in parts.values()))


def as_bytes(words: list[int]) -> bytes:
    """The words as little-endian bytes."""
    return struct.pack(f"<{len(words)}I", *words)


def check(words: list[int]) -> None:
    """InputError unless the words are a whole table of this version."""
    if len(words) < _HEADER or words[0] != MAGIC:
        raise InputError("not a table of tinytrain's")
    if words[1] != VERSION:
        raise InputError(f"a table of version {words[1]}, this is {VERSION}; export it again")
    if words[2] != len(words) or words[3] != zlib.crc32(as_bytes(words[4:])):
        raise InputError("the table is cut short or damaged; export it again")


def steps_of(words: list[int]) -> Iterator[tuple[str, list[int], list[int]]]:
    """(instruction, operands, words) of every step of all programs."""
    for row in range(words[16], words[16] + 16 * words[17], 16):
        at, end = words[row + 2], words[row + 5]
        while at < end:
            cut = at + 1 + (words[at] >> 8 & 0xFF)
            code, at, begin = words[at] & 0xFF, cut + (words[at] >> 16), at + 1
            yield INSTRUCTIONS[code], words[begin:cut], words[cut:at]


def _bits(x: float) -> int:
    return geometry.pack([float(np.float32(x))])[0]


class _Table:
    """Gathers sections; positions are made absolute at the end, when all lengths are known."""

    def __init__(self, trainer: Any, port: str, lacks: frozenset[str]):
        self.port, self.lacks = port, lacks
        self.rows: list[int] = []  # leaves
        self.programs: list[int] = []
        self.body: list[int] = []  # ports and steps of all programs
        self.data: list[int] = []
        self.in_flash: dict[tuple[str, str], int] = {}  # frozen leaves -> FLASH + place in the data
        self.moved: dict[int, int] = {}  # where a persistent buffer lies -> where it is put
        self.end = trainer.plan.layout.end  # of what persists, before and after the frozen left it
        self.new_end = 0
        self.leaves(trainer)
        self.freed = -(-self.end // ALIGN) * ALIGN - -(-self.new_end // ALIGN) * ALIGN

    # ------------------------------------------------------------------ what persists

    def leaves(self, trainer: Any) -> None:
        """Every persistent leaf of the training step, with its values where it has any."""
        program, view = trainer.plan.program, trainer._train.executor.view
        frozen = trainer.plan.frozen()
        for buffer in sorted(trainer.plan.buffers, key=lambda b: b.offset):
            if not buffer.persistent or not buffer.nbytes:
                continue
            leaf = program.leaves[buffer.owner]
            if (leaf.kind, leaf.name) in frozen:
                self.in_flash[leaf.kind, leaf.name] = FLASH + self.values(view(buffer.owner))
                continue
            at = self.values(view(buffer.owner)) if leaf.kind in ("parameter", "state") else NONE
            offset = -(-self.new_end // ALIGN) * ALIGN
            self.moved[buffer.offset] = offset
            self.new_end = offset + buffer.nbytes
            self.rows += [LEAVES.index(leaf.kind), offset, buffer.nbytes, at]

    def offset(self, plan: Plan, v: int) -> int:
        """Where a value lies in the port's arena."""
        at = plan.offset(v)
        return at - self.freed if at >= self.end else self.moved[at]

    def values(self, array: np.ndarray) -> int:
        """Where these values lie in the data; bytes are filled up to whole words."""
        at, raw = len(self.data), array.tobytes()
        raw += bytes(-len(raw) % 4)
        self.data += struct.unpack(f"<{len(raw) // 4}I", raw)
        return at

    # ------------------------------------------------------------------ programs

    def program(self, kind: str, bound: Any) -> None:
        """A program's row, its ports and its steps."""
        plan: Plan = bound.plan
        program, frozen = plan.program, bound.frozen
        constants = self._constants(bound)
        begin, end = program.body or (0, len(program.steps))
        places = [len(self.body)]
        groups = [
            (frozen.inputs, bound.input_limits),
            (frozen.labels, bound.label_limits),
            (program.tape.outputs if kind == "infer" else (), ()),
        ]
        for values, limits in groups:
            for k, v in enumerate(values):
                limit = limits[k] if k < len(limits) else None
                self.body += self._port(plan, v, limit or 0)
        stopped = []
        for first, last in ((0, begin), (begin, end), (end, len(program.steps))):
            places.append(len(self.body))
            stopped.append(self._part(plan, first, last, constants))
        leaves = program.leaves.items()
        hyper = {x.name: self.offset(plan, v) for v, x in leaves if x.kind == "hyper"}
        loss = program.tape.loss
        self.programs += [
            PROGRAMS.index(kind),
            plan.microbatch,
            *places[1:],
            len(self.body),
            NONE if loss is None or kind == "infer" else self.offset(plan, loss),
            *(hyper.get(name, NONE) for name in ("lr", "corrections", "share", "key")),
            places[0],
            *(len(values) for values, _ in groups),
            stopped[1],
        ]

    def _constants(self, bound: Any) -> dict[int, int]:
        """Leaves that are read where they lie in flash: frozen parameters and constants."""
        found, stays = {}, bound.plan.layout.offsets
        for v, leaf in bound.plan.program.leaves.items():
            if not bound.plan.program.specs[v].size:
                continue
            if (leaf.kind, leaf.name) in stays:
                if (leaf.kind, leaf.name) in self.in_flash:
                    found[v] = self.in_flash[leaf.kind, leaf.name]
            elif leaf.kind == "constant":
                found[v] = FLASH + self.values(bound.frozen.leaves[v].data)
        return found

    def _port(self, plan: Plan, v: int, limit: int) -> list[int]:
        spec = plan.program.specs[v]
        if spec.dtype not in DTYPES:
            raise InputError(f"{self.port}: {plan.name(v)} is {spec.dtype}; use float32")
        return [self.offset(plan, v), spec.size, DTYPES.index(spec.dtype), limit]

    def _part(self, plan: Plan, first: int, last: int, constants: dict[int, int]) -> int:
        """Steps [first, last) with their STOPs; the position behind the last STOP, or the first."""
        stopped, marks = len(self.body), dict(plan.program.marks)
        for k in range(first, last + 1):
            if k in marks and k > first:
                flags = marks[k]
                self.body.append(len(flags) << 8 | len(flags) << 16)
                self.body += [self.offset(plan, v) for v, _ in flags]
                self.body += [REASONS.index(what) for _, what in flags]
                stopped = len(self.body)
            if k < last:
                self._step(plan, plan.program.steps[k], constants)
        return stopped

    def _step(self, plan: Plan, step: Step, constants: dict[int, int]) -> None:
        program = plan.program
        acc, out = step.acc, step.outs[0]
        if acc is not None and out is not None and plan.offset(acc) != plan.offset(out):
            self._step(plan, Step("copy", (out,), (acc,), {}), constants)
        if step.op in TRANSFERS:
            self._transfer(plan, step)
            return
        operands = [*step.outs, *step.ins, *step.work]
        attrs = [*step.attrs.values(), *([step.acc is not None] if OPS[step.op].acc else [])]
        specs = [None if v is None else program.specs[v] for v in operands]
        try:
            name, words = geometry.instruction(step.op, specs, attrs)
        except geometry.Unknown as error:
            raise InputError(f"{self.port}: {error}") from error
        if name in self.lacks:
            raise InputError(f"{self.port} has no kernel for {step.op}")
        if len(operands) > 255 or len(words) > 0xFFFF:
            raise InputError(f"{self.port}: a {step.op} of {len(operands)} operands is too long")
        code = INSTRUCTIONS.index(name)
        self.body.append(code | len(operands) << 8 | len(words) << 16)
        self.body += [self._operand(plan, v, constants) for v in operands]
        self.body += geometry.pack(words)

    def _transfer(self, plan: Plan, step: Step) -> None:
        """Begin and end of a transfer are one here: where the host begins it, room is kept for the
        value until the host waits for it, so a port may do the whole there."""
        if step.op not in INSTRUCTIONS:  # a wait
            return
        if step.op in self.lacks:
            raise InputError(f"{self.port} has no block device to spill to; choose another policy")
        (out,), (value,) = step.writes(), step.reads()
        stored = out if step.op == "spill" else value
        value = value if step.op == "spill" else out
        self.body.append(INSTRUCTIONS.index(step.op) | 1 << 8 | 3 << 16)
        number = [s.writes()[0] for s in plan.program.steps if s.op == "spill"].index(stored)
        nbytes = plan.program.specs[stored].nbytes
        self.body += [self.offset(plan, value), plan.offset(stored), nbytes, number]

    def _operand(self, plan: Plan, v: int | None, constants: dict[int, int]) -> int:
        if v is None or not plan.program.specs[v].size:
            return NONE
        at = constants.get(plan.program.root(v))
        return self.offset(plan, v) if at is None else at

    # ------------------------------------------------------------------ putting it together

    def finish(self, trainer: Any, arena_bytes: int) -> list[int]:
        """All words, with the header."""
        rows, programs = len(self.rows) // 4, len(self.programs) // 16
        at_programs = _HEADER + len(self.rows)
        at_body = at_programs + len(self.programs)
        at_data = at_body + len(self.body)
        for k in range(3, len(self.rows), 4):
            if self.rows[k] != NONE:
                self.rows[k] += at_data
        for k in range(0, len(self.programs), 16):
            for part in (2, 3, 4, 5, 11, 15):
                self.programs[k + part] += at_body
            self._move_flash(
                self.programs[k + 2] - at_body, self.programs[k + 5] - at_body, at_data
            )
        size, batch = trainer.plan.microbatch, trainer.plan.batch
        betas = getattr(trainer.optimizer, "betas", None) or (0.0, 0.0)
        fractions = [int(beta * 2**64) for beta in betas]
        body = [
            *(arena_bytes - self.freed, self.new_end, batch // size, size),
            *(_bits(trainer.optimizer.schedule(0)), _bits(size / batch)),
            *(part for f in fractions for part in (f >> 32, f & 0xFFFFFFFF)),
            *(_HEADER, rows, at_programs, programs, at_data, len(self.data)),
            *(*self.rows, *self.programs, *self.body, *self.data),
        ]
        words = [MAGIC, VERSION, len(body) + 4, zlib.crc32(as_bytes(body)), *body]
        check(words)
        return words

    def _move_flash(self, at: int, end: int, data: int) -> None:
        """Operands in flash, so far places in the data, as byte positions in the table."""
        while at < end:
            operands, words = self.body[at] >> 8 & 0xFF, self.body[at] >> 16
            for k in range(at + 1, at + 1 + operands):
                if FLASH <= self.body[k] < NONE:
                    self.body[k] = FLASH + 4 * (self.body[k] - FLASH + data)
            at += 1 + operands + words
