"""Print the seconds that an import takes in a fresh interpreter. Imports nothing else before."""

import resource
import sys
import time

resource.getrusage(resource.RUSAGE_SELF)
cpu, started = time.process_time(), time.perf_counter()
name, _, attribute = sys.argv[1].partition(" ")
module = __import__(name)
if attribute:
    getattr(module, attribute)
seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f'{{"seconds": {seconds}, "cpu": {cpu}, "peak": {peak}, "growth": 0, "modules": {len(sys.modules)}}}')
