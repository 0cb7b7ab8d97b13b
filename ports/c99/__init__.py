"""The c99 port: an exported folder of tables and kernels that builds by itself. It runs nothing.

The step is data (`model.c`), walked by `tt.c`: a new network needs no new C, and no line of C is
made up here but arrays of numbers.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import tinytrain
from tinytrain.errors import InputError
from tinytrain.kernels import geometry
from tinytrain.ports import table
from tinytrain.steps import TRANSFERS

# Of any verb but for the addresses of a step's operands: `make stack` with gcc 12 at -O0 to -O3
# finds at most 1,104 on Cortex-M and ARMv6, and 2,000 where pointers have 64 bits. The rest is for
# the C library's routines; a painted stack (tests/test_port_c99.py) has them in it.
STACK_BYTES, STACK_BYTES_64 = 1264, 2000
HERE = os.path.dirname(os.path.abspath(__file__))
OWN = ("main.c", "stack.awk", "Makefile", "CMakeLists.txt")
LOOP = ("tt.h", "tt.c", "tt_slots.h", "tt_slots.c")
FILLED = {  # with the figures of the export
    "README.in": "README.md",
    "library.in": "library.properties",
    "sketch.in": os.path.join("examples", "LearnFromSensor", "LearnFromSensor.ino"),
}
FORWARD = """/* Where Arduino looks for it. */
#include "../model.h"
"""


def kernel_sources() -> str:
    """The folder of the kernels, beside the module that describes their calls."""
    return os.path.join(os.path.dirname(os.path.abspath(geometry.__file__)), "c")


def export(trainer: Any, folder: str | os.PathLike[str]) -> None:
    """Write model.h, `src/` with model.c, step loop and kernels, Makefile and README into `folder`,
    which is made; it is an Arduino library and an ESP-IDF component as well.
    InputError if the plan has what the port lacks, or the folder cannot be written."""
    words = table.encode(trainer, "c99")
    folder = os.fspath(folder)
    try:
        source = os.path.join(folder, "src")
        for name in OWN:
            _copy(os.path.join(HERE, name), folder)
        for name in LOOP:
            _copy(os.path.join(HERE, name), source)
        write_sources(source, sorted(os.listdir(kernel_sources())))
        figures = _figures(trainer, words)
        write(folder, "model.h", _header(figures))
        write(source, "model.h", FORWARD)
        write(source, "model.c", _source(words))
        for name, target in FILLED.items():
            with open(os.path.join(HERE, name), encoding="utf-8") as file:
                write(folder, target, file.read().format(**figures))
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from error


def write_sources(folder: str, names: Iterable[str]) -> None:
    """Those of these files of the kernels' folder that are C."""
    for name in names:
        if name.endswith((".c", ".h")):
            _copy(os.path.join(kernel_sources(), name), folder)


def _copy(path: str, folder: str) -> None:
    with open(path, encoding="utf-8") as file:
        write(folder, os.path.basename(path), file.read())


def write(folder: str, name: str, text: str) -> None:
    """A text file in `folder`; folders are made."""
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _figures(trainer: Any, words: list[int]) -> dict[str, Any]:
    """What the header and the README tell."""
    frozen, plan = trainer._train.frozen, trainer.plan
    outputs = trainer._for("predict", 1).frozen.tape
    limits = [n for n in trainer._train.label_limits if n]
    found = list(table.steps_of(words))
    most = max(len(operands) for _, operands, _ in found)
    stored = [w for name, _, w in found if name in TRANSFERS]
    return {
        "version": tinytrain.__version__,
        "arena": words[4],
        "persistent": words[5],
        "flash": 4 * len(words),
        "store": max((w[0] + w[1] for w in stored), default=0),
        "spills": max((w[2] + 1 for w in stored), default=0),
        "operands": most,
        "stack": STACK_BYTES + 4 * most,
        "stack64": STACK_BYTES_64 + 8 * most,
        "slice": plan.microbatch,
        "slices": plan.batch // plan.microbatch,
        "x": sum(plan.program.specs[v].nbytes for v in frozen.inputs),
        "y": sum(plan.program.specs[v].nbytes for v in frozen.labels),
        "out": sum(outputs.specs[v].nbytes for v in outputs.outputs),
        "classes": max(limits, default=0),
        "model": type(trainer.net).__name__,
        "optimizer": repr(trainer.optimizer),
        "steps": len(plan.program.steps),
    }


def _header(figures: dict[str, Any]) -> str:
    return """/* What tinytrain {version} exported: {model}, {optimizer}. All in bytes
   unless it is said otherwise. */
#ifndef MODEL_H
#define MODEL_H
#include "src/tt.h"

#define TT_ARENA_BYTES {arena} /* all that a step touches, x and y included */
#define TT_PERSISTENT_BYTES {persistent} /* of these: parameters, optimizer state */
#define TT_FLASH_BYTES {flash} /* tables, initial and frozen parameters; code comes on top */
#define TT_STORE_BYTES {store} /* of a block device, for what is spilled; 0: it needs none */
#define TT_SPILLS {spills} /* values that lie there at once, at most: words of tt_store's sums */
#define TT_SLICE {slice} /* samples of a call of tt_train */
#define TT_SLICES {slices} /* calls of tt_train that make an update */
#define TT_X_BYTES {x} /* of a slice's inputs */
#define TT_Y_BYTES {y} /* of a slice's labels */
#define TT_OUT_BYTES {out} /* of tt_infer's output, for one sample */
#define TT_CLASSES {classes} /* labels lie below; 0: they are no class numbers */
#define TT_OPERANDS {operands} /* of a step, at most */
#if UINTPTR_MAX > 0xffffffffu
#define TT_STACK_BYTES {stack64}
#else
#define TT_STACK_BYTES {stack} /* at most, of any verb but for your callbacks; see make stack */
#endif

#ifdef __cplusplus
extern "C" {{
#endif

extern const tt_net tt_model_net;

/* One arena to begin with: tt_model m = TT_MODEL. Define TT_NO_ARENA to bring your own. */
#ifndef TT_NO_ARENA
extern float tt_arena[];
#define TT_MODEL {{&tt_model_net, tt_arena, 0.0f, 0u, 0u, 0u, 0u, 0u, {{0u, 0u, 0u, 0u}}, 0}}
#endif

#ifdef __cplusplus
}}
#endif

#endif
""".format(**figures)


def _source(words: list[int]) -> str:
    used = sorted({name for name, _, _ in table.steps_of(words)} - {"stop", *TRANSFERS})
    rows = [", ".join(f"{w:#x}u" for w in words[k : k + 8]) for k in range(0, len(words), 8)]
    kernels = "".join(f"    [{table.INSTRUCTIONS.index(n)}] = tt_kernel_{n},\n" for n in used)
    lines = ",\n    ".join(rows)
    return f"""/* The table (its words: ports/table.py) and the kernels that its steps name. */
#include "model.h"

static const uint32_t words[] = {{
    {lines}}};

static tt_kernel *const kernels[] = {{
{kernels}}};

const tt_net tt_model_net = {{words, kernels, {len(words)}u}};

#ifndef TT_NO_ARENA
#if defined __GNUC__
__attribute__((aligned(16)))
#endif
float tt_arena[TT_ARENA_BYTES / 4];
#endif
"""
