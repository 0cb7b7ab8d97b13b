"""Training only when it should: on mains power, while the machine is cool, and never in the way of
SIGTERM or SIGTSTP, before which the state is saved. It trains nothing and chooses no file.

Power and heat are read where Linux shows them: <root>/class/power_supply/*/{type,online,status} and
<root>/class/thermal/thermal_zone*/temp, with /sys as the root.
"""

from __future__ import annotations

import glob
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tinytrain.errors import InputError, TinytrainError
from tinytrain.number import is_number

COOLED = 3.0  # degrees below the limit at which a pause for heat ends, so that it lasts a while
EVERY = 5.0  # seconds between two looks, at work and at rest
CHARGING = ("charging", "full", "not charging")  # the last: plugged in, and the battery rests


class Stopped(TinytrainError):
    """SIGTERM came; the message says where the state is."""

    exit_status = 128 + signal.SIGTERM


def is_charging(root: str = "/sys") -> bool:
    """Whether power comes from outside: a mains or USB supply is online, or a battery is not
    discharging. A machine that shows no battery has no other power."""
    batteries, outside = [], False
    for folder in sorted(glob.glob(os.path.join(glob.escape(root), "class/power_supply/*"))):
        kind = (_read(folder, "type") or "").lower()
        if kind == "battery":
            if (_read(folder, "scope") or "").lower() != "device":  # a mouse's, say
                batteries.append((_read(folder, "status") or "").lower())
        elif _read(folder, "online") == "1":
            outside = True
    return outside or not batteries or any(status in CHARGING for status in batteries)


def temperature(root: str = "/sys") -> float | None:
    """The hottest zone in degrees Celsius; None where no zone can be read."""
    found = []
    for folder in glob.glob(os.path.join(glob.escape(root), "class/thermal/thermal_zone*")):
        text = _read(folder, "temp")
        try:
            found.append(int(text or "") / 1000)
        except ValueError:  # a sensor that is asleep
            continue
    return max(found, default=None)


def _read(folder: str, name: str) -> str | None:
    try:
        with open(os.path.join(folder, name), encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


@dataclass(frozen=True)
class Conditions:
    """When to train: `charging`, only on power from outside; `max_temp`, degrees Celsius of the
    hottest zone above which to rest. InputError if a temperature is asked for and none shown."""

    charging: bool = False
    max_temp: float | None = None
    root: str = "/sys"

    def __post_init__(self) -> None:
        if self.max_temp is None:
            return
        if not is_number(self.max_temp) or not 0 < self.max_temp < 200:
            raise InputError(f"max_temp is {self.max_temp!r}; wants degrees Celsius, as 60")
        if temperature(self.root) is None:
            raise InputError(
                f"max_temp: this machine shows no temperature in {self.root}/class/thermal; "
                f"leave it out"
            )

    def against(self, resting: bool = False) -> str | None:
        """Why not to train now, or None; it takes more to end a rest than not to begin one."""
        if self.charging and not is_charging(self.root):
            return "on battery"
        if self.max_temp is not None:
            now = temperature(self.root)
            limit = self.max_temp - (COOLED if resting else 0)
            if now is not None and now > limit:
                return f"{now:.0f} degrees, {limit:g} wanted"
        return None


class Watch:
    """Called after each step (`Trainer.fit(on_step=watch)`) inside a `with`: it rests while the
    conditions are against training, and handles signals at the end of a step.

    save       writes the state and says where, or returns None if there is no place to.
    say        takes a line of text, for the user.
    SIGTSTP: the state is saved and the process stops as any other; SIGCONT goes on. SIGTERM: the
    state is saved and Stopped raised.
    """

    def __init__(
        self,
        conditions: Conditions,
        save: Callable[[], str | None],
        say: Callable[[str], Any],
        every: float = EVERY,
        sleep: Callable[[float], Any] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.conditions, self.save, self.say = conditions, save, say
        self.every, self.sleep, self.clock = every, sleep, clock
        self.came: list[int] = []
        self.paused = 0  # times
        self._before: dict[int, Any] = {}
        self._looked = -float("inf")

    def __enter__(self) -> Watch:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, getattr(signal, "SIGTSTP", None)):
                if number is not None:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        self.came.append(number)

    def __call__(self, step: int = 0, loss: float = 0.0) -> None:
        """Look at signals, and now and then at the conditions; returns when training may go on.
        Stopped for SIGTERM."""
        self._signals()
        if self.clock() - self._looked < self.every:
            return
        why = self.conditions.against()
        if why is not None:
            self.paused += 1
            self.say(f"paused: {why}{_saved(self.save())}")
            while why is not None:
                self.sleep(self.every)
                self._signals()
                why = self.conditions.against(resting=True)
            self.say("going on")
        self._looked = self.clock()

    def _signals(self) -> None:
        while self.came:
            number = self.came.pop(0)
            where = self.save()
            if number == signal.SIGTERM:
                raise Stopped(f"stopped by SIGTERM{_saved(where)}")
            self.say(f"stopped by SIGTSTP{_saved(where)}; fg or SIGCONT goes on")
            os.kill(os.getpid(), signal.SIGSTOP)
            self.say("going on")


def _saved(where: str | None) -> str:
    return (
        f"; the state is saved in {where}" if where else "; nothing is saved (no place was named)"
    )


def be_nice(level: int) -> None:
    """Give way to other processes: nice, 0 to 19. InputError if that cannot be."""
    if not 0 <= level <= 19:
        raise InputError(f"nice is {level}; wants 0 (as usual) to 19 (whenever nobody else runs)")
    try:
        os.nice(max(level - os.nice(0), 0))
    except (OSError, AttributeError) as error:
        raise InputError(f"nice: not on this machine ({error})") from error
