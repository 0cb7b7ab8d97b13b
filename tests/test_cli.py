"""The command line: its keys, its exit statuses, and that every mistake is one clear line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import tinytrain as tt
from tinytrain import models
from tinytrain.cli import main

PLAN_KEYS = {
    "arena_bytes",
    "lower_bound_bytes",
    "breakdown",
    "fits",
    "ram_bytes",
    "smallest_ram_bytes",
    "microbatch",
    "policies",
    "steps",
    "macs",
    "extra_macs_ratio",
}
DEMO_KEYS = {
    "test_accuracy",
    "arena_bytes",
    "ram_bytes",
    "high_water_bytes",
    "seconds",
    "steps",
    "backend",
}
KINDS = ["parameters", "optimizer", "gradients", "activations", "stash", "workspace", "io", "slack"]


@pytest.fixture
def run(capsys):
    """Run a command line in this process: (status, stdout, stderr). No exception may pass."""

    def command(*argv: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = main([str(a) for a in argv])
        except SystemExit as stop:  # argparse
            status = stop.code
        out, err = capsys.readouterr()
        return status, out, err

    return command


@pytest.fixture
def ok(run):
    """A command that succeeds with --json: its one object."""

    def command(*argv: str) -> dict:
        status, out, err = run(*argv, "--json")
        assert status == 0, err
        assert out.count("\n") == 1, "one line"
        return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    return command


@pytest.fixture
def fails(run):
    """A command that fails: its one line on stderr."""

    def command(*argv: str, status: int = 2) -> str:
        got, out, err = run(*argv)
        assert got == status, (got, out, err)
        assert out == ""
        assert err.startswith("tinytrain: error: "), err
        assert err.count("\n") == 1, err
        assert "Traceback" not in err
        return err

    return command


@pytest.fixture
def toy(tmp_path):
    """2x3 images of three classes that a dense net tells apart."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((48, 2, 3, 1)).astype(np.float32)
    path = tmp_path / "toy.npz"
    np.savez(path, x=x, y=(x[:, 0, 0, 0] > 0).astype(np.int64) + (x[:, 1, 1, 0] > 0))
    return path


