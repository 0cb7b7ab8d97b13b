"""Trains a plan that tinytrain exported, within its arena: load, then train, infer, save, restore.

It reads the words that `ports/table.py` of tinytrain describes, one step at a time, and imports
only the kernels that the plan needs. It changes nothing persistent when it refuses: a file that is
cut short, damaged or of another version, numbers that are not finite, arrays of another length.
"""

import gc
from array import array
from binascii import crc32
from struct import pack, unpack
from sys import modules

_TABLE, _STATE, _VERSION = b"TTT1", b"TTS1", 1
_REASONS = ("", "the input", "the network's output", "the loss", "a gradient", "a bitmap")
_FILES = {
    "b": "basic",
    "c": "conv",
    "e": "elementwise",
    "l": "losses",
    "m": "moves",
    "n": "norm",
    "p": "pool",
    "r": "reduce",
    "u": "update",
    "z": "bitmap",
}
_FILE_OF = "-mmmmbbebe-eeeeeeeeeeebbeeeeeeeee---zzzzzr--brrrrb--cccppppnnnnnnnnnbll-bbuuuuubz"


class FileError(ValueError):
    """A file that is not whole, or of another version or network; nothing was changed."""


class NotFiniteError(ValueError):
    """A number that is not finite; the weights are as they were."""


def load(file):
    """The Model in a file that tinytrain exported: a path, or a stream that can seek."""
    if not hasattr(gc, "threshold"):
        return _opened(file, "rb", Model)
    held = gc.threshold()
    gc.threshold(256)  # what stays shall lie close together, not between what was thrown away
    try:
        return _opened(file, "rb", Model)
    finally:
        gc.threshold(held)


def _opened(file, mode, use):
    """use(the stream), closed behind it if it was a path."""
    if not isinstance(file, str):
        return use(file)
    with open(file, mode) as stream:
        return use(stream)


def _words(file, letters):
    """The next words as struct has them; FileError if the file ends."""
    raw = file.read(4 * len(letters))
    if len(raw) < 4 * len(letters):
        raise FileError("the file is cut short")
    return unpack("<" + letters, raw)


def _check(file, magic):
    """FileError unless the file is whole: its kind, version, length and CRC-32."""
    if file.read(4) != magic:
        raise FileError("not a file of tinytrain's, or of another kind")
    version, length, crc = _words(file, "III")
    if version != _VERSION:
        raise FileError("version %d, this is %d" % (version, _VERSION))
    left, found, chunk = 4 * length - 16, 0, bytearray(64)
    while left > 0:
        n = file.readinto(chunk)
        if not n:
            raise FileError("the file is cut short")
        n = min(n, left)
        found = crc32(chunk if n == 64 else chunk[:n], found)
        left -= n
    if found != crc:
        raise FileError("the file is damaged (CRC-32)")
    file.seek(16)
    return crc


def _arena(n):
    """n zeros as floats, and the same memory as bytes."""
    try:
        from uctypes import addressof, bytearray_at
    except ImportError:
        both = bytearray(4 * n)
        return memoryview(both).cast("f"), both
    floats = array("f", range(n))  # of a known length: made at once, in its final size
    for k in range(n):
        floats[k] = 0.0
    return floats, bytearray_at(addressof(floats), 4 * n)


def _power(fraction, n):
    """The n-th power of fraction / 2^64, as a fraction of 2^64."""
    power = 1 << 64
    while n:
        if n & 1:
            power = power * fraction >> 64
        fraction = fraction * fraction >> 64
        n >>= 1
    return power


