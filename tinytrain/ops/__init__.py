"""The rows: every op the engine knows, by family. Importing this package fills `op.OPS`.

Gradients are written here, in other rows; kernels live in `kernels/` under the rows' names.
A row ending in `_vjp...` is made by gradients alone and has none of its own. The public functions
`tt.ops.<row>` are put here by `tensor.py`.
"""

from typing import TYPE_CHECKING, Any

from tinytrain.ops import (
    bitmap,
    conv,
    elementwise,
    linear,
    loss,
    norm,
    pool,
    random,
    reduce,
    shape,
    spill,
    update,
)

__all__ = [
    "bitmap",
    "conv",
    "elementwise",
    "linear",
    "loss",
    "norm",
    "pool",
    "random",
    "reduce",
    "shape",
    "spill",
    "update",
]

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...