def process(*arguments: str, **more):
    return subprocess.run(
        [sys.executable, "-m", "tinytrain", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **more,
    )


def saved(path, **arrays) -> str:
    np.savez(path, **arrays)
    return str(path)


train = ("--backend", "numpy", "--epochs", "1", "--batch", "16")

# ---------------------------------------------------------------------------- plan


@pytest.mark.parametrize("name", models.names())
def test_plan_json_has_the_keys_of_the_design(name, ok):
    got = ok("plan", name, "--batch", "4")
    assert set(got) >= PLAN_KEYS
    assert list(got["breakdown"]) == KINDS
    assert sum(got["breakdown"].values()) == got["arena_bytes"]
    assert set(got["policies"]) == {"keep", "bitmap", "recompute", "invert", "spill"}
    assert got["fits"] is True
    assert got["ram_bytes"] is None
    assert got["microbatch"] == 4
    assert got["extra_macs_ratio"] == 0
    plan = tt.plan(models.build(name), batch=4)
    assert got["arena_bytes"] == plan.arena_bytes
    assert got["lower_bound_bytes"] == plan.lower_bound
    assert got["macs"] == plan.macs
    assert got["steps"] == len(plan.program.steps)


def test_plan_takes_every_argument(ok, tmp_path):
    picture = tmp_path / "a.svg"
    got = ok(
        *("plan", "resnet8", "--input", "16,16,1", "--batch", "2", "--ram", "2M", "--classes", "3"),
        *("--policy", "keep", "--optimizer", "adam", "--norm", "group", "--svg", picture),
    )
    assert got["ram_bytes"] == 2**21
    net = models.build("resnet8", classes=3, input_shape=(16, 16, 1), norm="group")
    assert got["breakdown"]["parameters"] == 4 * net.count_parameters()
    assert got["breakdown"]["optimizer"] >= 8 * net.count_parameters()
    ET.parse(picture)


@pytest.mark.parametrize(
    ("columns", "most"), [("60", 60), ("200", 200), ("0", 80), ("-3", 80), ("wide", 80)]
)
def test_help_is_as_wide_as_the_terminal(columns, most, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    status, out, _ = run("train", "--help")
    longest = max(map(len, out.splitlines()))
    assert status == 0 and 2 * most / 3 < longest <= most


def test_plan_prints_a_table(run):
    status, out, err = run("plan", "digits_cnn", "--ram", "64K", "--batch", "1")
    assert (status, err) == (0, "")
    for word in (*KINDS, "arena", "lower bound", "ram", "left over", "alive at the peak"):
        assert word in out


def test_plan_tells_of_slices_and_bitmaps(ok, run):
    arguments = ("plan", "digits_cnn", "--batch", "6", "--microbatch", "2", "--density", "0.4")
    got = ok(*arguments, "--policy", "bitmap")
    assert (got["microbatch"], got["density"]) == (2, 0.4)
    assert set(got["bitmap"]) == {"masks", "nominal", "margin", "dense"}
    assert 0 < got["bitmap"]["margin"] < got["bitmap"]["nominal"] < got["bitmap"]["dense"]
    assert got["policies"]["bitmap"] > 0
    none = ok("plan", "digits_cnn", "--microbatch", "auto")
    assert (none["microbatch"], none["density"]) == (32, None)
    assert none["bitmap"] == {"masks": 0, "nominal": 0, "margin": 0, "dense": 0}
    _, out, _ = run(*arguments, "--policy", "bitmap")
    for part in (
        "batch 6 in 3 slices of 2",
        f"{got['bitmap']['margin']:,} of margin",
        f"{got['policies']['bitmap']} bitmap",
        f"{100 * got['extra_macs_ratio']:.1f} % extra work",
    ):
        assert part in out


def test_train_in_slices_with_bitmaps(toy, ok):
    plain = ok("train", "mlp", "--data", toy, *train)
    sliced = ok("train", "mlp", "--data", toy, "--microbatch", "4", "--density", "0.9", *train)
    assert sliced["train_loss"] == pytest.approx(plain["train_loss"], rel=1e-4)
    assert sliced["high_water_bytes"] <= sliced["arena_bytes"]
    assert (plain["microbatch"], plain["density"]) == (16, None)
    assert (sliced["microbatch"], sliced["density"], sliced["overflows"]) == (4, 0.9, 0)


def test_a_budget_that_does_not_fit_is_status_3(fails, ok):
    plan = ["plan", "lenet5", "--batch", "2", "--policy", "keep", "--norm", "batch"]
    need = ok(*plan)["arena_bytes"]
    line = fails(*plan, "--ram", str(need - 7), status=3)
    for part in (": 7 bytes", f"{need:,}", "alive at the peak", "weight"):
        assert part in line
    assert ok(*plan, "--ram", str(need))["fits"] is True
    fails(*plan, "--ram", str(need - 7), "--json", status=3)
    # By itself it finds a way: slices of the batch, or a little work done twice.
    need = ok("plan", "lenet5", "--batch", "2")["arena_bytes"]
    found = ok("plan", "lenet5", "--batch", "2", "--ram", str(need - 7))
    assert found["fits"] is True
    assert found["arena_bytes"] <= need - 7


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["plan", "lenet"], "lenet5"),
        (["plan", ""], "unknown model"),
        (["plan"], "MODEL"),
        ([], "command"),
        (["plant", "mlp"], "plant"),
        (["plan", "mlp", "--ram", "64Q"], "64Q"),
        (["plan", "mlp", "--ram", ""], "ram"),
        (["plan", "mlp", "--ram", "9" * 400], "ram"),
        (["plan", "mlp", "--batch", "0"], "batch"),
        (["plan", "mlp", "--batch", "-3"], "batch"),
        (["plan", "mlp", "--batch", "many"], "many"),
        (["plan", "mlp", "--input", "28x28"], "28x28"),
        (["plan", "mlp", "--input", "28,28,0"], "28,28,0"),
        (["plan", "mlp", "--input", ","], "--input"),
        (["plan", "lenet5", "--input", "28,28"], "(H, W, C)"),
        (["plan", "lenet5", "--input", "3,3,1"], ""),
        (["plan", "digits_cnn", "--input", "2,2,1"], ""),
        (["plan", "vgg6", "--input", "4,4,3"], ""),
        (["plan", "mlp", "--classes", "0"], "classes"),
        (["plan", "mlp", "--classes", "-3"], "classes"),
        (["plan", "resnet8", "--norm", "instance"], "instance"),
        (["plan", "mlp", "--norm", "batch"], "norm"),
        (["plan", "mlp", "--policy", "bitmapped"], "bitmapped"),
        (["plan", "mlp", "--optimizer", "lion"], "lion"),
        (["plan", "mlp", "--density", "1.5"], "density is 1.5"),
        (["plan", "mlp", "--density", "nan"], "density is nan"),
        (["plan", "mlp", "--density", "-0.1"], "density is -0.1"),
        (["plan", "mlp", "--density", "half"], "half"),
        (["plan", "mlp", "--microbatch", "0"], "microbatch is 0"),
        (["plan", "mlp", "--microbatch", "33"], "1 to 32 samples"),
        (["plan", "mlp", "--microbatch", "1.5"], "auto or a number of samples"),
        (["plan", "mlp", "--microbatch", "few"], "'few'"),
        (["plan", "mlp", "--policy", "invert"], "layer 1 (matmul)"),
        (["plan", "mlp", "--compare", "--policy", "keep"], "leave it out"),
        (["plan", "mlp", "--compare", "--ram", "64Q"], "64Q"),
        (["plan", "mlp", "--compare", "--density", "2"], "density is 2.0"),
        (["plan", "mlp", "--svg", "no/such/folder/a.svg"], "no/such/folder"),
        (["demo", "--backend", "cuda"], "cuda"),
        (["demo", "--epochs", "0"], "epochs"),
        (["demo", "--ram", "x"], "x"),
        (["bench", "nonsense"], "nonsense"),
        (["eval", "missing.npz", "--data", "missing"], "missing.npz"),
        (["train", "mlp", "--data", "missing.npz"], "missing.npz"),
        (["train", "mlp"], "--data"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_bad_usage_is_one_line_that_names_it(arguments, named, fails):
    assert named in fails(*arguments)


def test_the_line_where_a_value_is_read_is_the_users(tmp_path, fails):
    path = tmp_path / "net.py"
    path.write_text(
        "from tinytrain import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        self.dense = nn.Linear(4, 3)\n"
        "    def forward(self, x):\n"
        "        if float(x.mean()) > 0:\n"
        "            return self.dense(x)\n"
        "        return x\n"
        "def make():\n"
        "    return Net()\n"
    )
    assert f"{path}:6:" in fails("plan", f"{path}:make", "--input", "4")


GOOD = "from tinytrain import nn\ndef make():\n    return nn.Sequential(nn.Linear(4, 3))\n"


@pytest.mark.parametrize(
    ("text", "function", "named"),
    [
        (GOOD, "missing", "missing"),
        (GOOD, "", ""),
        (GOOD, "nn", ""),
        ("def make():\n    return 3\n", "make", "int"),
        ("def make():\n    return None\n", "make", "None"),
        ("def make(size):\n    return size\n", "make", "size"),
        ("def make():\n    raise RuntimeError('no luck')\n", "make", "no luck"),
        ("make = 3\n", "make", "int"),
        ("def make(:\n", "make", "SyntaxError"),
        ("import no_such_module\n", "make", "no_such_module"),
        ("import sys\nsys.exit(0)\n", "make", ""),
        ("import sys\ndef make():\n    sys.exit('bye')\n", "make", ""),
        ("from tinytrain import nn\ndef make():\n    return nn.Module()\n", "make", "forward"),
        (
            "from tinytrain import nn\nclass Net(nn.Module):\n    def forward(self, x):\n"
            "        return self.nothing(x)\ndef make():\n    return Net()\n",
            "make",
            "nothing",
        ),
        (
            "from tinytrain import nn\nclass Net(nn.Module):\n    def forward(self, x):\n"
            "        return 3\ndef make():\n    return Net()\n",
            "make",
            "int",
        ),
        ("from tinytrain import nn\ndef make():\n    return nn.ReLU()\n", "make", "trainable"),
    ],
)
def test_a_file_that_makes_no_network_is_one_line(text, function, named, tmp_path, fails):
    path = tmp_path / "net.py"
    path.write_text(text)
    assert named in fails("plan", f"{path}:{function}", "--input", "4")


def test_a_missing_python_file_is_named(fails):
    assert "nowhere.py" in fails("plan", "nowhere.py:make", "--input", "4")
    assert "net.txt" in fails("plan", f"{__file__}/net.txt:make", "--input", "4")


def test_a_sample_shape_is_asked_for(tmp_path, fails):
    path = tmp_path / "net.py"
    path.write_text(GOOD)
    assert "--input" in fails("plan", f"{path}:make"), "a command line's user has no input_shape="


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Sizes:\n    width: int = 4\n" + GOOD,
        "from beside import width\n" + GOOD,
    ],
    ids=["plain", "dataclass", "neighbour"],
)
def test_a_python_file_is_a_model(text, tmp_path, ok):
    (tmp_path / "beside.py").write_text("width = 4\n")
    path = tmp_path / "net.py"
    path.write_text(text)
    got = ok("plan", f"{path}:make", "--input", "4", "--batch", "2")
    assert got["breakdown"]["parameters"] == 60


