"""Which bytes of a plan count: the whole arena, what lies beside the model, what backward keeps."""

from __future__ import annotations

from dataclasses import dataclass

from tinytrain.lifetime import Buffer
from tinytrain.plan import KIND_OF, Plan
from tinytrain.stash import bitmap

MEASURES = ("arena", "beside", "kept")
MODEL = ("parameters", "optimizer")  # running statistics are the first, the rate is the second
RESIDUALS = ("activations", "stash")  # inputs and labels are neither


@dataclass(frozen=True)
class Bytes:
    """Of one plan.

    arena       all of it, inputs and labels included.
    persistent  what outlives a step, accumulators of gradients included.
    beside      the arena without parameters, running statistics and optimizer state.
    kept        activations and stashes alive across the border of forward and backward.
    margins     of `arena` and of `kept`: room for more non-zeros than the nominal density.
    """

    arena: int
    persistent: int
    beside: int
    kept: int
    margins: dict[str, int]

    def nominal(self, measure: str) -> int:
        """A measure without the margin of bitmaps."""
        return getattr(self, measure) - self.margins[measure]


def bytes_of(plan: Plan) -> Bytes:
    """The bytes of a plan of a training step with a guard."""
    border = plan.program.marks[0][0]
    model = sum(b.nbytes for b in plan.buffers if b.persistent and _kind(plan, b, 0) in MODEL)
    held = [b for b in plan.buffers if b.first < border < b.end and not b.persistent]
    kept = sum(b.nbytes for b in held if _kind(plan, b, border) in RESIDUALS)
    at_peak = _margin(plan, plan.peak())
    margins = {"arena": at_peak, "beside": at_peak, "kept": _margin(plan, border)}
    return Bytes(plan.arena_bytes, plan.persistent_bytes, plan.arena_bytes - model, kept, margins)


def forward_bytes(plan: Plan) -> int:
    """Every value that the forward pass of the whole batch makes, were all held at once."""
    tape = plan.program.tape
    views = plan.program.views
    made = sum(tape.specs[v].nbytes for n in tape.nodes for v in n.outs if v not in views)
    return made * plan.batch // plan.microbatch


def _kind(plan: Plan, b: Buffer, step: int) -> str:
    return KIND_OF[plan.program.kinds[b.value_at(step)]]


def _margin(plan: Plan, step: int) -> int:
    """Bytes of bitmaps alive at this step that only more non-zeros than expected would fill."""
    total = 0
    for s in plan.program.steps:
        if s.op == "bitmap_pack":
            packed, values = s.reads()[0], s.outs[1]
            assert values is not None
            b = plan.buffers[plan.buffer_of[values]]
            if b.first <= step < b.end:
                spec = plan.program.specs[packed]
                share = plan.decisions.densities[packed]
                nominal = spec.nbytes // spec.size * bitmap.room(spec.size, share, margin=0)
                total += b.nbytes - nominal
    return total
