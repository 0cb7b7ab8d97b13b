"""Reads PCM sound from RIFF WAVE files; refuses compressed and floating-point sound.

Parsed here because the standard library's `wave` (before Python 3.12) refuses the extensible header
that most 24-bit files have, and never compares a chunk's size with the file's.
"""

import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinytrain.errors import InputError

PCM = 1
EXTENSIBLE = 0xFFFE
PCM_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
"""KSDATAFORMAT_SUBTYPE_PCM after its first two bytes, which are the format itself."""


class Format(NamedTuple):
    """The fmt chunk: rate in Hz, bits of one sample of one channel."""

    channels: int
    rate: int
    bits: int


def read_wav(path: Path) -> tuple[NDArray[np.float32], int]:
    """Sound as float32 (samples, 1) in [-1, 1), and its rate in Hz; channels become their mean.

    8-bit (unsigned), 16-, 24- and 32-bit PCM. Raises InputError.
    """
    chunks = _chunks(path.read_bytes(), path)
    for name in (b"fmt ", b"data"):
        if name not in chunks:
            raise InputError(f"{path}: has no {name.decode()!r} chunk; is it truncated? save again")
    form = _format(chunks[b"fmt "], path)
    data = chunks[b"data"]
    frame = form.channels * form.bits // 8
    if not len(data):
        raise InputError(f"{path}: holds no sound, its data chunk is empty; record it again")
    if len(data) % frame:
        raise InputError(
            f"{path}: {len(data):,} bytes of sound are no whole number of {frame}-byte frames; "
            "its header lies: save it again"
        )
    sound = _scaled(data, form.bits).reshape(-1, form.channels)
    return sound.mean(axis=1, keepdims=True).astype(np.float32), form.rate


def _chunks(data: bytes, path: Path) -> dict[bytes, memoryview]:
    """The first chunk of each name; every size is compared with what the file has."""
    if len(data) < 12 or data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise InputError(f"{path}: is no WAV file, it does not open with RIFF and WAVE; save again")
    chunks: dict[bytes, memoryview] = {}
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        at += 8
        if size > len(data) - at:
            raise InputError(
                f"{path}: its {name.decode('latin-1')!r} chunk declares {size:,} bytes, "
                f"but {len(data) - at:,} follow; is it truncated, or was it streamed? save it again"
            )
        chunks.setdefault(name, memoryview(data)[at : at + size])
        at += size + size % 2
    return chunks


def _format(chunk: memoryview, path: Path) -> Format:
    if len(chunk) < 16:
        raise InputError(f"{path}: its 'fmt ' chunk has {len(chunk)} bytes, not 16; save it again")
    code, channels, rate, byte_rate, frame, bits = struct.unpack_from("<HHIIHH", chunk)
    if code == EXTENSIBLE and len(chunk) >= 40 and bytes(chunk[26:40]) == PCM_GUID_TAIL:
        (code,) = struct.unpack_from("<H", chunk, 24)
    if code != PCM or bits not in (8, 16, 24, 32):
        raise InputError(
            f"{path}: format {code} with {bits} bits is not 8-, 16-, 24- or 32-bit PCM; "
            "save it as 16-bit PCM"
        )
    if not channels or not rate or frame != channels * bits // 8 or byte_rate != rate * frame:
        raise InputError(
            f"{path}: its header contradicts itself ({channels} channels, {bits} bits, {rate} Hz, "
            f"{frame} bytes a frame, {byte_rate} bytes a second); save it again"
        )
    return Format(channels, rate, bits)


def _scaled(data: memoryview, bits: int) -> NDArray[Any]:
    """float64 in [-1, 1): float32 would round 32-bit sound before its channels are averaged."""
    if bits == 8:
        return (np.frombuffer(data, np.uint8) - 128.0) / 128
    if bits == 24:
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return wide.reshape(-1).view("<i4") / 2.0**31
    return np.frombuffer(data, f"<i{bits // 8}") / 2.0 ** (bits - 1)
