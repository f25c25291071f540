"""A kernel for notebooks that is a fork of a process with torch in it: what a kernel's specification starts.

It stands for the kernel in a process group of its own, where signals for kernels go, and passes them on.
"""

import signal
import sys
from pathlib import Path

from tests import preloaded


def main(connection_file: str) -> int:
    """Runs a kernel to its end, and gives its exit code."""
    with preloaded.Started(["-m", "ipykernel_launcher", "-f", connection_file], Path()) as kernel:
        signal.signal(signal.SIGINT, lambda *_: kernel.send_signal(signal.SIGINT))
        signal.signal(signal.SIGTERM, lambda *_: kernel.kill())
        out, err = kernel.communicate()
        sys.stderr.write(out + err)
        return kernel.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
