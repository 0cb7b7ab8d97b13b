"""The c99 port: what a trainer exports builds without a warning, refuses what it should, and trains
to the bits of the C backend here, with every compiler, on every processor and board at hand.

A tool that is missing is a SKIP that names it, or, with TINYTRAIN_REQUIRE_PORTS=1, a failure.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from test_invert import Reversible

import tinytrain as tt
from tinytrain import data, models, nn, optim
from tinytrain.errors import InputError
from tinytrain.kernels import c_

PROGRAMS = Path(__file__).parent / "ports"
sys.path.insert(0, str(PROGRAMS))
from boards import (  # noqa: E402
    BITS,
    BOARDS,
    PLACE,
    PROCESSORS,
    STRICT,
    build,
    emulate,
    flash,
    linking,
    qemu,
    run,
    sources,
    stated,
)
from feed import figures_of, host_figures, write_feed  # noqa: E402

REQUIRED = os.environ.get("TINYTRAIN_REQUIRE_PORTS") == "1"
OPTIONS = ["-O0", "-O1", "-O2", "-O3", "-Os", "-O3 -march=native", "-O2 -DTT_VECTORS"]
if platform.machine() == "x86_64":
    OPTIONS += ["-O2 -DTT_VECTORS -mavx2", "-O2 -DTT_VECTORS -march=native"]


def need(tool: str) -> str:
    """The tool's name; a skip, or a failure where ports are required, if it is missing."""
    if shutil.which(tool) is None:
        (pytest.fail if REQUIRED else pytest.skip)(f"{tool} is missing")
    return tool


# ---------------------------------------------------------------------------- what is trained


def rich(seed: int = 3) -> nn.Module:
    """Digits to classes, through most kinds of layers."""
    with nn.seeded(seed):
        net = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6),
            nn.GroupNorm(2, 6),
            nn.ReLU6(),
            nn.Conv2d(6, 12, 1),
            nn.Tanh(),
            nn.MaxPool2d(2),
            nn.Dropout(0.2),
            nn.Flatten(),
            nn.Linear(48, 10),
        )
    net.input_shape = (8, 8, 1)
    return net


def tiny() -> nn.Module:
    """Digits to classes in few steps of software floats."""
    with nn.seeded(4):
        net = nn.Sequential(
            *(nn.Conv2d(1, 4, 3, stride=3), nn.GroupNorm(2, 4), nn.ReLU()),
            *(nn.MaxPool2d(2, stride=1), nn.Flatten(), nn.Linear(4, 10)),
        )
    net.input_shape = (8, 8, 1)
    return net


def reversible() -> nn.Module:
    shapes = {"input_shape": (8, 8, 1), "units": (2,), "widths": (8, 8), "norm": "group"}
    return models.build("revnet", **shapes, seed=3)


MOMENTUM = {"optimizer": optim.SGD(lr=0.01, momentum=0.9)}
NETS = {
    "digits": lambda: models.build("digits_cnn"),
    "rich": rich,
    "tiny": tiny,
    "reversible": reversible,
    "coupled": lambda: Reversible(3, bits=12, seed=3, in_channels=1),
}
CASES: dict[str, tuple[str, dict]] = {
    "momentum": ("digits", {}),
    "64K": ("digits", {"ram": "60K"}),
    "slices": ("digits", {"microbatch": 1}),
    "adam": ("digits", {"optimizer": optim.AdamW(lr=0.003)}),
    "packed": ("digits", {"ram": "36K"}),
    "guarded": ("digits", {"guard": "step"}),
    "nesterov": ("digits", {"optimizer": optim.SGD(0.01, 0.9, True, 1e-3)}),
    "clipped": ("rich", {"clip_norm": 0.5}),
    "single": ("rich", {"clip_norm": 0.5, "batch": 1}),
    "rich-slices": ("rich", {"microbatch": 2, "optimizer": optim.Adam(lr=0.003)}),
    "tiny-slices": ("tiny", {"microbatch": 2, "optimizer": optim.Adam(lr=0.003)}),
    "bitmap": ("digits", {"policy": "bitmap", "density": 0.9}),
    "overflow": ("digits", {"policy": "bitmap", "density": 0.02, "microbatch": 2}),
    "spill": ("digits", {"policy": "spill"}),
    "spill-slices": ("digits", {"policy": "spill", "microbatch": 2}),
    "spill-guarded": ("digits", {"policy": "spill", "guard": "step"}),
    "invert": ("reversible", {"policy": "invert"}),
    "exact": ("coupled", {"policy": "invert"}),
    "recompute": ("rich", {"policy": "recompute"}),
    "plain": ("digits", {"optimizer": optim.SGD(lr=0.05), "ram": "35K"}),
}


