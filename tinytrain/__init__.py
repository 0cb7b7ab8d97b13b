"""tinytrain: training neural networks within a RAM budget, on the board itself."""

from tinytrain import _layout

__path__ = _layout.search_path(__path__)
__version__ = "0.1.0"

from typing import TYPE_CHECKING, Any

from tinytrain import (
    arena,
    check,
    functions,  # noqa: F401  (puts the public functions into tinytrain.ops)
    losses,
    models,
    nn,
    ops,
    optim,
)
from tinytrain.errors import BudgetError, InputError, NotFiniteError, TinytrainError
from tinytrain.freeze import plan
from tinytrain.plan import Plan
from tinytrain.spec import Spec
from tinytrain.tape import Tape
from tinytrain.tensor import Tensor, backend
from tinytrain.trainer import Trainer

if TYPE_CHECKING:
    from tinytrain import augment, prune
    from tinytrain.learn.estimator import Classifier, Regressor
    from tinytrain.learn.learner import Learner, adapt

# Imported when they are first asked for: a board that only trains has better uses for a megabyte.
_LATER = {  # and the module that holds it; no name: a module itself
    "Classifier": "learn.estimator",
    "Learner": "learn.learner",
    "Regressor": "learn.estimator",
    "adapt": "learn.learner",
    "augment": "",
    "prune": "",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'tinytrain' has no attribute {name!r}")
    from importlib import import_module

    place = _LATER[name]
    found = import_module(f"tinytrain.{place or name}")
    globals()[name] = found = getattr(found, name) if place else found
    return found


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
