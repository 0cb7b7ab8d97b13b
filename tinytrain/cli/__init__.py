"""The command line: `tinytrain demo | plan | train | eval | export | backend | models | bench`.

Results go to stdout, progress to stderr. Exit status 0 done, 2 bad usage or input, 3 the plan
does not fit; an error is one line, never a traceback. A command lies in the file of its name.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import Any

from tinytrain.cli.arguments import make_parser
from tinytrain.errors import TinytrainError


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit status."""
    arguments = make_parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: _warn(message)
            importlib.import_module(f"tinytrain.cli.{arguments.command}").run(arguments)
            return 0
    except TinytrainError as error:
        return _fail(str(error), error.exit_status)
    except MemoryError as error:
        return _fail(f"not enough memory on this machine ({error}); take a smaller --batch", 2)
    except KeyboardInterrupt:
        print("tinytrain: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        return _fail(f"{error.filename or ''}: {error.strerror}", 2)


def _fail(message: str, status: int) -> int:
    print(f"tinytrain: error: {message}", file=sys.stderr)
    return status


def _warn(message: Any) -> None:
    """One line, without the line of this package that it came from."""
    print(f"tinytrain: warning: {message}", file=sys.stderr)
