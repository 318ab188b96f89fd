"""What the benchmarks share: ports, waiting, and processes that are stopped at the end."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

BINARIES = Path(__file__).resolve().parent.parent / "target" / "release"
DEADLINE = 60


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_until(what, condition):
    """What `condition` gives once it gives something."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        try:
            found = condition()
        except (OSError, ValueError):
            found = None
        if found:
            return found
        time.sleep(0.05)
    sys.exit(f"no {what} after {DEADLINE} s")


def connect(port):
    stream = socket.create_connection(("127.0.0.1", port), timeout=10)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def ask(stream, command):
    """The first line of the reply."""
    stream.sendall(command)
    reply = b""
    while b"\r\n" not in reply:
        more = stream.recv(65536)
        if not more:
            raise OSError("closed")
        reply += more
    return reply


class Peer:
    """Processes that are stopped at the end."""

    def __init__(self, directory):
        self.directory = directory
        self.processes = []
        directory.mkdir()

    def run(self, *command):
        log = open(self.directory / "log", "ab")
        process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def stop(self):
        for process in self.processes:
            process.send_signal(signal.SIGINT)
        for process in self.processes:
            process.wait()

    def connect(self):
        return connect(self.port)
