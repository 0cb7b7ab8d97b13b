# Files that are not whole are refused, and nothing is changed; whole ones go on bit for bit.
from array import array
from io import BytesIO

import tinytrain_mp


def attempt(what, verb, raw):
    try:
        verb(BytesIO(raw))
        print(what + ": taken")
    except tinytrain_mp.FileError as error:
        print(what + ":", error)


def flipped(raw, at, bit=1):
    made = bytearray(raw)
    made[at] ^= bit
    return made


def state():
    file = BytesIO()
    model.save(file)
    return file.getvalue()


def step():
    total = 0.0
    for _ in range(slices):
        xs.readinto(x)
        ys.readinto(y)
        total += model.train(x, y)
    return total


with open("sizes.txt") as file:
    n, labels, sample, slices, steps = [int(word) for word in file.read().split()]
x, y = array("f", range(n)), bytearray(labels)
xs, ys = open("x.bin", "rb"), open("y.bin", "rb")
with open("plan.tt", "rb") as file:
    plan = file.read()

for what, raw in (
    ("a whole plan", plan),
    ("nothing", b""),
    ("a header cut short", plan[:10]),
    ("a plan cut short", plan[:-4]),
    ("a plan cut in half", plan[: len(plan) // 2]),
    ("another kind", b"TTS1" + plan[4:]),
    ("version 2", flipped(plan, 4, 3)),
    ("a bit of the header", flipped(plan, 21)),
    ("a bit of a step", flipped(plan, 700)),
    ("a bit of the data", flipped(plan, len(plan) - 1, 128)),
    ("a bit of the CRC", flipped(plan, 12)),
):
    attempt(what, tinytrain_mp.load, raw)

model = tinytrain_mp.load("plan.tt")
for _ in range(3):
    step()
saved = state()
losses = [step() for _ in range(2)]
after = state()
for what, raw in (
    ("an empty state", b""),
    ("a state cut short", saved[:-1]),
    ("a plan as a state", plan),
    ("a state's bit", flipped(saved, len(saved) // 2, 16)),
    ("another version", b"TTS2" + saved[4:]),
    ("another network's state", flipped(saved, 5)),
):
    attempt(what, model.restore, raw)
attempt("the state", model.restore, saved)
print("restored:", state() == saved, model.steps)
xs.seek(3 * slices * 4 * n)
ys.seek(3 * slices * labels)
print("the same losses again:", [step() for _ in range(2)] == losses)
print("the same state again:", state() == after)

model = tinytrain_mp.load("plan.tt")
model.restore(BytesIO(after))
print("in a new model:", state() == after, model.steps)
