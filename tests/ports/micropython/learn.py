# Learns for the steps that `sizes.txt` tells: losses, what the heap holds, and one inference.
import gc
import sys
from array import array

gc.collect()
import tinytrain_mp

with open("sizes.txt") as file:
    n, labels, sample, slices, steps = [int(word) for word in file.read().split()]
model = tinytrain_mp.load("plan.tt")
x = array("f", range(n))
y = array("f", range(-labels)) if labels < 0 else bytearray(labels)
xs, ys = open("x.bin", "rb"), open("y.bin", "rb")


def scrub(depth):
    """Overwrite what earlier calls left on the stack: the collector takes it for pointers."""
    return depth and scrub(depth - 1)


def held():
    """Bytes of the heap in use; CPython does not count them."""
    scrub(20)
    gc.collect()
    return getattr(gc, "mem_alloc", int)()


def step():
    """The mean loss of a batch's slices; the host tells it with the last."""
    total = told = 0
    for _ in range(slices):
        xs.readinto(x)
        ys.readinto(y)
        loss = model.train(x, y)
        if loss is not None:
            total += loss
            told += 1
    return total / told


def clock():
    """The emulated board's SysTick, 25 MHz, counting down over 24 bits; elsewhere nothing."""
    if sys.platform != "qemu":
        return 0
    from machine import mem32

    mem32[0xE000E014] = 0xFFFFFF
    mem32[0xE000E010] = 5
    return mem32[0xE000E018]


grown = 0
for k in range(steps):
    before = held()
    begun = clock()
    print("%.5f" % step())
    spent = (begun - clock()) & 0xFFFFFF
    grown = max(grown, held() - before) if k > 1 else 0  # the first steps grow the output's buffers
print("the heap grew by", grown)
xs.seek(0)
x = array("f", range(sample))
xs.readinto(x)
for value in model.infer(x):
    print("%.4f" % value)
print("# %d bytes of the heap held" % held())
print("# %d instructions a step" % (40 * spent))  # where one takes a nanosecond
