"""Five members of etcd, and as much of its protocol as it takes to keep them busy.

    python3 bench/etcd.py PORT CONNECTIONS SECONDS

sets on so many connections to the member at that port for so long.
"""

import json
import math
import select
import struct
import sys
import time
import urllib.request

from harness import KEYS, VALUE_BYTES, Peer, connect, free_ports, wait_until


class Etcd(Peer):
    name, program = "etcd", "etcd"

    def __init__(self, directory, *settings):
        super().__init__(directory)
        ports = free_ports(10)
        self.clients, servers = ports[:5], ports[5:]
        cluster = ",".join(f"m{n}=http://127.0.0.1:{port}" for n, port in enumerate(servers))
        self.commands = []
        for number, (client, server) in enumerate(zip(self.clients, servers)):
            command = [self.program, "--name", f"m{number}", "--data-dir", directory / str(number)]
            command += ["--listen-client-urls", f"http://127.0.0.1:{client}"]
            command += ["--advertise-client-urls", f"http://127.0.0.1:{client}"]
            command += ["--listen-peer-urls", f"http://127.0.0.1:{server}"]
            command += ["--initial-advertise-peer-urls", f"http://127.0.0.1:{server}"]
            command += ["--initial-cluster", cluster, "--log-level", "error", *settings]
            self.commands.append(command)
            self.run(*command)
        self.port = wait_until("leader of etcd", self.leader)
        self.is_filled = False

    def leader(self):
        for port in self.clients:
            url = f"http://127.0.0.1:{port}/v3/maintenance/status"
            try:
                with urllib.request.urlopen(url, data=b"{}", timeout=1) as reply:
                    status = json.load(reply)
            except OSError:
                continue
            if status.get("leader") == status["header"]["member_id"]:
                return port
        return None

    def measure(self, work, seconds):
        if not self.is_filled:
            calls = [Call(self.port, [put(number)]) for number in range(64)]
            for first in range(0, KEYS, 64):
                for number, call in enumerate(calls):
                    call.requests = [put((first + number) % KEYS)]
                run_calls(calls, once=True)
            for call in calls:
                call.stream.close()
            self.is_filled = True
        sets, connections, pipeline = work
        calls = [Call(self.port, mix(sets, number, pipeline)) for number in range(connections)]
        run_calls(calls, end=time.monotonic() + 0.5)
        done, took, latencies = run_calls(calls, end=time.monotonic() + seconds)
        for call in calls:
            call.stream.close()
        latencies.sort()
        at = [latencies[int(len(latencies) * quantile)] * 1e3 for quantile in (0.5, 0.99, 0.999)]
        return done / took, *at


def key(number):
    return b"bench-%010d" % number


def field(number, value):
    """Of a protobuf message, with a length below 16384."""
    length = len(value)
    varint = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
    return bytes([number << 3 | 2]) + varint + value


def put(number):
    return b"/etcdserverpb.KV/Put", field(1, key(number)) + field(2, b"x" * VALUE_BYTES)


def get(number):
    return b"/etcdserverpb.KV/Range", field(1, key(number))


def mix(sets, seed, pipeline):
    """Some thousand requests of one connection."""
    numbers = [(seed * 7919 + step * 104_729) % KEYS for step in range(100 * max(pipeline, 10))]
    calls = [put(n) if step % 100 < sets else get(n) for step, n in enumerate(numbers)]
    # So that not all connections set at the same time.
    turn = seed * 37 % len(calls)
    return calls[turn:] + calls[:turn] if pipeline == 1 else Batches(calls, pipeline)


class Batches(list):
    """Requests that are sent so many at a time."""

    def __init__(self, calls, pipeline):
        super().__init__(calls)
        self.pipeline = pipeline


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


class Call:
    """A connection of HTTP/2 with gRPC requests under way: as much of it as etcd needs. Headers are
    spelled out each time, so that there is no table to keep."""

    DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 4, 6, 8
    END_STREAM, ACK, END_HEADERS = 1, 1, 4

    def __init__(self, port, requests):
        self.requests = requests
        self.next, self.id, self.under_way, self.answered = 0, 1, 0, 0
        self.received = b""
        self.has_data = set()
        self.begun = 0.0
        self.stream = connect(port)
        window = struct.pack(">HI", 4, 2**31 - 1)
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(self.SETTINGS, 0, 0, window)
        preface += frame(self.WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 65536))
        self.stream.sendall(preface)
        self.stream.setblocking(False)

    def literal(self, name, value):
        return name + bytes([len(value)]) + value

    def send(self):
        """Sends the next batch."""
        out = b""
        for _ in range(getattr(self.requests, "pipeline", 1)):
            path, message = self.requests[self.next % len(self.requests)]
            self.next += 1
            head = b"\x83\x86" + self.literal(b"\x04", path) + self.literal(b"\x01", b"etcd")
            head += self.literal(b"\x0f\x10", b"application/grpc")
            head += self.literal(b"\x00\x02te", b"trailers")
            out += frame(self.HEADERS, self.END_HEADERS, self.id, head)
            data = struct.pack(">BI", 0, len(message)) + message
            out += frame(self.DATA, self.END_STREAM, self.id, data)
            self.id += 2
            self.under_way += 1
        self.begun = time.perf_counter()
        self.stream.sendall(out)

    def receive(self):
        """Whether all requests that were sent are answered."""
        more = self.stream.recv(1 << 20)
        if not more:
            raise OSError("etcd closes the connection")
        received = self.received + more
        at = 0
        while len(received) - at >= 9:
            length = int.from_bytes(received[at : at + 3], "big")
            end = at + 9 + length
            if len(received) < end:
                break
            kind, flags = received[at + 3], received[at + 4]
            stream = int.from_bytes(received[at + 5 : at + 9], "big")
            if kind == self.DATA:
                self.has_data.add(stream)
            elif kind == self.HEADERS and flags & self.END_STREAM:
                # An error has no message.
                self.has_data.remove(stream)
                self.under_way -= 1
                self.answered += 1
            elif kind in (self.SETTINGS, self.PING) and not flags & self.ACK:
                payload = received[at + 9 : end] if kind == self.PING else b""
                self.stream.sendall(frame(kind, self.ACK, 0, payload))
            elif kind in (3, 7):
                raise OSError(f"etcd closes stream {stream}: {received[at + 9 : end]!r}")
            at = end
        self.received = received[at:]
        return self.under_way == 0


def run_calls(calls, end=math.inf, once=False):
    """Keeps every connection busy until then, or for one batch. How many requests were answered, how
    long it took, and how long each batch."""
    poll = select.epoll()
    by_number = {call.stream.fileno(): call for call in calls}
    start, latencies = time.monotonic(), []
    before = sum(call.answered for call in calls)
    for number, call in by_number.items():
        poll.register(number, select.EPOLLIN)
        call.send()
    busy = len(calls)
    while busy:
        for number, _ in poll.poll(10):
            call = by_number[number]
            waited = call.under_way > 0
            if call.receive() and waited:
                latencies.append(time.perf_counter() - call.begun)
                if once or time.monotonic() >= end:
                    busy -= 1
                else:
                    call.send()
    poll.close()
    done = sum(call.answered for call in calls) - before
    return done, time.monotonic() - start, latencies


def main():
    port, connections, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    calls = [Call(port, mix(100, number, 1)) for number in range(connections)]
    run_calls(calls, end=time.monotonic() + seconds)


if __name__ == "__main__":
    main()
