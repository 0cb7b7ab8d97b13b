"""spill: written to a file behind the last forward reader, fetched for the first backward reader.

In between the value takes no room in the arena. Here a transfer begins and ends at one place;
`ahead` draws the two apart where that costs no bytes. What is smaller than a flash card's page
stays. Source of the price: POET (Patil et al. 2022).
"""

SMALLEST = 4096  # bytes of a value that is worth a transfer: a page of an SD card's file system
READ, WRITE = 4.6e6, 4.4e6  # bytes a second of POET's SD card
MACS = 20e6  # multiply-accumulates a second, nominal: a Cortex-M4F with single-cycle floats


def save(b, v: int) -> None:
    """Write v, if it is large enough."""
    if b.spec(v).nbytes < SMALLEST:
        return
    stored = b.holds(b.emit("spill", v), v, "spill")
    b.program.kinds[b.emit("spill_wait", v, stored)] = "io"
    b.spilled[v] = stored


def restore(b, v: int) -> int:
    """v read back, once for all readers; v itself where it stayed."""
    if v not in b.spilled:
        return v
    held = b.holds(b.emit("fetch", b.spilled[v]), v, "activation")
    b.program.kinds[b.emit("fetch_wait", held, b.spilled[v])] = "io"
    return held


def moved(program) -> tuple[int, int]:
    """Bytes written and bytes read by one run of the program's body."""
    written = sum(program.specs[s.ins[0]].nbytes for s in program.steps if s.op == "spill")
    read = sum(program.specs[s.ins[0]].nbytes for s in program.steps if s.op == "fetch")
    return written, read


def price(program) -> int:
    """What these transfers are worth in multiply-accumulates, none of them hidden."""
    written, read = moved(program)
    return round(MACS * (written / WRITE + read / READ))
