"""Packs scikit-learn's copy of the UCI digits into tinytrain/data/digits.zlib; fetches nothing.

Run `python bench/pack_digits.py [OUT]` where scikit-learn is installed. The licence and the
authors are in tinytrain/data/digits.txt.
"""

import importlib
import sys
import zlib
from pathlib import Path

import numpy as np

LIMIT = 60 * 1024
"""Most bytes that the packed file may have."""

TARGET = Path(__file__).resolve().parent.parent / "tinytrain" / "data" / "digits.zlib"


def main(out: Path = TARGET) -> None:
    """Write 1,797 rows of 64 pixels, 0 to 16, and the digit, bytes packed by zlib; raises
    ValueError above LIMIT."""
    # By name: scikit-learn has no annotations, and is not installed everywhere types are checked.
    source = importlib.import_module("sklearn.datasets").load_digits()
    x, y = source.images.astype(np.uint8), source.target.astype(np.uint8)
    if not (np.array_equal(x, source.images) and x.max() == 16):
        raise ValueError("pack_digits: pixels are not whole numbers from 0 to 16 any more")
    size = out.write_bytes(zlib.compress(np.column_stack([x.reshape(len(x), -1), y]).tobytes(), 9))
    print(f"{out.name}: {len(x):,} images, {size:,} bytes (limit {LIMIT:,})")
    if size > LIMIT:
        raise ValueError(f"pack_digits: {size:,} bytes are more than {LIMIT:,}; pack tighter")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