class Model:
    """A network in its arena. `lr` may be set before any step; `steps` counts the updates."""

    def __init__(self, file):
        crc = _check(file, _TABLE)
        gc.collect()  # the arena is the largest block: nothing that stays may lie in its way
        head = _words(file, "IIIIffIIIIIIIIII")
        self._F, self._B = _arena(head[0] + 3 >> 2)
        self._crc = crc
        self._floor = head[1] + 3 & -4
        self._slices, self.lr, self._share = head[2], head[4], head[5]
        self._betas = (head[6] << 32 | head[7], head[8] << 32 | head[9])
        self.steps = self._slice = 0
        self._begun = False
        self._start(file, head[10], head[11])
        self._programs = [None, None, None]
        for k in range(head[13]):
            file.seek(4 * head[12] + 64 * k)
            row = _words(file, "i" * 16)
            self._programs[row[0]] = self._program(file, row)
        gc.collect()

    def _start(self, file, at, count):
        """Initial values; what has none in the file starts as zero."""
        view = memoryview(self._B)
        for k in range(count):
            file.seek(4 * at + 16 * k)
            _, offset, nbytes, place = _words(file, "iiii")
            if place >= 0:
                file.seek(4 * place)
                file.readinto(view[offset : offset + nbytes])

    def _program(self, file, row):
        """(prologue, body, epilogue), (inputs, labels, outputs), loss, lr, corrections, share"""
        parts = tuple(self._part(file, row[2 + k], row[3 + k]) for k in range(3))
        file.seek(4 * row[11])
        ports = tuple([_words(file, "iiii") for _ in range(row[12 + k])] for k in range(3))
        return parts, ports, tuple(v >> 2 for v in (row[6], row[7], row[8], row[9]))

    def _part(self, file, at, end):
        """Steps as a flat list: a kernel and its arguments by turns; None and flags for a STOP."""
        steps = []
        file.seek(4 * at)
        while at < end:
            code, operands, words = unpack("<BBH", file.read(4))
            kernel, first, count = None, 0, 0
            if code:
                kernel = _kernels(code)[code]
                if isinstance(kernel, tuple):
                    kernel, first, count = kernel
            whole = "<%di%df%di" % (operands + max(first, 0), count, words - max(first, 0) - count)
            args = unpack(whole, file.read(4 * (operands + words)))
            args = tuple(v >> 2 for v in args[:operands]) + args[operands:]
            steps.append(kernel)
            steps.append((operands,) + args if first < 0 or not code else args)
            at += 1 + operands + words
        return steps

    def _run(self, steps):
        """Run one part; the reason's number if a STOP ended it, else 0."""
        F, B = self._F, self._B
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
        parts, ports, places = self._programs[0]
        self._give("x", ports[0], x)
        self._give("y", ports[1], y)
        self._numbers(places)
        if not self._begun:
            self._run(parts[0])
            self._begun = True
        why = self._run(parts[1])
        if why == 5:
            why = self._run(self._programs[1][0][1])
        if why:
            raise NotFiniteError(_REASONS[why] + " is NaN or infinite; nothing was updated")
        self._slice += 1
        loss = self._F[places[0]]
        if self._slice == self._slices:
            self._run(parts[2])
            self.steps += 1
            self._slice, self._begun = 0, False
        return loss

    def infer(self, x):
        """The network's output for one sample: a view that holds until the next call, or a tuple
        of them."""
        parts, ports, _ = self._programs[2]
        self._give("x", ports[0], x)
        for part in parts:
            self._run(part)
        view = memoryview(self._F)
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
                F, at = self._F, at >> 2
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
                    self._B[at + width * k + j] = v >> 8 * j & 255

    def _numbers(self, places):
        """What each step is told: rate, share, Adam's bias corrections."""
        F = self._F
        _, lr, corrections, share = places
        if lr >= 0:
            F[lr] = self.lr
        if share >= 0:
            F[share] = self._share
        if corrections >= 0:
            for k in (0, 1):  # in whole numbers, for 1 - 0.999 has few digits left in float32
                F[corrections + k] = ((1 << 64) - _power(self._betas[k], self.steps + 1)) / (
                    1 << 64
                )

    def save(self, file):
        """Write weights, optimizer state and the count of updates: to a path, whole or not at all,
        or to a stream. ValueError within a batch."""
        if self._begun:
            raise ValueError("within a batch of %d slices; save behind the last" % self._slices)
        if not isinstance(file, str):
            return self._save(file)
        from os import rename

        _opened(file + ".part", "wb", self._save)
        rename(file + ".part", file)

    def _save(self, file):
        head = pack("<III", self._crc, self.steps, self._floor)
        body = memoryview(self._B)[: self._floor]
        length = (16 + len(head) + self._floor) // 4
        file.write(_STATE + pack("<III", _VERSION, length, crc32(body, crc32(head))))
        file.write(head)
        file.write(body)

    def restore(self, file):
        """Go on from what `save` wrote; FileError leaves everything as it was."""
        _opened(file, "rb", self._restore)

    def _restore(self, file):
        _check(file, _STATE)
        crc, steps, floor = _words(file, "III")
        if crc != self._crc or floor != self._floor:
            raise FileError("the state of another network")
        file.readinto(memoryview(self._B)[:floor])
        self.steps, self._slice, self._begun = steps, 0, False


def _kernels(code):
    """The KERNELS of the file that has this instruction."""
    name = "%s.%s" % (__name__, _FILES[_FILE_OF[code]])
    if name not in modules:
        __import__(name)
    return modules[name].KERNELS
