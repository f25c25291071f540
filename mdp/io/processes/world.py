"""Several processes as one: who this process is, and the few things it asks of the others.

Started by `--processes N` or by torchrun, which put the rank of a process into its environment; one process alone
asks nobody.  CPU tensors travel by gloo, CUDA tensors by nccl.  All processes ask the same things in the same order,
whatever their data hold.
"""

import hashlib
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store, _set_pg_timeout
from torch.distributed.rendezvous import rendezvous

from mdp.core.processes import Processes, even_parts, plan_exchange, taken
from mdp.io.errors import ProcessError, ResourceError
from mdp.io.journal.stderr import say
from mdp.io.processes.collective_time import Collectives
from mdp.io.processes.interface import choose, way_to
from mdp.io.processes.peers import Peers, span

LIMIT = 600.0  # seconds until a process that does not answer is given up
_PATIENCE = timedelta(days=7)  # for what one process does while the others wait, such as checking the data


class World(NamedTuple):
    """This process among all of a run."""

    rank: int = 0
    size: int = 1
    patient: dist.ProcessGroup | None = None  # for waits that may be long
    collectives: Collectives | None = None  # how long those of training take; one process has none
    peers: Peers | None = None  # who is to blame when one of the others is lost

    @property
    def main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def all_sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, the same bits on each.  Raises ProcessError when one does not answer."""
        if self.size == 1:
            return tensor
        total = tensor.detach().clone(memory_format=torch.contiguous_format)
        with self._collective(total):
            dist.all_reduce(total)
        return total

    def share(self, batch: int) -> Processes:
        """This process's part in batches of so many images."""

        def all_rows(tensor: Tensor, images: tuple[int, ...]) -> Tensor:
            if self.size == 1:
                return tensor
            flags = tensor.dtype == torch.bool
            own = tensor.detach().to(torch.uint8 if flags else tensor.dtype).contiguous()
            padded = own.new_zeros(max(images), *own.shape[1:])
            padded[: len(own)] = own
            gathered = [torch.empty_like(padded) for _ in images]
            with self._collective(padded):
                dist.all_gather(gathered, padded)
            whole = torch.cat([rows[:count] for rows, count in zip(gathered, images, strict=True)])
            return whole.bool() if flags else whole

        def some_rows(tensor: Tensor, index: Tensor, images: tuple[int, ...]) -> Tensor:
            # rows go to who needs them: with 64 images on each of 64 devices 128 MB a step; gathering took 8.2 GB
            if self.size == 1:
                return taken(tensor, index)
            plan = plan_exchange(index, images, self.rank)
            sent = taken(tensor.detach().contiguous(), plan.sent)
            received = sent.new_empty(len(plan.places), *sent.shape[1:])
            with self._collective(sent):
                dist.all_to_all_single(received, sent, plan.got_from, plan.sent_to)
            rows = plan.places.to(received.device, non_blocking=True)
            return torch.empty_like(received).index_copy_(0, rows, received)

        return Processes(even_parts(batch, self.size), self.rank, self.all_sum, all_rows, some_rows)

    @contextmanager
    def _collective(self, tensor: Tensor) -> Iterator[None]:
        """Around a collective of such tensors: counts its time, and turns the loss of another process into one line."""
        with self.collectives.timed(tensor.device) if self.collectives else nullcontext(), self.answered():
            yield

    @contextmanager
    def answered(self) -> Iterator[None]:
        """Turns what torch raises when another process is gone into one line; other errors pass."""
        with self.peers.answered() if self.peers else nullcontext():
            yield

    def wait_at_most(self, seconds: float) -> None:
        """From now on a process that does not answer for so long is given up."""
        if self.peers:
            self.peers.seconds = seconds
            telling = min(1.0, seconds / 20)  # what it takes to find and name the lost one, which is to be done by then
            _set_pg_timeout(timedelta(seconds=seconds - telling))

    def settled(self, device: torch.device) -> None:
        """Waits until a GPU has done what it was asked.  Raises ProcessError when another process does not answer.

        To wait for a number itself would be to wait for nccl, which ends the process without a word when time is up;
        so this gives up a little earlier.
        """
        if self.peers is None or device.type != "cuda":
            return
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(device))
        with self.answered():
            self.peers.wait(event.query, 0.0002, 0.9 * self.peers.seconds)

    def any_true(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is up on any process."""
        if self.size == 1:
            return list(flags)
        return (self.all_sum(torch.tensor(flags, dtype=torch.int64)) > 0).tolist()

    def broadcast_main(self, say: Callable[[], str]) -> str:
        """The answer of what the main process alone does, on every process; it may take long."""
        words = [say() if self.main else ""]
        if self.size == 1:
            return words[0]
        said = words[0].encode(errors="surrogateescape")
        with self.answered():
            length = torch.tensor(len(said))
            self._wait(dist.broadcast(length, 0, self.patient, async_op=True))  # the others may have to, for long
            data = torch.frombuffer(bytearray(said.ljust(int(length))), dtype=torch.uint8) if length else None
            if data is not None:
                self._wait(dist.broadcast(data, 0, self.patient, async_op=True))
        return "" if data is None else bytes(data.numpy()).decode(errors="surrogateescape")

    def _wait(self, work: Any) -> None:
        """Waits for a collective for as long as the others live."""
        if self.peers:
            self.peers.wait(work.is_completed)
        work.wait()

    def gather_objects(self, value: Any) -> list[Any]:
        """The values of all processes, in their order, on every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with self.answered():
            dist.all_gather_object(values, value, group=self.patient)
        return values

    def require_equal(self, **texts: str) -> None:
        """Raises ProcessError, naming what differs and on which process, unless all have the same texts."""
        for name, text in texts.items():
            others = self.others(text)
            if others:
                where = f"process{'es' * (len(others) > 1)} {', '.join(map(str, others[:8]))}"
                raise ProcessError(
                    f"{name} is not the same on all processes: {where} of {self.size} differ"
                    f"{'s' * (len(others) == 1)} from process 0; start them with the same files",
                    tells=first_of_machine(),
                )

    def others(self, text: str) -> list[int]:
        """The processes whose text is not that of process 0, the same answer on each."""
        told = torch.zeros(self.size, dtype=torch.int64)
        told[self.rank] = int.from_bytes(hashlib.sha256(text.encode(errors="surrogateescape")).digest()[:6])
        first, *rest = self.all_sum(told).tolist()
        return [rank for rank, digest in enumerate(rest, 1) if digest != first]


def first_of_machine() -> bool:
    """Whether this process is the one of its machine that says what people at any machine have to know."""
    return os.environ.get("LOCAL_RANK") == "0"


ALONE = World()


@contextmanager
def joined(seconds: float = LIMIT) -> Iterator[World]:
    """This process's world: alone, or with the others that the environment tells of, waited for so long.

    Raises ResourceError when the environment is incomplete or the others cannot be reached.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ResourceError(f"WORLD_SIZE is {size} but {', '.join(missing)} are not set; start with torchrun")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    timeout = timedelta(seconds=seconds)
    try:
        store, rank, _ = next(rendezvous("env://", timeout=timeout))
        store = PrefixStore(_name_start(store, rank, size, seconds), store)
        _choose_interface(store, rank, size)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    except (RuntimeError, ValueError) as error:
        raise ResourceError(f"the processes cannot reach each other: {_first_line(error)}") from error
    peers = Peers(store, rank, size, seconds)
    try:
        yield World(rank, size, dist.new_group(backend="gloo", timeout=_PATIENCE), Collectives(), peers)
    finally:
        peers.end()
    dist.destroy_process_group()  # not after an error: it would wait for processes that are gone


def _choose_interface(store: Store, rank: int, size: int) -> None:
    """Where the others are on other machines, the way to them; the first process of a machine says which."""
    own = way_to(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    store.set(f"way/{rank}", own)
    line = choose(own, [way.decode() for way in store.multi_get([f"way/{other}" for other in range(size)])])
    if line and os.environ["LOCAL_RANK"] == "0":
        say(line)


def _name_start(store: Store, rank: int, size: int, seconds: float = LIMIT) -> str:
    """A name that the processes of this start agree on, and that no earlier start had.

    torchrun keeps its store when it starts processes again, and with it the addresses of those that died: gloo would
    call them until its time is up, in one of three restarts.  How often a process was started does not tell starts
    apart, as machines count for themselves.  So process 0 names the start, and every other one takes the name only as
    the answer to a question of its own; old questions may lie in the store, so process 0 answers until all say thanks.

    Raises RuntimeError when they do not meet.
    """
    mine = uuid.uuid4().hex
    if rank > 0:
        store.set(f"question/{rank}", mine)
        name: str = store.get(f"answer/{mine}").decode()
        store.set(f"thanks/{name}/{rank}", "")
        return name
    waiting, end = set(range(1, size)), time.monotonic() + seconds
    while waiting:
        for other in sorted(waiting):
            if store.check([f"thanks/{mine}/{other}"]):
                waiting.remove(other)
            elif store.check([f"question/{other}"]):
                store.set(f"answer/{store.get(f'question/{other}').decode()}", mine)
        if time.monotonic() > end:
            raise RuntimeError(f"processes {sorted(waiting)} have not come within {span(seconds)}")
        time.sleep(0.02)
    return mine


def local_device(device: torch.device, world: World) -> torch.device:
    """The device of this process: with several on CUDA, each takes the one of its rank on the machine.

    Slurm may show each of its tasks one device only (`--gpus-per-task=1`), and no two the same.

    Raises ResourceError when the machine has too few, or all were given one.
    """
    if device.type != "cuda" or world.size == 1:
        return device
    local_rank = int(os.environ["LOCAL_RANK"])
    if device.index is not None:
        raise ResourceError(f"--device {device}: with several processes each takes a device of its own; give cuda")
    if torch.cuda.device_count() == 1 and os.environ.get("SLURM_LOCALID") == str(local_rank):
        local_rank = 0
    if local_rank >= torch.cuda.device_count():
        raise ResourceError(f"process {local_rank + 1} of this machine finds {torch.cuda.device_count()} CUDA devices")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def launch_id() -> str | None:
    """The name that all processes of one launch, and those restarted by it, share; None without a launcher."""
    run = os.environ.get("TORCHELASTIC_RUN_ID")
    return None if run is None else f"{run}-{socket.gethostname()}-{os.getppid()}"


def restarted() -> bool:
    """Whether a launcher has started these processes again after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
