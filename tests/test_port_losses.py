"""Every loss on the c99 port: a small network is exported and trained to the bits that it has here,
labels, masks and shares included; and what a port cannot do with a loss is said at export."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_port_c99 import REQUIRED, agree, build, need

import tinytrain as tt
from tinytrain import InputError, losses, nn, optim
from tinytrain.kernels import c_
from tinytrain.ports import micropython, table
from tinytrain.ports.micropython import tinytrain_mp
from tinytrain.ports.micropython.tinytrain_mp import table as reader
from tinytrain.spec import Spec

sys.path.insert(0, str(Path(__file__).parent / "ports"))
from boards import run
from feed import host_figures, write_feed

STEPS, BATCH, CLASSES, PLACES = 30, 4, 5, 3
Arrays = tuple[np.ndarray, ...]


class Own:
    """A loss of somebody's own, of public ops: sqrt(1 + d^2) - 1, smooth where |d| is not."""

    def __call__(self, outputs: tt.Tensor, labels: tt.Tensor) -> tt.Tensor:
        d = outputs - labels
        return ((d * d + 1.0).sqrt() - 1.0).mean()

    @staticmethod
    def label_spec(outputs: Spec) -> Spec:
        return outputs


def classes(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.integers(0, CLASSES, (n, PLACES)).astype(np.int32)


def shares(rng: np.random.Generator, n: int) -> np.ndarray:
    made = rng.random((n, PLACES, CLASSES), np.float32)
    return made / made.sum(axis=-1, keepdims=True)


def bits(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.integers(0, 2, (n, PLACES, CLASSES)).astype(np.float32)


# The loss, what makes its labels, and whether a mask of their shape goes with them.
CASES: dict[str, tuple[Callable, Callable, bool]] = {
    "cross_entropy": (losses.cross_entropy, classes, False),
    "smoothed": (losses.CrossEntropy(label_smoothing=0.1), classes, False),
    "cross_entropy masked": (losses.cross_entropy, classes, True),
    "soft_cross_entropy": (losses.soft_cross_entropy, shares, False),
    "mse": (losses.mse, shares, False),
    "mse masked": (losses.mse, shares, True),
    "binary_cross_entropy_with_logits": (losses.binary_cross_entropy_with_logits, bits, False),
    "binary masked": (losses.binary_cross_entropy_with_logits, bits, True),
    "own": (Own(), shares, False),
}


def trainer_of(case: str, **more) -> tt.Trainer:
    loss, labels, masked = CASES[case]
    one = labels(np.random.default_rng(0), 1)[0]
    specs = [Spec(one.shape, str(one.dtype)), *([Spec(one.shape)] if masked else [])]
    with nn.seeded(2):
        net = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, CLASSES))
    given = {"optimizer": optim.SGD(0.1, momentum=0.9), "batch": BATCH, "backend": "c", **more}
    return tt.Trainer(net, loss=loss, input_shape=(PLACES, 6), label_spec=specs, **given)


def batches(case: str) -> list[tuple[np.ndarray, Arrays]]:
    """Samples and labels of each step, two batches in turn; a mask leaves out about a third."""
    rng, (_, labels, masked) = np.random.default_rng(1), CASES[case]
    made = []
    for _ in range(2):
        y = labels(rng, BATCH)
        more = ((rng.random(y.shape) > 0.3).astype(np.float32),) if masked else ()
        made.append((rng.standard_normal((BATCH, PLACES, 6)).astype(np.float32), (y, *more)))
    return made * (STEPS // 2)


def test_no_loss_is_left_out() -> None:
    assert {type(loss) for loss, _, _ in CASES.values()} == {*losses.KINDS.values(), Own}


@pytest.mark.parametrize("case", CASES)
def test_a_loss_trains_to_the_same_bits(case: str, tmp_path: Path) -> None:
    if not c_.is_there():
        (pytest.fail if REQUIRED else pytest.skip)("a C compiler is missing")
    slices = 1 if CASES[case][2] else 2  # a board does not know the mask of what is still to come
    for microbatch in {BATCH, BATCH // slices}:
        trainer, fed, folder = trainer_of(case, microbatch=microbatch), batches(case), tmp_path
        first = trainer.evaluate(*fed[0])["loss"]
        trainer.export("c99", str(folder))
        write_feed(folder / "feed.bin", trainer, fed)
        want = host_figures(trainer, fed)
        assert trainer.evaluate(*fed[0])["loss"] < first
        agree(run([build(need("gcc"), ["-O2"], folder)], folder), want)


@pytest.mark.parametrize("case", CASES)
def test_a_loss_trains_on_micropython_s_runtime(case: str, tmp_path: Path) -> None:
    trainer = trainer_of(case, backend="numpy")
    trainer.export("micropython", str(tmp_path))
    model = tinytrain_mp.load(str(tmp_path / "plan.tt"))
    for x, ys in batches(case)[:6]:
        got = model.train(x.reshape(-1), tuple(y.reshape(-1) for y in ys))
        assert abs(got - trainer.step(x, ys)) < 1e-3


@pytest.mark.parametrize("case", [case for case in CASES if "masked" not in case])
def test_a_loss_that_micropython_lacks_is_named_at_export(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is newer than the runtime would be: here each of them in turn."""
    trainer = trainer_of(case, backend="numpy")
    ops = {"soft_cross_entropy": "log_softmax", "own": "sqrt", "smoothed": "cross_entropy"}
    op = ops.get(case, case)
    code = table.INSTRUCTIONS.index(op)
    letters = reader._FILE_OF[:code] + "-" + reader._FILE_OF[code + 1 :]
    monkeypatch.setattr(reader, "_FILE_OF", letters)
    assert op in micropython.lacks()
    with pytest.raises(InputError, match=f"^MicroPython has no kernel for {op}$"):
        trainer.export("micropython", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("port", ["c99", "micropython"])
@pytest.mark.parametrize("case", [case for case in CASES if "masked" in case])
def test_a_masked_loss_in_slices_is_refused_at_export(case: str, port: str, tmp_path: Path) -> None:
    trainer = trainer_of(case, microbatch=2, backend="numpy")
    with pytest.raises(InputError, match=f"masked loss .* choose microbatch={BATCH}"):
        trainer.export(port, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
