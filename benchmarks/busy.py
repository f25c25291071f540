"""`python -m benchmarks.busy`: how fast a small training steps beside busy neighbours, by how its threads wait.

Each candidate is a real `mdp pretrain` that stands still (SIGSTOP) except in its own turns: A B C, then C B A.  The
neighbours are processes that multiply matrices on one thread each, without a pause.  POSIX systems only.

A candidate is a word, or several joined by `+`:

    default     what mdp does where the environment says nothing
    active      libgomp's own default: 300,000 looks, some milliseconds, before a thread sleeps
    passive     OMP_WAIT_POLICY=PASSIVE: a thread that waits sleeps at once
    spinN       N looks before it sleeps
    threadsN    run.threads=N;  workersN, processesN likewise (else no workers, one process)
    avx2        ONEDNN_MAX_CPU_ISA=AVX2: oneDNN as on a CPU without AVX-512
"""

import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import click

ROOT = Path(__file__).parents[1]
TINY = ROOT / "examples" / "recipes" / "tiny.yaml"
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
NEIGHBOUR = "import numpy as np\na = np.ones((256, 256), np.float32) / 256\nwhile True:\n    a = a @ a\n"
WARM = 2  # steps before the first turn


class Candidate(NamedTuple):
    """How a training is run."""

    name: str
    environment: dict[str, str]
    workers: int = 0
    processes: int = 1
    threads: int = 0  # 0: torch's choice

    def command(self, config: Path, out: Path) -> list[str]:
        """The training, which comes to no end by itself."""
        settings = [f"run.workers={self.workers}", "pretrain.validate_epochs=0", "run.checkpoint_minutes=60"]
        settings += [f"run.threads={self.threads}"] if self.threads else []
        return [
            sys.executable, "-m", "mdp", "pretrain", "--datasets", "shapes-coarse,shapes-fine", "--no-check", "--quiet",
            "--config", str(config), "--steps", "1000000", "--out", str(out),
            *(f"--set={text}" for text in settings),
            *(["--processes", str(self.processes)] if self.processes > 1 else []),
        ]  # fmt: skip


def candidate(name: str) -> Candidate:
    """The candidate of that name.  Raises ValueError when a word of it is none."""
    environment: dict[str, str] = {}
    numbers = {"workers": 0, "processes": 1, "threads": 0}
    for word in name.split("+"):
        if word == "active":
            environment["GOMP_SPINCOUNT"] = "300000"
        elif word == "passive":
            environment["OMP_WAIT_POLICY"] = "PASSIVE"
        elif word == "avx2":
            environment["ONEDNN_MAX_CPU_ISA"] = "AVX2"
        elif match := re.fullmatch(r"spin(\d+)", word):
            environment["GOMP_SPINCOUNT"] = match[1]
        elif match := re.fullmatch(r"(workers|processes|threads)(\d+)", word):
            numbers[match[1]] = int(match[2])
        elif word != "default":
            raise ValueError(f"expected default, active, passive, avx2, spinN, threadsN, workersN, got {word!r}")
    return Candidate(name, environment, **numbers)


class Training:
    """A candidate's training: begun, warmed up, and standing still except in its turns."""

    def __init__(self, candidate: Candidate, config: Path, folder: Path) -> None:
        self.candidate, self.out = candidate, folder / candidate.name
        kept = {name: value for name, value in os.environ.items() if name not in WAITING}
        kept |= {"PYTHONPATH": str(ROOT), **candidate.environment}
        self.log = folder / f"{candidate.name}.txt"
        with self.log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                candidate.command(config, self.out), cwd=folder, env=kept, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def steps(self) -> int:
        """The steps it has done.  Raises RuntimeError when it has ended."""
        if self.process.poll() is not None:
            said = self.log.read_text(encoding="utf-8")
            raise RuntimeError(f"{self.candidate.name} ended with exit code {self.process.returncode}: {said}")
        try:
            return (self.out / "metrics.jsonl").read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to it and its own processes."""
        os.killpg(self.process.pid, number)

    def warm_up(self) -> None:
        """Lets it start and do its first steps."""
        while self.steps() < WARM:
            time.sleep(0.02)
        self.signal(signal.SIGSTOP)

    def turn(self, seconds: float, most: float) -> float:
        """Steps a second, from the end of the turn's first step to that of the last.

        A turn takes so many seconds, and when they were too few for two steps, `most` of them.
        """
        began, before = time.monotonic(), self.steps()
        first = last = (began, before)
        self.signal(signal.SIGCONT)
        while (now := time.monotonic()) < began + seconds or (last[1] < before + 2 and now < began + most):
            time.sleep(0.02)
            if (done := self.steps()) > last[1]:
                last = (time.monotonic(), done)
                if first[1] == before:
                    first = last
        self.signal(signal.SIGSTOP)
        if last[1] == first[1]:  # one step or none: no more than this
            return max(1, last[1] - before) / (time.monotonic() - began)
        return (last[1] - first[1]) / (last[0] - first[0])

    def end(self) -> None:
        """Ends it and its own processes."""
        with suppress(ProcessLookupError):  # it has ended by itself
            self.signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """So many busy processes."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    busy = [subprocess.Popen([sys.executable, "-c", NEIGHBOUR], env=environment) for _ in range(count)]
    try:
        time.sleep(1 if count else 0)
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


