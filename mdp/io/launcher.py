"""`--processes N`: the same command in N processes of this machine, by torch's own elastic launcher.

torchrun forgets the exit codes of its processes, so each leaves its own in a file, and the one that tells most is the
command's.
"""

import logging
import os
import signal
import sys
import tempfile
import uuid
from pathlib import Path

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from mdp.io.errors import ProcessError, ResourceError

_CODES = "MDP_EXIT_CODES"  # the folder that processes leave their exit codes in


def launched() -> bool:
    """Whether this process is one of several that a launcher has started."""
    return "LOCAL_RANK" in os.environ


def leave_code(code: int) -> None:
    """Leaves this process's exit code for the launcher."""
    folder = os.environ.get(_CODES)
    if folder and Path(folder).is_dir():
        (Path(folder) / os.environ["RANK"]).write_text(str(code))


def launch(processes: int, arguments: list[str]) -> int:
    """Runs `mdp ARGUMENTS` in so many processes and returns the exit code of the whole.

    Raises ProcessError, naming the process, when one died without a word.
    """
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # its account of failures is ours to give
    signal.signal(signal.SIGUSR1, lambda number, frame: os.kill(os.getpid(), signal.SIGTERM))
    threads = max(1, (len(os.sched_getaffinity(0))) // processes)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # any free port
        max_restarts=0,
    )
    with tempfile.TemporaryDirectory(prefix="mdp-") as folder:
        os.environ[_CODES] = folder
        died = {}
        try:
            elastic_launch(config, sys.executable)("-m", "mdp", *arguments)
        except ChildFailedError as error:
            died = {rank: failure.exitcode for rank, failure in error.failures.items()}
        except SignalException:
            pass  # all were told, and have said how they ended
        except (OSError, RuntimeError) as error:
            raise ResourceError(f"--processes {processes}: the processes cannot be started: {error}") from error
        codes = {int(path.name): int(path.read_text()) for path in Path(folder).iterdir()}
    return _verdict(codes, died, processes)


def _verdict(codes: dict[int, int], died: dict[int, int], processes: int) -> int:
    """The exit code that tells most: that of the process which failed, not of those that lost it."""
    silent = [rank for rank in range(processes) if rank not in codes]
    if silent:
        first = silent[0]
        how = f"was ended by signal {-died[first]}" if died.get(first, 0) < 0 else "ended without a word"
        raise ProcessError(f"process {first} of {processes} {how}; the newest checkpoint is whole: go on with --resume")
    return min(codes.values(), key=lambda code: (code == 0, code == ProcessError.exit_code))
