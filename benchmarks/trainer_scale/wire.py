"""Bytes that this process has sent over TCP, as the kernel counts them (Linux)."""

import os
import socket
import struct

ESTABLISHED = 1
SENT, RETRANSMITTED = 200, 208
"""Where `struct tcp_info` has bytes_sent and bytes_retrans."""


def bytes_sent() -> int:
    """Over all connections that are open, without what was sent again."""
    return sum(map(_bytes_sent, os.listdir("/proc/self/fd")))


def num_connections() -> int:
    """TCP connections of this process."""
    return sum(_info(descriptor) is not None for descriptor in os.listdir("/proc/self/fd"))


def _bytes_sent(descriptor: str) -> int:
    info = _info(descriptor)
    if info is None:
        return 0
    sent, again = (struct.unpack_from("Q", info, offset)[0] for offset in (SENT, RETRANSMITTED))
    return int(sent - again)


def _info(descriptor: str) -> bytes | None:
    try:
        if not os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:"):
            return None
        with socket.socket(fileno=os.dup(int(descriptor))) as copy:
            info = copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    except OSError:  # closed since, or a socket of another kind
        return None
    return info if info[0] == ESTABLISHED else None