class Turn(NamedTuple):
    """Steps a second of one candidate in one of its turns."""

    neighbours: int
    place: int  # of the candidate
    rate: float


def turns(
    candidates: list[Candidate], config: Path, counts: list[int], rounds: int, seconds: float, most: float
) -> Iterator[Turn]:
    """Each candidate's turns beside each number of neighbours, as they come."""
    with tempfile.TemporaryDirectory(prefix="busy-") as folder:
        trainings: list[Training] = []
        try:
            for candidate in candidates:  # one after the other, for each is a neighbour as long as it goes
                trainings.append(Training(candidate, config, Path(folder)))
                trainings[-1].warm_up()
            for count in counts:
                with neighbours(count):
                    for number in range(rounds):
                        for place in range(len(trainings))[:: -1 if number % 2 else 1]:
                            yield Turn(count, place, trainings[place].turn(seconds, most))
        finally:
            for training in trainings:
                training.end()


def table(candidates: list[Candidate], found: list[Turn]) -> list[str]:
    """Lines: the median of steps a second, and of the ratios to the first candidate's turn of the same round."""
    lines = []
    for count in dict.fromkeys(turn.neighbours for turn in found):
        lines.append(f"{count} neighbours")
        rates = [[t.rate for t in found if t.neighbours == count and t.place == i] for i in range(len(candidates))]
        for candidate, own in zip(candidates, rates, strict=True):
            ratios = [rate / first for rate, first in zip(own, rates[0], strict=True)]
            each = " ".join(f"{rate:.2f}" for rate in own)
            middle = statistics.median
            lines.append(f"  {candidate.name:28}{middle(own):8.2f} steps/s{middle(ratios):8.2f} x   ({each})")
    return lines


def _candidates(context: click.Context, parameter: click.Parameter, value: str) -> list[Candidate]:
    try:
        return [candidate(name.strip()) for name in value.split(",")]
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _counts(context: click.Context, parameter: click.Parameter, value: str) -> list[int]:
    try:
        return [int(text) for text in value.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"expected numbers of processes, as 0,2, got {value!r}") from error


@click.command()
@click.option("--neighbours", "counts", default="0,2", show_default=True, callback=_counts, help="Busy processes.")
@click.option("--candidates", default="active,default", show_default=True, callback=_candidates, help="See above.")
@click.option("--rounds", type=click.IntRange(1), default=2, show_default=True, help="Turns of each candidate.")
@click.option("--seconds", type=click.FloatRange(1), default=5.0, show_default=True, help="Length of a turn.")
@click.option("--most", type=click.FloatRange(1), default=20.0, show_default=True,
              help="Length of a turn that sees fewer than two steps in --seconds.")  # fmt: skip
@click.option("--config", type=click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path),
              default=TINY, help="The training's settings [default: examples/recipes/tiny.yaml].")  # fmt: skip
def main(
    candidates: list[Candidate], counts: list[int], rounds: int, seconds: float, most: float, config: Path
) -> None:
    """Steps a second of small trainings beside busy neighbours, and as ratios to the first candidate.

    \b
    python -m benchmarks.busy --neighbours 0 --candidates active,passive,spin1000
    python -m benchmarks.busy --neighbours 0,1,2,4 --candidates active+workers2,default+workers2
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # neighbours and trainings end with it
    found = []
    for turn in turns(candidates, config, counts, rounds, seconds, most):
        found.append(turn)
        click.echo(f"{turn.neighbours} {candidates[turn.place].name} {turn.rate:.3f}", err=True)
    click.echo(f"{os.cpu_count()} cores, {rounds} turns of {seconds:g} s, in turn")
    click.echo("\n".join(table(candidates, found)))


if __name__ == "__main__":
    main()
