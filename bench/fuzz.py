"""The loaders against files made to break them: each must load or raise InputError, in bounded
memory and time. With atheris (coverage-guided) where it is installed, else with random changes.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
import wave
from pathlib import Path
from typing import Any

import numpy as np

from tinytrain import report
from tinytrain.bench.machine import where_and_when
from tinytrain.errors import InputError

KINDS = ("npz", "npy", "idx", "idx.gz", "csv", "wav", "checkpoint")
SECONDS = 60  # each
MEGABYTES, TIMEOUT = 1024, 10  # of one file, at most
HEAD = ("loader", "by", "seconds", "files", "findings")
CHILD = """
import sys
import atheris
with atheris.instrument_imports(include=["tinytrain.data", "tinytrain.checkpoint", "zipfile"]):
    from tinytrain.bench import fuzz
fuzz.warm(sys.argv[1])
atheris.Setup([sys.argv[0], *sys.argv[2:]], fuzz.one(sys.argv[1]))
atheris.Fuzz()
"""


def run(data: str | None = None, json: bool = False, quick: bool = False) -> dict[str, Any]:
    """Fuzz every loader, print a table unless `json`; `quick`: two seconds each."""
    guided = importlib.util.find_spec("atheris") is not None
    rows = []
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            fuzz = _guided if guided else _random
            rows.append(fuzz(kind, 2 if quick else SECONDS, Path(folder)))
    if not json:
        print(report.table(HEAD, [tuple(r.values()) for r in rows]))
        print(f"\n{where_and_when()}")
    return {**where_and_when(), "loaders": rows}


def seeds(kind: str, folder: Path) -> list[Path]:
    """Sound files of a kind, small."""
    x, y = np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.array([0, 1])
    file = folder / f"sound.{kind}"
    if kind == "npz":
        np.savez(file, x=x, y=y)
        np.savez_compressed(folder / "packed.npz", x=x, y=y, classes=np.array(["a", "b"]))
    elif kind == "npy":
        np.save(file, x)
    elif kind.startswith("idx"):
        import gzip

        raw = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]) + x.tobytes()
        file.write_bytes(gzip.compress(raw, mtime=0) if kind.endswith("gz") else raw)
    elif kind == "csv":
        file.write_text('a,b,"what, else"\n1,2,cat\n3,4.5,"dog"\n', encoding="utf-8")
    elif kind == "wav":
        with wave.open(str(file), "wb") as sound:
            sound.setparams((1, 2, 8000, 0, "NONE", ""))
            sound.writeframes(bytes(range(40)))
    else:
        _trainer().save(str(file))
    return sorted(folder.iterdir())


def _trainer() -> Any:
    from tinytrain import Trainer, models

    net = models.build("mlp", classes=2, input_shape=(2, 1, 1), hidden=(2,))
    return Trainer(net, batch=2, backend="numpy")


def warm(kind: str) -> None:
    """What is imported with the first file, before anything is watched."""
    with tempfile.TemporaryDirectory() as folder:
        for file in seeds(kind, Path(folder)):
            one(kind)(file.read_bytes())


def one(kind: str) -> Any:
    """A function that takes a file's bytes, and raises what is no InputError."""
    from tinytrain import Trainer, data

    folder = tempfile.mkdtemp(prefix="tinytrain-fuzz-")
    file = Path(folder) / f"file.{kind}"
    classes = [Path(folder) / "classes" / name for name in ("a", "b")]
    if kind == "wav":
        for place in classes:
            place.mkdir(parents=True)

    def load(content: bytes) -> None:
        warnings.simplefilter("ignore")
        place = classes[0] / "1.wav" if kind == "wav" else file
        place.write_bytes(content)
        if kind == "wav":
            (classes[1] / "1.wav").write_bytes(content)
        try:
            if kind == "checkpoint":
                Trainer.restore(str(file), backend="numpy")
            else:
                data.load(classes[0].parent if kind == "wav" else file)
        except InputError:
            pass

    return load


def _guided(kind: str, seconds: int, folder: Path) -> dict[str, Any]:
    seeds(kind, folder)
    limits = [f"-max_total_time={seconds}", f"-rss_limit_mb={MEGABYTES}", f"-timeout={TIMEOUT}"]
    command = [sys.executable, "-c", CHILD, kind, str(folder), *limits, "-max_len=4096"]
    path = os.pathsep.join(filter(None, [os.path.abspath(p or ".") for p in sys.path]))
    env = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env)
    found = re.search(r"Done (\d+) runs in (\d+) second", done.stderr)
    count, spent = (int(found[1]), int(found[2])) if found else (0, 0)
    bad = "" if done.returncode == 0 else done.stderr.strip()[-600:]
    return {"loader": kind, "by": "atheris", "seconds": spent, "files": count, "findings": bad}


def _random(kind: str, seconds: int, folder: Path) -> dict[str, Any]:
    """Bytes changed, cut out, doubled and made up, in sound files."""
    sound, load, rng = [f.read_bytes() for f in seeds(kind, folder)], one(kind), _generator()
    begin, count, bad = time.perf_counter(), 0, ""
    while time.perf_counter() - begin < seconds and not bad:
        content = bytearray(sound[int(rng.integers(len(sound)))])
        for _ in range(int(rng.integers(1, 4))):
            at, n = int(rng.integers(len(content) + 1)), int(rng.integers(1, 9))
            content[at : at + n * int(rng.integers(2))] = rng.bytes(int(rng.integers(n + 1)))
        try:
            load(bytes(content))
        except Exception as error:
            bad = f"{type(error).__name__}: {error}"
        count += 1
    spent = round(time.perf_counter() - begin)
    return {"loader": kind, "by": "random", "seconds": spent, "files": count, "findings": bad}


def _generator() -> np.random.Generator:
    return np.random.default_rng(0)
