"""What can go wrong, as exceptions that a command line turns into one line and an exit status.

Every message names the thing, says where it happened and how to mend it. Nothing here prints.
"""

from __future__ import annotations


class TinytrainError(Exception):
    """Base of every error that tinytrain raises on purpose; `exit_status` is the command line's."""

    exit_status = 2


class InputError(TinytrainError, ValueError):
    """Bad usage or bad input: a shape, a dtype, a label, a file, a name."""


class BudgetError(TinytrainError, MemoryError):
    """No plan fits the budget. `missing` and `smallest` are bytes."""

    exit_status = 3

    def __init__(self, message: str, missing: int, smallest: int):
        super().__init__(message)
        self.missing = missing
        self.smallest = smallest


class NotFiniteError(TinytrainError, ArithmeticError):
    """An input, an output, the loss or a gradient (`what`) is NaN or infinite; nothing was updated
    unless the message says what was."""

    def __init__(self, message: str, what: str = ""):
        super().__init__(message)
        self.what = what
        self.layer = ""  # where the first such value was made, in words, if it was found

    def made_in(self, layer: str) -> NotFiniteError:
        """The same, told of the layer."""
        if layer:
            told = str(self).replace("infinite;", f"infinite, first made by {layer};", 1)
            self.layer, self.args = layer, (told,)
        return self


class SpillError(InputError):
    """The spill file cannot be written or read; the message says what became of the step."""


class CapacityError(TinytrainError):
    """A slice has more non-zeros than its bitmaps have room for; nothing was updated."""
