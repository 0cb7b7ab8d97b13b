"""Faults in the middle of saving: what is found is the last state or the last but one, and said to
be. `tinytrain bench faults` does the same with larger counts."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import warnings

import numpy as np
import pytest
from test_checkpoint import same, snapshot, trainer

import tinytrain as tt
from tinytrain import checkpoint, durable
from tinytrain.bench import faults
from tinytrain.data import npz
from tinytrain.errors import InputError

REQUIRED = os.environ.get("TINYTRAIN_REQUIRE_PORTS") == "1"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork is missing")


def survived(fault: faults.Fault, tries: int) -> faults.Fault:
    assert fault.tries >= tries and fault.lost == []
    assert fault.last + fault.before == fault.tries
    return fault


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    if shutil.which("gcc") is None:
        (pytest.fail if REQUIRED else pytest.skip)("gcc is missing")
    return faults.build(tmp_path_factory.mktemp("port"))


@pytest.mark.parametrize("backend", faults.backends())
def test_killed_while_training_it_goes_on_bit_for_bit(backend, tmp_path):
    survived(faults.kills(tmp_path / "kills", 3, backend), 3)


def test_the_c99_port_killed_goes_on_bit_for_bit(port):
    survived(faults.port_kills(port, 4), 5)


def test_the_flash_driver_survives_every_cut(port):
    """Power cuts at every event, whole and torn; flipped bits; sectors that fail."""
    cut = {f.name: survived(f, 9) for f in faults.flash(port)}
    assert cut["flash driver: power-cut"].tries > 5000
    assert cut["flash driver: bit-flip"].before > 0


def test_a_save_that_ends_at_any_line(tmp_path):
    linked = survived(faults.lines(tmp_path / "1", 4, True, faults.ENDED[:1]), 10)
    assert linked.before == 0
    survived(faults.lines(tmp_path / "0", 4, False, faults.ENDED[:1]), 10)
    survived(faults.lines(tmp_path / "2", 4000, True, faults.ENDED), 5)


def test_without_hard_links_the_last_but_one_fills_the_gap(tmp_path):
    """Between two renames only the last but one is there."""
    path, _, want = faults._two_saves(tmp_path)
    os.replace(path, durable.previous(path))
    got, said = faults.found_at(path)
    assert said and faults.mark(got) == want["last"]


def test_a_disk_without_room(tmp_path):
    survived(faults.no_room(tmp_path / "room", 5000), 5)


@pytest.mark.parametrize("what", ["full_disk", "read_only"])
def test_a_disk_that_cannot_be_written(what, tmp_path):
    fault = getattr(faults, what)(tmp_path / "disk", *([8] if what == "full_disk" else []))
    if "not done" in fault.name:
        pytest.skip(fault.name)
    survived(fault, 1)


def test_damage_is_found_and_the_last_but_one_taken(tmp_path):
    flips = survived(faults.flips(tmp_path / "flips", 997), 20)
    assert flips.before > flips.last  # a flip that is not found lies where nobody reads
    cuts = survived(faults.cuts(tmp_path / "cuts", 997), 20)
    assert cuts.before == cuts.tries


def test_a_flip_that_hides_members_is_found(tmp_path):
    """A zip directory's lengths: a flipped bit there may swallow the entries that follow, and its
    reader does not mind. Name, extra field and comment stand at 28, 30 and 32 of an entry."""
    path, _, want = faults._two_saves(tmp_path)
    whole = path.read_bytes()
    entries = [at for at in range(len(whole)) if whole.startswith(b"PK\1\2", at)]
    hidden = 0
    for bit in range(8 * 28, 8 * 34):
        damaged = bytearray(whole)
        damaged[entries[len(entries) // 2] + bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with contextlib.suppress(InputError):
            hidden += len(npz.read_members(path)) < len(entries)
        assert faults._one_of_two(path, want) == "before"
    assert hidden


def test_what_is_told_of_the_last_but_one(tmp_path):
    path, t = tmp_path / "net.npz", trainer()
    t.save(path)
    held = snapshot(t)
    t.step(np.ones((4, 2, 2, 1)), [0, 1, 2, 0])
    t.save(path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.warns(UserWarning, match=r"net\.npz: not a whole .* took .*net\.npz\.previous"):
        again = tt.Trainer.restore(path, backend="numpy")
    assert snapshot(again) == held and again.steps == 0
    with pytest.warns(UserWarning, match="previous"):
        assert checkpoint.model_of(path) == "mlp"
    again.save(path)  # the damaged file does not take the whole one's place
    assert tt.Trainer.restore(durable.previous(path), backend="numpy").steps == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same(tt.Trainer.restore(path, backend="numpy"), again)


def test_what_killed_writers_left_is_removed(tmp_path):
    with faults.child(lambda: None) as gone:
        pass
    stale = [tmp_path / f"net.npz.{gone}{end}" for end in (".part", ".old.part")]
    mine = [tmp_path / name for name in (f"net.npz.{os.getppid()}.part", "net.npz.x.part")]
    for file in (*stale, *mine):
        file.write_bytes(b"half")
    trainer().save(tmp_path / "net.npz")
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "net.npz", *mine])


def test_file_and_folder_are_synced_around_the_rename(tmp_path, monkeypatch):
    """What a power cut leaves is what was synced: the bytes before the name, then the name."""
    told = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def tells(*args, name=name, real=real):
            is_file = isinstance(args[0], int) and stat.S_ISREG(os.fstat(args[0]).st_mode)
            told.append("file" if is_file else "folder" if name == "fsync" else "rename")
            return real(*args)

        monkeypatch.setattr(os, name, tells)
    t = trainer()
    t.save(tmp_path / "net.npz")
    t.save(tmp_path / "net.npz")
    assert told == ["file", "rename", "folder", "file", "rename", "rename", "folder"]
