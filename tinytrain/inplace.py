"""In-place: which value may take over which buffer, decided by liveness after all lowering.

The only place that lets two values share bytes. A value is written over an input when the row
allows that pair and this step is the last use of the input's buffer. Views share their base's
bytes; a value with a home is written to its leaf's buffer.
"""

from __future__ import annotations

from tinytrain.op import OPS
from tinytrain.steps import Program, Step


class Sharing:
    """One walk over the steps; `owner[v]` is the value whose buffer the (unviewed) v lives in."""

    def __init__(self, program: Program):
        self.program = program
        self.use = last_uses(program)
        self.owner: dict[int, int] = {v: v for v in program.leaves}
        self.end = {v: self.use.get(v, -1) for v in program.leaves}  # last use of a buffer
        self.pinned = {v for v in program.leaves if program.kinds[v] not in ("input", "label")}

    def buffer(self, v: int) -> int:
        """The owner of v's bytes."""
        return self.owner[self.program.root(v)]

    def place(self, out: int, target: int) -> None:
        """Let `out` live in target's buffer."""
        self.owner[out] = target
        self.end[target] = max(self.end.get(target, -1), self.use[out])

    def takeover(self, step: Step, k: int, position: int, taken: set[int]) -> int | None:
        """The buffer that output `position` of step k may be written over, if any."""
        spec = self.program.specs[step.outs[position]]  # type: ignore[index]
        allowed = [i for o, i in OPS[step.op].inplace if o == position]
        candidates = [] if step.acc is None else [step.acc]
        for v in (*candidates, *(step.ins[i] for i in allowed)):
            if v is None:
                continue
            root = self.buffer(v)
            if (
                self.end[root] == k
                and root not in taken
                and root not in self.pinned
                and self.program.specs[root].nbytes == spec.nbytes
                and self._only_through(step, root, allowed, spec.shape)
            ):
                return root
        return None

    def _only_through(self, step: Step, root: int, allowed: list[int], shape) -> bool:
        """Whether every operand in `root` may be overwritten element by element."""
        return all(
            v is None
            or self.buffer(v) != root
            or (i in allowed and self.program.specs[v].shape == shape)
            for i, v in enumerate(step.ins)
        )


def last_uses(program: Program) -> dict[int, int]:
    """The last step that reads or makes each value, its views included."""
    last: dict[int, int] = {}
    for k, step in enumerate(program.steps):
        for v in (*step.writes(), *step.reads()):
            last[program.root(v)] = k
    for v in program.kept:
        last[program.root(v)] = len(program.steps)
    return last


def share_buffers(program: Program, inplace: bool = True) -> dict[int, int]:
    """For every value, the value that owns its buffer. `inplace=False`: only views and homes."""
    sharing = Sharing(program)
    for k, step in enumerate(program.steps):
        taken: set[int] = set()
        for position, out in enumerate(step.outs):
            if out is None:
                continue
            target = program.home.get(out)
            if target is None and inplace:
                target = sharing.takeover(step, k, position, taken)
            target = out if target is None else target
            taken.add(target)
            sharing.place(out, target)
        for v in step.work:
            sharing.place(v, v)
    used = {*sharing.owner, *program.views}
    return {v: sharing.buffer(v) for v in used if program.root(v) in sharing.owner}
