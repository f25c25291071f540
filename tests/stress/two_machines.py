"""Two machines that are network namespaces of this one, joined by a cable: runs over both, and what goes wrong between.

    python -m tests.stress.two_machines [--only cable] [--timeout 20]

Each machine has its own network, name and hosts file.  Looks for runs that do not find their way, that go on with other
weights, or that end late, without a word on one side, or with a traceback.  Needs the right to make namespaces (root on
Linux, iproute2); ends with exit code 77, and says so, where it has not, and with 1 when something is wrong.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from mdp.io.files.strict_yaml import dump_yaml
from tests.patience import wait_until
from tests.small_runs import TINY

ROOT = Path(__file__).resolve().parents[2]
HOSTS = {"here": "10.77.0.1", "there": "10.77.0.2"}
SPARE = 25.0  # seconds beside the limit in which a process has to say what it lost, on a busy machine
START = """
hostname "$1"; mount --bind "$2" /etc/hosts; test -z "$3" || mount --bind "$3" "$4"; shift 4; exec "$@"
"""


class Ended(NamedTuple):
    """How the two ended."""

    codes: list[int]
    words: list[str]  # of stderr
    seconds: list[float]  # since what was done to them, or since they were started


@contextmanager
def machines() -> Iterator[dict[str, str]]:
    """The namespaces of the two, by the machines' names, with a cable between."""
    names = {host: f"mdp-{host}-{os.getpid()}" for host in HOSTS}
    try:
        for name in names.values():
            ip("netns", "add", name)
        here, there = names.values()
        ip("link", "add", "cable", "netns", here, "type", "veth", "peer", "name", "cable", "netns", there)
        for host, name in names.items():
            ip("-n", name, "addr", "add", f"{HOSTS[host]}/24", "dev", "cable")
            for link in ("lo", "cable"):
                ip("-n", name, "link", "set", link, "up")
        yield names
    finally:
        for name in names.values():
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Both:
    """One command on both machines, in the folder where it is started."""

    def __init__(self, names: dict[str, str], words: list[str], own_names: str, launcher: bool, swap: str = "") -> None:
        self.began, self.files = time.monotonic(), []
        self.processes = []
        for rank, (host, name) in enumerate(names.items()):
            others = "".join(f"{address} {other}\n" for other, address in HOSTS.items() if other != host)
            Path(f"hosts-{host}").write_text(f"127.0.0.1 localhost\n{own_names.format(HOSTS[host])} {host}\n{others}")
            place = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": HOSTS["here"]}
            torchrun = [
                "-m",
                "torch.distributed.run",
                "--nnodes",
                "2",
                "--nproc-per-node",
                "1",
                "--rdzv-backend",
                "c10d",
            ]
            torchrun += ["--rdzv-endpoint", f"{HOSTS['here']}:29500", "--rdzv-id", "1"]
            # torchrun itself goes by its machine's own name otherwise
            torchrun += ["--rdzv-conf", f"is_host={'false' if rank else 'true'}", "--local-addr", HOSTS[host]]
            swapped = (swap, "weights") if swap and rank else ("", "")
            inside = ["sh", "-c", START, "sh", host, f"hosts-{host}", *swapped]
            python = [sys.executable, *(torchrun if launcher else []), "-m", "mdp", *words]
            file = Path(f"{host}.txt").open("w+b")  # noqa: SIM115 - closed in `ended`
            self.files.append(file)
            self.processes.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", name, "unshare", "--mount", "--uts", *inside, *python],
                    stdout=subprocess.DEVNULL, stderr=file, start_new_session=True,
                    env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_PORT": "29510",
                         **({} if launcher else place)},
                )
            )  # fmt: skip

    def disturb(self, how: Callable[[], object]) -> None:
        """Does it once there are some steps, and counts seconds from there."""
        wait_until(lambda: all_ended(self.processes) or steps() >= 3, "three steps")
        how()
        self.began = time.monotonic()

    def ended(self, within: float) -> Ended:
        """How they ended; those that have not by then are ended, with the code -9."""
        seconds = [0.0] * len(self.processes)
        while not all(seconds) and time.monotonic() < self.began + within:
            for place, process in enumerate(self.processes):
                if not seconds[place] and process.poll() is not None:
                    seconds[place] = time.monotonic() - self.began
            time.sleep(0.05)
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        codes, words = [process.wait() for process in self.processes], []
        for file in self.files:
            file.seek(0)
            words.append(file.read().decode(errors="replace"))
            file.close()
        return Ended(codes, words, seconds)

    def send(self, rank: int, number: int) -> None:
        """A signal to all that runs on a machine."""
        os.killpg(self.processes[rank].pid, number)


def all_ended(processes: list["subprocess.Popen[bytes]"]) -> bool:
    return all(process.poll() is not None for process in processes)


def steps() -> int:
    metrics = Path("run/metrics.jsonl")
    return metrics.read_text().count('"train"') if metrics.is_file() else 0


def command(count: int, *more: str) -> list[str]:
    return ["pretrain", "--config", "tiny.yaml", "--steps", str(count), "--no-check", "--out", "run", *more]


