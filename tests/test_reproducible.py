"""Same seed, same bits: two trainers, two processes, one or two threads; dropout and shuffling
included. Other seeds give others, or nothing would be compared."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tinytrain.bench import faults

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork is missing")
PROGRAM = """
import sys
from tinytrain.bench import faults
t = faults.trainer(sys.argv[1])
faults.train(t, lambda: None, 30)
print(faults.mark(t))
"""


def in_a_process(backend: str, threads: int) -> int:
    """The mark of a run of 30 updates, more than four epochs."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "TINYTRAIN_THREADS")
    env = {**os.environ, **dict.fromkeys(names, str(threads)), "PYTHONHASHSEED": str(threads)}
    command = [sys.executable, "-c", PROGRAM, backend]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.parametrize("backend", faults.backends())
def test_two_runs_and_two_processes_have_the_same_bits(backend):
    marks = faults.marks(backend, 30)
    assert in_a_process(backend, 1) == marks[30]
    if backend != "numpy":  # how NumPy's BLAS sums is not ours
        assert in_a_process(backend, 2) == marks[30]
    assert len(set(marks.values())) == 31


def test_c_and_numba_have_the_same_bits():
    """What the design promises of the two."""
    if not {"c", "numba"} <= set(faults.backends()):
        pytest.skip("a C compiler or numba is missing")
    assert faults.marks("c", 12) == faults.marks("numba", 12)


def test_dropout_and_the_order_come_from_the_seed():
    def mark(seed: int) -> int:
        t = faults.trainer()
        t.seed = seed
        faults.train(t, lambda: None, 1)
        return faults.mark(t)

    assert mark(3) == mark(3) != mark(4)


def test_dropout_draws_anew_in_every_step():
    """The same batch at rate 0 gives another loss in the next step: only its mask has changed."""
    t = faults.trainer()
    t.optimizer = t.optimizer.with_lr(0)
    x, y = faults.samples()
    first, second = (t.step(x[:4], y[:4]) for _ in range(2))
    assert first != second
