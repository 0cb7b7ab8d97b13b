"""Caps the memory that this process can still map, where limits do not work: a 32-bit guest under
qemu's user emulation. It caps address space mapped after the call, not what is resident."""

import ctypes

_NONE, _PRIVATE_ANONYMOUS, _NORESERVE = 0, 0x22, 0x4000


def cap(mib: int) -> None:
    """Reserve the free address space but for `mib` MiB: what wants more is a MemoryError."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int),
        *(ctypes.c_int, ctypes.c_int, ctypes.c_long),
    ]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    failed, size, blocks = ctypes.c_void_p(-1).value, 1 << 30, []
    while size >= 1 << 16:
        at = libc.mmap(None, size, _NONE, _PRIVATE_ANONYMOUS | _NORESERVE, -1, 0)
        if at in (None, failed):
            size >>= 1
        else:
            blocks.append((at, size))
    for at, size in blocks:
        if size >= mib << 20:
            libc.munmap(at, mib << 20)
            return
    raise RuntimeError(f"no free block of {mib} MiB")
