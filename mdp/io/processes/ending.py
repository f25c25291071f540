"""How a process ends: its exit code and its last words, which are printed once, however many processes a run has."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

from mdp.io.errors import MdpError, Preempted, ProcessError, Stopped

_ON_DEATH_OF_PARENT = 1  # Linux's PR_SET_PDEATHSIG
FOLDER = "mdp-launch-"  # how the name of the launcher's folder begins
ENDINGS = "MDP_ENDINGS"  # the folder that processes leave their endings in
_SIGNAL = "signal"  # a file in it
_NEWS_OF_ALL = (Preempted.exit_code, ProcessError.exit_code, 130)  # what the first process tells for the others too


class Ending(NamedTuple):
    """How a process ended."""

    code: int
    words: str = ""  # what there is to tell of it
    tells: bool = False  # whether this process tells it, of those of its machine that can


def ending_of(error: BaseException) -> Ending:
    """How a process ends that was asked to stop, or has met what its user or the machine has to mend."""
    if isinstance(error, Stopped | Preempted):
        return Ending(Preempted.exit_code, str(error))
    if isinstance(error, MdpError):
        return Ending(error.exit_code, f"error: {error}", isinstance(error, ProcessError) and error.tells)
    return Ending(130, "interrupted")


def launched() -> bool:
    """Whether this process is one of several that a launcher has started."""
    return "LOCAL_RANK" in os.environ


def speaks() -> bool:
    """Whether this process prints: of several, the first."""
    return os.environ.get("RANK", "0") == "0"


def end_with_launcher() -> None:
    """From now on this process gets a SIGTERM when `--processes`' launcher ends, which may be killed and tell nobody.

    On Linux, also at once where it has ended; elsewhere a run looks for it before each step.
    """
    folder = os.environ.get(ENDINGS)
    if folder is None or not launched():
        return
    with suppress(OSError, AttributeError):
        import ctypes  # noqa: PLC0415 - of several processes only, and every command starts by this file

        ctypes.CDLL(None).prctl(_ON_DEATH_OF_PARENT, signal.SIGTERM)
        if Path(folder).is_dir() and Path(folder).name != str(os.getppid()):
            os.kill(os.getpid(), signal.SIGTERM)


def signal_name(number: int) -> str:
    """The name of a signal that came; a launcher passes all of them on as SIGTERM, and leaves the first one's name."""
    if launched():
        with suppress(OSError):
            return (Path(os.environ.get(ENDINGS, "")) / _SIGNAL).read_text(encoding="utf-8")
    return signal.Signals(number).name


def leave_signal(folder: Path, number: int) -> None:
    """Leaves the name of the signal that a launcher got, for its processes."""
    with suppress(OSError):
        (folder / _SIGNAL).write_text(signal.Signals(number).name, encoding="utf-8")


def leave(ending: Ending) -> bool:
    """Leaves this process's ending for the launcher; whether there is one that will read it."""
    folder = Path(os.environ.get(ENDINGS, ""))
    if not folder.is_dir():
        return False
    if folder.name != str(os.getppid()):  # the launcher was killed: it reads nothing and cleans up nothing any more
        if folder.parent.name.startswith(FOLDER):
            import shutil  # noqa: PLC0415 - as ctypes above

            shutil.rmtree(folder.parent, ignore_errors=True)
        return False
    (folder / os.environ["RANK"]).write_text(
        f"{ending.code}\n{ending.words}", encoding="utf-8", errors="surrogateescape"
    )
    return True


def tell(ending: Ending, say: Callable[[str], None]) -> None:
    """Says how it ended: of several processes the launcher does, or the first unless the cause is another's own."""
    if launched() and leave(ending):
        return
    if ending.words and (speaks() or ending.tells or ending.code not in _NEWS_OF_ALL):
        say(ending.words if speaks() else f"process {os.environ['RANK']}: {ending.words}")


def end(ending: Ending, say: Callable[[str], None]) -> NoReturn:
    """Says how it ended and leaves with its exit code."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    tell(ending, say)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # the work is done: a signal now would only spoil the exit code
    if launched():
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(ending.code)  # at a usual exit, threads that still wait for other processes may abort this one
    sys.exit(ending.code)


def drop_output() -> None:
    """Sends all further output nowhere: nobody reads it any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
