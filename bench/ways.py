"""The ways to adapt on the embedded digits, each with what it takes; and whether a layer's
contribution, by one gradient, tells what a run that trains that layer alone would gain.

A network that knows the digits 0 to 6 gets five examples of each of the ten. The accuracies are of
the held-out digits, which choose nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytrain import Trainer, adapt, models, optim, report
from tinytrain.bench.machine import where_and_when
from tinytrain.data.embedded import digits
from tinytrain.learn.learner import WAYS
from tinytrain.nn import Module

SEEDS = (0, 1, 2, 3, 4, 5)
KNOWN, EXAMPLES = 7, 5  # digits below this are known; examples of each class


def run(data: str | None = None, json: bool = False) -> dict[str, Any]:
    """Both tables, printed unless `json`."""
    tries = [(seed, _pretrained(seed), _few(seed)) for seed in SEEDS]
    ways = [_way(how, tries) for how in (*WAYS, "auto")]
    layers = _layers(tries)
    rank = {
        (what, per): _rank_correlation(
            [r["gain"] / (r["nbytes"] if per else 1) for r in layers],
            [r[what] / (r["nbytes"] if per else 1) for r in layers],
        )
        for what in ("gained", "fallen")
        for per in (False, True)
    }
    if not json:
        head = ("way", "accuracy", "known", "new", "RAM", "flash", "MACs an example")
        print(f"digits_cnn, {EXAMPLES} examples of each of ten digits, of which it knew {KNOWN};")
        print(f"means of seeds {SEEDS}; frozen parameters in flash, batch 10\n")
        print(report.table(head, [_cells(r) for r in ways]))
        print("\nwhat a layer brings beside the head: first-order gain in loss for a unit of rate,")
        print(
            "accuracy that a run of its own gains over the head's (points), and the fall in loss\n"
        )
        names = ("layer", "share", "gain", "bytes", "gained by a run", "fall in loss")
        print(report.table(names, [_layer_cells(r) for r in layers]))
        for what, per in rank:
            said = "accuracy that a run gained" if what == "gained" else "fall in loss by a run"
            print(
                f"\nrank correlation of the gradient's gain with the {said}"
                f"{', both for a byte' if per else ''}: {rank[what, per]:.2f}",
                end="",
            )
        print()
    ranks = {f"{what}{' a byte' if per else ''}": r for (what, per), r in rank.items()}
    return {**where_and_when(), "seeds": SEEDS, "ways": ways, "layers": layers, "rank": ranks}


def _data() -> tuple[Any, Any]:
    """The embedded digits, which all have labels."""
    return digits()


def _pretrained(seed: int) -> Module:
    train, _ = _data()
    known = train.y < KNOWN
    net = models.build("digits_cnn", classes=KNOWN, seed=seed)
    trainer = Trainer(net, optimizer=optim.SGD(0.02, momentum=0.9), batch=16, seed=seed)
    trainer.fit(train.x[known], train.y[known], epochs=8, progress=False)
    return net


def _few(seed: int) -> tuple[np.ndarray, np.ndarray]:
    train, _ = _data()
    rng = np.random.default_rng(seed)
    each = [rng.permutation(np.flatnonzero(train.y == c))[:EXAMPLES] for c in range(10)]
    pick = np.concatenate(each)
    return train.x[pick], train.y[pick]


def _accuracies(learner: Any) -> tuple[float, float, float]:
    _, test = _data()
    right = learner.predict(test.x) == test.y
    return right.mean(), right[test.y < KNOWN].mean(), right[test.y >= KNOWN].mean()


def _way(how: str, tries: list[Any]) -> dict[str, Any]:
    found = [adapt(net, how, flash=True, seed=seed).fit(*few) for seed, net, few in tries]
    whole, known, new = np.mean([_accuracies(learner) for learner in found], axis=0)
    one = found[0]
    said = how if how != "auto" else f"auto ({one.how})"
    macs = one.plan.macs // one.plan.batch
    return {
        "way": said,
        "accuracy": float(whole),
        "known": float(known),
        "new": float(new),
        "ram_bytes": one.ram_bytes,
        "flash_bytes": one.flash_bytes,
        "macs_an_example": macs,
    }


def _layers(tries: list[Any]) -> list[dict[str, Any]]:
    """Every layer and share: its contribution, and what a run of its own gains."""
    heads = [_figures(adapt(net, "head", seed=s).fit(*few)) for s, net, few in tries]
    gains: dict[tuple[str, float], list[float]] = {}
    nbytes: dict[tuple[str, float], int] = {}
    for seed, net, few in tries:
        for c in adapt(net, "sparse", flash=True, seed=seed).contributions(*few):
            gains.setdefault((c.layer, c.share), []).append(c.gain)
            nbytes[c.layer, c.share] = c.nbytes
    rows = []
    for (layer, share), gain in gains.items():
        more = []
        for (seed, net, few), head in zip(tries, heads, strict=True):
            one = adapt(net, "sparse", layers={layer: share}, seed=seed).fit(*few)
            more.append(_figures(one) - head)
        gained, risen = np.mean(more, axis=0)
        rows.append(
            {
                "layer": layer,
                "share": share,
                "gain": float(np.mean(gain)),
                "nbytes": nbytes[layer, share],
                "gained": float(gained),
                "fallen": -float(risen),
            }
        )
    return sorted(rows, key=lambda r: -r["gain"] / r["nbytes"])


def _figures(learner: Any) -> np.ndarray:
    """Accuracy and loss on the digits held out."""
    _, test = _data()
    found = learner.evaluate(test.x, test.y)
    return np.array([found["accuracy"], found["loss"]])


def _rank_correlation(a: list[float], b: list[float]) -> float:
    """Spearman's, without ties."""
    first, second = (np.argsort(np.argsort(v)).astype(np.float64) for v in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


def _cells(r: dict[str, Any]) -> tuple[Any, ...]:
    shares = (f"{100 * r[name]:.1f} %" for name in ("accuracy", "known", "new"))
    return (r["way"], *shares, r["ram_bytes"], r["flash_bytes"], r["macs_an_example"])


def _layer_cells(r: dict[str, Any]) -> tuple[Any, ...]:
    gained = f"{100 * r['gained']:+.1f} %"
    share, gain, fallen = f"{100 * r['share']:.0f} %", f"{r['gain']:.2f}", f"{r['fallen']:+.3f}"
    return (r["layer"], share, gain, r["nbytes"], gained, fallen)