# ---------------------------------------------------------------------------- train and eval


def test_train_save_eval_resume(toy, tmp_path, ok, run):
    first, second = tmp_path / "first.npz", tmp_path / "second.npz"
    begun = ok(
        *("train", "mlp", "--data", toy, "--backend", "numpy", "--epochs", "20", "--lr", "0.1"),
        *("--batch", "16", "--save", first, "--seed", "3"),
    )
    assert begun["train_accuracy"] > 0.9
    assert begun["steps"] == 60
    assert begun["high_water_bytes"] == begun["arena_bytes"]
    measured = ok("eval", first, "--data", toy, "--backend", "numpy")
    assert measured["accuracy"] == begun["train_accuracy"]
    assert measured["samples"] == 48
    more = ok("train", "mlp", "--data", toy, "--resume", first, "--save", second, *train)
    assert (more["steps"], more["epochs"]) == (63, 21)
    at_once = ok(
        *("train", "mlp", "--data", toy, "--backend", "numpy", "--epochs", "21", "--lr", "0.1"),
        *("--batch", "16", "--seed", "3"),
    )
    assert more["train_loss"] == at_once["train_loss"], "resumed bit for bit"
    status, out, err = run("eval", second, "--data", toy, "--backend", "numpy")
    assert (status, err) == (0, "")
    assert "48 samples" in out
    assert "accuracy" in out


