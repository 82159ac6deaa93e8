"""The peak of a process's memory, for scripts that tests run in processes of their own.

`resource.getrusage` counts the memory of the process that started this one, too: in a long run of tests nothing shows.
"""

import sys

import pytest

PEAK = "import re\npeak = lambda: int(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1])\n"
"""Defines ``peak()``: kilobytes."""

reads_peak = pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
