"""Runs commands where there is no network but the loopback, and counts what tried to get out:

    python tests/support/no_network.py COMMAND …

The kernel counts, in a network namespace of its own: a packet or a connection without a way out is one of OutNoRoutes, a
question to a name server included. Standard output ends with one JSON object of the counts and the command's exit code.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

NEW_USER, NEW_NET = 0x10000000, 0x40000000
GET_FLAGS, SET_FLAGS, UP = 0x8913, 0x8914, 1


def enter_namespace() -> None:
    """Raises OSError where this system does not let a user make one."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_NET if os.geteuid() == 0 else NEW_USER | NEW_NET):
        raise OSError(ctypes.get_errno(), "no network namespace")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        answer = fcntl.ioctl(one, GET_FLAGS, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", answer)[1]
        fcntl.ioctl(one, SET_FLAGS, struct.pack("16sh14x", b"lo", flags | UP))


def count_attempts() -> dict[str, int]:
    """How often something tried to leave, by version of the protocol."""
    names, values = [line.split()[1:] for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Ip:")]
    four = dict(zip(names, map(int, values), strict=True))["OutNoRoutes"]
    six = dict(line.split() for line in Path("/proc/net/snmp6").read_text().splitlines())
    return {"ipv4": four, "ipv6": int(six["Ip6OutNoRoutes"])}


def main() -> int:
    try:
        enter_namespace()
    except OSError as error:
        print(error, file=sys.stderr)
        return 77
    before = count_attempts()
    done = subprocess.run(sys.argv[1:])
    attempts = {name: count - before[name] for name, count in count_attempts().items()}
    print(json.dumps({"attempts": attempts, "code": done.returncode}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
