"""Plan: steps, where every byte of them lies, and what that costs. It runs nothing.

One plan drives every executor: the offsets are the same in Python, C and MicroPython.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tinytrain import arena
from tinytrain.ahead import draw_apart
from tinytrain.errors import BudgetError
from tinytrain.lifetime import STORED, Buffer, Layout, buffers_of, key_of, live_bytes, slots_of
from tinytrain.lower import Decisions
from tinytrain.stash import bitmap, spill
from tinytrain.steps import Program, Step

ALIGN = 16  # bytes, of every offset
UNPACKS = ("bitmap_unpack", "index_unpack", "fetch")  # what brings back a value, not made again
SECTOR = 512  # where a slot of the spill file may begin: a block device's unit
KINDS = ("parameters", "optimizer", "gradients", "activations", "stash", "workspace", "io", "slack")
KIND_OF = {
    "parameter": "parameters",
    "state": "parameters",
    "constant": "parameters",
    "optimizer": "optimizer",
    "hyper": "optimizer",
    "gradient": "gradients",
    "accumulator": "gradients",
    "activation": "activations",
    "stash": "stash",
    "workspace": "workspace",
    "input": "io",
    "label": "io",
    "io": "io",
}


@dataclass
class Plan:
    """A lowered step with an offset for every buffer, all in bytes.

    `ram` is the budget it was made for, or None. `batch` is the number of samples of one update,
    `microbatch` of one slice of it. `extra_macs_ratio` is the work beyond keep's forward and
    backward, as a share of it.
    """

    program: Program
    buffers: list[Buffer]
    buffer_of: dict[int, int]
    arena_bytes: int
    lower_bound: int
    persistent_bytes: int
    batch: int
    ram: int | None = None
    policies: dict[str, int] = field(default_factory=dict)
    microbatch: int = 0  # 0: the batch
    extra_macs_ratio: float = 0.0
    decisions: Decisions = field(default_factory=Decisions)
    guaranteed: Decisions | None = None  # for a slice that overflows a bitmap's capacity
    slots: list[Buffer] = field(default_factory=list)  # of the spill file
    find_smallest: Callable[[], int] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.microbatch = self.microbatch or self.batch

    def offset(self, v: int) -> int:
        """Where value v begins, in bytes: in the arena, or in the spill file."""
        if self.program.kinds[v] == STORED:
            return self.slot(v).offset
        return self.buffers[self.buffer_of[v]].offset

    def slot(self, v: int) -> Buffer:
        """The slot of the spill file that holds v."""
        return next(s for s in self.slots if s.owner == v)

    def name(self, v: int) -> str:
        """A value as people see it: a leaf's name, or the op that makes it."""
        base = self.program.root(v)
        base = self.program.home.get(base, base)
        if base in self.program.leaves:
            return self.program.leaves[base].name
        maker = next((s for s in self.program.steps if base in s.writes()), None)
        what = f"%{v}" if maker is None else f"{maker.op} %{v}"
        return f"{what} {self.program.specs[v]}"

    @property
    def layout(self) -> Layout:
        """Where the persistent leaves lie."""
        held = [b for b in self.buffers if b.persistent]
        offsets = {key_of(self.program, b.owner): b.offset for b in held}
        return Layout(offsets, max((b.offset + b.nbytes for b in held), default=0))

    @property
    def base(self) -> int:
        """Where what does not persist may begin. An arena is best laid so that this byte begins a
        line of the cache: so do then all buffers of whole lines, which vectors want."""
        return -(-self.layout.end // ALIGN) * ALIGN

    @property
    def fits(self) -> bool:
        return self.ram is None or self.arena_bytes <= self.ram

    @property
    def smallest_ram_bytes(self) -> int:
        """The smallest budget for which this planner found a plan (a search, not a bound)."""
        found = self.arena_bytes if self.find_smallest is None else self.find_smallest()
        return min(found, self.arena_bytes)

    def frozen(self) -> set[tuple[str, str]]:
        """(kind, name) of the persistent leaves that no update writes, such as frozen parameters
        and the statistics of their norms: on a board they stay in flash."""
        written = set(self.program.home.values())
        kinds = ("parameter", "state", "constant")
        leaves = self.program.leaves.items()
        return {(x.kind, x.name) for v, x in leaves if x.kind in kinds and v not in written}

    @property
    def flash_bytes(self) -> int:
        """Bytes of what stays in flash on a board."""
        frozen = self.frozen()
        held = [b for b in self.buffers if b.persistent]
        return sum(b.nbytes for b in held if key_of(self.program, b.owner) in frozen)

    @property
    def board_bytes(self) -> int:
        """The arena on a board, without what stays in flash."""
        frozen, end = self.frozen(), 0
        for b in sorted(self.buffers, key=lambda b: b.offset):
            if b.persistent and b.nbytes and key_of(self.program, b.owner) not in frozen:
                end = -(-end // ALIGN) * ALIGN + b.nbytes
        above = self.arena_bytes - -(-self.layout.end // ALIGN) * ALIGN
        return -(-end // ALIGN) * ALIGN + max(above, 0)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the products (convolutions, matrices) in one update."""
        p = self.program
        total = sum(p.macs_of(s.op, s.ins, s.outs, s.attrs) or 0 for s in p.steps)
        return total * -(-self.batch // self.microbatch)

    @property
    def approximate(self) -> bool:
        """Whether weight gradients are not exact: they read the largest elements of values alone
        (policy "topk")."""
        return "topk" in self.policies

    def peak(self) -> int:
        """The step at which the most is alive."""
        live = live_bytes(self.buffers, len(self.program.steps))
        return live.index(max(live))

    def alive(self, step: int) -> list[tuple[int, int, int]]:
        """(nbytes, offset, value) of every buffer alive during `step`, largest first."""
        live = [b for b in self.buffers if b.first <= step < b.end]
        return sorted(((b.nbytes, b.offset, b.value_at(step)) for b in live), reverse=True)

    def breakdown(self) -> dict[str, int]:
        """Bytes by kind at the peak, slack included; they sum to `arena_bytes`."""
        table = Counter(dict.fromkeys(KINDS, 0))
        for nbytes, _, v in self.alive(self.peak()):
            table[KIND_OF[self.program.kinds[v]]] += nbytes
        table["slack"] = self.arena_bytes - sum(table.values())
        return dict(table)

    @property
    def spill_file_bytes(self) -> int:
        """Bytes that spilled values take outside the arena."""
        return max((s.offset + s.nbytes for s in self.slots), default=0)

    @property
    def spill_written_bytes(self) -> int:
        """Bytes written to the spill file by one update: what flash wears by."""
        return spill.moved(self.program)[0] * -(-self.batch // self.microbatch)

    @property
    def spill_read_bytes(self) -> int:
        """Bytes read from the spill file by one update."""
        return spill.moved(self.program)[1] * -(-self.batch // self.microbatch)

    def bitmap_bytes(self) -> dict[str, int]:
        """Bytes of all bitmaps together: their bits ("masks", those of gates too), the non-zeros
        at the nominal density ("nominal"), the margin on top ("margin"), and all these values when
        dense ("dense"), which is what keep would hold."""
        table = dict.fromkeys(("masks", "nominal", "margin", "dense"), 0)
        specs = self.program.specs
        packed = {s.ins[0] for s in self.program.steps if s.op == "bitmap_pack"}
        for s in self.program.steps:
            if s.op == "gate_mask":
                table["masks"] += specs[s.writes()[0]].nbytes
                if s.reads()[0] not in packed:
                    table["dense"] += specs[s.reads()[0]].nbytes
            if s.op == "bitmap_pack":
                mask, values, count = (specs[v].nbytes for v in s.writes())
                x = specs[s.reads()[0]]
                nominal = x.nbytes // x.size * bitmap.room(x.size, self._density(s), margin=0)
                table["masks"] += mask + count
                table["nominal"] += nominal
                table["margin"] += values - nominal
                table["dense"] += x.nbytes
        return table

    def _density(self, pack: Step) -> float:
        return self.decisions.densities[pack.reads()[0]]

    def require_fit(self) -> Plan:
        """Itself; BudgetError with what is missing if it does not fit its `ram`."""
        if self.fits:
            return self
        assert self.ram is not None
        smallest = self.smallest_ram_bytes
        missing = self.arena_bytes - self.ram
        at_peak = ", ".join(f"{self.name(v)} ({n:,})" for n, _, v in self.alive(self.peak())[:5])
        advice = "a smaller batch needs less; " if self.batch > 1 else ""
        kinds = self.program.kinds
        held = [b for b in self.buffers if b.persistent and kinds[b.owner] != "accumulator"]
        alone = sum(b.nbytes for b in held)  # the sum of slices' gradients is a choice
        if alone > self.ram:
            advice = f"parameters and optimizer state alone are {alone:,} bytes; "
        raise BudgetError(
            f"the plan needs {self.arena_bytes:,} bytes, ram is {self.ram:,}: {missing:,} bytes "
            f"are missing; the smallest ram that would do at batch {self.batch} is "
            f"{smallest:,} ({advice}alive at the peak: {at_peak})",
            missing,
            smallest,
        )

    def check(self) -> None:
        """Prove the offsets: no two buffers alive at one moment overlap, and no step reads a
        leaf's earlier value after it was overwritten. AssertionError names the pair."""
        for space in (self.buffers, self.slots):
            live = sorted(space, key=lambda b: b.offset)
            for k, a in enumerate(live):
                for b in live[k + 1 :]:
                    if b.offset >= a.offset + a.nbytes:
                        break
                    apart = a.end <= b.first or b.end <= a.first or not a.nbytes or not b.nbytes
                    assert apart, f"{self.name(a.owner)} and {self.name(b.owner)} overlap"
        newest: dict[int, int] = {}
        for step in self.program.steps:
            for v in step.reads():
                base = self.program.root(v)
                leaf = self.program.home.get(base, base)
                if leaf in newest:
                    held = newest[leaf]
                    assert held == base, f"{step.op} reads {self.name(leaf)} after its update"
            for v in step.writes():
                if v in self.program.home:
                    newest[self.program.home[v]] = v

    def __str__(self) -> str:
        from tinytrain.report import plan_text

        return plan_text(self)

    def dump(self) -> str:
        """The steps as text, a line each: what is written and read, and where it lies."""

        def at(v: int | None) -> str:
            if v is None:
                return "-"
            where = "file+" if self.program.kinds[v] == STORED else ""
            return f"%{v}@{where}{self.offset(v)}"

        lines = []
        for k, s in enumerate(self.program.steps):
            for position, flags in self.program.marks:
                if position == k:
                    lines.append(f"      stop if any of {', '.join(at(v) for v, _ in flags)}")
            acc = f" += {at(s.acc)}" if s.acc is not None else ""
            attrs = "".join(f" {name}={value}" for name, value in s.attrs.items())
            outs, ins = (", ".join(map(at, vs)) for vs in (s.outs, s.ins))
            work = f" work {', '.join(map(at, s.work))}" if s.work else ""
            lines.append(f"{k:5d} {outs} = {s.op}({ins}){acc}{attrs}{work}")
        return "\n".join(lines)

    def save(self, path: str) -> None:
        """Write everything an executor needs as JSON."""
        from tinytrain import planfile

        planfile.save(self, path)

    @staticmethod
    def load(path: str) -> Plan:
        """Read what `save` wrote; InputError if it is not a whole plan. It answers as the plan that
        was saved, but it searches nothing: its smallest budget is its arena."""
        from tinytrain import planfile

        return planfile.load(path)

    def to_svg(self, path: str | None = None) -> str:
        """A picture of the arena, steps across and bytes up, policies hatched; written to `path` if
        given."""
        from tinytrain.picture import plan_svg

        text = plan_svg(self)
        if path is not None:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        return text


def make_plan(
    program: Program,
    batch: int,
    ram: int | None = None,
    inplace: bool = True,
    layout: Layout | None = None,
) -> Plan:
    """Buffers, lifetimes and offsets of a lowered step; persistent buffers lie below the rest.
    Transfers to and from the spill file are drawn apart as far as there is room.

    layout  the persistent offsets of another plan by leaf name (`Plan.layout`), for a second plan
            over the same arena. A leaf that is not in it is written anew before each run.
    """
    program = draw_apart(program, inplace)
    buffers, buffer_of = buffers_of(program, inplace, layout)
    top = max(place_persistent(program, buffers, layout), 0)
    base = -(-top // ALIGN) * ALIGN
    rest = [b for b in buffers if not b.persistent]
    offsets, total = arena.assign(
        [b.nbytes for b in rest],
        [(b.first, b.end) for b in rest],
        align=ALIGN,
        # A line more for those who count no bytes: vectors then run up to a sixth faster.
        spare=arena.LINE if ram is None and layout is None else 0,
    )
    for b, offset in zip(rest, offsets, strict=True):
        b.offset = base + offset
    return _placed(program, buffers, buffer_of, base + total if total else top, batch, ram)


def _placed(program, buffers, buffer_of, arena_bytes, batch, ram=None) -> Plan:
    """The plan of buffers that have their offsets; the spill file's slots get theirs."""
    slots = slots_of(program)
    where, _ = arena.assign([s.nbytes for s in slots], [(s.first, s.end) for s in slots], SECTOR)
    for s, offset in zip(slots, where, strict=True):
        s.offset = offset
    return Plan(
        program,
        buffers,
        buffer_of,
        arena_bytes,
        max(live_bytes(buffers, len(program.steps))),
        sum(b.nbytes for b in buffers if b.persistent),
        batch,
        ram,
        count_policies(program),
        slots=slots,
    )


def smaller_plan(plan: Plan, program: Program, batch: int, layout: Layout) -> Plan | None:
    """The plan of the same steps over fewer samples, each buffer where the larger one lies, so
    that it fits the same arena; None where the steps or what shares a buffer are not the same."""
    program = draw_apart(program)
    buffers, buffer_of = buffers_of(program, layout=layout)
    if [s.op for s in program.steps] != [s.op for s in plan.program.steps]:
        return None
    if len(buffers) != len(plan.buffers):
        return None
    for b, other in zip(buffers, plan.buffers, strict=True):
        if (b.first, b.end, b.persistent) != (other.first, other.end, other.persistent):
            return None
        if b.nbytes > other.nbytes:
            return None
        b.offset = other.offset
    end = max((b.offset + b.nbytes for b in buffers), default=0)
    return _placed(program, buffers, buffer_of, end, batch)


def place_persistent(program: Program, buffers: list[Buffer], layout: Layout | None) -> int:
    """Offsets of the persistent buffers, in order or as laid out; where they end. Last those of
    whole lines of the cache, which begin with a line as `Plan.base` does: it costs no byte, and
    an update goes over them a quarter faster."""
    top = 0
    held = [b for b in buffers if b.persistent]
    for b in sorted(held, key=lambda b: b.nbytes % arena.LINE == 0):
        free = -(-top // ALIGN) * ALIGN
        b.offset = free if layout is None else layout.offsets[key_of(program, b.owner)]
        top = max(top, b.offset + b.nbytes)
    return top if layout is None else max(top, layout.end)


def count_policies(program: Program) -> dict[str, int]:
    """How many values of the forward pass backward gets by which policy."""
    counts = dict.fromkeys(("keep", "bitmap", "recompute", "invert", "spill"), 0)
    counts["keep"] = len(residuals(program))
    copies = program.stands_for
    largest = {s.ins[0] for s in program.steps if s.op == "topk_pack"}
    counts["bitmap"] = len({copies[v] for v in copies if program.kinds[v] == "stash"} - largest)
    if largest:
        counts["topk"] = len(largest)
    unpacked = {s.outs[0] for s in program.steps if s.op in UNPACKS}
    counts["spill"] = len({copies[v] for v in copies if program.kinds[v] == STORED})
    counts["invert"] = len(program.inverses)
    again = {v for v in copies if program.kinds[v] == "activation"} - unpacked
    again -= set(program.inverses)
    counts["recompute"] = len({copies[v] for v in again})
    return counts


def residuals(program: Program, kinds: tuple[str, ...] = ("activation",)) -> set[int]:
    """Values of the forward pass that a step of the backward pass reads."""
    recorded = range(len(program.tape.specs))
    forward = {v for v in recorded if program.kinds[v] in kinds}
    if not program.marks and "gradient" not in program.kinds:
        return set()
    found = set()
    begin = program.marks[0][0] if program.marks else 0
    for step in program.steps[begin:]:
        if not any(v in recorded for v in step.outs):
            found |= {program.root(v) for v in step.reads()} & forward
    return found