def test_train_prints_plan_epochs_and_result(toy, run):
    status, out, _ = run("train", "mlp", "--data", toy, *train)
    assert status == 0
    for word in ("arena", "lower bound", "epoch 1", "updates", "accuracy"):
        assert word in out


def test_a_table_trains_a_dense_net(tmp_path, ok):
    """A CSV's samples have one axis; "any input shape is flattened"."""
    rng = np.random.default_rng(0)
    rows = np.c_[rng.standard_normal((30, 5)), np.arange(30) % 3]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(",".join(f"{v:g}" for v in row) for row in rows) + "\n")
    got = ok("train", "mlp", "--data", path, *train)
    assert got["steps"] == 2
    assert ok("plan", "mlp", "--input", "5")["fits"]


def test_a_model_of_ones_own_is_saved_measured_and_resumed(toy, tmp_path, ok):
    path, file = tmp_path / "net.py", tmp_path / "net.npz"
    path.write_text(GOOD.replace("nn.Linear(4", "nn.Flatten(), nn.Linear(6"))
    ok("train", f"{path}:make", "--data", toy, "--save", file, *train)
    more = ok("train", f"{path}:make", "--data", toy, "--resume", file, *train)
    assert more["epochs"] == 2
    ok("eval", file, "--data", toy)


