"""Five nats-servers with JetStream, and as much of their protocol as it takes to set up a stream."""

import json

from harness import Peer, find_program, free_ports, receive, wait_until


class Nats(Peer):
    name, program = "nats", "nats-server"

    def __init__(self, directory):
        super().__init__(directory)
        clients, routes = free_ports(5), free_ports(5)
        urls = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
        for number in range(5):
            config = directory / f"{number}.conf"
            config.write_text(
                f'server_name: s{number}\nlisten: "127.0.0.1:{clients[number]}"\n'
                f'jetstream {{ store_dir: "{directory / str(number)}" }}\n'
                f'cluster {{ name: c, listen: "127.0.0.1:{routes[number]}", routes: [{urls}] }}\n'
            )
            self.run(find_program(self.program), "-c", config)
        self.ports = {f"s{number}": port for number, port in enumerate(clients)}
        self.port = clients[0]

    def create_stream(self, name, **settings):
        """With a copy on each server; whoever connects from then on does so to the one that leads it."""
        stream = {"name": name, "num_replicas": 5, "storage": "file", **settings}
        wait_until("stream", lambda: self.api(f"STREAM.CREATE.{name}", stream).get("config"))
        leader = lambda: self.api(f"STREAM.INFO.{name}", {}).get("cluster", {}).get("leader")
        self.port = self.ports[wait_until("leader of the stream", leader)]

    def connect(self):
        stream = super().connect()
        stream.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB i.%d 1\r\nPING\r\n' % id(stream))
        # What else the server says about itself meanwhile may come behind it.
        said = b""
        while b"PONG\r\n" not in said or not said.endswith(b"\r\n"):
            said += receive(stream)
        return stream

    def api(self, what, body):
        stream = self.connect()
        body = json.dumps(body).encode()
        stream.sendall(b"PUB $JS.API.%s i.%d %d\r\n%s\r\n" % (what.encode(), id(stream), len(body), body))
        reply = b""
        while self.message(reply) is None:
            reply += receive(stream)
        return json.loads(self.message(reply)[1])

    @staticmethod
    def message(reply):
        """The subject to answer to and the body of the message that has come."""
        line, found, rest = reply.partition(b"\r\n")
        while found and line.startswith((b"PING", b"INFO ")):
            line, found, rest = rest.partition(b"\r\n")
        if not found:
            return None
        words = line.split()
        length = int(words[-1])
        if len(rest) < length + 2:
            return None
        return (words[3] if len(words) == 5 else b"", rest[:length])
