"""What the benchmarks share: ports, waiting, and processes that are stopped at the end."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BINARIES = ROOT / "target" / "release"
DEADLINE = 300

# What is stored where nothing else is said.
VALUE_BYTES = 256
KEYS = 10_000


def find_program(name):
    """Where it is installed, also where Debian puts servers; `None` if it is not."""
    return shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def free_base(count):
    """A port that is free with the `count - 1` behind it. Below those that connections are given, so that
    none of them is taken before it is listened on."""
    while True:
        base = random.randrange(10_000, 32_000)
        sockets = [socket.socket() for _ in range(count)]
        try:
            for number, each in enumerate(sockets):
                each.bind(("127.0.0.1", base + number))
            return base
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()


def wait_until(what, condition, every=0.005):
    """What `condition` gives once it gives something."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        try:
            found = condition()
        except (OSError, ValueError):
            found = None
        if found:
            return found
        time.sleep(every)
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
        reply += receive(stream)
    return reply


def receive(stream):
    more = stream.recv(65536)
    if not more:
        raise OSError("closed")
    return more


def find_leader(ports):
    """Which of these a server of quorate answers on that leads; `None` if none does."""
    for port in ports:
        try:
            if ask(connect(port), b"get k\r\n") == b"END\r\n":
                return port
        except OSError:
            pass
    return None


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


# The spawner's five servers have three each, ten apart.
SPAWNED_PORTS = 50


class Spawned(Peer):
    """Five servers of quorate, as the spawner starts them."""

    name = "quorate"

    def __init__(self, directory):
        super().__init__(directory)
        base = free_base(SPAWNED_PORTS)
        command = [BINARIES / "quorate-spawner", "--base-port", base]
        self.run(*command, "--data-dir", directory / "data")
        ports = range(base, base + SPAWNED_PORTS, 10)
        self.port = wait_until("leader", lambda: find_leader(ports))


class Cluster:
    """Servers with the ids 1 to `count`, as processes."""

    def __init__(self, directory, count, *settings, binaries=BINARIES):
        self.directory = directory
        self.binaries = binaries
        self.settings = settings
        self.ids = range(1, count + 1)
        ports = free_ports(3 * count)
        self.ports = {id: ports[3 * (id - 1) : 3 * id] for id in self.ids}
        self.config = directory / "cluster.toml"
        self.config.write_text(
            "".join(
                f'[[server]]\nid = {id}\nhost = "127.0.0.1"\nclient_port = {client}\n'
                f"rpc_port = {rpc}\nhttp_port = {http}\n"
                for id, (client, rpc, http) in self.ports.items()
            )
        )
        self.processes = {}

    def start(self, id):
        log = open(self.directory / f"log-{id}", "ab")
        command = [self.binaries / "quorate-server", "--id", str(id), "--config", self.config]
        command += ["--data-dir", self.directory / f"data-{id}", *self.settings]
        self.processes[id] = subprocess.Popen(command, stderr=log, stdout=log)

    def kill(self, id, how=signal.SIGKILL):
        self.processes[id].send_signal(how)
        self.processes[id].wait()

    def stop(self):
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            process.wait()

    def status(self, id):
        try:
            url = f"http://127.0.0.1:{self.ports[id][2]}/status"
            with urllib.request.urlopen(url, timeout=1) as reply:
                return json.load(reply)
        except (OSError, ValueError):
            return None

    def leader(self):
        for id in self.ids:
            status = self.status(id)
            if status and status["role"] == "Leader" and status["quorum"]:
                return id, status["term"]
        return None

    def memory(self, id):
        """What server `id` has and had at most, in MiB."""
        lines = Path(f"/proc/{self.processes[id].pid}/status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        return [int(fields[name].split()[0]) >> 10 for name in ("VmRSS", "VmHWM")]

    def lines(self, id):
        return (self.directory / f"log-{id}").read_text().splitlines()

    def write(self):
        """Whether some server stores an item."""
        for client, _, _ in self.ports.values():
            try:
                with socket.create_connection(("127.0.0.1", client), timeout=1) as stream:
                    stream.sendall(b"set figures 0 0 1\r\n1\r\n")
                    if stream.recv(100) == b"STORED\r\n":
                        return True
            except OSError:
                pass
        return False

    def servers(self):
        return ",".join(f"127.0.0.1:{client}" for client, _, _ in self.ports.values())


def sync_often(path, seconds, times):
    """Overwrites zeros and syncs for so long; puts the microseconds that each sync took."""
    file = os.open(path, os.O_CREAT | os.O_RDWR)
    room = 16 << 20
    os.pwrite(file, bytes(room), 0)
    os.fsync(file)
    block, took, offset = os.urandom(512), [], 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        os.pwrite(file, block, offset)
        offset = (offset + len(block)) % room
        begun = time.perf_counter_ns()
        os.fdatasync(file)
        took.append((time.perf_counter_ns() - begun) / 1000)
    times.put(took)


def sync_median(directory, writers, seconds):
    times = multiprocessing.Queue()
    processes = [
        multiprocessing.Process(
            target=sync_often, args=(directory / f"sync-{writer}", seconds, times)
        )
        for writer in range(writers)
    ]
    for process in processes:
        process.start()
    took = [time for _ in processes for time in times.get()]
    for process in processes:
        process.join()
    return statistics.median(took)


def echo(listener):
    stream, _ = listener.accept()
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while said := stream.recv(1):
        stream.sendall(said)


def round_trip_median(seconds):
    """Microseconds that a byte takes to another process and back, over loopback."""
    listener = socket.create_server(("127.0.0.1", 0))
    process = multiprocessing.Process(target=echo, args=(listener,))
    process.start()
    stream, took = connect(listener.getsockname()[1]), []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begun = time.perf_counter_ns()
        stream.sendall(b"1")
        stream.recv(1)
        took.append((time.perf_counter_ns() - begun) / 1000)
    stream.close()
    process.join()
    return statistics.median(took)
