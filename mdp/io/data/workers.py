"""A loader's workers, seen from outside: born while signals are held, watched while they are silent, ended for sure.

torch raises the death of a worker wherever the main process happens to be, and waits for a silent one without looking
at anything else; here both are found where the next batch is asked for.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data._utils.signal_handling import _remove_worker_pids  # type: ignore[attr-defined]

from mdp.io.errors import Preempted, ResourceError
from mdp.io.journal.stderr import say

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
POLL = 1.0  # seconds between looks at signals and workers
_GRACE = 2  # looks: a batch may be about to come when a signal asks to stop
_SILENT = 20  # looks without a batch until that is said
_GONE = 10  # seconds at most for what was killed to be gone
_AGAIN = 600  # looks until it is said again, or until a worker that was stopped is given up


class Watch(NamedTuple):
    """Who hears of a loader that waits, and may stop it."""

    name: Callable[[Any], str] = lambda key: f"sample {key[1]}"  # of a key
    say: Callable[[str], None] = say
    stop: Callable[[], object] = lambda: False


NOBODY = Watch()


class Workers:
    """The workers of one loader, by their number."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.processes: list[BaseProcess] = []
        self.silent = self.asked = 0  # looks in a row without a batch, and with a signal besides

    @contextmanager
    def born(self) -> Iterator[None]:
        """Around their start.  Raises ResourceError when the system has no room for them.

        Signals wait until a worker ignores them, and the death of one interrupts nothing: see `failure`.
        """
        before = set(multiprocessing.active_children())
        mask, child = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING), signal.getsignal(signal.SIGCHLD)
        try:
            yield
        except (OSError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "start new thread" not in str(error):
                raise
            raise ResourceError(
                f"the loader's processes cannot be started ({error}); try --workers 0, or give the machine more "
                "memory, shared memory (/dev/shm) or processes"
            ) from error
        finally:
            self.processes = sorted(
                set(multiprocessing.active_children()) - before, key=lambda process: process.pid or 0
            )
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGCHLD, child or signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def end(self, iterator: Any) -> None:
        """Ends those that are left, at once: they only make batches, which nobody wants any more.

        torch asks them to end, and waits for a lock that one may have been killed with, or for one that was stopped.
        """
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join(_GONE)
        if self.processes and not iterator._shutdown:
            iterator._shutdown = True
            _remove_worker_pids(id(iterator))
            iterator._worker_pids_set = False
            if hasattr(iterator, "_pin_memory_thread"):
                iterator._pin_memory_thread_done_event.set()
                iterator._worker_result_queue.put((None, None))  # wakes it
                iterator._pin_memory_thread.join(_GONE)
                iterator._worker_result_queue.cancel_join_thread()

    def answered(self) -> None:
        """A batch came."""
        self.silent = 0

    def dead(self) -> bool:
        """Whether a worker has ended that should not have; one that is just ending closes its files first."""
        ending = wait([process.sentinel for process in self.processes], timeout=POLL)
        for process in self.processes:
            if process.sentinel in ending:
                process.join(POLL)
        return any(process.exitcode for process in self.processes)

    def failure(self) -> ResourceError:
        """The error that a worker has died, and how."""
        dead = next((process for process in self.processes if process.exitcode), None)
        code = dead.exitcode or 0 if dead else 0
        how = f" ({signal.Signals(-code).name})" if code < 0 else ""
        who = f"loader process {dead.pid}" if dead else "a loader process"
        return ResourceError(
            f"{who} died{how}; the system ends processes when memory is short: try fewer --workers, --workers 0 or a "
            "smaller --batch-size"
        )

    def look(self, number: int, keys: list[Any]) -> None:
        """Called for every `POLL` seconds in which the batch `number` of these keys has not come.

        Raises Preempted when a signal has asked to stop, ResourceError when a worker was stopped and stays so.
        """
        self.silent += 1
        self.asked = self.asked + 1 if self.watch.stop() else 0
        if self.asked > _GRACE:
            raise Preempted("stopped while waiting for data")
        if self.silent % _AGAIN != _SILENT:
            return
        process = self.processes[number % len(self.processes)] if self.processes else None
        stopped = process is not None and _state(process) in ("T", "t")
        text = self._silence(process, stopped, keys)
        if stopped and self.silent > _AGAIN:
            raise ResourceError(text)
        self.watch.say(f"warning: {text}")

    def _silence(self, process: BaseProcess | None, stopped: bool, keys: list[Any]) -> str:
        who = f"loader process {process.pid}" if process else "a loader process"
        batch = f"the batch of {self.watch.name(keys[0])}" if keys else "the next batch"
        batch += f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        start = f"{batch} has not come for {round(self.silent * POLL)} s: {who}"
        if stopped and process:
            return f"{start} was stopped by a signal; `kill -CONT {process.pid}` lets it go on"
        return (
            f"{start} is still at it; where its disk or network folder is slow, wait, else stop by Ctrl-C and go on "
            "with --workers 0, which shows where it hangs"
        )


def _state(process: BaseProcess) -> str:
    """The letter that Linux has for what a process does; "" elsewhere."""
    try:
        return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def quiet() -> None:
    """In a worker: signals are left to the main process, which ends it after its checkpoint, and it uses one thread.

    It ends where the main process was killed since it was born: torch looks for that later, and takes whoever adopted
    the worker for its parent, so that it would wait for good.
    """
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        os._exit(1)
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    torch.set_num_threads(1)
