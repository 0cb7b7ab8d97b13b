# The four verbs over files with names: a save is whole or not at all.
import os
from array import array

import tinytrain_mp

with open("sizes.txt") as file:
    n, labels, sample, slices, steps = [int(word) for word in file.read().split()]
x, y = array("f", range(n)), bytearray(labels)
model = tinytrain_mp.load("plan.tt")
with open("x.bin", "rb") as xs, open("y.bin", "rb") as ys:
    for _ in range(slices):
        xs.readinto(x)
        ys.readinto(y)
        model.train(x, y)
model.save("state.tt")
want = list(model.infer(x[:sample]))
print(sorted(name for name in os.listdir() if name.startswith("state")))
again = tinytrain_mp.load("plan.tt")
again.restore("state.tt")
print(list(again.infer(x[:sample])) == want, again.steps)
for _ in range(slices):
    model.train(x, y)
model.save("state.tt")
again.restore("state.tt")
print(list(again.infer(x[:sample])) != want, again.steps)
try:
    model.save("no/such/folder/state.tt")
except OSError as error:
    print("OSError", error.args[0])
try:
    again.restore("nothing.tt")
except OSError as error:
    print("OSError", error.args[0])
print(again.steps)