def trainer_of(case: str, **more) -> tt.Trainer:
    net, settings = CASES[case]
    if settings.get("policy") == "spill":
        more["spill"] = str(PLACE / case)
    more = {"batch": 4, "backend": "c", "seed": 7, **MOMENTUM, **settings, **more}
    return tt.Trainer(NETS[net](), **more)


@functools.cache
def digits() -> tuple:
    return data.digits()


def steps(count: int, batch: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    train = digits()[0]
    picks = (np.arange(batch) + k * batch for k in range(count))
    return [(train.x[p % len(train)], train.y[p % len(train)].astype(np.int32)) for p in picks]


def held_out(count: int) -> list[tuple[np.ndarray, int]]:
    test = digits()[1]
    return [(test.x[k], int(test.y[k])) for k in range(count)]


class Exported(NamedTuple):
    folder: Path
    figures: dict[str, int]
    plan: tt.Plan


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory):
    """A case's folder with what it is fed, and the host's figures; each is made once."""

    @functools.cache
    def make(case: str, count: int = 100, test: int = 20) -> Exported:
        if not c_.is_there():
            (pytest.fail if REQUIRED else pytest.skip)("a C compiler is missing")
        trainer = trainer_of(case)
        folder = tmp_path_factory.mktemp(case)
        trainer.export("c99", str(folder))
        fed, asked = steps(count, trainer.batch), held_out(test)
        write_feed(folder / "feed.bin", trainer, fed, asked)
        return Exported(folder, host_figures(trainer, fed, asked), trainer.plan)

    return make


def agree(printed: str, want: dict[str, int]) -> dict[str, int]:
    got = figures_of(printed)
    assert {name: got[name] for name in want} == want
    return got


# ---------------------------------------------------------------------------- on this machine


@pytest.mark.parametrize("case", CASES)
def test_the_host_trains_to_the_same_bits(case: str, exported) -> None:
    made = exported(case)
    program = build(need("gcc"), ["-O2"], made.folder)
    got = agree(run([program], made.folder), made.figures)
    assert (got["overflows"] > 0) == (case == "overflow")
    assert (made.plan.policies["invert"] > 0) == (case in ("invert", "exact"))


@pytest.mark.parametrize("cc", ["gcc", "clang"])
@pytest.mark.parametrize("options", OPTIONS)
def test_every_compiler_gives_the_same_bits(cc: str, options: str, exported) -> None:
    need(cc)
    made = exported("clipped", 500)
    agree(run([build(cc, options.split(), made.folder)], made.folder), made.figures)


@pytest.mark.parametrize("case", ["packed", "rich-slices", "guarded"])
def test_sanitizers_find_nothing(case: str, exported) -> None:
    made = exported(case)
    flags = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover"]
    agree(run([build(need("gcc"), flags, made.folder)], made.folder), made.figures)


def test_the_analyzer_finds_nothing(exported, tmp_path: Path) -> None:
    """gcc's static analysis of the step loop, the tables and every kernel."""
    folder = exported("packed").folder
    flags = [*STRICT, *BITS, "-O2", "-fanalyzer", f"-I{folder}"]
    run([need("gcc"), *flags, "-c", *sources(folder)], tmp_path)


@pytest.mark.parametrize("case", ["momentum", "slices"])
def test_the_verbs_refuse(case: str, exported) -> None:
    folder = exported(case).folder
    flags = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover"]
    done = subprocess.run([build(need("gcc"), flags, folder, "c99_verbs.c")], capture_output=True)
    assert done.returncode == 0, f"c99_verbs.c, line {done.returncode} modulo 256: {done.stderr}"


@pytest.mark.parametrize("case", ["momentum", "bitmap"])
def test_a_table_that_is_not_whole_is_refused(case: str, exported) -> None:
    """Cut short, a flipped bit, another version: nothing beyond its end is read, and the arena
    stays as it is."""
    folder = exported(case).folder
    flags = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover"]
    done = subprocess.run([build(need("gcc"), flags, folder, "c99_table.c")], capture_output=True)
    assert done.returncode == 0, f"c99_table.c, line {done.returncode} modulo 256: {done.stderr}"


