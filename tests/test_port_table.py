"""The table that ports read: whole, checked, and walked here as a port walks it."""

from __future__ import annotations

import numpy as np
import pytest

import tinytrain as tt
from tinytrain import models, nn, optim
from tinytrain.errors import InputError
from tinytrain.kernels import geometry
from tinytrain.op import OPS
from tinytrain.ports import table


def trainer(**more) -> tt.Trainer:
    more = {"batch": 4, "optimizer": optim.SGD(lr=0.01, momentum=0.9), "backend": "numpy", **more}
    return tt.Trainer(models.build("digits_cnn"), **more)


def steps_of(words: list[int], at: int, end: int) -> list[tuple[str, list[int], list[int]]]:
    """(instruction, operands, words) from one position to another."""
    found = []
    while at < end:
        operands, size = words[at] >> 8 & 0xFF, words[at] >> 16
        inside = words[at + 1 : at + 1 + operands + size]
        found.append((table.INSTRUCTIONS[words[at] & 0xFF], inside[:operands], inside[operands:]))
        at += 1 + operands + size
    assert at == end
    return found


def test_every_instruction_has_its_number() -> None:
    own = ["stop", "spill", "fetch"]  # no kernels
    assert sorted(table.INSTRUCTIONS) == sorted([*geometry.names(), *own])
    assert len(table.INSTRUCTIONS) < 256


def test_instructions_are_of_rows() -> None:
    assert set(geometry.ops()) <= {name for name, row in OPS.items() if not row.view}


@pytest.mark.parametrize("name", models.names())
def test_the_zoo_can_be_exported(name: str) -> None:
    """Every op of every model's plan has an instruction, under two optimizers."""
    for optimizer in (optim.SGD(lr=0.1, momentum=0.9, weight_decay=1e-4), optim.AdamW()):
        plan = tt.plan(models.build(name), batch=2, optimizer=optimizer, policy="keep")
        assert {s.op for s in plan.program.steps} <= set(geometry.ops())


@pytest.mark.parametrize("settings", [{}, {"microbatch": 2}, {"optimizer": optim.Adam()}])
def test_programs_are_the_plans(settings: dict) -> None:
    made = trainer(**settings)
    words = table.encode(made)
    assert words[4] == made.plan.arena_bytes and words[5] == made.plan.layout.end
    assert words[6:8] == [4 // made.plan.microbatch, made.plan.microbatch]
    row = words[words[16] : words[16] + 16]
    found = steps_of(words, row[2], row[5])
    plan = made.plan
    numbers = [table.INSTRUCTIONS[k] for k in range(len(table.INSTRUCTIONS))]
    assert {name for name, _, _ in found} <= set(numbers)
    real = [(name, operands) for name, operands, _ in found if name not in ("stop", "move")]
    want = [s for s in plan.program.steps if s.op not in ("copy", "broadcast_to", "slice")]
    assert len(real) == len(want)
    for (_, operands), step in zip(real, want, strict=True):
        values = [*step.outs, *step.ins, *step.work]
        sized = [v if v is not None and plan.program.specs[v].size else None for v in values]
        assert operands == [table.NONE if v is None else plan.offset(v) for v in sized]
    (stop,) = (s for s in found if s[0] == "stop")
    flags = plan.program.marks[0][1]
    assert stop[1] == [plan.offset(v) for v, _ in flags]
    assert [table.REASONS[k] for k in stop[2]] == [what for _, what in flags]


def test_leaves_carry_the_parameters() -> None:
    made = trainer()
    words = table.encode(made)
    arena = np.zeros(words[4], np.uint8)
    for k in range(words[15]):
        _, offset, nbytes, at = words[words[14] + 4 * k : words[14] + 4 * k + 4]
        if at != table.NONE:
            raw = table.as_bytes(words[at : at + -(-nbytes // 4)])[:nbytes]
            arena[offset : offset + nbytes] = np.frombuffer(raw, np.uint8)
    for v, leaf in made.plan.program.leaves.items():
        if leaf.kind == "parameter":
            view = made._train.executor.view(v)
            start = made.plan.offset(v)
            assert arena[start : start + view.nbytes].tobytes() == view.tobytes()


def test_damage_is_found() -> None:
    words = table.encode(trainer())
    table.check(words)
    for spoil in (words[:-1], [*words[:9], words[9] ^ 4, *words[10:]], [1, *words[1:]]):
        with pytest.raises(InputError, match="table"):
            table.check(spoil)
    with pytest.raises(InputError, match="version 9"):
        table.check([words[0], 9, *words[2:]])


def test_what_a_port_lacks_is_named() -> None:
    with pytest.raises(InputError, match="tiny has no kernel for max_pool2d"):
        table.encode(trainer(), "tiny", ["max_pool2d"])
    with pytest.raises(InputError, match="a batch of 5 in slices of 2"):
        table.encode(trainer(batch=5, microbatch=2))


class Beside(nn.Module):
    """Classes from numbers and, where these are indices, from a table of rows that they name."""

    def __init__(self):
        with nn.seeded(0):
            self.layer, self.rows = nn.Linear(4, 3), nn.Embedding(5, 3)

    def forward(self, x, t):
        y = self.layer(x)
        if t.spec.is_float:
            return y
        return y + self.rows(t.transpose((0, 2, 1)).reshape((t.shape[0], 6))).mean(axis=1)


@pytest.mark.parametrize("port", ["c99", "micropython"])
@pytest.mark.parametrize(
    ("dtype", "told"),
    [("float64", "x1 is float64; use float32"), ("uint8", "uint8 values are not moved")],
)
def test_a_dtype_that_a_port_lacks_is_named_at_export(port, dtype, told, tmp_path) -> None:
    shapes = [tt.Spec((4,)), tt.Spec((2, 3), dtype)]
    given = {"loss": "cross_entropy", "guard": None, "batch": 2, "backend": "numpy"}
    made = tt.Trainer(Beside(), input_shape=shapes, **given)
    with pytest.raises(InputError, match=f"^(c99|MicroPython): {told}$"):
        made.export(port, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
