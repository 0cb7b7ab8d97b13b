"""tinytrain: training neural networks within a RAM budget, on the board itself."""

from tinytrain import _layout

__path__ = _layout.search_path(__path__)
__version__ = "0.1.0"

from tinytrain import (
    arena,
    augment,
    check,
    functions,  # noqa: F401  (puts the public functions into tinytrain.ops)
    losses,
    models,
    nn,
    ops,
    optim,
    prune,
)
from tinytrain.adapt import Learner, adapt
from tinytrain.errors import BudgetError, InputError, NotFiniteError, TinytrainError
from tinytrain.estimator import Classifier, Regressor
from tinytrain.freeze import plan
from tinytrain.plan import Plan
from tinytrain.spec import Spec
from tinytrain.tape import Tape
from tinytrain.tensor import Tensor, backend
from tinytrain.trainer import Trainer

__all__ = [
    "BudgetError",
    "Classifier",
    "InputError",
    "Learner",
    "NotFiniteError",
    "Plan",
    "Regressor",
    "Spec",
    "Tape",
    "Tensor",
    "TinytrainError",
    "Trainer",
    "adapt",
    "arena",
    "augment",
    "backend",
    "check",
    "losses",
    "models",
    "nn",
    "ops",
    "optim",
    "plan",
    "prune",
]