def test_what_is_not_finite_is_refused(tmp_path: Path) -> None:
    """In data, labels, loss and gradient; weights, momentum and the rate stay as they were."""
    with nn.seeded(1):
        net = nn.Linear(4, 3)
    settings = {"loss": "mse", "guard": "step", "batch": 2, "input_shape": (4,)}
    trainer = tt.Trainer(net, optimizer=optim.SGD(0.1, 0.9), backend="numpy", **settings)
    trainer.export("c99", str(tmp_path))
    flags = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover"]
    done = subprocess.run([build(need("gcc"), flags, tmp_path, "c99_loss.c")], capture_output=True)
    assert done.returncode == 0, f"c99_loss.c, line {done.returncode} modulo 256: {done.stderr}"


@pytest.mark.parametrize("case", ["spill", "spill-guarded"])
def test_a_block_device_that_fails(case: str, exported) -> None:
    """Nothing changes while values are written; what cannot be read back is told apart."""
    folder = exported(case).folder
    flags = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover"]
    flags += ["-DGUARD_STEP"] if case == "spill-guarded" else []
    done = subprocess.run([build(need("gcc"), flags, folder, "c99_store.c")], capture_output=True)
    assert done.returncode == 0, f"c99_store.c, line {done.returncode} modulo 256: {done.stderr}"


@pytest.mark.parametrize(
    ("cross", "level"),
    [("", "-O0"), ("", "-O2"), ("arm-none-eabi-", "-O0"), ("arm-none-eabi-", "-O2")],
)
def test_the_stack_is_what_gcc_says(cross: str, level: str, exported, tmp_path: Path) -> None:
    """The deepest chain of calls, by gcc's figures for each function, is no deeper than stated."""
    need("make"), need("awk"), need(f"{cross}gcc")
    folder = tmp_path / "copy"
    shutil.copytree(exported("packed").folder, folder)
    command = ["make", "-s", "stack", "CC=gcc", f"CPU={level}"]
    if cross:
        command[3:] = [f"CROSS={cross}", f"CPU=-mcpu=cortex-m0 -mthumb {level}"]
    printed = run(command, folder)
    deepest = int(re.search(r"(\d+) bytes of stack at most", printed)[1])
    chains = dict(line.split()[1::-1] for line in printed.splitlines() if "tt_" in line)
    verbs = ("init", "train", "infer", "save", "restore", "slots_save", "slots_restore")
    assert set(chains) == {f"tt_{verb}" for verb in verbs}
    for verb in ("save", "restore"):
        assert int(chains[f"tt_slots_{verb}"]) > int(chains[f"tt_{verb}"])
    if (cross, level) == ("", "-O0"):  # elsewhere, looking for the newest slot is deeper
        assert "tt_save() ../src/tt_slots.c:put" in printed
    assert 300 < deepest == max(map(int, chains.values()))
    most = stated(folder, "TT_STACK_BYTES")
    if not cross and sys.maxsize > 2**32:
        most = int(re.search(r"TT_STACK_BYTES (\d+)", (folder / "model.h").read_text())[1])
    assert most - 512 <= deepest <= most


def test_make_run(exported, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported("momentum").folder, folder)
    printed = run([need("make"), "-s", "run"], folder)
    losses = [float(found) for found in re.findall(r"mean loss ([\d.]+)", printed)]
    assert len(losses) == 5 and losses[-1] < 0.1 * losses[0]


def test_it_needs_no_library_and_no_state(exported, tmp_path: Path) -> None:
    """No malloc, printf, exit or libm; nothing that can be written but the one arena."""
    made = exported("packed")
    for name in sources(made.folder):
        into = tmp_path / f"{Path(name).stem}.o"
        flags = [*STRICT, *BITS, "-O2", "-fno-pie", f"-I{made.folder}"]
        run([need("gcc"), *flags, "-c", "-o", str(into), name], tmp_path)
    printed = run([need("nm"), *map(str, tmp_path.glob("*.o"))], tmp_path)
    symbols = [line.split()[-2:] for line in printed.splitlines() if len(line.split()) > 1]
    wanted = {name for kind, name in symbols if kind == "U" and not name.startswith("tt_")}
    assert wanted <= {"memcpy", "memset", "_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail"}
    assert {name for kind, name in symbols if kind in "BbDdC"} == {"tt_arena"}


