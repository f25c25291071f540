"""A fresh process for everything that is measured, so that nothing leaks from one case into the next.

The processes are forked from a server that has imported torch and the peers and computed nothing.
"""

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from benchmarks import peers, spots
from benchmarks.figures import Figures, Measured
from benchmarks.measure import TOLERANCE, Case, Entry, error_of, peak_memory, time_in_turn

_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def measured(spot: str, label: str, rounds: int, threads: int) -> Figures:
    """The figures of one case; a case that fails is one whose `failure` says why."""
    found = _in_child(_timed, threads, spot, label, rounds, threads)
    if isinstance(found, str):
        return Figures(spot, label, failure=found)
    memories = [
        _in_child(_memory, threads, spot, label, i) if entry.seconds else None for i, entry in enumerate(found.entries)
    ]
    failure = next((memory for memory in memories if isinstance(memory, str)), "")
    entries = tuple(
        Measured(e.name, e.kind, e.seconds, None if isinstance(memory, str) else memory, e.error, e.missing)
        for e, memory in zip(found.entries, memories, strict=True)
    )
    return Figures(found.spot, found.size, entries, found.gates, failure)


def _in_child(job: Callable[..., Any], threads: int, *arguments: Any) -> Any:
    """The return value of `job(*arguments)` in a new process, or a line that says how it failed."""
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read by the server's libraries when it starts
    context = multiprocessing.get_context(_METHOD)
    if _METHOD == "forkserver":
        context.set_forkserver_preload(["benchmarks.preload"])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, job, threads, arguments))  # type: ignore[attr-defined]
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        return f"its process ended with exit code {process.exitcode}"  # negative: a signal, such as -9 without memory
    finally:
        process.join()


def _answer(sender: Connection, job: Callable[..., Any], threads: int, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(threads)
    cv2 = peers.load("cv2")
    if cv2 is not None:
        cv2.setNumThreads(threads)
    try:
        sender.send(job(*arguments))
    except Exception as error:  # whatever it is, the other cases go on and the table says it
        traceback.print_exc()
        sender.send(f"{type(error).__name__}: {error}")


def _timed(spot: str, label: str, rounds: int, threads: int) -> Figures:
    case = spots.cases(spot)[label]()
    errors = _errors(case)
    there = [entry for entry in case.entries if entry.run]
    clock = time.process_time if threads == 1 else time.perf_counter  # a neighbour's load is not ours
    seconds = dict(zip(there, time_in_turn([e.run for e in there if e.run], rounds, clock), strict=True))
    entries = tuple(
        Measured(e.name, e.kind, tuple(seconds.get(e, ())), None, errors.get(e), e.missing) for e in case.entries
    )
    return Figures(case.spot, case.size, entries, case.gates)


def _errors(case: Case) -> dict[Entry, float]:
    """How far each entry's numbers are from the expected ones.  Raises ValueError where one is wrong."""
    if case.expected is None:
        return {}
    expected, errors = case.expected(), {}
    for entry in case.entries:
        if entry.run is None or not entry.exact or entry.kind == "floor":
            continue
        try:
            errors[entry] = error_of(entry.run(), expected)
        except ValueError as error:
            raise ValueError(f"{entry.name}: {error}") from error
        if not errors[entry] <= TOLERANCE:
            raise ValueError(f"{entry.name} is wrong: its largest error is {errors[entry]:.1e} of the largest number")
    return errors


def _memory(spot: str, label: str, number: int) -> int | None:
    run = spots.cases(spot)[label]().entries[number].run
    return None if run is None else peak_memory(run)
