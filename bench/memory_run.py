"""One executed step of a plan that was made before: its time, and the highest byte it wrote."""

from __future__ import annotations

import statistics
import time
from typing import Any
from unittest import mock

import numpy as np

from tinytrain import Trainer, budget
from tinytrain.bench.memory_cases import Case
from tinytrain.optim import by_name
from tinytrain.plan import Plan

ROOM = 3 * 1024**3  # bytes of arena that are still run
LONG = 10.0  # seconds: beside these, loading kernels in the first step is nothing
REPEATS = 3
RATE = 1e-5  # so that noise, of which nothing can be learned, throws no network off
DENSITY = 0.5  # before it is measured


def executed(case: Case, plan: Plan) -> dict[str, Any]:
    """seconds of a step, high_water_bytes, and whether that is the arena's size (at most, where
    there are bitmaps). Empty where the arena is larger than ROOM."""
    if plan.arena_bytes > ROOM:
        return {}
    # The trainer is to run this very plan; making it again would take as long as it took.
    with mock.patch.object(budget, "choose", lambda *_, **__: plan):
        trainer = _trainer(case, case.policy)
    x, y = _data(trainer, zeros=case.density is not None)  # random data is denser than some cases
    seconds = _seconds(trainer, x, y)
    if seconds < LONG:
        seconds = _seconds(trainer, x, y)
    packs = any(s.op == "bitmap_pack" for s in plan.program.steps)
    high, arena = trainer.high_water_bytes, plan.arena_bytes
    right = high <= arena if packs else high == arena
    return {"step_seconds": seconds, "high_water_bytes": high, "high_water_right": right}


def time_ratio(case: Case) -> dict[str, Any]:
    """A step's time against keep's, both medians of interleaved steps on random data, with the
    densities that were measured on it; and how many slices were run again."""
    keep, ours = _trainer(case, "keep"), _trainer(case, case.policy, DENSITY)
    x, y = _data(keep)
    measured = ours.calibrate(x)
    seconds: dict[int, list[float]] = {0: [], 1: []}
    for repeat in range(REPEATS + 1):
        for k, trainer in enumerate((keep, ours)):
            taken = _seconds(trainer, x, y)
            if repeat:  # the first loads kernels
                seconds[k].append(taken)
    return {
        "time_ratio": statistics.median(seconds[1]) / statistics.median(seconds[0]),
        "time_density": statistics.mean(measured.values()) if measured else None,
        "overflows": ours.overflows,
    }


def _seconds(trainer: Trainer, x: Any, y: Any) -> float:
    begin = time.perf_counter()
    trainer.step(x, y)
    return time.perf_counter() - begin


def _trainer(case: Case, policy: str, density: float | None = None) -> Trainer:
    return Trainer(
        case.make(),
        loss=case.loss,
        optimizer=by_name(case.optimizer).with_lr(RATE),
        batch=case.batch,
        microbatch=case.microbatch,
        policy=policy,
        density=density,
    )


def _data(trainer: Trainer, zeros: bool = False) -> tuple[Any, Any]:
    """A batch of noise, or of zeros, and labels; of numbers of classes or pieces the first."""
    rng = np.random.default_rng(0)
    tape, batch = trainer.plan.program.tape, trainer.batch

    def drawn(kind: str) -> Any:
        specs = [tape.specs[v] for v, leaf in tape.leaves.items() if leaf.kind == kind]
        made = [np.zeros((batch, *s.shape[1:]), s.dtype) for s in specs]
        for a in made:
            if a.dtype.kind == "f" and not (zeros and kind == "input"):
                a[...] = rng.standard_normal(a.shape, np.float32)
        return made[0] if len(made) == 1 else tuple(made) or None

    return drawn("input"), drawn("label")
