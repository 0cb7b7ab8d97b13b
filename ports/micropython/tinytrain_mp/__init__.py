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

_TABLE, _VERSION, _STATE, _FLASH = b"TTT1", 1, b"TTS1", 1 << 31
_REASONS = ("", "the input", "the network's output", "the loss", "a gradient", "a bitmap")
_FILES = {
    "b": "basic",
    "c": "conv",
    "e": "elementwise",
    "f": "lean",
    "l": "losses",
    "m": "moves",
    "n": "norm",
    "p": "pool",
    "r": "reduce",
    "u": "update",
    "z": "bitmap",
}
_FILE_OF = "-mmmmbbebe-eeeeeeeeeeebbeeeeeeeee---zzzzzr--brrrrb--cccppppnnnnnnnnnbll-bbuuuuubzfffb"


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
    return unpack("<" + letters, _read(file, 4 * len(letters)))


def _read(file, n):
    raw = file.read(n)
    if len(raw) < n:
        raise FileError("the file is cut short")
    return raw


def _crc(file, left, found=0):
    """The CRC-32 of the next `left` bytes, with that of what came before."""
    while left:
        chunk = _read(file, min(left, 64))
        found = crc32(chunk, found)
        left -= len(chunk)
    return found


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


def _constants(file, head):
    """The constants that steps read in flash, as {operand: position in the file, bytes}."""
    found, marks = {}, [4 * (head[14] + head[15])]
    for k in range(head[13]):
        file.seek(4 * head[12] + 64 * k)
        row = _words(file, "i" * 16)
        at, end = row[2], row[5]
        file.seek(4 * at)
        while at < end:
            operands, words = unpack("<xBH", _read(file, 4))
            for v in _words(file, "i" * operands):
                if v < -1:
                    found[v] = v + _FLASH
            _read(file, 4 * words)
            at += 1 + operands + words
    if found:
        file.seek(4 * head[10])
        marks += [4 * _words(file, "iiii")[3] for _ in range(head[11])] + list(found.values())
    # Arrays lie behind one another in the file: each ends where the next one begins.
    return {v: (p, min(m for m in marks if m > p) - p) for v, p in found.items()}


def _steps(file, at, end, flash):
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
        ahead = operands + max(first, 0)
        whole = "<%di%df%di" % (ahead, count, operands + words - ahead - count)
        args = unpack(whole, file.read(4 * (operands + words)))
        places = tuple(flash[v] if v in flash else v >> 2 for v in args[:operands])
        args = places + args[operands:]
        steps.append(kernel)
        steps.append((operands,) + args if first < 0 or not code else args)
        at += 1 + operands + words
    return steps


