"""What a person does on a board: learn, save, go on, hand the network on. Run on the host and on
the emulated Raspberry Pi Zero; the printed lines must agree, numbers to within 0.001.

    python session.py FOLDER [MIB]       MIB caps the address space, before anything is imported
"""

import os
import sys

folder = sys.argv[1]
if len(sys.argv) > 2:
    import lowram

    lowram.cap(int(sys.argv[2]))

import numpy as np

import tinytrain as tt

train, test = tt.data.digits()
order = np.random.default_rng(1).permutation(len(train))[:192]
x, y = train.x[order], train.y[order]
optimizer = tt.optim.SGD(lr=0.02, momentum=0.9)
net = tt.models.build("digits_cnn", seed=3)
trainer = tt.Trainer(net, optimizer=optimizer, batch=4, ram="64K", backend="numpy")
print(trainer.plan.arena_bytes, trainer.plan.fits)


def learn(trainer: tt.Trainer, begin: int, end: int) -> list[float]:
    return [trainer.step(x[k : k + 4], y[k : k + 4]) for k in range(begin, end, 4)]


for loss in learn(trainer, 0, 128):
    print(f"{loss:.5f}")
path = os.path.join(folder, "net.npz")
trainer.save(path)
whole = learn(trainer, 128, 192)
again = tt.Trainer.restore(path, backend="numpy")
print("resumed bit for bit:", learn(again, 128, 192) == whole, again.steps)
print(f"{trainer.evaluate(test.x, test.y)['loss']:.4f}")
print("high water as planned:", trainer.high_water_bytes == trainer.arena_bytes)
for port in ("c99", "micropython"):
    again.export(port, os.path.join(folder, port))
    print(port, len(os.listdir(os.path.join(folder, port))) > 1)
try:
    np.ones(1 << 27)
    print("# no cap")
except MemoryError:
    print("# the cap holds")