def test_a_plan_is_timed_on_request(ok):
    found = ok("plan", "digits_cnn", "--batch", "2", "--seconds", "--json")
    assert 0 < found["seconds_per_step"] < 60
    assert found["backend"] in ("c", "numba", "numpy")


def test_an_autoencoder_learns_its_own_input(tmp_path, ok):
    x = np.random.default_rng(0).standard_normal((20, 640)).astype(np.float32)
    got = ok("train", "autoencoder", "--data", saved(tmp_path / "sound.npz", x=x), *train)
    assert got["train_accuracy"] is None


def test_resume_refuses_another_model_and_a_budget_that_is_too_small(toy, tmp_path, ok, fails):
    file = tmp_path / "net.npz"
    ok("train", "mlp", "--data", toy, "--save", file, *train)
    fails("train", "lenet5", "--data", toy, "--resume", file, *train)
    fails("train", "mlp", "--data", toy, "--resume", file, "--ram", "1K", *train, status=3)


def test_train_within_a_budget(toy, ok, fails):
    keep = ["train", "mlp", "--data", toy, *train, "--policy", "keep"]
    need = ok(*keep)["arena_bytes"]
    assert ok(*keep, "--ram", str(need))["ram_bytes"] == need
    less = ok("train", "mlp", "--data", toy, *train, "--ram", str(need - 1))
    assert less["high_water_bytes"] == less["arena_bytes"] < need
    fails("train", "mlp", "--data", toy, *train, "--ram", "1K", status=3)


def test_plan_and_train_agree_by_default(toy, ok):
    planned = ok("plan", "mlp", "--input", "2,3,1", "--classes", "3", "--batch", "16")
    assert ok("train", "mlp", "--data", toy, *train)["arena_bytes"] == planned["arena_bytes"]


X = np.random.default_rng(0).standard_normal((12, 2, 3, 1)).astype(np.float32)
Y = np.arange(12) % 3


@pytest.mark.parametrize(
    ("arrays", "named"),
    [
        ({"x": np.where(np.arange(12)[:, None, None, None] == 5, np.nan, X), "y": Y}, "nan"),
        ({"x": np.where(np.arange(12)[:, None, None, None] == 5, np.inf, X), "y": Y}, "inf"),
        ({"x": X, "y": Y[:5]}, "5"),
        ({"x": X[:0], "y": Y[:0]}, "empty"),
        ({"y": Y}, "x"),
        ({"x": X, "y": Y - 1}, "-1"),
        ({"x": X, "y": Y / 2 + 0.25}, "integers"),
        ({"x": X}, "y"),
        ({"x": X.astype(complex), "y": Y}, "complex"),
        ({"x": np.full((12, 2, 3, 1), "a"), "y": Y}, "x"),
        ({"x": np.array([{"a": 1}] * 12, dtype=object), "y": Y}, ""),
    ],
    ids=[
        "nan",
        "inf",
        "short",
        "empty",
        "no-x",
        "negative",
        "floats",
        "no-y",
        "complex",
        "text",
        "pickle",
    ],
)
def test_bad_data_is_one_line_that_names_the_file_or_array(arrays, named, tmp_path, fails):
    path = saved(tmp_path / "bad.npz", **arrays)
    file = tmp_path / "net.npz"
    assert named in fails("train", "mlp", "--data", path, "--save", file, *train)
    assert not file.exists()


