"""`--processes N`: the same command in N processes of this machine, by torch's own elastic launcher.

torchrun forgets the exit codes of its processes, and all of them would say how they ended; so each leaves its exit code
and its last words in a file, and the launcher repeats what tells most, once.
"""

import logging
import os
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from mdp.io.errors import Preempted, ProcessError, ResourceError
from mdp.io.journal.stderr import say
from mdp.io.processes.ending import ENDINGS, FOLDER, Ending, leave_signal
from mdp.io.processes.peers import UNANSWERED

_GRACE = 30  # seconds that torch's launcher gives processes to end before it ends them
_FOLLOW = (Preempted.exit_code, ProcessError.exit_code, 0)  # how a process may end because of another


def launch(processes: int, arguments: list[str]) -> int:
    """Runs `mdp ARGUMENTS` in so many processes, says how that ended and returns the exit code of the whole.

    Raises ProcessError, naming the process, when one died without a word.
    """
    logging.disable(logging.ERROR)  # torch's account of signals and failures is ours to give
    threads = max(1, (len(os.sched_getaffinity(0))) // processes)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    with tempfile.TemporaryDirectory(prefix=FOLDER) as folder:
        endings = Path(folder) / str(os.getpid())
        endings.mkdir()
        os.environ[ENDINGS] = str(endings)
        passed_on: list[str] = []

        def pass_on(number: int, _: FrameType | None) -> None:
            passed_on.append(signal.Signals(number).name)
            leave_signal(endings, number)
            os.kill(os.getpid(), signal.SIGTERM)

        signal.signal(signal.SIGUSR1, pass_on)
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            logs_specs=DefaultLogsSpecs(log_dir=folder),  # or torch would leave a folder behind
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",  # any free port
            max_restarts=0,
            local_addr="localhost",  # the machine's own name need not be known to its network
        )
        died, told, began = {}, "", time.monotonic()
        try:
            elastic_launch(config, sys.executable)("-m", "mdp", *arguments)
        except ChildFailedError as error:
            died = {rank: failure.exitcode for rank, failure in error.failures.items()}
        except SignalException as error:  # all were told, and have said how they ended
            told = passed_on[0] if passed_on else signal.Signals(error.sigval).name
        except (OSError, RuntimeError) as error:
            raise ResourceError(f"--processes {processes}: the processes cannot be started: {error}") from error
        found = {int(path.name): _read(path) for path in endings.iterdir() if path.name.isdecimal()}
    if told and time.monotonic() - began < _GRACE:  # who is silent ended at once: it was too early for a word
        words = f"stopped by {told} before it had begun; run the same command again"
        found = {rank: Ending(Preempted.exit_code, words) for rank in range(processes)} | found
    ending = verdict(found, died, processes)
    if ending.words:
        say(ending.words)
    return ending.code


def _read(path: Path) -> Ending:
    code, _, words = path.read_text(encoding="utf-8", errors="surrogateescape").partition("\n")
    return Ending(int(code), words)


def verdict(endings: Mapping[int, Ending], died: Mapping[int, int], processes: int) -> Ending:
    """The ending that tells most: of the process that failed, not of those that lost it or were told to stop.

    `died` are the exit codes that the launcher has seen, in the order in which it saw them: one that was too late is
    its own doing.  Raises ProcessError when the process to blame left no word.
    """
    causes = {rank: ending for rank, ending in sorted(endings.items()) if ending.code not in _FOLLOW}
    if causes:
        code = min(ending.code for ending in causes.values())
        told: dict[str, int] = {}  # what several say is told once
        for rank, ending in causes.items():
            if ending.code == code and ending.words:
                told.setdefault(ending.words, rank)
        return Ending(code, "\n".join(f"process {rank}: {text}" if rank else text for text, rank in told.items()))
    silent = [rank for rank in range(processes) if rank not in endings]
    if silent:
        again = "; the newest checkpoint is whole: go on with --resume"
        for _, ending in sorted(endings.items()):
            if UNANSWERED in ending.words:  # who has not answered was ended by the launcher, after the others
                raise ProcessError(ending.words.removeprefix("error: ") + again)
        first = next((rank for rank in died if rank in silent), silent[0])
        how = f"was ended by signal {-died[first]}" if died.get(first, 0) < 0 else "ended without a word"
        if not died:
            how = f"did not stop within {_GRACE} s of being told to"
        raise ProcessError(f"process {first} of {processes} {how}{again}")
    return min((endings[rank] for rank in sorted(endings)), key=lambda ending: _FOLLOW.index(ending.code))
