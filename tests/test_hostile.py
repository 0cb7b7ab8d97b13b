"""Files that were made to do harm: packed bombs, names that leave the folder, things that are no
files. Each is one InputError, before memory or time is spent. `tinytrain bench fuzz` looks further.
"""

from __future__ import annotations

import gzip
import os
import stat
import struct
import subprocess
import sys
import zipfile
import zlib

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import tinytrain as tt
from tinytrain import data
from tinytrain.bench import fuzz
from tinytrain.errors import InputError

HUGE = 1 << 50  # bytes that no machine has


def npy_header(shape) -> bytes:
    text = repr({"descr": "|u1", "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def claims(path, nbytes: int, name: str = "x.npy") -> None:
    """An .npz whose one member is said, in both of its headers, to unpack to so many bytes."""
    content = npy_header((nbytes,))
    packed = zlib.compress(content + bytes(100))[2:-4]
    size = nbytes + len(content)
    sizes = struct.pack("<QQ", size, len(packed))
    head = struct.pack("<HHHHHIII", 45, 0, 8, 0, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF)
    extra = struct.pack("<HH", 1, 16) + sizes
    names = struct.pack("<HH", len(name), len(extra))
    local = b"PK\3\4" + head + names + name.encode() + extra + packed
    central = b"PK\1\2" + struct.pack("<H", 45) + head + names
    central += struct.pack("<HHHII", 0, 0, 0, 0, 0) + name.encode() + extra
    end = struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)
    path.write_bytes(local + central + b"PK\5\6" + end)


def test_a_size_that_no_such_file_can_hold_is_refused_unread(tmp_path):
    claims(tmp_path / "a.npz", HUGE)
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert archive.infolist()[0].file_size > HUGE  # the lie is read as it was meant
    with pytest.raises(InputError, match=r"a\.npz: declares 1,125,899,.* more than a file of"):
        data.load(tmp_path / "a.npz")
    with pytest.raises(InputError, match=r"a\.npz: declares"):
        tt.Trainer.restore(tmp_path / "a.npz")


BOMB = """
import resource, sys
from tinytrain import data
import numpy, zipfile, tinytrain.data.npz, tinytrain.data.idx, gzip, warnings, csv
with open("/proc/self/statm") as file:
    held = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (32 << 20),) * 2)
try:
    data.load(sys.argv[1])
except data.InputError as error:
    print(error)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc here")
@pytest.mark.parametrize("kind", ["npz", "idx.gz"])
def test_an_honest_bomb_is_refused_within_the_memory_there_is(tmp_path, kind):
    """64 MB of zeros in 64 KB, where 32 MB more may be had."""
    path, nbytes = tmp_path / f"a.{kind}", 1 << 26
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    if kind == "npz":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", npy_header((1, nbytes)) + bytes(nbytes))
    else:
        raw = bytes([0, 0, 8, 1]) + struct.pack(">I", nbytes) + bytes(nbytes)
        path.write_bytes(packer.compress(raw) + packer.flush())
    assert path.stat().st_size < nbytes // 900
    command = [sys.executable, "-c", BOMB, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert path.name in done.stdout and "memory" in done.stdout


def test_what_no_memory_holds_is_not_begun(tmp_path, monkeypatch):
    """An honest size, beside a machine of 1 MB."""
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((2, 1 << 20), np.uint8))
    with open(tmp_path / "b.idx.gz", "wb") as file:
        file.write(gzip.compress(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0x10, 0, 0]) + bytes(1 << 21)))
    monkeypatch.setattr(os, "sysconf", lambda name: 1024)
    for name in ("a.npz", "b.idx.gz"):
        with pytest.raises(InputError, match=f"{name}: declares .* memory has 1,048,576"):
            data.load(tmp_path / name)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_only_what_savez_writes_is_unpacked(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
        archive.writestr("x.npy", npy_header((4, 2)) + bytes(8))
    with pytest.raises(InputError, match="not stored or deflated"):
        data.load(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["../x", "/x", "..\\x", "a/../../x", "C:\\x"])
def test_names_in_an_archive_are_never_paths(tmp_path, name):
    """A member is looked up by its name; nothing is written anywhere."""
    inside = tmp_path / "inside"
    inside.mkdir()
    with zipfile.ZipFile(inside / "a.npz", "w") as archive:
        archive.writestr(f"{name}.npy", npy_header((4, 2)) + bytes(8))
    for load in (data.load, tt.Trainer.restore):
        with pytest.raises(InputError, match=r"a\.npz"):
            load(inside / "a.npz")
    assert [p.name for p in tmp_path.rglob("*")] == ["inside", "a.npz"]


def test_a_symbolic_link_in_an_archive_is_followed_nowhere(tmp_path):
    (tmp_path / "secret.npy").write_bytes(npy_header((4, 2)) + bytes(8))
    link = zipfile.ZipInfo("x.npy")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr(link, str(tmp_path / "secret.npy"))
    with pytest.raises(InputError, match=r"x\.npy: not an \.npy array"):
        data.load(tmp_path / "a.npz")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="os.mkfifo is missing")
@pytest.mark.parametrize("name", ["a.npy", "a.csv", "a.npz", "a.idx"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="neither a file nor a folder"):
        data.load(tmp_path / name)
    for folder in ("a", "b"):
        (tmp_path / "in" / folder).mkdir(parents=True)
    os.mkfifo(tmp_path / "in" / "a" / "1.npy")
    with pytest.raises(InputError, match="is no sample"):
        data.load(tmp_path / "in")


def test_links_that_lead_in_a_circle_or_nowhere(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "1.npy", np.zeros(3))
    (tmp_path / "c").symlink_to(tmp_path / "c")
    assert data.load(tmp_path).classes == ("a", "b")
    (tmp_path / "a" / "2.npy").symlink_to(tmp_path / "nowhere.npy")
    with pytest.raises(InputError, match="is no sample"):
        data.load(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "1,2\0,3\n",
        "\0\0\0",
        '"1,2\n' * 9,
        '1,"a""b\n',
        "1,2\n" + "9" * 200_000 + ",1\n",
        "a,b\n" + '"' + "x" * 140_000 + '",1\n',
        "1" + ",1" * 100_000 + "\n2\n",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_hostile_tables(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=r"a\.csv"):
        data.load(tmp_path / "a.csv")


@settings(deadline=None, max_examples=25)
@given(content=st.binary(max_size=200), kind=st.sampled_from(fuzz.KINDS))
def test_random_bytes_load_or_are_refused(content, kind):
    loader(kind)(content)


@settings(deadline=None, max_examples=25)
@given(
    at=st.floats(0, 1),
    piece=st.binary(max_size=6),
    cut=st.integers(0, 6),
    kind=st.sampled_from(fuzz.KINDS),
)
def test_changed_files_load_or_are_refused(at, piece, cut, kind, tmp_path_factory):
    content = bytearray(sound(kind, tmp_path_factory))
    start = int(len(content) * at)
    content[start : start + cut] = piece
    loader(kind)(bytes(content))


LOADERS: dict = {}
SOUND: dict = {}


def loader(kind: str):
    """What raises anything but an InputError; one folder a kind."""
    if kind not in LOADERS:
        LOADERS[kind] = fuzz.one(kind)
    return LOADERS[kind]


def sound(kind: str, factory) -> bytes:
    if kind not in SOUND:
        SOUND[kind] = fuzz.seeds(kind, factory.mktemp("sound"))[0].read_bytes()
    return SOUND[kind]


def test_a_step_of_fuzzing_finds_what_is_wrong(monkeypatch, tmp_path):
    """The bench is no bench that can only succeed."""
    assert fuzz._random("csv", 0.2, tmp_path)["findings"] == ""
    monkeypatch.setattr(data, "load", lambda place: 1 / 0)
    assert "ZeroDivisionError" in fuzz._random("csv", 0.2, tmp_path)["findings"]
