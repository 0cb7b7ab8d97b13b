# What is not finite, out of range or of another length is refused; the network learns as if it had
# never come.
from array import array
from binascii import crc32

import tinytrain_mp


class Digest:
    """A stream that keeps the CRC-32 of all but the last 4 bytes: those are the same CRC-32, and of
    both together it would always be one number."""

    def __init__(self):
        self.crc = 0

    def write(self, raw):
        if len(raw) > 4:
            self.crc = crc32(raw, self.crc)


def digest(model):
    file = Digest()
    model.save(file)
    return file.crc


def attempt(what, x, y):
    try:
        print(what, "taken", model.train(x, y))
    except (ValueError, TypeError) as error:
        print("%s: %s: %s" % (what, type(error).__name__, error))


def with_value(value, at):
    made = array("f", x)
    made[at] = value
    return made


with open("sizes.txt") as file:
    n, labels, sample, slices, steps = [int(word) for word in file.read().split()]
x, y = array("f", range(n)), bytearray(labels)
xs, ys = open("x.bin", "rb"), open("y.bin", "rb")
model, plain = tinytrain_mp.load("plan.tt"), tinytrain_mp.load("plan.tt")
start = digest(model)
print("two of a file are equal:", digest(plain) == start)
attempt("one number short", x[1:], y)
attempt("one label more", x, bytes(labels + 1))
attempt("two inputs", (x, x), y)
print("unchanged:", digest(model) == start)
inf = float("inf")
for k in range(4 * slices):
    xs.readinto(x)
    ys.readinto(y)
    if k == 2:
        attempt("a NaN", with_value(inf - inf, 3), y)
        attempt("an infinity", with_value(-inf, n - 1), y)
        attempt("values that overflow", [3e38] * n, y)
        attempt("a label of class 4", x, bytes([4] * labels))
        attempt("a label below 0", x, [-1] * labels)
        if slices > 1:
            try:
                model.save(Digest())
            except ValueError as error:
                print("save:", error)
    if model.train(x, y) != plain.train(x, y):
        print("another loss")
print("as if they had not come:", digest(model) == digest(plain), digest(model) != start)
print("learning rate:", "%.3f" % model.lr)
model.lr = 0.0
before = list(model.infer(array("f", range(sample))))
for _ in range(slices):
    model.train(x, y)
print("a rate of 0 changes nothing:", list(model.infer(array("f", range(sample)))) == before)
try:
    model.infer(x[: sample - 1])
except ValueError as error:
    print("infer:", error)
