"""Training only when it should: a fake sysfs tree says whether, and signals lose nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tinytrain as tt
from tinytrain import data, models, optim
from tinytrain.cli import main
from tinytrain.errors import InputError
from tinytrain.when import Conditions, Stopped, Watch, is_charging, temperature

unix = pytest.mark.skipif(not hasattr(signal, "SIGTSTP"), reason="SIGTSTP is missing")


def tree(root: Path, temps: tuple = (45000,), **supplies: dict[str, str]) -> str:
    """A sysfs with these thermal zones (what their `temp` holds) and power supplies."""
    for k, text in enumerate(temps):
        zone = root / f"class/thermal/thermal_zone{k}"
        zone.mkdir(parents=True, exist_ok=True)
        (zone / "temp").write_text(f"{text}\n")
    for name, entries in supplies.items():
        folder = root / "class/power_supply" / name
        folder.mkdir(parents=True, exist_ok=True)
        for entry, text in entries.items():
            (folder / entry).write_text(f"{text}\n")
    return str(root)


def battery(status: str, **more: str) -> dict[str, str]:
    return {"type": "Battery", "status": status, **more}


@pytest.mark.parametrize(
    ("supplies", "expected"),
    [
        ({}, True),  # a board without a battery
        ({"BAT0": battery("Discharging")}, False),
        ({"BAT0": battery("Charging")}, True),
        ({"BAT0": battery("Full")}, True),
        ({"BAT0": battery("Not charging")}, True),
        ({"BAT0": battery("Unknown")}, False),
        ({"BAT0": battery("Discharging"), "AC": {"type": "Mains", "online": "1"}}, True),
        ({"BAT0": battery("Discharging"), "AC": {"type": "Mains", "online": "0"}}, False),
        ({"BAT0": battery("Discharging"), "usb": {"type": "USB", "online": "1"}}, True),
        ({"mouse": battery("Discharging", scope="Device")}, True),
        ({"BAT0": {"type": "Battery"}}, False),  # it does not say
        ({"odd": {}}, True),
    ],
)
def test_power_is_read_from_sysfs(tmp_path, supplies, expected) -> None:
    assert is_charging(tree(tmp_path, **supplies)) is expected


def test_the_hottest_zone_counts(tmp_path) -> None:
    assert temperature(str(tmp_path)) is None
    assert temperature(tree(tmp_path, (41000, 58500, "", "asleep"))) == 58.5
    assert Conditions(max_temp=60, root=str(tmp_path)).against() is None
    assert "58 degrees" in Conditions(max_temp=50, root=str(tmp_path)).against()
    hot = Conditions(max_temp=60, root=str(tmp_path))
    assert hot.against(resting=True) is not None  # a rest ends three degrees below


def test_conditions_that_cannot_be_are_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="shows no temperature"):
        Conditions(max_temp=60, root=str(tmp_path))
    for wrong in (-1, 1000, float("nan"), "hot"):
        with pytest.raises(InputError, match="degrees Celsius"):
            Conditions(max_temp=wrong, root=tree(tmp_path))


class Slow:
    """A clock and a sleep; each sleep lets the next of `events` happen."""

    def __init__(self, *events):
        self.now, self.events = 0.0, list(events)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.events:
            self.events.pop(0)()


def test_it_rests_until_the_machine_is_cool_and_plugged_in(tmp_path) -> None:
    ac = {"BAT0": battery("Discharging"), "AC": {"type": "Mains", "online": "1"}}
    root = tree(tmp_path, (70000,), **ac)
    slow = Slow(
        lambda: tree(tmp_path, (59000,)),  # not cool enough to go on
        lambda: tree(tmp_path, (56000,), AC={"online": "0"}),
        lambda: tree(tmp_path, (56000,), AC={"online": "1"}),
    )
    said, saved = [], []
    conditions = Conditions(charging=True, max_temp=60, root=root)
    watch = Watch(
        conditions, lambda: saved.append(1) or "it.npz", said.append, 5, slow.sleep, slow.clock
    )
    with watch:
        watch()
        assert slow.events == [] and slow.now == 15 and watch.paused == 1
        assert said == ["paused: 70 degrees, 60 wanted; the state is saved in it.npz", "going on"]
        tree(tmp_path, (99000,))
        watch()  # it looked just now
        assert watch.paused == 1 and len(saved) == 1
        slow.now += 5
        slow.events = [lambda: tree(tmp_path, (20000,))]
        watch()
        assert watch.paused == 2


def trainer() -> tt.Trainer:
    return tt.Trainer(models.build("digits_cnn"), optimizer=optim.SGD(0.01, momentum=0.9), batch=8)


@unix
def test_sigterm_saves_and_a_resumed_run_ends_bit_for_bit(tmp_path) -> None:
    train, test = data.digits()
    x, y = train.x[:100], train.y[:100]
    path = str(tmp_path / "state.npz")
    one, whole = trainer(), trainer()

    def save() -> str:
        one.save(path)
        return path

    before = signal.getsignal(signal.SIGTERM)
    with Watch(Conditions(), save, print) as watch, pytest.raises(Stopped, match=r"state\.npz"):

        def on_step(step: int, loss: float) -> None:
            if step == 18:  # in the midst of the second epoch
                os.kill(os.getpid(), signal.SIGTERM)
            watch(step, loss)

        one.fit(x, y, epochs=3, on_step=on_step)
    assert signal.getsignal(signal.SIGTERM) is before
    again = tt.Trainer.restore(path)
    assert (again.steps, again.epoch) == (18, 1)
    again.fit(x, y, epochs=2)
    whole.fit(x, y, epochs=3)
    assert np.array_equal(again.predict(test.x), whole.predict(test.x))


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


@unix
def test_the_command_rests_stops_and_leaves_the_old_model_alone(tmp_path) -> None:
    train, _ = data.digits()
    np.savez(tmp_path / "d.npz", x=train.x, y=train.y)
    root = tree(tmp_path / "sys", BAT0=battery("Discharging"))
    model, paused = tmp_path / "m.npz", tmp_path / "m.npz.paused"
    model.write_bytes(b"an older model")
    words = ["train", "digits_cnn", "--data", tmp_path / "d.npz", "--epochs", "100000"]
    words += ["--save", model, "--when", "charging", "--sysfs", root, "--nice", "5"]
    words += ["--backend", "numpy"]
    with subprocess.Popen(
        [sys.executable, "-m", "tinytrain", *map(str, words)], stderr=subprocess.PIPE, text=True
    ) as process:
        state = Path(f"/proc/{process.pid}/stat")
        try:
            assert "paused: on battery; the state is saved in" in process.stderr.readline()
            assert paused.exists() and os.getpriority(os.PRIO_PROCESS, process.pid) >= 5
            process.send_signal(signal.SIGTSTP)
            wait_for(lambda: state.read_text().split(") ")[1][0] == "T")
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
            said = process.stderr.read()
            assert process.wait(60) == 143
        finally:
            process.kill()
    assert "stopped by SIGTSTP" in said and "error: stopped by SIGTERM" in said
    assert "Traceback" not in said
    assert model.read_bytes() == b"an older model"
    tree(tmp_path / "sys", BAT0=battery("Charging"))
    more = ["train", "digits_cnn", "--data", tmp_path / "d.npz", "--resume", paused]
    more += ["--epochs", "1", "--save", model, "--when", "charging", "--sysfs", root]
    assert main([str(a) for a in more]) == 0
    assert tt.Trainer.restore(str(model)).epoch == 1 and not paused.exists()


def test_a_run_that_fails_leaves_the_old_model_alone(tmp_path, capsys) -> None:
    train, _ = data.digits()
    np.savez(tmp_path / "d.npz", x=train.x[:64], y=train.y[:64])
    model = tmp_path / "m.npz"
    model.write_bytes(b"an older model")
    words = ["train", "digits_cnn", "--data", str(tmp_path / "d.npz"), "--save", str(model)]
    assert main([*words, "--lr", "1e30", "--epochs", "3"]) == 2
    assert main([*words, "--max-temp", "60", "--sysfs", str(tmp_path)]) == 2
    assert main([*words, "--nice", "99"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert all(line.startswith("tinytrain: error: ") for line in said if "epoch" not in line)
    assert model.read_bytes() == b"an older model"
