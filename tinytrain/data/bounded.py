"""Reads no more of a stream than its header declares, and no more memory than it really holds."""

import os
from typing import IO

from tinytrain.errors import InputError

DEFLATE_LIMIT = 1032
"""Deflate never shrinks data by more than this ("maximum compression" in zlib's notes)."""

PIECE = 1 << 20
"""Bytes a read: a header that lies about a compressed size costs this much, not its claim."""


def exactly(stream: IO[bytes], nbytes: int, where: str) -> bytearray:
    """The next `nbytes` bytes, or InputError; grows as bytes arrive, so a lying header is cheap."""
    data = bytearray()
    while len(data) < nbytes:
        piece = stream.read(min(PIECE, nbytes - len(data)))
        if not piece:
            raise InputError(
                f"{where}: ends after {len(data):,} of {nbytes:,} bytes; is it truncated? "
                "copy or make it again"
            )
        data += piece
    return data


def at_end(stream: IO[bytes], where: str) -> None:
    """Raise InputError unless the stream is spent; reaching the end also checks a checksum."""
    if stream.read(1):
        raise InputError(
            f"{where}: goes on after the data its header declares; copy or make it again"
        )


def affordable(nbytes: int, where: str) -> None:
    """Raise InputError, before anything is allocated, for more than this machine's memory: a small
    file may be a large one, packed well."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return  # this system does not say
    if nbytes > memory:
        raise InputError(
            f"{where}: declares {nbytes:,} bytes, this machine's memory has {memory:,}; load less "
            "of it"
        )