def test_labels_beyond_the_net_are_named(tmp_path, toy, ok, fails):
    path = saved(tmp_path / "six.npz", x=X, y=np.arange(12) % 6)
    line = fails("train", "mlp", "--data", path, "--classes", "4", *train)
    assert "4" in line
    ok("train", "mlp", "--data", toy, "--save", tmp_path / "net.npz", *train)
    assert "0 to 2" in fails("eval", tmp_path / "net.npz", "--data", path)


def test_data_of_another_shape_is_named(tmp_path, toy, ok, fails):
    path = saved(tmp_path / "wide.npz", x=np.zeros((6, 4, 4, 1), np.float32), y=np.arange(6) % 3)
    ok("train", "mlp", "--data", toy, "--save", tmp_path / "net.npz", *train)
    for command in (
        ("eval", tmp_path / "net.npz", "--data", path),
        ("train", "mlp", "--data", path, "--resume", tmp_path / "net.npz"),
        ("train", "mlp", "--data", path, "--input", "2,3,1"),
    ):
        assert "2, 3, 1)" in fails(*command)


def test_evaluation_without_labels_says_so(tmp_path, toy, ok, fails):
    ok("train", "mlp", "--data", toy, "--save", tmp_path / "net.npz", *train)
    path = saved(tmp_path / "x.npz", x=X)
    assert "labels" in fails("eval", tmp_path / "net.npz", "--data", path)


@pytest.mark.parametrize("n", [0, 30, 200, 600])
def test_truncated_data_is_one_line(n, toy, tmp_path, fails):
    path = tmp_path / "cut.npz"
    path.write_bytes(toy.read_bytes()[:n])
    assert "cut.npz" in fails("train", "mlp", "--data", path, *train)


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 and no more"])
def test_a_garbage_checkpoint_is_one_line(content, toy, tmp_path, fails):
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    assert "bad.npz" in fails("train", "mlp", "--data", toy, "--resume", path, *train)
    assert "bad.npz" in fails("eval", path, "--data", toy)
    assert path.read_bytes() == content


def test_data_as_a_checkpoint_and_a_checkpoint_as_data(toy, tmp_path, ok, fails):
    file = tmp_path / "net.npz"
    ok("train", "mlp", "--data", toy, "--save", file, *train)
    assert "toy.npz" in fails("eval", toy, "--data", toy)
    assert "net.npz" in fails("train", "mlp", "--data", file, *train)