@pytest.mark.parametrize("case", ["momentum", "adam", "clipped"])
def test_losses_are_those_of_numpy(case: str) -> None:
    """Other sums, so runs drift apart: within 1e-4 for 50 steps at batch 32, and then within half a
    point of the test accuracy after two epochs. The C backend has the export's bits (above). At a
    rate of 0.01 the clipped run has a value on a gate's edge in step 34, and 1.1e-4 by step 50."""
    if not c_.is_there():
        (pytest.fail if REQUIRED else pytest.skip)("a C compiler is missing")
    train, test = digits()
    slower = {"optimizer": optim.SGD(lr=0.003, momentum=0.9)} if case == "clipped" else {}
    ours, other = (trainer_of(case, batch=32, backend=b, **slower) for b in ("c", "numpy"))
    order = [p for epoch in range(2) for p in data.batches(len(train), 32, 7, epoch, True)]
    losses = np.array([[t.step(train.x[p], train.y[p]) for t in (ours, other)] for p in order])
    assert len(losses) > 50
    assert (np.abs(losses[:50, 0] / losses[:50, 1] - 1) <= 1e-4).all()
    reached = [t.evaluate(test.x, test.y)["accuracy"] for t in (ours, other)]
    assert abs(reached[0] - reached[1]) <= 0.005


# ---------------------------------------------------------------------------- emulated processors


@pytest.mark.parametrize("name", PROCESSORS)
def test_processors_give_the_same_bits(name: str, exported) -> None:
    cc, emulator, flags = PROCESSORS[name]
    need(cc), need(emulator)
    for case, count in (("single", 500), ("rich-slices", 100)):
        made = exported(case, count)
        program = build(cc, ["-O2", "-static"], made.folder)
        agree(run([emulator, *flags, program], made.folder), made.figures)


def board_tools() -> None:
    need("arm-none-eabi-gcc"), need("qemu-system-arm")


@pytest.mark.parametrize("name", BOARDS)
def test_boards_give_the_same_bits(name: str, exported, tmp_path: Path) -> None:
    """Within 64 KiB of RAM for arena, samples and stack: 500 steps of one image, and batches, whole
    and in slices; few of these where floats are software."""
    board_tools()
    count = {"M0": 10, "M3": 20, "M4F": 500}.get(name, 100)
    cases = [("64K", min(count, 100)), ("single", 500), ("rich-slices", count)]
    for case, steps in [*cases, *([("spill", 100)] if name == "M4F" else [])]:
        made = exported(case, steps, 5)
        program = flash(name, made.folder, tmp_path / case, 64 * 1024)
        got = emulate(name, program, made.folder)
        assert {key: got[key] for key in made.figures} == made.figures
        assert got["stack"] <= stated(made.folder, "TT_STACK_BYTES")


@pytest.mark.parametrize("name", ["M0", "M3"])
def test_adam_in_slices_for_500_steps_of_software_floats(name: str, exported, tmp_path) -> None:
    """As the boards with an FPU do above with a larger network; weights and Adam's state."""
    board_tools()
    made = exported("tiny-slices", 500, 5)
    program = flash(name, made.folder, tmp_path, 64 * 1024)
    got = emulate(name, program, made.folder)
    assert {key: got[key] for key in made.figures} == made.figures


