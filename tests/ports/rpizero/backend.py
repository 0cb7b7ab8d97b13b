"""The demo's network for some steps under one backend: seconds of CPU a step, peak memory in KiB,
and the CRC-32 of what it has learned.

    python backend.py numpy|c BATCH STEPS
    python backend.py --flags               where the C kernels' build is looked for, and its flags
"""

import sys
import time
import zlib

from tinytrain.kernels import c_

if sys.argv[1] == "--flags":
    print(c_.build_path())
    print(*c_._FLAGS, *c_._native()[0])
    sys.exit()

import numpy as np

import tinytrain as tt

backend, batch, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
train, _ = tt.data.digits()
net = tt.models.build("digits_cnn", seed=3)
optimizer = tt.optim.SGD(lr=0.01, momentum=0.9)
trainer = tt.Trainer(net, optimizer=optimizer, batch=batch, policy="keep", backend=backend)
assert trainer.backend == backend
picks = [np.arange(k * batch, (k + 1) * batch) for k in range(steps + 1)]
trainer.step(train.x[picks[0]], train.y[picks[0]])
begin = time.process_time()
for pick in picks[1:]:
    trainer.step(train.x[pick], train.y[pick])
seconds = (time.process_time() - begin) / steps
crc = 0
for p in net.parameters():
    crc = zlib.crc32(p.data.tobytes(), crc)
with open("/proc/self/status", encoding="ascii") as file:
    status = dict(line.split(":", 1) for line in file)
print(f"{seconds:.6f}", status["VmHWM"].split()[0], crc)
