"""Progress on stderr: a bar on a terminal, elsewhere one plain line at the end."""

from __future__ import annotations

import math
import sys
from typing import Any


class Progress:
    """tqdm where it is installed, else a plain line at the end; None: only on a terminal."""

    def __init__(self, title: str, total: int, show: bool | None, unit: str = "step"):
        self.title, self.total, self.unit, self.mean = title, total, unit, math.nan
        self.show = sys.stderr.isatty() if show is None else show
        self.bar: Any = None

    def __enter__(self) -> Progress:
        if self.show and sys.stderr.isatty():
            try:
                from tqdm import tqdm
            except ImportError:
                return self
            self.bar = tqdm(
                total=self.total, desc=self.title, unit=self.unit, file=sys.stderr, leave=False
            )
        return self

    def advance(self, mean: float | None = None) -> None:
        """One more is done; `mean` is the mean loss so far, where there is one."""
        if mean is not None:
            self.mean = mean
        if self.bar is not None:
            if mean is not None:
                self.bar.set_postfix_str(f"loss {mean:.4f}", refresh=False)
            self.bar.update()

    def __exit__(self, *error: Any) -> None:
        if self.bar is not None:
            self.bar.close()
        elif self.show:
            loss = "" if math.isnan(self.mean) else f", loss {self.mean:.4f}"
            print(f"{self.title}: {self.total} {self.unit}s{loss}", file=sys.stderr)
