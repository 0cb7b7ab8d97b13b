"""Import times and peak memory, a line for each module named: seconds of CPU, KiB."""

import importlib
import sys
import time

begin = time.process_time()
for name in sys.argv[1:]:
    importlib.import_module(name)
seconds = time.process_time() - begin
with open("/proc/self/status", encoding="ascii") as file:
    status = dict(line.split(":", 1) for line in file)
print(f"{seconds:.2f}", status["VmHWM"].split()[0])
