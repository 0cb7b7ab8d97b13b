"""What each way to adapt takes, side by side, before anything is trained: plans from shapes alone.

A way that does not fit is a row that says how much is missing, not an error.
"""

from __future__ import annotations

from typing import Any

from tinytrain.errors import BudgetError, InputError
from tinytrain.learn.learner import WAYS, adapt
from tinytrain.learn.nearest import STORES
from tinytrain.learn.partial import LAST, layers_of
from tinytrain.nn.module import Module
from tinytrain.report import table

CLASSES, EXAMPLES = 10, 5  # where the network or the user says nothing: classes, examples of each
HEAD = (
    *("way", "learns", "RAM", "of it stored", "frozen, in flash", "RAM without flash"),
    *("MACs an example", "an answer", "optimizer"),
)
Row = dict[str, Any]


def rows(
    net: Module, ram: Any = None, classes: Any = None, examples: int = EXAMPLES, **settings: Any
) -> list[Row]:
    """A row for each way, cheapest first: parameters that learn, bytes of RAM when frozen ones lie
    in flash (`ram_bytes`) and when not (`arena_bytes`, what is stored included), multiply-
    accumulates of learning one example once and of one answer. `fits`: whether `ram` will do."""
    found = []
    for how in WAYS:
        more = dict(settings)
        if how == "sparse":
            more["layers"] = settings.get("layers") or halves(net, settings)
        try:
            found.append(_row(net, how, ram, classes, examples, more))
        except BudgetError as error:
            smallest = error.smallest
            found.append({"way": how, "fits": False, "smallest_ram_bytes": smallest})
    return found


def halves(net: Module, settings: dict[str, Any]) -> dict[str, float]:
    """Half of the input channels of the last layers but the head: what "sparse" stands for until
    examples tell which layers are worth their bytes."""
    known = layers_of(net, settings.get("input_shape"))
    k = settings.get("k", LAST)
    return {layer.name: 0.5 for layer in known[-k:-1]}


def _row(net: Module, how: str, ram: Any, classes: Any, examples: int, more: Any) -> Row:
    learner = adapt(net, how, ram=ram, classes=classes, **{"flash": True, **more})
    if how not in STORES and not learner.classes:
        learner = adapt(net, how, ram=ram, classes=CLASSES, **{"flash": True, **more})
    count = len(learner.classes) or CLASSES
    way, plan = learner._decided(), learner.plan
    stored = 0
    if how in STORES:
        stored = way.store.bytes_for(count, count * examples)  # type: ignore[attr-defined]
        optimizer, learns, macs, answer = "-", 0, plan.macs, plan.macs
    else:
        leaves = plan.program.leaves.items()
        learns = sum(plan.program.specs[v].size for v, x in leaves if x.trainable)
        macs, answer = plan.macs // plan.batch, way.answer_macs()  # type: ignore[attr-defined]
        optimizer = type(way.used).__name__  # type: ignore[attr-defined]
    need = plan.board_bytes if learner.settings.flash else plan.arena_bytes
    limit = learner.settings.ram
    return {
        "way": how,
        "parameters": learns,
        "ram_bytes": plan.board_bytes + stored,
        "stored_bytes": stored,
        "flash_bytes": plan.flash_bytes,
        "arena_bytes": plan.arena_bytes + stored,
        "macs_an_example": macs,
        "macs_an_answer": answer,
        "batch": plan.batch if how not in STORES else 1,
        "microbatch": plan.microbatch,
        "optimizer": optimizer,
        "fits": limit is None or need + stored <= limit,
        "smallest_ram_bytes": None,
    }


def text(found: list[Row], title: str) -> str:
    """The rows as a table, with what the figures mean below."""
    lines = []
    for r in found:
        if "ram_bytes" not in r:
            lines.append((r["way"], *"-" * 7, f"does not fit; {r['smallest_ram_bytes']:,} would"))
            continue
        names = ("parameters", "ram_bytes", "stored_bytes", "flash_bytes", "arena_bytes")
        figures = [r[name] for name in (*names, "macs_an_example", "macs_an_answer")]
        said = r["optimizer"] if r["fits"] else "does not fit"
        lines.append((r["way"], *figures, said))
    return (
        f"{title}\n\n{table(HEAD, lines)}\n\n"
        f"RAM and flash in bytes; stored: {EXAMPLES} examples a class. MACs of learning an example "
        f"once.\nsparse stands for half the input channels of the last layers; examples choose."
    )


def check_model(net: Module) -> None:
    """InputError for a network that is compared with its input: it has no classes to learn."""
    if getattr(net, "reconstructs", False):
        raise InputError("--adapt: this network gives back its input, and tells no classes apart")