class Case(NamedTuple):
    """What is done, and what has to come of it."""

    name: str
    play: Callable[[dict[str, str], float], Ended]
    codes: tuple[int | None, ...]  # None: it was ended by us
    says: tuple[str, ...]  # a pattern for each side's last line
    limited: bool = False  # whether run.timeout counts


def normal(own_names: str, launcher: bool) -> Callable[[dict[str, str], float], Ended]:
    return lambda names, limit: Both(names, command(4), own_names, launcher).ended(300)


def killed(names: dict[str, str], limit: float) -> Ended:
    both = Both(names, command(100_000), "{}", launcher=False)
    both.disturb(lambda: both.send(1, signal.SIGKILL))
    return both.ended(limit + 120)


def stopped(names: dict[str, str], limit: float) -> Ended:
    both = Both(names, command(100_000, "--set", f"run.timeout={limit}"), "{}", launcher=False)
    both.disturb(lambda: both.send(1, signal.SIGSTOP))
    return both.ended(limit + 60)


def pulled(launcher: bool) -> Callable[[dict[str, str], float], Ended]:
    def play(names: dict[str, str], limit: float) -> Ended:
        both = Both(names, command(100_000, "--set", f"run.timeout={limit}"), "{}", launcher)
        both.disturb(lambda: ip("-n", names["here"], "link", "set", "cable", "down"))
        return both.ended(limit + 200)

    return play


def alone(names: dict[str, str], limit: float) -> Ended:
    both = Both({"here": names["here"]}, command(4, "--set", f"run.timeout={limit}"), "{}", launcher=False)
    return both.ended(limit + 100)


def other_weights(names: dict[str, str], limit: float) -> Ended:
    for seed in ("1", "2"):
        words = [*command(1)[:-1], f"weights-{seed}", "--seed", seed]
        subprocess.run([sys.executable, "-m", "mdp", *words], check=True, capture_output=True)
    shutil.copyfile("weights-1/checkpoints/last.safetensors", "weights")
    words = command(4, "--init", "weights")
    return Both(names, words, "{}", launcher=False, swap="weights-2/checkpoints/last.safetensors").ended(120)


WAY = tuple(rf"reached by cable \({re.escape(address)}\)" for address in HOSTS.values())
LOST = r"error: process {} of 2 on {} has not answered for \S+ s"
APART = (LOST.format(1, "there"), LOST.format(0, "here"))
CASES = (
    Case("normal", normal("{}", launcher=False), (0, 0), WAY),
    Case("hostname 127.0.1.1", normal("127.0.1.1", launcher=False), (0, 0), WAY),
    Case("hostname 127.0.1.1, torchrun", normal("127.0.1.1", launcher=True), (0, 0), WAY),
    Case("other weights", other_weights, (8, 8), ("error: the --init file is not the same",) * 2),
    Case("killed node", killed, (8, None), ("error: process 1 of 2 on there has failed", "")),
    Case("stopped node", stopped, (8, None), (LOST.format(1, "there"), ""), limited=True),
    Case("pulled cable", pulled(launcher=False), (8, 8), APART, limited=True),
    # torchrun itself, where its store is out of reach, goes on waiting when its process has said so and ended
    Case("pulled cable, torchrun", pulled(launcher=True), (1, None), APART, limited=True),
    Case("a node that never comes", alone, (6,), ("error: the processes cannot reach each other: ",), limited=True),
)


def wrong_with(case: Case, found: Ended, limit: float) -> list[str]:
    """What is not as it has to be."""
    wrong = []
    for side, (code, words) in enumerate(zip(found.codes, found.words, strict=True)):
        wanted = case.codes[side]
        if wanted is not None and code != wanted:
            wrong.append(f"exit code {code}, not {wanted}")
        if not re.search(case.says[side], words):
            wrong.append(f"side {side} does not say {case.says[side]}")
        if "Traceback" in words and "mdp/" in words:
            wrong.append(f"side {side} shows a traceback")
        if case.limited and wanted is not None and found.seconds[side] > limit + SPARE:
            wrong.append(f"side {side} took {found.seconds[side]:.0f} s with a limit of {limit:g}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--timeout", type=float, default=20.0, help="run.timeout, seconds")
    given = parser.parse_args()
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("unshare"):
        print("skipped: network namespaces need root on Linux, and the commands ip and unshare")
        return 77
    failed = False
    for case in CASES:
        if given.only not in case.name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            Path("tiny.yaml").write_text(dump_yaml(TINY))
            try:
                with machines() as names:
                    found = case.play(names, given.timeout)
            except subprocess.CalledProcessError as error:
                print(f"skipped: {error}: {error.stderr}")
                return 77
            os.chdir(ROOT)
        wrong = wrong_with(case, found, given.timeout)
        failed |= bool(wrong)
        times = ", ".join(f"{seconds:.1f}" for seconds in found.seconds)
        print(f"{case.name}: exit codes {found.codes} after {times} s{': WRONG: ' if wrong else ''}{'; '.join(wrong)}")
        for host, words in zip(HOSTS, found.words, strict=False):
            told = [line for line in words.splitlines() if "error" in line or "reached by" in line]
            print("".join(f"  {host}: {line}\n" for line in (words.splitlines() if wrong else told)[-12:]), end="")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
