"""In-place: which value may take over which buffer, decided by liveness after all lowering.

The only place that lets two values share bytes. A value is written over an input when the row
allows that pair and this step is the last use of the input's buffer. Views share their base's
bytes; a value with a home is written to its leaf's buffer.
"""

from __future__ import annotations

from tinytrain.op import OPS
from tinytrain.steps import Program, Step


class Sharing:
    """One walk over the steps; `owner[v]` is the value whose buffer the (unviewed) v lives in.

    A buffer is used from step `first` to step `end`, both included.
    """

    def __init__(self, program: Program, inplace: bool = True):
        self.program, self.inplace = program, inplace
        self.roots = program.roots()
        self.use = last_uses(program, self.roots)
        self.owner: dict[int, int] = {v: v for v in program.leaves}
        self.first = dict.fromkeys(program.leaves, 0)
        self.end = {v: self.use.get(v, -1) for v in program.leaves}
        self.pinned = {v for v in program.leaves if program.kinds[v] not in ("input", "label")}
        for k, step in enumerate(program.steps):
            self._walk(k, step)

    def _walk(self, k: int, step: Step) -> None:
        """Find a buffer for everything that step k makes."""
        home = self.program.home
        taken: set[int] = set()
        for position, out in enumerate(step.outs):
            if out is None:
                continue
            target = home.get(out)
            if target is None and self.inplace:
                target = self.takeover(step, k, position, taken)
            target = out if target is None else target
            taken.add(target)
            self.place(out, target, k)
        for v in step.work:
            self.place(v, v, k)

    def buffer(self, v: int) -> int:
        """The owner of v's bytes."""
        return self.owner[self.roots[v]]

    def place(self, out: int, target: int, k: int) -> None:
        """Let `out`, made in step k, live in target's buffer."""
        self.owner[out] = target
        if target not in self.end:
            self.first[target] = k
            self.end[target] = self.use[out]
        elif self.use[out] > self.end[target]:
            self.end[target] = self.use[out]

    def takeover(self, step: Step, k: int, position: int, taken: set[int]) -> int | None:
        """The buffer that output `position` of step k may be written over, if any."""
        pairs = OPS[step.op].inplace
        if not pairs and step.acc is None:
            return None
        spec = self.program.specs[step.outs[position]]  # type: ignore[index]
        allowed = [i for o, i in pairs if o == position]
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


def last_uses(program: Program, roots: list[int]) -> dict[int, int]:
    """The last step that reads or makes each value, its views included."""
    last: dict[int, int] = {}
    for k, step in enumerate(program.steps):
        for v in step.writes():
            last[roots[v]] = k
        for v in step.reads():
            last[roots[v]] = k
    for v in program.kept:
        last[roots[v]] = len(program.steps)
    return last


def share_buffers(program: Program, inplace: bool = True) -> dict[int, int]:
    """For every value, the value that owns its buffer. `inplace=False`: only views and homes."""
    sharing = Sharing(program, inplace)
    used = {*sharing.owner, *program.views}
    return {v: sharing.buffer(v) for v in used if sharing.roots[v] in sharing.owner}
