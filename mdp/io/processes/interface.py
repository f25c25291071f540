"""The network interface by which several machines reach each other.

gloo takes the address of the machine's own name, which on Debian and its kin is 127.0.1.1: nobody else can reach that.
So the way to the others is asked for: a connected UDP socket knows its own address, and no packet is sent.
"""

import fcntl
import os
import socket
import struct
from collections.abc import Sequence

VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
_ADDRESS_OF = 0x8915  # Linux's SIOCGIFADDR


def way_to(host: str, port: int = 9) -> str:
    """The address of this machine by which it reaches a host; "" where that is itself, or there is no way."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as asked:
            asked.connect(address)
            own = str(asked.getsockname()[0])
    except OSError:
        return ""
    return "" if own.startswith("127.") or own == "::1" else own


def interface_of(address: str) -> str:
    """The name of the interface that has an address; "" where none is found."""
    for _, name in socket.if_nameindex():
        if address in _addresses(name):
            return name
    return ""


def _addresses(name: str) -> list[str]:
    found = []
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            answer = fcntl.ioctl(asked.fileno(), _ADDRESS_OF, struct.pack("256s", name.encode()[:15]))
        found.append(socket.inet_ntoa(answer[20:24]))
    except OSError:
        pass
    try:
        with open("/proc/net/if_inet6", encoding="ascii") as lines:
            rows = [line.split() for line in lines]
        found += [socket.inet_ntop(socket.AF_INET6, bytes.fromhex(row[0])) for row in rows if row[-1] == name]
    except OSError:
        pass
    return found


def choose(own: str, others: Sequence[str]) -> str:
    """Sets the variables that the environment leaves open, and says so in a line; "" where nothing had to be done.

    `own` is this process's way to the main one, `others` are those of all: where they are empty there is one machine.
    """
    open_ones = [name for name in VARIABLES if name not in os.environ]
    away = [address for address in others if address]
    address = own or (way_to(away[0]) if away else "")  # the main process's machine is no way away from itself
    name = interface_of(address) if address else ""
    if not (name and open_ones):
        return ""
    os.environ.update(dict.fromkeys(open_ones, name))
    return f"other machines are reached by {name} ({address}); {' and '.join(VARIABLES)} choose another"
