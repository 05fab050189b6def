"""`python -u -c CODE` in a process that is forked from one that has loaded everything.

    python -S tests/forked_python.py -u -c CODE

This process only waits for the other, which has its streams and is killed with it.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from tests import forkserver

link, process = forkserver.order(
    os.environ[forkserver.ADDRESS], pickle.dumps((forkserver.python, (sys.argv[-1],))), (0, 1, 2)
)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda number, _: os.kill(process, number))
for stream in (0, 1):
    os.close(stream)
code = forkserver.ended(link)
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
