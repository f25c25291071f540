"""Commands in processes of their own that do not import torch again: each is a fork of one process that has.

Importing torch takes two to four seconds of CPU, most commands of tests less than one.  A command that is started here
has its own process, folder, environment, arguments, signals, streams and exit code, as `python -m MODULE` has them;
what it does not have is the start of an interpreter, and whatever happens before torch is imported.  A test of that, of
the memory a command takes or of a terminal starts an interpreter of its own.

It ends without the interpreter's own end, which touches nearly every page that a fork shares (0.2 s of CPU): exit
handlers have run and streams are written out by then.  Who asks for `to_the_end` has that too.

The process to fork from does nothing but that, so that no thread of its own and nothing that a test changed goes along.
Every fork is a fork of a fork: the one between waits, and tells the connection that asked how the command ended.
"""

import array
import atexit
import gc
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

from benchmarks.peers import declare_operators
from tests.disks import wait_for_none
from tests.patience import LONG, wait_until

ROOT = Path(__file__).resolve().parent.parent
BEFORE = (  # what is imported once; torch's exporter imports torch._dynamo
    "torch", "torch._dynamo", "torch.distributed.launcher.api", "PIL.Image", "mdp.cli", "mdp.io.training.job",
    "mdp.io.evaluation.job", "mdp.io.report.job", "mdp.io.studies.compare",
)  # fmt: skip
_PATH = "MDP_TEST_PRELOADED"  # the socket of the process that is forked


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class _Asked(NamedTuple):
    words: list[str]
    folder: str
    environment: dict[str, str]
    to_the_end: bool


class Started:
    """A command that runs, or has run: what subprocess.Popen is for a program."""

    def __init__(self, words: list[str], folder: Path, *, to_the_end: bool = False, **variables: str) -> None:
        """Starts `python WORDS`, where the words are `-m MODULE ...`, `-c CODE ...` or `FILE ...`."""
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._connection = _connected()
        environment = {**os.environ, **variables}
        asked = json.dumps(_Asked(words, str(folder.absolute()), environment, to_the_end)._asdict()).encode()
        head = array.array("q", [len(asked)]).tobytes()
        socket.send_fds(self._connection, [head], [self._out.fileno(), self._err.fileno()])
        self._connection.sendall(asked)
        self.returncode: int | None = None
        self.pid = self._told(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self.kill()
        self.wait()
        for part in (self._out, self._err, self._connection):
            part.close()

    def _told(self, seconds: float | None) -> int:
        """The next number that the process between told."""
        if not select.select([self._connection], [], [], seconds)[0]:
            raise subprocess.TimeoutExpired("a command", seconds or 0)
        told = self._connection.recv(8)
        assert told, "the process that commands are forked from has ended: python -m tests.preloaded x says why"
        return array.array("q", told)[0]

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self.returncode = self._told(timeout)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it wrote, once it has ended."""
        self.wait(timeout)
        return _text(self._out), _text(self._err)


def run(words: list[str], folder: Path, **variables: str) -> Done:
    """`python WORDS` in that folder, with those variables beside this process's, to its end."""
    with Started(words, folder, **variables) as started:
        out, err = started.communicate(LONG)
        return Done(started.wait(), out, err)


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode(errors="surrogateescape")


def begin() -> None:
    """Starts the process that is forked, for this process and all that it starts; none waits for it here."""
    if _PATH in os.environ:
        return
    home = tempfile.mkdtemp(prefix="mdp")  # the path of a socket has to be short
    os.environ[_PATH] = f"{home}/socket"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.preloaded", os.environ[_PATH]], cwd=ROOT, stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip

    Path(home, "process").write_text(str(process.pid))

    def end() -> None:
        process.communicate()  # closes what it reads from, and with that it ends
        shutil.rmtree(home, ignore_errors=True)

    atexit.register(end)


def _connected() -> socket.socket:
    """A connection to the process that is forked; it answers as soon as it has imported everything."""
    begin()
    wait_until(_listens, "the start of tests/preloaded.py")
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.environ[_PATH])
    return connection


def _listens() -> bool:
    """Whether the process that is forked can be asked; fails at once when it has ended, as it does on a full disk."""
    path = Path(os.environ[_PATH])
    try:
        state = Path("/proc", (path.parent / "process").read_text(), "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        state = "Z" if Path("/proc/self").exists() else ""
    assert state != "Z" or path.exists(), "the process that commands are forked from has ended before it listened"
    return path.exists()


# The process that is forked


def _serve(listening: socket.socket) -> _Asked | None:
    """Forks for every request.  Returns None at the end, and in each fork what it has to become."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests
    while listening in select.select([listening, sys.stdin], [], [])[0]:
        connection, _ = listening.accept()
        head, streams, _, _ = socket.recv_fds(connection, 8, 2)
        data = connection.recv(array.array("q", head)[0], socket.MSG_WAITALL)
        if os.fork() == 0:
            listening.close()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if _forked(connection, streams):
                return _Asked(**json.loads(data))
        for file in streams:
            os.close(file)
        connection.close()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # those between that have ended
                pass
    return None


def _forked(connection: socket.socket, streams: list[int]) -> bool:
    """True in the process of a command; the one that waits for it ends here."""
    pid = os.fork()
    if pid == 0:
        connection.close()
        for number, file in enumerate([os.open(os.devnull, os.O_RDONLY), *streams]):
            os.dup2(file, number)
        for file in streams:
            os.close(file)
        return True
    connection.sendall(array.array("q", [pid]).tobytes())
    status = os.waitpid(pid, 0)[1]
    connection.sendall(array.array("q", [os.waitstatus_to_exitcode(status)]).tobytes())
    os._exit(0)


def _become(asked: _Asked) -> None:
    """Goes on as the command; how it ends is how this process ends."""
    os.environ.clear()
    os.environ.update(asked.environment)
    os.chdir(asked.folder)
    kind, *words = asked.words
    paths = [path for path in asked.environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    if kind == "-m":
        sys.argv, sys.path[:1] = words, [asked.folder, *paths]
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv, sys.path[:1] = ["-c", *words[1:]], ["", *paths]
        exec(compile(words[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv, sys.path[:1] = asked.words, [str(Path(kind).parent), *paths]
        runpy.run_path(kind, run_name="__main__")


def _leave(code: int) -> None:
    """What an interpreter does before it takes itself apart, and no more."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(f"{sys.argv[1]}~")
        opened.listen(64)
        os.rename(f"{sys.argv[1]}~", sys.argv[1])  # who finds it is listened to
        for name in BEFORE:
            __import__(name)
        wait_for_none()
        declare_operators()  # so that commands can import timm, whatever torchvision lies beside torch
        gc.collect()
        gc.freeze()  # a fork need not look through all of torch for what can go
        request = _serve(opened)
    if request is not None:
        status = 0
        try:
            _become(request)
        except SystemExit as ended:
            if not isinstance(ended.code, int | None):
                raise  # a text, which is printed
            status = ended.code or 0
        if request.to_the_end:
            sys.exit(status)
        _leave(status)
