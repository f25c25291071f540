"""A launcher whose processes are forks of it: `python -m tests.forking MODULE ARGUMENTS` is `python -m MODULE ...`.

Each of the interpreters that `--processes` and torchrun start takes three seconds of CPU to import torch, more than a
small run does in it.  A fork has the same parent, group, variables, signals and exit code; that the launcher begins
an interpreter with the right words is for the tests that go without this.

With HELD=3 in the environment each of them waits, once three steps are done, until the file `go` is in its folder: a
test that disturbs a run need not be quicker than it.

The launcher has threads by then, none of which a fork has: it never goes back into what it was forked in.
"""

import logging
import os
import runpy
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

from mdp.io.journal.journal import Journal
from mdp.io.processes import early
from tests.patience import wait_until


class Fork:
    """As much of subprocess.Popen as torch's launcher asks for."""

    def __init__(
        self, args: Sequence[str], env: Mapping[str, str], stdout: IO[str] | None, stderr: IO[str] | None, **_: bool
    ) -> None:
        self.returncode: int | None = None
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.setpgid(0, 0)
            _become(args, env)
        with suppress(OSError):  # by whoever comes first: it is told to end as a group of its own
            os.setpgid(self.pid, self.pid)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float) -> int:
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("a fork", timeout)
            time.sleep(0.01)
        return code


def _hold(step: int) -> None:
    original = Journal.progress

    def progress(self: Journal, done: int, *rest: Any) -> None:
        original(self, done, *rest)
        if done == step:
            wait_until(Path("go").is_file, "the word to go on")

    Journal.progress = progress  # type: ignore[method-assign]


def _become(args: Sequence[str], env: Mapping[str, str]) -> None:
    """Goes on as `python [-u] -m MODULE ARGUMENTS` would; it ends here."""
    status = 1
    try:
        early.asked.clear()
        for number in (*early.STOPPING, signal.SIGALRM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        logging.disable(logging.NOTSET)
        os.environ.clear()
        os.environ.update(env)
        if "HELD" in env:
            _hold(int(env["HELD"]))
        module, *words = args[args.index("-m") + 1 :]
        sys.argv = [module, *words]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)  # what the launcher registered for its own end is not this process's


if __name__ == "__main__":
    subprocess_handler.Popen = Fork
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