class Model:
    """A network in its arena. `lr` may be set before any step; `steps` counts the updates."""

    def __init__(self, file):
        if _read(file, 4) != _TABLE:
            raise FileError("not a plan of tinytrain's")
        version, length, crc = _words(file, "III")
        if version != _VERSION:
            raise FileError("a plan of version %d, this is %d" % (version, _VERSION))
        if _crc(file, 4 * length - 16) != crc:
            raise FileError("the plan is damaged (CRC-32)")
        gc.collect()  # the arena is the largest block: nothing that stays may lie in its way
        file.seek(16)
        head = _words(file, "IIIIffIIIIIIIIII")
        flash = _constants(file, head)
        planned = head[0] + 3 >> 2
        self._F, self._B = _arena(planned + sum(n for _, n in flash.values()) // 4)
        self._crc, self._floor = crc, head[1]
        self._slices, self.lr, self._share = head[2], head[4], head[5]
        self._betas = self._powers = (head[6] << 32 | head[7], head[8] << 32 | head[9])
        self.steps = self._slice = self._begun = self.overflows = 0
        self._start(file, head, flash, 4 * planned)
        self._programs = [None, None, None]
        for k in range(head[13]):
            file.seek(4 * head[12] + 64 * k)
            row = _words(file, "i" * 16)
            self._programs[row[0]] = self._program(file, row, flash)
        gc.collect()

    def _start(self, file, head, flash, place):
        """Initial values (what has none in the file starts as zero); the constants of flash, from
        `place` on, for they have no address here: each becomes where it lies in F."""
        view = memoryview(self._B)
        for k in range(head[11]):
            file.seek(4 * head[10] + 16 * k)
            _, offset, n, position = _words(file, "iiii")
            if position >= 0:
                file.seek(4 * position)
                file.readinto(view[offset : offset + n])
        for v in flash:
            position, n = flash[v]
            file.seek(position)
            file.readinto(view[place : place + n])
            flash[v] = place >> 2
            place += n

    def _program(self, file, row, flash):
        """(prologue, body, epilogue), (inputs, labels, outputs), loss, lr, corrections, share"""
        parts = tuple(_steps(file, row[2 + k], row[3 + k], flash) for k in range(3))
        file.seek(4 * row[11])
        ports = tuple([_words(file, "iiii") for _ in range(row[12 + k])] for k in range(3))
        return parts, ports, tuple(v >> 2 for v in (row[6], row[7], row[8], row[9]))

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
        parts, places = self._ready(0, x, y)
        if not self._begun:
            self._stopped(self._run(parts[0]))
            self._begun = 1
        why = self._run(parts[1])
        if why == 5 and self._programs[1]:  # the same slice again, with more room
            self.overflows += 1
            parts, places = self._ready(1, x, y)
            why = self._run(parts[1])
        self._stopped(why)
        loss = self._F[places[0]]
        self._slice += 1
        if self._slice == self._slices:
            self._slice = self._begun = 0
            self._stopped(self._run(parts[2]))
            self.steps += 1
            self._powers = tuple(p * b >> 64 for p, b in zip(self._powers, self._betas))
        return loss

    def _ready(self, program, x, y):
        """A program's parts and places, its inputs, labels and numbers in the arena."""
        F = self._F
        parts, ports, places = self._programs[program]
        self._give("x", ports[0], x)
        self._give("y", ports[1], y)
        _, lr, corrections, share = places
        if lr >= 0:
            F[lr] = self.lr
        if share >= 0:
            F[share] = self._share
        if corrections >= 0:  # in whole numbers, for 1 - 0.999 has few digits left in float32
            for k in (0, 1):
                F[corrections + k] = ((1 << 64) - self._powers[k]) / (1 << 64)
        return parts, places

    def _stopped(self, why):
        if why:
            raise NotFiniteError(_REASONS[why] + " is NaN or infinite; nothing was updated")

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

    def save(self, file):
        """Write weights, optimizer state and position, as the c99 port does: to a path, whole or
        not at all, or to a stream."""
        if not isinstance(file, str):
            return self._save(file)
        from os import rename

        _opened(file + ".part", "wb", self._save)
        rename(file + ".part", file)

    def _save(self, file):
        words = [0, self.steps, self._slice, self._begun, self.overflows, self.lr]
        for power in self._powers:
            words += [power >> 32, power & 0xFFFFFFFF]
        head = _STATE + pack("<IIIIIIfIIII", self._crc, *words)
        body = memoryview(self._B)[: self._floor]
        file.write(head)
        file.write(body)
        file.write(pack("<I", crc32(body, crc32(head))))

    def restore(self, file):
        """Go on from what `save` wrote; FileError leaves everything as it was."""
        _opened(file, "rb", self._restore)

    def _restore(self, file):
        head = _read(file, 48)
        if head[:4] != _STATE:
            raise FileError("not a state of tinytrain's, or of another version")
        found = unpack("<IIIIIIfIIII", head[4:])
        if found[0] != self._crc:
            raise FileError("the state of another network")
        if _crc(file, self._floor, crc32(head)) != _words(file, "I")[0]:
            raise FileError("the state is damaged (CRC-32)")
        file.seek(48)
        file.readinto(memoryview(self._B)[: self._floor])
        _, _, self.steps, self._slice, self._begun, self.overflows, self.lr = found[:7]
        self._powers = (found[7] << 32 | found[8], found[9] << 32 | found[10])


def _kernels(code):
    """The KERNELS of the file that has this instruction."""
    name = "%s.%s" % (__name__, _FILES[_FILE_OF[code]])
    if name not in modules:
        __import__(name)
    return modules[name].KERNELS
