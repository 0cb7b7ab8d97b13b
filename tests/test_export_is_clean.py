"""What is exported tells nothing of the machine that exported it, and is the same on every one."""

from __future__ import annotations

import getpass
import os
import socket
import tempfile
from pathlib import Path

import pytest
from test_repository import PATHS

import tinytrain as tt
from tinytrain import models, optim


def export(port: str, folder: Path) -> dict[str, bytes]:
    net = models.build("mlp", classes=3, input_shape=(2, 2, 1), hidden=(5,), seed=1)
    t = tt.Trainer(net, batch=2, optimizer=optim.SGD(0.1, momentum=0.9), backend="numpy")
    t.export(port, str(folder))
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.mark.parametrize("port", ["c99", "micropython"])
def test_no_path_and_no_name_of_this_machine(port, tmp_path, checkout):
    files = export(port, tmp_path / "out")
    assert files
    places = {str(checkout), str(tmp_path), os.getcwd(), tempfile.gettempdir(), tt.__path__[0]}
    told = [*places, os.path.expanduser("~"), socket.gethostname(), getpass.getuser()]
    wanted = [word.encode() for word in told if len(word) > 4]
    for name, content in files.items():
        assert not [word for word in wanted if word in content], name
        text = content.decode("latin-1")
        assert not PATHS.search(text), name


@pytest.mark.parametrize("port", ["c99", "micropython"])
def test_the_same_export_twice_has_the_same_bytes(port, tmp_path):
    """No time, no order of a set, no place."""
    assert export(port, tmp_path / "one") == export(port, tmp_path / "elsewhere" / "two")
