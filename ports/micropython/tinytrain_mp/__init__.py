"""Trains a plan that tinytrain exported, within its arena: load, then train, infer, save, restore.

It reads the words that `ports/table.py` of tinytrain describes, one step at a time, and imports
only the kernels that the plan needs. It changes nothing persistent when it refuses: a file that is
cut short, damaged or of another version, numbers that are not finite, arrays of another length.
"""

import gc
from binascii import crc32
from struct import pack, unpack
from sys import modules

from .stream import FileError, crc_of, numbers, take

_STATE = b"TTS1"
_REASONS = ("", "the input", "the network's output", "the loss", "a gradient", "a bitmap")


class NotFiniteError(ValueError):
    """A number that is not finite; the weights are as they were."""


def load(file):
    """The Model in a file that tinytrain exported: a path, or a stream that can seek."""
    model = Model()
    threshold = getattr(gc, "threshold", int)  # CPython has none
    held = threshold()
    threshold(256)  # what stays shall lie close together, not between what was thrown away
    try:
        from .table import read

        _opened(file, "rb", lambda stream: read(model, stream))
    finally:
        threshold(held)
        modules.pop(__name__ + ".table", None)  # where code lies in RAM, this much comes back
        globals().pop("table", None)
    return model


def _opened(file, mode, use):
    """use(the stream), closed behind it if it was a path."""
    if not isinstance(file, str):
        return use(file)
    with open(file, mode) as stream:
        return use(stream)


class Model:
    """A network in its arena, as `load` makes it. `lr` may be set before any step, dropout's `seed`
    before the first; `steps` counts the updates, `overflows` the slices that were run again with
    more room."""

    def __init__(self):
        self.seed = self.steps = self.slice = self.begun = self.overflows = 0

    def _run(self, steps):
        """Run one part; the reason's number if a STOP ended it, else 0."""
        F, B = self.F, self.B
        for k in range(0, len(steps), 2):
            kernel, args = steps[k], steps[k + 1]
            if kernel:
                kernel(F, B, *args)
                continue
            for j in range(1, 1 + args[0]):
                if B[4 * args[j]]:
                    return args[j + args[0]]
        return 0

    def train(self, x, y):
        """One slice of samples; the loss before the update, which comes behind the last slice of
        a batch. x: numbers in a row (bytes are scaled to [0, 1]), or a tuple for several inputs;
        y: labels likewise. A slice that raises is not counted."""
        parts, places = self._ready(0, x, y)
        why = self._run(parts[1])
        if why == 5 and self.programs[1]:  # the same slice again, with more room
            self.overflows += 1
            parts, places = self._ready(1, x, y)
            why = self._run(parts[1])
        self._stopped(why)
        if not self.begun:  # nothing that persists has been changed before this
            self._stopped(self._run(parts[0]))
            self.begun = 1
        self._stopped(self._run(parts[2]))
        loss = self.F[places[0]]
        self.slice += 1
        if self.slice == self.slices:
            self.slice = self.begun = 0
            self._stopped(self._run(parts[3]))
            self.steps += 1
            self.powers = tuple(p * b >> 64 for p, b in zip(self.powers, self.betas))
        return loss

    def _ready(self, program, x, y):
        """A program's parts and places, its inputs, labels and numbers in the arena."""
        F = self.F
        parts, ports, places = self.programs[program]
        self._give("x", ports[0], x)
        self._give("y", ports[1], y)
        _, lr, corrections, share, key = places
        if lr >= 0:
            F[lr] = self.lr
        if share >= 0:
            F[share] = self.share
        if corrections >= 0:  # in whole numbers, for 1 - 0.999 has few digits left in float32
            for k in (0, 1):
                F[corrections + k] = ((1 << 64) - self.powers[k]) / (1 << 64)
        if key >= 0:
            words = self.seed ^ 0x9E3779B9, self.steps, self.slice * self.size
            self.B[4 * key : 4 * key + 12] = pack("<III", *words)
        return parts, places

    def _stopped(self, why):
        if why:
            raise NotFiniteError(_REASONS[why] + " is NaN or infinite; nothing was updated")

    def infer(self, x):
        """The network's output for one sample: a view that holds until the next call, or a tuple
        of them."""
        parts, ports, _ = self.programs[2]
        self._give("x", ports[0], x)
        for part in parts:
            self._run(part)
        view = memoryview(self.F)
        found = tuple(view[p >> 2 : (p >> 2) + n] for p, n, _, _ in ports[2])
        return found if len(found) > 1 else found[0]

    def _give(self, what, ports, given):
        """Copy arrays into the arena; ValueError unless they are as long as the network wants."""
        if not isinstance(given, tuple):
            given = (given,)
        if len(given) != len(ports):
            raise ValueError("%s: %d arrays, the network wants %d" % (what, len(given), len(ports)))
        for (_, n, _, _), a in zip(ports, given):
            if len(a) != n:
                raise ValueError("%s: %d numbers, the network wants %d" % (what, len(a), n))
        for (at, n, dtype, bound), a in zip(ports, given):
            if dtype == 0:
                F, at = self.F, at >> 2
                scale = isinstance(a, (bytes, bytearray))
                for k in range(n):
                    F[at + k] = a[k] / 255 if scale else a[k]
                continue
            for k in range(n):
                v = a[k]
                if bound and not 0 <= v < bound:
                    raise ValueError("%s: %r is not in 0 to %d" % (what, v, bound - 1))
                width = 1 if dtype == 3 else 4
                for j in range(width):
                    self.B[at + width * k + j] = v >> 8 * j & 255

    def save(self, file):
        """Write weights, optimizer state and position, as the c99 port does: to a path, whole or
        not at all, or to a stream."""
        if not isinstance(file, str):
            return self._save(file)
        import os

        sync = getattr(os, "sync", int)  # not every port has one, nor a cache that wants it
        _opened(file + ".part", "wb", self._save)
        sync()  # first the bytes, then the name
        os.rename(file + ".part", file)
        sync()

    def _save(self, file):
        words = [self.seed, self.steps, self.slice, self.begun, self.overflows, self.lr]
        for power in self.powers:
            words += [power >> 32, power & 0xFFFFFFFF]
        head = _STATE + pack("<IIIIIIfIIII", self.crc, *words)
        body = memoryview(self.B)[: self.floor]
        file.write(head)
        file.write(body)
        file.write(pack("<I", crc32(body, crc32(head))))

    def restore(self, file):
        """Go on from what `save` wrote; FileError leaves everything as it was."""
        _opened(file, "rb", self._restore)

    def _restore(self, file):
        head = take(file, 48)
        if head[:4] != _STATE:
            raise FileError("not a state of tinytrain's, or of another version")
        found = unpack("<IIIIIIfIIII", head[4:])
        if found[0] != self.crc:
            raise FileError("the state of another network")
        if crc_of(file, self.floor, crc32(head)) != numbers(file, "I")[0]:
            raise FileError("the state is damaged (CRC-32)")
        file.seek(48)
        file.readinto(memoryview(self.B)[: self.floor])
        self.seed, self.steps, self.slice, self.begun, self.overflows, self.lr = found[1:7]
        self.powers = (found[7] << 32 | found[8], found[9] << 32 | found[10])
