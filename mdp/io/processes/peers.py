"""The other processes of a run: which of them is lost, for how long one is waited for, and what is said of it.

A collective fails on many processes at once, and says on none which one it was.  So every process has a thread that
counts in the store that all met by and sees the others count: the one to blame counts no more.  The first to find out
leaves it in the store for those that fail because of it.
"""

import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from torch.distributed import DistError
from torch.distributed.distributed_c10d import Store

from mdp.io.errors import ProcessError

UNANSWERED = "has not answered"
_LOST = ("Connection closed", "Connection reset", "Broken pipe")
_SURE = 5.0  # seconds in which a process that lives has counted, however busy its machine is


class Silent(Exception):
    """Another process has not counted for as long as one is waited for."""


class Peers:
    """The other processes, seen from one of them."""

    def __init__(self, store: Store, rank: int, size: int, seconds: float) -> None:
        self.rank, self.size, self.seconds = rank, size, seconds
        self.every = max(0.5, size / 64)  # seconds between counts, so that the store has some thousand a second to tell
        self.seen = dict.fromkeys(range(size), time.monotonic())  # when each was last seen to have counted
        self.asked = time.monotonic()  # when the store last answered
        self.blamed, self.blame = "", ""  # the lost as all know it, and as this process found
        store.set(f"host/{rank}", socket.gethostname())
        self.hosts = [host.decode(errors="replace") for host in store.multi_get([f"host/{r}" for r in range(size)])]
        twin = store.clone()  # type: ignore[attr-defined]  # which two threads may use at once
        self._ended = threading.Event()
        self._counts = threading.Thread(target=self._count, args=(twin,), daemon=True)
        self._counts.start()

    def end(self) -> None:
        """Counts no more.  A thread that is inside the store as the interpreter ends would abort the process."""
        self._ended.set()
        self._counts.join(2.0)  # one whose store is out of reach is not waited for

    def _count(self, store: Store) -> None:
        """Counts, and looks at what the others do, for as long as the store answers."""
        keys, counts = [f"count/{rank}" for rank in range(self.size)], [b"0"] * self.size
        with suppress(RuntimeError):  # the process or launcher that held the store has ended
            for number in range(1, 2**62):
                if self._ended.wait(self.every * (number > 1)):
                    return
                store.set(keys[self.rank], str(number))
                if store.check(keys):  # all have begun
                    before, counts = counts, store.multi_get(keys)
                    now = time.monotonic()
                    self.seen |= {rank: now for rank in range(self.size) if counts[rank] != before[rank]}
                if self.blame or store.check(["lost"]):
                    self.blamed = store.compare_set("lost", "", self.blame).decode()
                self.asked = time.monotonic()
        self.asked = -math.inf

    def wait(self, done: Callable[[], bool], longest: float = 0.1, seconds: float = math.inf) -> None:
        """Returns once it is done, which is looked at every `longest` seconds at least.

        Raises Silent when another process has not counted for as long as one is waited for, or this takes `seconds`.
        """
        pause, began = min(0.001, longest), time.monotonic()
        while not done():
            now = time.monotonic()
            if now - min(self.seen.values()) > self.seconds or now - began > seconds:
                raise Silent
            time.sleep(pause)
            pause = min(longest, 2 * pause)

    @contextmanager
    def answered(self) -> Iterator[None]:
        """Turns what torch raises when another process is gone into one line that names it; other errors pass."""
        try:
            yield
        except (RuntimeError, Silent) as error:
            words = reason(error, self.seconds)
            if words is None:
                raise
            # one that time ran out for has been silent for long; after a failure it takes time to see who is
            silent = min(_SURE, self.seconds / 2) if UNANSWERED in words else 0.0
            lost = self._lost(time.monotonic() - silent)
            raise ProcessError(f"{self._names(lost)} {words}", tells=self._tells(lost)) from error

    def _lost(self, began: float) -> list[int]:
        """The processes that have counted no more since it began; none where all do."""
        while True:
            waited = time.monotonic() - began
            lost = [rank for rank, seen in self.seen.items() if rank != self.rank and seen <= began + self.every]
            if self.blamed or waited > _SURE or (len(lost) <= 1 and waited > 3 * self.every) or self._apart():
                break
            time.sleep(0.05)
        if self._apart():
            return self._holders() or lost
        self.blame, asked = self.blame or ",".join(map(str, lost)), time.monotonic()
        while self.blame and not self.blamed and time.monotonic() < asked + _SURE:
            time.sleep(0.05)
        return [int(rank) for rank in self.blamed.split(",")] if self.blamed else lost

    def _apart(self) -> bool:
        """Whether the store is out of reach."""
        return time.monotonic() - self.asked > _SURE - self.every

    def _holders(self) -> list[int]:
        """The processes where the store is, which is out of reach: those of another machine, or the first."""
        if self.hosts[0] != self.hosts[self.rank]:
            return [rank for rank, host in enumerate(self.hosts) if host == self.hosts[0]]
        return [0] if self.rank and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" else []

    def _names(self, lost: list[int]) -> str:
        if not lost or self.rank in lost:
            return "another process"
        hosts = sorted({self.hosts[rank] for rank in lost})
        where = f" on {', '.join(hosts[:4])}" if len(set(self.hosts)) > 1 else ""
        numbers = ", ".join(map(str, lost[:8])) + (", ..." if len(lost) > 8 else "")
        return f"process{'es' * (len(lost) > 1)} {numbers} of {self.size}{where}"

    def _tells(self, lost: list[int]) -> bool:
        """Whether this process is the first of its machine that is left to tell."""
        return all(rank in lost for rank in range(self.rank - int(os.environ.get("LOCAL_RANK", "0")), self.rank))


def reason(error: BaseException, seconds: float) -> str | None:
    """What an error says of the process that is lost; None where it is about something else."""
    text = (str(error) or type(error).__name__).splitlines()[0]
    if isinstance(error, Silent) or "imed out" in text or "imeout" in text:
        return f"{UNANSWERED} for {span(seconds)}"
    if any(words in text for words in _LOST):
        return "has failed"
    return f"has failed: {text}" if isinstance(error, DistError) or "gloo" in text else None


def span(seconds: float) -> str:
    """A time as people say it.

    >>> span(600), span(20)
    ('10 minutes', '20 s')
    """
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 and seconds % 60 == 0 else f"{seconds:g} s"