def test_a_board_learns_the_digits(tmp_path: Path) -> None:
    """On a Cortex-M4F with 64 KiB of RAM and 256 KiB of flash, three epochs of the demo."""
    board_tools()
    train, test = digits()
    updates = 3 * -(-len(train) // 4)
    optimizer = optim.SGD(lr=optim.CosineLR(0.01, updates), momentum=0.9)
    net = models.build("digits_cnn")
    trainer = tt.Trainer(net, optimizer=optimizer, batch=4, ram="60K", backend="c", seed=7)
    order = [p for epoch in range(3) for p in data.batches(len(train), 4, 7, epoch, True)]
    fed = [(train.x[p], train.y[p].astype(np.int32)) for p in order]
    asked = held_out(len(test))
    trainer.export("c99", str(tmp_path / "out"))
    write_feed(tmp_path / "feed.bin", trainer, fed, asked)
    program = flash("M4F", tmp_path / "out", tmp_path / "built", 64 * 1024)
    got = emulate("M4F", program, tmp_path)
    want = host_figures(trainer, fed, asked)
    assert {key: got[key] for key in want} == want
    assert got["right"] >= 0.96 * len(test)
    print(f"M4F: {got['right']} of {len(test)} digits right, stack {got['stack']:,} bytes")


def test_a_board_trains_the_keyword_spotter(tmp_path: Path) -> None:
    """DS-CNN on a Cortex-M7 within 256 KiB of RAM, samples and stack included; made-up features."""
    board_tools()
    rng = np.random.default_rng(0)
    fed = []
    for k in range(4):
        x = rng.standard_normal((1, 49, 10, 1), dtype=np.float32) + np.float32(k % 2)
        fed.append((x, np.array([k % 2], np.int32)))
    net = models.build("ds_cnn", norm="group")
    trainer = tt.Trainer(
        net, optimizer=optim.SGD(lr=0.05), batch=1, ram="250K", backend="c", seed=7
    )
    trainer.export("c99", str(tmp_path / "out"))
    write_feed(tmp_path / "feed.bin", trainer, fed)
    program = flash("M7", tmp_path / "out", tmp_path / "built", 256 * 1024)
    got = emulate("M7", program, tmp_path)
    want = host_figures(trainer, fed)
    assert {key: got[key] for key in want} == want
    print(
        f"M7 DS-CNN: arena {trainer.plan.arena_bytes:,}, stack {got['stack']:,}, "
        f"{got['instructions']:,} instructions a step"
    )


# ---------------------------------------------------------------------------- exporting


def test_a_checkpoint_is_exported(tmp_path: Path) -> None:
    """`tinytrain export` writes what `Trainer.export` writes; of one that spills, too."""
    trainer = trainer_of("spill")
    trainer.step(*steps(1)[0])
    trainer.save(str(tmp_path / "net.npz"))
    trainer.export("c99", str(tmp_path / "one"))
    command = [sys.executable, "-m", "tinytrain", "export", str(tmp_path / "net.npz")]
    run([*command, "--to", "c99", "--out", str(tmp_path / "two"), "--json"], tmp_path)
    files = [p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.*")]
    for name in (name for name in files if (tmp_path / "one" / name).is_file()):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    done = subprocess.run([*command, "--to", "avr", "--out", "x"], capture_output=True, text=True)
    assert done.returncode == 2 and "unknown port 'avr'" in done.stderr


@pytest.mark.parametrize(("option", "status"), [(("--flash", "16K"), 2), (("--ram", "20K"), 3)])
def test_too_small_a_board_is_refused_at_export(option, status: int, tmp_path: Path) -> None:
    """With what is missing, and before anything is written."""
    trainer_of("momentum").save(str(tmp_path / "net.npz"))
    command = [sys.executable, "-m", "tinytrain", "export", str(tmp_path / "net.npz")]
    command += ["--to", "c99", "--out", str(tmp_path / "out"), *option]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == status
    assert re.search(r"[\d,]+ (bytes )?are missing", done.stderr)
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_the_flash(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"c99: tables and parameters take .* are missing"):
        trainer_of("momentum").export("c99", str(tmp_path), flash="16K")
    trainer_of("momentum").export("c99", str(tmp_path), flash="32K")


def sketch_of(folder: Path) -> Path:
    (sketch,) = folder.glob("examples/*/*.ino")
    assert sketch.stem == sketch.parent.name
    return sketch


def arduino(folder: Path, into: Path, cross: str = "", cpu: str = "", board=(), link=()) -> Path:
    """The sketch with what `src/` holds, compiled as Arduino does it: its flags, not ours. `board`:
    more C files."""
    flags = ["-Os", "-Wall", "-Wextra", "-Werror", "-DARDUINO=10819", f"-I{folder / 'src'}"]
    flags += [f"-I{PROGRAMS}", *cpu.split()]
    plus = ["-x", "c++", "-std=gnu++11", "-fno-exceptions", "-fno-rtti", "-include", "Arduino.h"]
    own = [str(sketch_of(folder)), str(PROGRAMS / "arduino.cpp")]
    run([need(f"{cross}g++"), *flags, *plus, "-c", *own], into)
    run([need(f"{cross}gcc"), "-std=gnu11", *flags, "-c", *sources(folder), *board], into)
    objects = [p.name for p in into.glob("*.o")]
    run([f"{cross}gcc", *cpu.split(), *objects, "-o", "sketch.elf", *link], into)
    return into / "sketch.elf"


def learned(printed: str) -> None:
    """Every wave that was taught gave a loss, and nearly all that were asked are recognised."""
    got = figures_of(printed)
    assert got["losses"] == 240
    assert got["errors"] == 0
    assert got["right"] >= 36


@pytest.fixture(scope="session")
def sensor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export that learns waves of 64 readings, one by one."""
    net = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))
    settings = {"loss": "cross_entropy", "batch": 1, "input_shape": (64,), "backend": "numpy"}
    with nn.seeded(1):
        trainer = tt.Trainer(net, optimizer=optim.SGD(0.02, 0.5), **settings)
    folder = tmp_path_factory.mktemp("sensor")
    trainer.export("c99", str(folder))
    return folder


def test_it_is_an_arduino_library(sensor: Path, tmp_path: Path) -> None:
    """Its parts are where they belong, and the sketch learns, on a host that stands in."""
    lines = (sensor / "library.properties").read_text().splitlines()
    properties = dict(line.split("=", 1) for line in lines)
    named = ("name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url")
    assert {*named, "architectures"} <= set(properties)
    assert re.fullmatch(r"[A-Za-z0-9][\w .-]{0,62}", properties["name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", properties["version"])
    assert not [p for p in sensor.glob("*.c") if p.name != "main.c"]
    for name in properties["includes"].split(","):
        assert (sensor / "src" / name).is_file()
    learned(run([str(arduino(sensor, tmp_path))], tmp_path))


def test_an_arduino_board_learns_from_its_sensor(sensor: Path, tmp_path: Path) -> None:
    """Compiled with arm-none-eabi-g++ without the flag that keeps products and sums apart, for a
    Cortex-M4F, which could fuse them: `tt_init` checks."""
    board_tools()
    cpu = f"-mthumb {BOARDS['M4F'].cpu} -ffunction-sections -fdata-sections -DSEMIHOSTED"
    link = linking("M4F", 64 * 1024, stated(sensor, "TT_STACK_BYTES") + 256)
    program = arduino(sensor, tmp_path, "arm-none-eabi-", cpu, [str(PROGRAMS / "board.c")], link)
    learned(run(qemu("M4F", program), tmp_path))


def test_it_is_a_component_of_esp_idf(sensor: Path, tmp_path: Path) -> None:
    """CMake, with stand-ins for two of ESP-IDF's commands, builds it; no ESP32 compiler is here."""
    cmake = need("cmake")
    (tmp_path / "CMakeLists.txt").write_text(
        f"""cmake_minimum_required(VERSION 3.16)
project(stand_in C)
function(idf_component_register)
  cmake_parse_arguments(ARG "" "" "SRC_DIRS;INCLUDE_DIRS" ${{ARGN}})
  set(COMPONENT_LIB component PARENT_SCOPE)
  file(GLOB found ${{CMAKE_CURRENT_SOURCE_DIR}}/${{ARG_SRC_DIRS}}/*.c)
  add_library(component ${{found}})
  target_include_directories(component PUBLIC ${{ARG_INCLUDE_DIRS}})
endfunction()
add_subdirectory({sensor} component)
"""
    )
    run([cmake, "-S", ".", "-B", "built"], tmp_path)
    run([cmake, "--build", "built", "--target", "component"], tmp_path)


def test_frozen_parameters_stay_in_flash(exported, tmp_path: Path) -> None:
    """An arena without them, and the same bits."""
    net = models.build("digits_cnn")
    frozen = next(iter(net.modules()))
    parameters = list(net.named_parameters())
    for _, p in parameters[:2]:
        p.requires_grad = False
    assert frozen is not None
    trainer = tt.Trainer(net, batch=4, backend="c", seed=7, **MOMENTUM)
    trainer.export("c99", str(tmp_path))
    nbytes = sum(p.spec.nbytes for _, p in parameters[:2])
    arena = stated(tmp_path, "TT_ARENA_BYTES")
    assert 0 <= trainer.plan.arena_bytes - nbytes - arena < 16 * 3
    fed = steps(20)
    write_feed(tmp_path / "feed.bin", trainer, fed)
    program = build(need("gcc"), ["-O2"], tmp_path)
    agree(run([program], tmp_path), host_figures(trainer, fed))
