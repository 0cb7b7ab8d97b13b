"""Reads an exported plan (the words that `ports/table.py` of tinytrain describes) into a Model's
arena and its lists of steps, and imports the kernels that these need. Wanted once: then forgotten.
"""

import gc
from array import array
from struct import unpack
from sys import modules

from .stream import FileError, crc_of, numbers, take

_MAGIC, _VERSION, _FLASH = b"TTT1", 1, 1 << 31
_PACKAGE = __name__[: __name__.rindex(".")]
# The file that has an instruction's kernel, by number.
_FILES = {
    "b": "basic",
    "c": "conv",
    "d": "random",
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
_FILE_OF = (
    "-mmmmbbebeeeeeeeeeeeeebbeeeeeeeeeeeezzzzzrrrbrrrrbmmcccppppnnnnnnnnnblldbbuuuuubzfffbzzzu--ppb"
)


def read(model, file):
    """Fill a Model; FileError if the file is not a whole plan of this version."""
    if take(file, 4) != _MAGIC:
        raise FileError("not a plan of tinytrain's")
    version, length, crc = numbers(file, "III")
    if version != _VERSION:
        raise FileError("a plan of version %d, this is %d" % (version, _VERSION))
    if crc_of(file, 4 * length - 16) != crc:
        raise FileError("the plan is damaged (CRC-32)")
    gc.collect()  # the arena is the largest block: nothing that stays may lie in its way
    file.seek(16)
    head = numbers(file, "IIIIffIIIIIIIIII")
    flash = _constants(file, head)
    planned = head[0] + 3 >> 2
    model.F, model.B = _arena(planned + sum(n for _, n in flash.values()) // 4 + 1)
    model.crc, model.floor = crc, head[1]
    model.slices, model.size, model.lr, model.share = head[2:6]
    model.betas = model.powers = (head[6] << 32 | head[7], head[8] << 32 | head[9])
    _start(model, file, head, flash, 4 * planned)
    programs = [None, None, None]
    for k in range(head[13]):
        file.seek(4 * head[12] + 64 * k)
        row = numbers(file, "i" * 16)
        programs[row[0]] = _program(file, row, flash)
    model.programs = programs


def _start(model, file, head, flash, place):
    """Initial values (what has none in the file starts as zero); the constants of flash, from
    `place` on, for they have no address here: each becomes where it lies in F."""
    view = memoryview(model.B)
    for k in range(head[11]):
        file.seek(4 * head[10] + 16 * k)
        _, offset, n, position = numbers(file, "iiii")
        if position >= 0:
            file.seek(4 * position)
            file.readinto(view[offset : offset + n])
    for v in flash:
        position, n = flash[v]
        file.seek(position)
        file.readinto(view[place : place + n])
        flash[v] = place >> 2
        place += n


def _program(file, row, flash):
    """(prologue, body up to its last STOP, its rest, epilogue), (inputs, labels, outputs), and the
    places of the loss, the rate, Adam's corrections, the slice's share and dropout's key."""
    cuts = row[2], row[3], row[15], row[4], row[5]
    parts = tuple(steps_of(file, cuts[k], cuts[k + 1], flash) for k in range(4))
    file.seek(4 * row[11])
    ports = tuple([numbers(file, "iiii") for _ in range(row[12 + k])] for k in range(3))
    return parts, ports, tuple(v >> 2 for v in row[6:11])


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
        row = numbers(file, "i" * 16)
        at, end = row[2], row[5]
        file.seek(4 * at)
        while at < end:
            operands, more = unpack("<xBH", take(file, 4))
            for v in numbers(file, "i" * operands):
                if v < -1:
                    found[v] = v + _FLASH
            take(file, 4 * more)
            at += 1 + operands + more
    if found:
        file.seek(4 * head[10])
        marks += [4 * numbers(file, "iiii")[3] for _ in range(head[11])] + list(found.values())
    # Arrays lie behind one another in the file: each ends where the next one begins.
    return {v: (p, min(m for m in marks if m > p) - p) for v, p in found.items()}


def steps_of(file, at, end, flash):
    """Steps in a row: a kernel and its arguments by turns; None and flags for a STOP."""
    steps = []
    file.seek(4 * at)
    while at < end:
        code, operands, more = unpack("<BBH", take(file, 4))
        kernel, first, count = None, 0, 0
        if code:
            kernel = _kernels(code)[code]
            if isinstance(kernel, tuple):
                kernel, first, count = kernel
        ahead = operands + max(first, 0)
        whole = "<%di%df%di" % (ahead, count, operands + more - ahead - count)
        args = unpack(whole, take(file, 4 * (operands + more)))
        places = tuple(flash[v] if v in flash else v >> 2 for v in args[:operands])
        args = places + args[operands:]
        steps.append(kernel)
        steps.append((operands,) + args if first < 0 or not code else args)
        at += 1 + operands + more
    return tuple(steps)


def _kernels(code):
    """The KERNELS of the file that has this instruction."""
    file = _FILES.get(_FILE_OF[code : code + 1])
    if file is None:
        raise FileError("instruction %d is not known here; copy the newer runtime" % code)
    name = "%s.%s" % (_PACKAGE, file)
    if name not in modules:
        __import__(name)
    return modules[name].KERNELS
