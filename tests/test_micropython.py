"""The MicroPython port under this interpreter: its kernels against the reference, and what it
refuses. `test_ports.py` runs its scripts on MicroPython itself.

A tool that is missing is a SKIP that names it, or, with TINYTRAIN_REQUIRE_PORTS=1, a failure.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from cases import CASES, UPDATES, Case, Update
from hypothesis import given, settings
from planned import leaf_values
from test_cases import near, traced, update_arrays

import tinytrain as tt
from tinytrain import InputError, models, nn, optim, run
from tinytrain.kernels import geometry
from tinytrain.lower import backward_of
from tinytrain.op import OPS
from tinytrain.ports import micropython, table
from tinytrain.ports.micropython import tinytrain_mp
from tinytrain.ports.micropython.tinytrain_mp import table as reader
from tinytrain.spec import Spec
from tinytrain.tensor import tape_of

SCRIPTS = Path(__file__).parent / "ports" / "micropython"
sys.path.insert(0, str(SCRIPTS))
import scripts  # noqa: E402

REQUIRED = os.environ.get("TINYTRAIN_REQUIRE_PORTS") == "1"
Arrays = Sequence[np.ndarray | None]
fewer = settings(max_examples=max(settings.default.max_examples // 3, 5))

# ------------------------------------------------------------------------- the kernels


def families() -> dict[str, dict[int, Any]]:
    """The runtime's files of kernels, each with its KERNELS."""
    path = tinytrain_mp.__name__
    names = reader._FILES.values()
    return {name: importlib.import_module(f"{path}.{name}").KERNELS for name in names}


def test_each_kernel_has_its_instruction() -> None:
    letters = {name: letter for letter, name in reader._FILES.items()}
    found = {}
    for file, kernels in families().items():
        for code, entry in kernels.items():
            function = entry[0] if isinstance(entry, tuple) else entry
            assert function.__name__.rstrip("_") == table.INSTRUCTIONS[code]
            found[code] = letters[file]
    whole = range(len(table.INSTRUCTIONS))
    assert "".join(found.get(code, "-") for code in whole).rstrip("-") == reader._FILE_OF


def test_an_instruction_of_a_newer_tinytrain_is_refused() -> None:
    raw = table.as_bytes([len(table.INSTRUCTIONS)])
    with pytest.raises(tinytrain_mp.FileError, match="newer runtime"):
        reader.steps_of(io.BytesIO(raw), 0, 1, {})