@pytest.mark.parametrize("where", ["missing/net.npz", "."])
def test_a_place_that_cannot_be_written_is_found_before_training(
    where, toy, tmp_path, fails, monkeypatch
):
    def never(*arguments, **named):
        raise AssertionError("trained first, and would have lost it all")

    monkeypatch.setattr(tt.Trainer, "fit", never)
    assert "--save" in fails("train", "mlp", "--data", toy, "--save", tmp_path / where, *train)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--lr", "nan"], "lr"),
        (["--lr", "-1"], "lr"),
        (["--lr", "inf"], "lr"),
        (["--seed", "-1"], "seed"),
        (["--seed", str(2**70)], "seed"),
        (["--epochs", "-1"], "epochs"),
        (["--backend", "cuda"], "cuda"),
        (["--optimizer", "lion"], "lion"),
        (["--policy", "none"], "none"),
        (["--policy", "invert"], "layer 1 (matmul)"),
        (["--density", "2"], "density is 2.0"),
        (["--microbatch", "0"], "microbatch is 0"),
        (["--classes", "0"], "classes"),
        (["--batch", "1000000000000"], "memory"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_bad_arguments_of_train_are_one_line(arguments, named, toy, fails):
    assert named in fails("train", "mlp", "--data", toy, "--epochs", "1", *arguments)


def test_training_that_explodes_is_one_line_and_saves_nothing(toy, tmp_path, fails):
    file = tmp_path / "net.npz"
    line = fails(
        *("train", "mlp", "--data", toy, "--backend", "numpy", "--lr", "1e30", "--batch", "4"),
        *("--epochs", "3", "--save", file),
    )
    assert "learning rate" in line
    assert not file.exists()


def test_a_class_without_a_sample_is_one_line_of_warning(tmp_path):
    path = saved(tmp_path / "gap.npz", x=X, y=np.where(Y == 1, 3, Y))
    ran = process("train", "mlp", "--data", path, "--json", *train)
    assert ran.returncode == 0
    json.loads(ran.stdout)
    assert ran.stderr.count("no sample of class 1") == 1
    assert ran.stderr.count("\n") == 1, "a user is not shown lines of this package"


# ---------------------------------------------------------------------------- demo and the rest


def test_demo_json_has_the_keys_of_the_design(ok):
    got = ok("demo", "--epochs", "1", "--backend", "numpy")
    assert set(got) >= DEMO_KEYS
    assert got["ram_bytes"] == 65536
    assert got["arena_bytes"] <= 65536
    assert got["high_water_bytes"] == got["arena_bytes"]
    assert 0.5 < got["test_accuracy"] <= 1
    assert got["backend"] == "numpy"
    assert got["steps"] > 0


def test_the_demo_reaches_97_percent_within_64k(ok):
    got = ok("demo", "--backend", "numpy")
    assert got["test_accuracy"] >= 0.97
    assert got["high_water_bytes"] == got["arena_bytes"] <= 65536


def test_the_demo_in_a_smaller_budget(ok, fails):
    got = ok("demo", "--epochs", "1", "--backend", "numpy", "--ram", "40K")
    assert got["high_water_bytes"] == got["arena_bytes"] <= 40960
    line = fails("demo", "--ram", "30K", status=3)
    assert "missing" in line
    assert "smallest" in line


def test_the_demo_shows_plan_and_result(run, tmp_path):
    picture = tmp_path / "arena.svg"
    arguments = ("--epochs", "1", "--backend", "numpy", "--svg", picture)
    status, out, _ = run("demo", *arguments)
    assert status == 0
    for word in ("parameters", "lower bound", "ram", "high water", "test accuracy"):
        assert word in out
    ET.parse(picture)


def test_models_lists_the_zoo(ok, run):
    got = ok("models")["models"]
    assert [m["name"] for m in got] == models.names()
    assert {m["name"]: m["parameters"] for m in got}["lenet5"] == 61706
    _, out, _ = run("models")
    assert "61,706" in out


def test_version(run):
    assert run("--version") == (0, f"{tt.__version__}\n", "")


@pytest.mark.parametrize(
    "arguments", [["--help"], *([c, "--help"] for c in ("demo", "plan", "train", "eval", "bench"))]
)
def test_help_goes_to_stdout(arguments, run):
    status, out, err = run(*arguments)
    assert (status, err) == (0, "")
    assert "usage: tinytrain" in out


def test_what_later_issues_add_is_absent(fails):
    assert "export" in fails("export", "net.npz", "--to", "c99")


def test_as_a_process(tmp_path):
    good = process("plan", "digits_cnn", "--json", cwd=tmp_path)
    assert (good.returncode, good.stderr) == (0, "")
    assert json.loads(good.stdout)["fits"] is True
    bad = process("plan", "digits_cnn", "--ram", "1K", cwd=tmp_path)
    assert (bad.returncode, bad.stdout) == (3, "")
    assert bad.stderr.startswith("tinytrain: error: ")
    assert bad.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell is missing")
def test_a_reader_that_goes_away_is_no_error():
    ran = subprocess.run(
        f"{sys.executable} -m tinytrain plan mobilenetv2 | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.stderr == ""
    assert ran.stdout.startswith("kind of buffer")


def test_backend_says_which_and_why(ok):
    got = ok("backend")
    assert got["backend"] in ("c", "numba", "numpy") and got["why"]
