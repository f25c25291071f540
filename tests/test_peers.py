"""Which process is lost, and by which interface machines reach each other."""

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.distributed as dist

from mdp.io.errors import ProcessError
from mdp.io.processes import peers
from mdp.io.processes.interface import VARIABLES, choose, interface_of, way_to
from mdp.io.processes.peers import Peers, Silent
from mdp.io.processes.world import World
from tests.patience import wait_until


class Standing(Peers):
    """A process whose thread has never counted: it stands still, or is dead."""

    def _count(self, store: Any) -> None:
        store.set(f"count/{self.rank}", "1")


@pytest.fixture
def store() -> dist.TCPStore:
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


@pytest.fixture
def three(store: dist.TCPStore, monkeypatch: pytest.MonkeyPatch) -> list[Peers]:
    """Three processes, by threads, of which number 1 stands still."""
    monkeypatch.setattr(peers, "_SURE", 60.0)  # a busy machine's
    kinds = [Peers, Standing, Peers]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda rank: kinds[rank](store.clone(), rank, 3, 2.0), range(3)))
    wait_until(lambda: found[0].seen[2] > found[0].seen[1] and found[2].seen[0] > found[2].seen[1], "some counts")
    return found


def lost(process: Peers, error: Exception) -> str:
    with pytest.raises(ProcessError) as told, process.answered():
        raise error
    return f"{told.value} {told.value.tells}"


def test_all_that_are_left_name_the_one_that_counts_no_more(
    three: list[Peers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    closed = RuntimeError("[gloo/pair.cc:547] Connection closed by peer [127.0.0.1]:2")
    assert lost(three[0], closed) == "process 1 of 3 has failed True"
    time.sleep(2 * three[0].every)  # process 0 has ended meanwhile for all that 2 can see
    three[2].seen[0] = three[2].seen[1]
    monkeypatch.setenv("LOCAL_RANK", "2")
    timed = RuntimeError("[gloo/buffer.cc:81] Timed out waiting 2000ms for recv")
    assert lost(three[2], timed) == "process 1 of 3 has not answered for 2 s False"  # 0, on this machine, tells


def test_a_long_wait_ends_when_another_process_counts_no_more_and_not_before(three: list[Peers]) -> None:
    three[0].wait(lambda: True)
    with pytest.raises(Silent):
        three[0].wait(lambda: False)
    three[0].seen[1] = time.monotonic() + 3600  # as if it counted
    began = time.monotonic()
    three[0].wait(lambda: time.monotonic() > began + 2.5)


def test_errors_of_other_things_pass(three: list[Peers]) -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), three[0].answered():
        raise RuntimeError("shapes differ")


def test_the_interface_is_that_of_the_way_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert way_to("127.0.0.1") == way_to("localhost") == way_to("no.such.host.invalid") == ""
    loopback = interface_of("127.0.0.1")
    assert loopback in {name for _, name in socket.if_nameindex()}
    assert interface_of("203.0.113.7") == ""
    assert choose("", ["", ""]) == ""  # one machine: nothing is set
    assert choose("203.0.113.7", ["", "203.0.113.7"]) == ""
    assert not any(name in os.environ for name in VARIABLES)
    said = choose("127.0.0.1", ["", "127.0.0.1"])
    assert said.startswith(f"other machines are reached by {loopback} (127.0.0.1)")
    assert choose("127.0.0.1", ["", "127.0.0.1"]) == ""  # what is set is left as it is


def test_a_gpu_that_waits_for_a_lost_process_is_given_up_in_a_line(
    three: list[Peers], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = [True]
    monkeypatch.setattr(peers, "_SURE", 1.0)  # of the two seconds for which a process is waited

    class Event:
        def record(self, stream: object) -> None:
            pass

        def query(self) -> bool:
            return done[0]

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: device)
    world = World(0, 3, peers=three[0])
    world.settled(torch.device("cuda"))
    done[0] = False
    world.settled(torch.device("cpu"))  # which has nothing to wait for
    with pytest.raises(ProcessError, match="process 1 of 3 has not answered for 2 s"):
        world.settled(torch.device("cuda"))