def run_kernel(op: str, outs: Arrays, rest: Arrays, attrs: Sequence[Any], over) -> None:
    """Fill `outs` by the runtime's kernel of a row; LookupError if it has none. `rest`: inputs and
    scratch. `over`: (output, input) that share their bytes, or None."""
    arrays = [*outs, *rest]
    name, words = geometry.instruction(op, arrays, attrs)
    if name in micropython.lacks():
        raise LookupError(name)
    places, top = [], 0
    for a in arrays:
        places.append(table.NONE if a is None or not a.size else top)
        top += 0 if a is None else -(-a.nbytes // 16) * 16
    if over:
        places[over[0]] = places[len(outs) + over[1]]
    memory = bytearray(b"\xff" * (top + 16))  # the last float is the kernels' own
    for a, place in zip(arrays, places, strict=True):
        if a is not None and a.size:
            memory[place : place + a.nbytes] = a.tobytes()
    head = table.INSTRUCTIONS.index(name) | len(places) << 8 | len(words) << 16
    raw = [head, *places, *geometry.pack(words)]
    kernel, args = reader.steps_of(io.BytesIO(table.as_bytes(raw)), 0, len(raw), {})
    kernel(memoryview(memory).cast("f"), memory, *args)
    for a, place in zip(outs, places, strict=False):
        if a is not None and a.size:
            a[...] = np.frombuffer(memory, a.dtype, a.size, place).reshape(a.shape)


def agree(op: str, outs: Sequence[Spec | None], ins: Arrays, attrs: dict, acc: Any = None) -> None:
    """The runtime's kernel of a row and the reference give the same, also where an output lies
    over an input. `acc`: what the first output is added to."""
    row = OPS[op]
    specs = [None if a is None else Spec(a.shape, str(a.dtype)) for a in ins]
    work = [] if row.work is None else row.work(specs, list(outs), attrs)
    rest = [*ins, *(np.full(s.shape, 9, s.dtype) for s in work)]
    last = [*attrs.values(), *([acc is not None] if row.acc else [])]

    def fresh() -> list[np.ndarray | None]:
        made = [None if s is None else np.full(s.shape, 9, s.dtype) for s in outs]
        return made if acc is None else [acc.copy(), *made[1:]]

    want = fresh()
    with np.errstate(all="ignore"):
        run.kernel(op, "numpy")(*want, *(None if a is None else a.copy() for a in rest), *last)
    for over in [None, *(row.inplace if acc is None else ())]:
        if over and (ins[over[1]] is None or want[over[0]] is None):
            continue
        if over and specs[over[1]].nbytes != want[over[0]].nbytes:
            continue
        got = fresh()
        run_kernel(op, got, rest, last, over)
        for k, (a, b) in enumerate(zip(got, want, strict=True)):
            if a is not None:
                near(a, b, f"{op}, output {k}, sharing {over}")


def lacking(op: str) -> bool:
    """Whether the runtime has no kernel for this row; then `agree` must say so."""
    rule = geometry._RULES.get(op)  # no port has words for a spill file
    return rule is None or rule[0] in micropython.lacks()


@pytest.mark.parametrize("case", CASES, ids=str)
@fewer
@given(data=st.data())
def test_every_step_of_a_case(case: Case, data) -> None:
    out, loss, _ = traced(case, data.draw(case.calls), data.draw(st.booleans()))
    tape, leaves = tape_of([out], loss)
    program = backward_of(tape, {v for v, t in leaves.items() if t.requires_grad})
    values = run.run_fresh(program, leaf_values(program, leaves))
    for step in program.steps:
        outs = [None if v is None else program.specs[v] for v in step.outs]
        ins = [None if v is None else values[v] for v in step.ins]
        acc = None if step.acc is None else values[step.acc]
        if not lacking(step.op):
            agree(step.op, outs, ins, step.attrs, acc)


@pytest.mark.parametrize("size", [1, 7, 100])
@pytest.mark.parametrize("update", UPDATES, ids=str)
def test_every_update(update: Update, size: int) -> None:
    if lacking(update.op):
        pytest.skip(f"MicroPython has no kernel for {update.op}")
    ins = update_arrays(update, size)
    specs = tuple(None if a is None else Spec(a.shape, str(a.dtype)) for a in ins)
    outs, attrs = OPS[update.op].infer(specs, update.attrs)
    agree(update.op, outs, ins, attrs)


@st.composite
def own_size(draw):
    """A convolution whose output is as large as its input: x, w, b, g, attrs."""
    groups, cin = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    shape = draw(st.tuples(st.integers(1, 2), st.integers(1, 6), st.integers(1, 6)))
    half, reach = draw(st.integers(0, 1)), draw(st.integers(1, 2))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    arrays = [
        rng.standard_normal(s).astype(np.float32)
        for s in (
            (*shape, groups * cin),
            (2 * half + 1, 2 * half + 1, cin, groups * cin),
            (groups * cin,),
            (*shape, groups * cin),
        )
    ]
    attrs = {"stride": (1, 1), "padding": (half * reach,) * 4, "groups": groups}
    return arrays, {**attrs, "dilation": (reach, reach)}


@fewer
@given(own_size())
def test_convolutions_over_their_own_input(drawn) -> None:
    (x, w, b, g), attrs = drawn
    rate = np.float32([0.1]).reshape(())
    spec, kernel = Spec(x.shape), {"kernel": w.shape[:2]}
    agree("conv2d_lines", [spec], [x, w, b], attrs)
    agree("conv2d_lines", [spec], [x, w, None], attrs)
    agree("conv2d_vjp_x_lines", [spec], [g, w], {"size": x.shape[1:3], **attrs})
    agree("conv2d_vjp_w_sgd", [Spec(w.shape)], [w, x, g, rate], {**kernel, **attrs})


@pytest.mark.parametrize("shape", [(1, 5, 3), (7, 4, 70), (3, 1, 1)])
def test_a_product_that_is_never_whole(shape: tuple[int, int, int]) -> None:
    rows, m, n = shape
    rng = np.random.default_rng(2)
    p, a, b = (rng.standard_normal(s).astype(np.float32) for s in ((m, n), (rows, m), (rows, n)))
    lr, spec, v = np.float32([0.1]).reshape(()), Spec((m, n)), p * np.float32(0.3)
    agree("matmul_tn_sgd", [spec], [p, a, b, lr], {"flat": True})
    for decay in (0.0, 0.1):
        attrs = {"momentum": 0.9, "weight_decay": decay, "flat": True}
        agree("matmul_tn_momentum", [spec, spec], [v, p, a, b, lr], attrs)


# ------------------------------------------------------------------------- whole networks


def flat(a: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(a).reshape(-1)


def trained(trainer: tt.Trainer, x: np.ndarray, y: np.ndarray, tmp_path: Path, steps: int):
    """The model that the trainer exports, after as many steps as the trainer, their losses within
    0.001."""
    trainer.export("micropython", str(tmp_path))
    model = tinytrain_mp.load(str(tmp_path / "plan.tt"))
    batch, size = trainer.batch, trainer.plan.microbatch
    for k in range(steps):
        xs, ys = x[k * batch : (k + 1) * batch], y[k * batch : (k + 1) * batch]
        got = 0.0
        for i in range(0, batch, size):
            got += model.train(flat(xs[i : i + size]), flat(ys[i : i + size])) * size / batch
        assert abs(got - trainer.step(xs, ys)) < 1e-3
    return model


def images(count: int, shape: tuple[int, ...], classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    y = rng.integers(0, classes, count).astype(np.int32)
    return rng.standard_normal((count, *shape)).astype(np.float32), y


SMALL = {
    "lenet5": {"input_shape": (16, 16, 1)},
    "vgg6": {"input_shape": (8, 8, 2)},
    "resnet8": {"input_shape": (8, 8, 2)},
    "mobilenetv2": {"input_shape": (32, 32, 1), "norm": "group"},
    "digits_cnn": {},
}


@pytest.mark.parametrize("model", SMALL)
def test_networks_of_the_zoo(model: str, tmp_path: Path) -> None:
    net = models.build(model, classes=4, **SMALL[model])
    x, y = images(4, net.input_shape, 4)
    optimizer = optim.SGD(lr=0.01, momentum=0.9)
    trainer = tt.Trainer(net, optimizer=optimizer, batch=2, backend="numpy")
    runtime = trained(trainer, x, y, tmp_path, 2)
    got = np.array(runtime.infer(flat(x[:1])))
    near(got.astype(np.float32), trainer.predict(x[:1])[0], "inference")


def test_frozen_parameters_are_constants(tmp_path: Path) -> None:
    """They have no address in flash here, so they lie behind the arena."""
    net = models.build("digits_cnn")
    for p in [*net.parameters()][:-2]:
        p.requires_grad = False
    trainer = tt.Trainer(net, optimizer=optim.SGD(lr=0.1), batch=2, backend="numpy")
    train, _ = tt.data.digits()
    runtime = trained(trainer, train.x, train.y, tmp_path, 3)
    near(np.array(runtime.infer(flat(train.x[9]))), trainer.predict(train.x[9:10])[0], "inference")
    assert len(runtime.B) < trainer.plan.arena_bytes + 64


@pytest.mark.parametrize(("density", "overflows"), [(0.02, 6), (0.9, 0)])
def test_bitmaps(density: float, overflows: int, tmp_path: Path) -> None:
    """Values are packed; a slice with more non-zeros than there is room for is run again."""
    train, _ = tt.data.digits()
    settings = {"density": density, "policy": "bitmap", "microbatch": 2, "backend": "numpy"}
    optimizer = optim.SGD(lr=0.01, momentum=0.9)
    trainer = tt.Trainer(models.build("digits_cnn"), optimizer=optimizer, batch=4, **settings)
    runtime = trained(trainer, train.x, train.y, tmp_path, 3)
    assert runtime.overflows == trainer.overflows == overflows
    codes = micropython.used(table.encode(trainer))
    assert {"bitmap_pack", "bitmap_conv2d_vjp_w"} <= {table.INSTRUCTIONS[c] for c in codes}


class Behind(nn.Module):
    """An op, and layers behind it."""

    def __init__(self, op, *layers):
        self.op, self.layers = op, nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(self.op(x))


def test_values_on_a_grid_and_the_largest_alone(tmp_path: Path) -> None:
    """Policy topk, and ops.snap."""
    train, _ = tt.data.digits()
    layers = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)
    net = Behind(lambda x: tt.ops.snap(x, bits=3), *layers)
    settings = {"policy": "topk", "density": 0.1, "loss": "cross_entropy", "backend": "numpy"}
    optimizer = optim.SGD(lr=0.01, momentum=0.9)
    trainer = tt.Trainer(net, optimizer=optimizer, batch=4, input_shape=(8, 8, 1), **settings)
    trained(trainer, train.x, train.y, tmp_path, 3)
    codes = micropython.used(table.encode(trainer))
    assert {"topk_pack", "snap"} <= {table.INSTRUCTIONS[c] for c in codes}


@fewer
@given(st.data())
def test_weight_gradients_of_packed_values(data) -> None:
    (x, w, _, g), attrs = data.draw(own_size())
    x[x < 0] = 0
    bits, size = x.view(np.uint32).reshape(-1) != 0, Spec(x.shape).size
    mask = np.packbits(bits, bitorder="little")
    values = np.concatenate([x.reshape(-1)[bits], np.zeros(1, np.float32)])
    conv = {"shape": x.shape, "kernel": w.shape[:2], **attrs}
    agree("bitmap_conv2d_vjp_w", [Spec(w.shape)], [mask, values, g], conv)
    rows = Spec((size // x.shape[-1], g.shape[-1]))
    product, flat_g = {"shape": (rows.shape[0], x.shape[-1]), "flat": True}, g.reshape(rows.shape)
    for acc in (None, np.full((x.shape[-1], g.shape[-1]), 0.5, np.float32)):
        out = [Spec((x.shape[-1], g.shape[-1]))]
        agree("bitmap_matmul_tn", out, [mask, values, flat_g], product, acc)


def test_dropout_draws_what_the_host_draws(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.4), nn.Linear(8, 3))
    settings = {"loss": "cross_entropy", "batch": 4, "microbatch": 2, "input_shape": (5,)}
    trainer = tt.Trainer(net, optimizer=optim.SGD(lr=0.1), backend="numpy", **settings)
    trained(trainer, *images(40, (5,), 3), tmp_path, 10)


def test_a_state_of_the_c99_port_goes_on_here(tmp_path: Path) -> None:
    """One file format: what a board saved in C within a batch, MicroPython goes on from."""
    if shutil.which("gcc") is None:
        (pytest.fail if REQUIRED else pytest.skip)("there is no gcc")
    trainer, x, y = scripts.made("slices")
    trainer.export("c99", str(tmp_path))
    trainer.export("micropython", str(tmp_path))
    x[:8].tofile(tmp_path / "x")
    y[:8].tofile(tmp_path / "y")
    sources = [str(p) for p in tmp_path.glob("src/*.c")]
    build = ["gcc", "-std=c99", "-O1", "-I.", SCRIPTS / "state.c", *sources, "-o", "state.out"]
    subprocess.run([*build, "-lm"], cwd=tmp_path, check=True)
    subprocess.run([tmp_path / "state.out"], cwd=tmp_path, check=True)
    there, here = (tinytrain_mp.load(str(tmp_path / "plan.tt")) for _ in range(2))
    there.restore(str(tmp_path / "state"))
    for k in range(0, 8, 2):
        here.train(flat(x[k : k + 2]), y[k : k + 2])
    assert (
        (there.steps, there.slice, there.lr) == (here.steps, here.slice, here.lr) == (1, 1, here.lr)
    )
    near(*(np.frombuffer(m.B, np.float32, m.floor // 4) for m in (there, here)), "the state")
    losses = [m.train(flat(x[8:10]), y[8:10]) for m in (there, here)]
    assert abs(losses[0] - losses[1]) < 1e-5


def test_a_save_lies_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch) -> None:
    trainer, _, _ = scripts.made("slices")
    trainer.export("micropython", str(tmp_path))
    model, done = tinytrain_mp.load(str(tmp_path / "plan.tt")), []
    rename = os.rename
    monkeypatch.setattr(os, "sync", lambda: done.append("sync"), raising=False)
    monkeypatch.setattr(os, "rename", lambda *names: done.append("rename") or rename(*names))
    model.save(str(tmp_path / "state"))
    assert done == ["sync", "rename", "sync"]


# ------------------------------------------------------------------------- what is refused


def test_an_op_that_the_port_lacks_is_named_at_export(tmp_path: Path, monkeypatch) -> None:
    """As an instruction that is newer than the runtime would be."""
    letters = reader._FILE_OF.replace("e", "-", 1)
    monkeypatch.setattr(reader, "_FILE_OF", letters)
    assert micropython.lacks() == ["sub", "spill", "fetch"]
    net = Behind(lambda x: x - 1.0, nn.Linear(4, 2))
    trainer = tt.Trainer(net, loss="cross_entropy", batch=2, input_shape=(4,), backend="numpy")
    with pytest.raises(InputError, match=r"MicroPython has no kernel for sub"):
        trainer.export("micropython", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_plan_that_spills_is_refused_at_export(tmp_path: Path) -> None:
    spilling = {"policy": "spill", "spill": str(tmp_path / "values"), "backend": "numpy"}
    trainer = tt.Trainer(models.build("digits_cnn"), batch=4, **spilling)
    with pytest.raises(InputError, match="MicroPython has no block device"):
        trainer.export("micropython", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_every_runtime_file_is_in_the_package() -> None:
    folder = Path(micropython.__file__).parent
    told = json.loads((folder / "package.json").read_text())
    held = {f"tinytrain_mp/{file.name}" for file in (folder / "tinytrain_mp").glob("*.py")}
    assert {target for target, _ in told["urls"]} == held
    assert all((folder / source).is_file() for _, source in told["urls"])
    assert told["version"] == tt.__version__
