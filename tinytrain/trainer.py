"""Trainer: a network, a loss and an optimizer in one arena of a size that was planned beforehand.

It holds the only copy of the parameters: `Parameter.data` is a view of the arena. Everything a
step touches lies there; inference runs in the same bytes.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinytrain import budget, data, fitting, losses
from tinytrain.bound import Bound, densities, is_finite
from tinytrain.errors import CapacityError, InputError, NotFiniteError, SpillError
from tinytrain.freeze import (
    Frozen,
    Recorder,
    compares_with_input,
    defaults,
    freeze,
    sample_specs,
)
from tinytrain.lower import lower
from tinytrain.nn.module import Module, Parameter
from tinytrain.plan import Plan, make_plan, smaller_plan
from tinytrain.run import Executor, choose_backend, new_arena, not_finite
from tinytrain.steps import Program

if TYPE_CHECKING:
    from tinytrain.spillfile import SpillFile

SEED_MIX = 0x9E3779B9  # of dropout's key, so that seed 0 is not the hash's fixed point


class Trainer:
    """Trains `net` within `ram` bytes.

    loss        a name ("cross_entropy", "mse", "binary_cross_entropy_with_logits") or a function
                of (outputs, labels); default: the model's own.
    optimizer   an object of `tinytrain.optim`, or a name.
    batch       samples of one update.
    microbatch  samples of one slice of it; gradients are summed over slices. "auto": the whole
                batch, or smaller slices where only those fit.
    ram         bytes as an int or "256K"; None: no limit. BudgetError if no plan fits.
    guard       "loss": a step with a bad input, output or loss changes nothing (NotFiniteError);
                "step": nor does one with a bad gradient; None: no checks. In slices, with momentum
                that gradients are summed into, "loss" finds bad inputs and labels before the first
                slice; an output or loss that is bad in a later one leaves the weights, but the
                sum cannot be undone: the last saved state is restored, or without one the
                momentum begins at zero, and the error says so. "step" undoes nothing, for it
                sums apart, in as many bytes as the parameters take.
    clip_norm   scale the gradients so that their joint 2-norm is at most this.
    backend     "auto", "numpy", "numba" or "c".
    input_shape of one sample, where the model does not say (or a Spec, or a list for several).
    policy      how values wait for backward: "auto", the cheapest that fits; "keep", "bitmap",
                "recompute", "invert"; or "topk", whose weight gradients are approximate: they read
                the largest elements of each value alone (`plan.approximate`).
    density     the share of non-zeros expected in outputs of ReLU: the planner may keep them packed
                as bitmaps. A slice with more is run again without (`overflows` counts these). Under
                "topk", the share of elements that are kept; default 0.1.
    spill       a file (on an SD card, say) that the planner may put values into between forward and
                backward; policy "spill" puts all large ones there. Made at once if the plan wants
                it, removed by `close()` or with the trainer. SpillError when it cannot be written
                or read: the step changed nothing, or the last saved state is restored, as it says.
    label_spec  the Spec of one sample's label (or a list), where neither the model's own
                `label_spec` nor the loss says.
    """

    def __init__(
        self,
        net: Module,
        loss: Any = None,
        optimizer: Any = None,
        batch: int = 32,
        ram: Any = None,
        policy: str = "auto",
        microbatch: Any = "auto",
        guard: str | None = "loss",
        clip_norm: float | None = None,
        backend: str = "auto",
        seed: int = 0,
        density: float | None = None,
        spill: str | None = None,
        input_shape: Any = None,
        label_spec: Any = None,
    ):
        self.asked, self.backend = backend, choose_backend(backend)
        self.net, self.batch, self.seed = net, batch, int(seed)
        self.loss, self.optimizer = defaults(net, loss, optimizer)
        self.samples = sample_specs(net, input_shape)
        self.settings: dict[str, Any] = {
            "ram": budget.parse_bytes(ram),
            "policy": policy,
            "microbatch": microbatch,
            "guard": guard,
            "clip_norm": clip_norm,
            "density": density,
            "spill": os.fspath(spill) if isinstance(spill, os.PathLike) else spill,
        }
        self._reconstructs = compares_with_input(net, label_spec)
        self._record = Recorder(net, self.samples, self.loss, label_spec)
        self.label_spec = self._record.label_spec
        self._added = 0  # slices of the present step that ran
        self.overflows = 0  # slices run again, for they had more non-zeros than was planned
        self.steps = 0  # updates made
        self.epoch = 0  # epochs finished
        self.within = 0  # samples of the present epoch that were seen
        self._saved: str | None = None  # where the newest state was saved to or restored from
        self._spill: SpillFile | None = None
        self._make_plan()
        self.optimizer.check(self.plan.program, self.state())

    def _make_plan(self) -> None:
        """Plan the step and move into an arena of that size."""
        record, batch = self._record, self.batch
        self.plan: Plan = budget.choose(record.tape, self.optimizer, batch, **self.settings)
        plans = (self.plan.decisions, self.plan.guaranteed)
        if self._spill is None and any(d and "spill" in d.policies.values() for d in plans):
            from tinytrain.spillfile import SpillFile

            self._spill = SpillFile(self.settings["spill"])
        self.arena = new_arena(self.plan.arena_bytes, self.plan.base)
        self._bound: dict[tuple[str, int], Bound] = {}
        self._cuts: dict[int, list[tuple[int, int, Bound]]] = {}
        self._infer_batch = self.plan.microbatch
        self._train = self._bind(record(self.plan.microbatch), self.plan)
        self._bound["train", self.plan.microbatch] = self._train
        self._fill_persistent(self._train)

    def calibrate(self, x: Any) -> dict[int, float]:
        """Measure the densities on these samples and plan anew with them; weights, optimizer state
        and position stay. The largest share of non-zeros in any slice, by tape value, where it is
        one that a bitmap can use. It runs outside the arena, with every value of a slice kept.
        """
        if self.settings["policy"] == "topk":
            raise InputError("policy 'topk' keeps a share of its own: there is nothing to measure")
        xs = _arrays("x", x)
        n, size = self._check_inputs(xs), min(self.plan.microbatch, len(xs[0]))
        found: dict[int, float] = {}
        for begin in range(0, n - size + 1, size):
            part = tuple(a[begin : begin + size] for a in xs)
            for v, share in densities(self._record(size), part, self.backend).items():
                found[v] = max(share, found.get(v, 0.0))
        held = {k: v.copy() for k, v in self.state().items() if k.startswith("optimizer/")}
        self.settings["density"] = {v: d for v, d in found.items() if d <= budget.DENSEST}
        self._make_plan()
        for name, view in self.state().items():
            if name in held:
                view[...] = held[name]
        return self.settings["density"]

    def _bind(self, frozen: Frozen, plan: Plan) -> Bound:
        executor = Executor(plan, self.backend, self.arena, spill=self._spill)
        return Bound(frozen, plan, executor, self.plan.layout.end)

    def _fill_persistent(self, train: Bound) -> None:
        """Move the network into the arena; optimizer state starts at zero."""
        program = self.plan.program
        for v, leaf in program.leaves.items():
            tensor = train.frozen.leaves.get(v)
            view = train.executor.view(v)
            if isinstance(tensor, Parameter):
                tensor.move_to(view)
            elif leaf.kind == "constant" and tensor is not None:
                view[...] = tensor.data
            elif leaf.kind in ("optimizer", "hyper", "accumulator"):
                view[...] = 0

    # ------------------------------------------------------------------ plans of other sizes

    def _for(self, what: str, n: int) -> Bound:
        """The bound plan for `n` samples: "train", "guaranteed" (a training step without bitmaps),
        "predict" or "evaluate"."""
        if (what, n) not in self._bound:
            if what in ("train", "guaranteed"):
                frozen = self._record(n)
                program = self._lower(frozen, what == "guaranteed")
            else:
                loss = self.loss if what == "evaluate" else None
                frozen = freeze(self.net, self.samples, n, loss, False, self.label_spec)
                program = lower(frozen.tape)
            plan = self._place(what, program, n)
            if plan.arena_bytes > len(self.arena):
                raise InputError(
                    f"{what} with {n} samples needs {plan.arena_bytes:,} bytes, the arena has "
                    f"{len(self.arena):,}; use fewer samples at once"
                )
            self._bound[what, n] = self._bind(frozen, plan)
        return self._bound[what, n]

    def _place(self, what: str, program: Program, n: int) -> Plan:
        """Offsets for `n` samples; a smaller training step lies where the whole slice's does."""
        layout, size = self.plan.layout, self.plan.microbatch
        if what in ("train", "guaranteed") and n < size:
            small = smaller_plan(self._for(what, size).plan, program, n, layout)
            if small is not None:
                return small
        return make_plan(program, n, layout=layout)

    def _lower(self, frozen: Frozen, guaranteed: bool = False) -> Program:
        """A training step, perhaps of another size, under the plan's own decisions."""
        decisions = self.plan.guaranteed if guaranteed else self.plan.decisions
        guard, clip = self.settings["guard"], self.settings["clip_norm"]
        sliced = self.plan.program.body is not None
        return lower(frozen.tape, self.optimizer, decisions, guard, clip, sliced)

    def _for_inference(self, what: str, left: int) -> Bound:
        """A plan for as many of the `left` samples as fit the arena at once."""
        while True:
            n = min(self._infer_batch, left)
            try:
                return self._for(what, n)
            except InputError:
                if n == 1:
                    raise
                self._infer_batch = max(n // 2, 1)

    # ------------------------------------------------------------------ training

    def _pair(self, x: Any, y: Any) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
        """Inputs and labels as arrays. A network that gives back its input has no labels."""
        xs, ys = _arrays("x", x), _arrays("y", y)
        if ys and self._reconstructs:
            same = len(ys) == 1 and ys[0].shape == xs[0].shape
            if not same or not (ys[0] is xs[0] or np.array_equal(ys[0], xs[0], equal_nan=True)):
                raise InputError(
                    "y: this network is compared with its input; leave y out, or name another "
                    "target's shape with label_spec"
                )
            ys = ()
        return xs, ys

    def step(self, x: Any, y: Any = None) -> float:
        """One update from one batch; the loss before it.

        x  (batch, ...) or a tuple for several inputs; uint8 is scaled to [0, 1].
        y  labels (or a tuple: labels, mask); none for a network that gives back its input.
        Fewer samples than `batch` are one smaller batch.
        NotFiniteError if an input, output or the loss is not finite; nothing is changed then, but
        for what the class says of slices. SpillError if the spill file cannot be written or read.
        """
        xs, ys = self._pair(x, y)
        n = _count(xs, self.batch)
        _check_lengths(xs, ys, n)
        cut = self._cut(n)
        self._added = 0
        try:
            if self._spill is not None:
                self._spill.changed = False
                self._spill.make_room()
            loss = cut[0][2].measured(lambda: self._step(xs, ys, cut))
        except NotFiniteError as error:
            from tinytrain.recover import recover  # what a good run never needs

            recover(self, error, self._added)
            raise
        except SpillError as error:
            from tinytrain.recover import go_back

            done = self._spill is not None and self._spill.changed
            what = go_back(self) if done else "nothing was updated"
            raise SpillError(f"{error}; {what}") from error
        self.steps += 1
        self.optimizer.after_update(self.steps, self.plan.program, self.state)
        return loss

    def _cut(self, n: int) -> list[tuple[int, int, Bound]]:
        """The slices of a batch of `n` samples, where each begins and ends and its plan. Every
        plan that they may want is made before any of them has run."""
        if n not in self._cuts:
            size = self.plan.microbatch
            ends = [min(begin + size, n) for begin in range(0, n, size)]
            pairs = zip((0, *ends), ends, strict=False)
            self._cuts[n] = [(begin, end, self._for("train", end - begin)) for begin, end in pairs]
            if self.plan.guaranteed:
                for begin, end, _ in self._cuts[n]:
                    self._for("guaranteed", end - begin)
        return self._cuts[n]

    def _step(
        self,
        xs: Sequence[np.ndarray],
        ys: Sequence[np.ndarray],
        cut: list[tuple[int, int, Bound]],
    ) -> float:
        """Forward and backward slice by slice, then the update; the mean loss."""
        self._check_batch(cut, xs, ys)
        numbers = self.optimizer.numbers(self.steps)
        n = cut[-1][1]
        whole, total = self._weight(ys, n) or 1.0, 0.0
        for begin, end, bound in cut:
            part = xs, ys
            if len(cut) > 1:
                part = tuple(a[begin:end] for a in xs), tuple(a[begin:end] for a in ys)
            share = self._weight(part[1], end - begin) / whole
            hyper = {**numbers, "share": share, "key": self._key(begin)}
            try:
                self._run_slice(bound, part, hyper, begin == 0, end == n)
            except CapacityError:
                self.overflows += 1
                bound = self._for("guaranteed", end - begin)
                self._run_slice(bound, part, hyper, begin == 0, end == n)
            self._added += 1
            total += share * float(bound.loss[()])
        return total

    def _check_batch(
        self,
        cut: list[tuple[int, int, Bound]],
        xs: Sequence[np.ndarray],
        ys: Sequence[np.ndarray],
    ) -> None:
        """Find what is wrong with any slice before the first has run; one finds it by itself."""
        bound = cut[0][2]
        bound.check(xs, ys)
        if len(cut) > 1 and self.settings["guard"]:
            for what, given, views in (
                ("the input", xs, bound.inputs),
                ("a label", ys, bound.labels),
            ):
                for a, view in zip(given, views, strict=True):
                    if view.dtype.kind == "f" and not is_finite(a):
                        raise not_finite(what)

    def _run_slice(
        self, bound: Bound, part: tuple, hyper: dict[str, Any], first: bool, last: bool
    ) -> None:
        """One slice of a batch that was checked, with the numbers of this step. NotFiniteError
        names the layer."""
        bound.fill(*part)
        for name, view in bound.hyper.items():
            view[...] = hyper[name]
        try:
            bound.run(first, last)
        except NotFiniteError as error:
            from tinytrain import diverge

            bound.fill(*part)  # forward may have written over it
            error.made_in(diverge.layer_of(bound, error.what))
            raise

    def _key(self, first: int) -> tuple[int, int, int]:
        """Of dropout's generator: seed, step, and where in the batch the slice begins."""
        return (self.seed ^ SEED_MIX) & 0xFFFFFFFF, self.steps & 0xFFFFFFFF, first

    def fit(
        self,
        x: Any,
        y: Any = None,
        epochs: int = 5,
        on_step: Callable[[int, float], None] | None = None,
        drop_last: bool = False,
        progress: bool | None = None,
        on_divergence: str | None = None,
        augment: Callable[..., Any] | None = None,
        balance: bool = False,
        validation: tuple[Any, Any] | None = None,
        patience: int | None = None,
    ) -> list[float]:
        """Train for `epochs` more epochs (the first may be the rest of an interrupted one).

        on_step(step, loss) is called after each update. drop_last leaves out a partial last
        batch; without it a smaller batch is trained. Returns each epoch's mean loss.
        on_divergence: None, a NotFiniteError ends it; "restore", the last good state is taken
        and training ends; "lower_rate", it goes on from there at a tenth of the rate. Both warn.
        augment(x, y, rng) returns a batch as it is to be learned (see `tinytrain.augment`); `rng`
        depends on seed and step alone. balance: each class is drawn as often as any other.
        patience: end after so many epochs without a lower loss on `validation` (x, y), and take
        the state with the lowest, of which a copy lies outside the arena.
        """
        if not isinstance(epochs, int) or epochs < 0:
            raise InputError(f"epochs is {epochs!r}; wants a whole number, not negative")
        xs, ys = self._pair(x, y)
        n = self._check_data(xs, ys)
        if drop_last and n < self.batch:
            raise InputError(f"drop_last leaves nothing of {n} samples at batch {self.batch}")

        run = fitting.Epochs(self, xs, ys, drop_last, progress, augment, balance)
        if (patience is None) != (validation is None):
            raise InputError("patience and validation go together: when to stop, and by what")
        if patience is not None and validation is not None:
            if on_divergence is not None:
                raise InputError("patience and on_divergence: both go back; ask for one of them")
            return run.until(epochs, on_step, validation, patience)
        if on_divergence is not None:
            from tinytrain import diverge

            return diverge.fit(self, on_divergence, epochs, run.one, on_step, (xs, ys))
        return [run.one(on_step) for _ in range(epochs)]

    def _check_data(self, xs: Sequence[Any], ys: Sequence[Any]) -> int:
        """Everything that can be wrong with the data, before the first step."""
        n = self._check_inputs(xs, ys)
        limits = self._train.label_limits
        for k, (a, limit) in enumerate(zip(ys, limits, strict=False)):
            data.check(xs[0], a, limit, where="y", each_class=k == 0)
        return n

    # ------------------------------------------------------------------ inference

    def predict(self, x: Any) -> np.ndarray:
        """The network's outputs (N, ...), float32, for any number of samples."""
        xs = _arrays("x", x)
        n = self._check_inputs(xs)
        outputs = []
        for bound, begin, end in self._slices("predict", n):
            part = tuple(a[begin:end] for a in xs)
            bound.check(part, ())
            bound.fill(part, ())
            bound.measured(bound.run)
            outputs.append(bound.outputs[0].copy())
        return np.concatenate(outputs)

    def evaluate(self, x: Any, y: Any = None) -> dict[str, float]:
        """{"loss": mean loss}, and {"accuracy": share of largest outputs that are the label}
        where the labels are class numbers, one for each row of outputs."""
        xs, ys = self._pair(x, y)
        n = self._check_inputs(xs, ys)
        total = seen = hits = places = 0.0
        for bound, begin, end in self._slices("evaluate", n):
            part = tuple(a[begin:end] for a in ys)
            given = tuple(a[begin:end] for a in xs), part
            bound.check(*given)
            bound.fill(*given)
            bound.measured(bound.run)
            weight = self._weight(part, end - begin)
            total, seen = total + float(bound.loss[()]) * weight, seen + weight
            classes = bound.label_limits and bound.label_limits[0] is not None
            if classes and part[0].shape == bound.outputs[0].shape[:-1]:
                mask = part[1] if len(part) > 1 else np.ones(part[0].shape)
                hit = bound.outputs[0].argmax(axis=-1) == part[0]
                hits, places = hits + float((hit * mask).sum()), places + float(mask.sum())
        result = {"loss": total / seen if seen else math.nan}
        if places:
            result["accuracy"] = hits / places
        return result

    def _check_inputs(self, xs: Sequence[np.ndarray], ys: Sequence[np.ndarray] = ()) -> int:
        """The number of samples; InputError unless all have as many."""
        for k, a in enumerate(xs):
            data.check(a, where="x" if len(xs) == 1 else f"x{k}")
        _check_lengths(xs, ys, len(xs[0]))
        return len(xs[0])

    def _weight(self, ys: Sequence[np.ndarray], n: int) -> float:
        """What a batch counts for in a mean of losses: its samples, or its unmasked places."""
        masked = len(ys) == 2 and losses.takes_mask(self.loss)
        return float(ys[1].sum()) if masked else float(n)

    def _slices(self, what: str, n: int) -> Iterator[tuple[Bound, int, int]]:
        begin = 0
        while begin < n:
            bound = self._for_inference(what, n - begin)
            yield bound, begin, begin + bound.plan.batch
            begin += bound.plan.batch

    # ------------------------------------------------------------------ what it holds

    def seconds_per_step(self, steps: int = 5) -> float:
        """Median seconds of an update under this plan, over zeros in an arena of its own: nothing
        that the trainer holds changes. The first step, which may compile, is not counted; spilled
        values stay in memory."""
        arena = new_arena(len(self.arena), self.plan.base)
        arena[...] = self.arena
        executor = Executor(self.plan, self.backend, arena)
        leaves = self.plan.program.leaves.items()
        given = [executor.view(v) for v, leaf in leaves if leaf.kind in ("input", "label")]
        slices, found = -(-self.batch // self.plan.microbatch), []
        for _ in range(steps + 1):
            begin = time.perf_counter()
            for k in range(slices):
                for view in given:
                    view[...] = 0
                executor.run(first=k == 0, last=k == slices - 1)
            found.append(time.perf_counter() - begin)
        return float(np.median(found[1:]))

    @property
    def high_water_bytes(self) -> int:
        """The highest arena byte ever written, measured."""
        return max(bound.water.nbytes for bound in self._bound.values())

    @property
    def arena_bytes(self) -> int:
        return self.plan.arena_bytes

    def state(self) -> dict[str, np.ndarray]:
        """Views of everything that persists, by leaf name."""
        return {
            ("optimizer/" if leaf.kind == "optimizer" else "")
            + leaf.name: self._train.executor.view(v)
            for v, leaf in self.plan.program.leaves.items()
            if leaf.kind in ("parameter", "state", "optimizer")
        }

    def save(self, path: str) -> None:
        """Weights, optimizer state, generator and position to one `.npz`; whole or not at all. What
        lay there before stays beside it as `.previous`, should the disk damage the new one."""
        from tinytrain import checkpoint

        checkpoint.save(self, path)
        self._saved = path

    def close(self) -> None:
        """End the spill file's thread and remove the file; without one, nothing."""
        if self._spill is not None:
            self._spill.close()

    def export(self, port: str, folder: str, flash: Any = None) -> None:
        """Write what trains on from here where there is no tinytrain: parameters and running
        statistics as they are, the step and its inference as planned, optimizer state zero.

        port    "c99": C sources for bare metal, or "micropython".
        folder  made if it is not there. InputError names an op or dtype that the port lacks.
        flash   bytes, or "256K", that tables and parameters may take. InputError if they do not.
        """
        from tinytrain.ports import export

        export.export(self, port, folder, budget.parse_bytes(flash))

    @staticmethod
    def restore(path: str, net: Module | None = None, **changes: Any) -> Trainer:
        """The trainer that `save` wrote; it goes on bit for bit. A network that is not from the
        zoo is given as `net`; `changes` replace arguments of Trainer (ram, backend, loss). The
        backend is the one that was asked for, or "auto" where that is missing."""
        from tinytrain import checkpoint

        trainer = checkpoint.restore(Trainer, path, net, changes)
        trainer._saved = path
        return trainer


def _arrays(what: str, x: Any) -> tuple[np.ndarray, ...]:
    """One array, or a tuple of several, as arrays; None is none at all."""
    if type(x) is np.ndarray:
        return (x,)
    given = x if isinstance(x, tuple) else () if x is None else (x,)
    try:
        return tuple(np.asarray(a) for a in given)
    except ValueError as error:
        raise InputError(f"{what}: not a rectangular array of numbers ({error})") from error


def _check_lengths(xs: Sequence[np.ndarray], ys: Sequence[np.ndarray], n: int) -> None:
    """InputError unless every array has n samples."""
    for k, a in enumerate((*xs, *ys)):
        if not a.ndim or len(a) != n:
            what = "x" if k < len(xs) else "y"
            raise InputError(f"{what}: got shape {a.shape} beside {n} samples of x")


def _count(xs: Sequence[np.ndarray], batch: int) -> int:
    """The number of samples of a batch; InputError if it has none or too many."""
    shape = xs[0].shape
    if not shape or not 1 <= shape[0] <= batch:
        raise InputError(f"x: got shape {shape}; a step takes 1 to {batch} samples, batch first")
    return shape[0]
