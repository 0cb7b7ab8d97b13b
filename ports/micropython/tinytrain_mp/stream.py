"""Reads files that may be cut short or damaged, a few bytes at a time."""

from binascii import crc32
from struct import unpack


class FileError(ValueError):
    """A file that is not whole, or of another version or network; nothing was changed."""


def numbers(file, letters):
    """The next words as struct has them; FileError if the file ends."""
    return unpack("<" + letters, take(file, 4 * len(letters)))


def take(file, n):
    """The next n bytes; FileError if the file ends."""
    raw = file.read(n)
    if len(raw) < n:
        raise FileError("the file is cut short")
    return raw


def crc_of(file, left, found=0):
    """The CRC-32 of the next `left` bytes, with that of what came before."""
    while left:
        chunk = take(file, min(left, 64))
        found = crc32(chunk, found)
        left -= len(chunk)
    return found
