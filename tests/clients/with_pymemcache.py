"""pymemcache against one server: `with_pymemcache.py HOST PORT`."""

import sys
import time

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheClientError, MemcacheServerError

LARGE = b"v" * 1_000_000
BINARY = bytes(range(256)) + b"\r\nEND\r\n\0"


def same(found, expected):
    if found != expected:
        raise AssertionError(f"found {found!r:.200}, expected {expected!r:.200}")


def refused(error, call, *arguments):
    try:
        call(*arguments)
    except error:
        return
    raise AssertionError(f"{call.__name__}{arguments} raised no {error.__name__}")


def wait_until_gone(get, key):
    deadline = time.monotonic() + 20
    while get(key) is not None:
        if time.monotonic() > deadline:
            raise AssertionError(f"{key} is still there")
        time.sleep(0.05)


def storage(client):
    same(client.set("k", b"1"), True)
    same(client.get("k"), b"1")
    same(client.add("k", b"2"), False)
    same(client.replace("k", b"3"), True)
    same(client.replace("none", b"3"), False)
    same(client.append("k", b"4"), True)
    same(client.prepend("k", b"2"), True)
    same(client.get("k"), b"234")
    same(client.get("none"), None)
    same(client.set_many({f"m{n}": str(n) for n in range(100)}), [])
    found = client.get_many([f"m{n}" for n in range(110)])
    same(found, {f"m{n}": str(n).encode() for n in range(100)})
    same(client.delete("k"), True)
    same(client.delete("k"), False)
    same(client.delete_many(["m1", "m2", "none"]), True)
    same(client.get_many(["m1", "m2", "m3"]), {"m3": b"3"})


def cas(client):
    client.set("c", b"1")
    value, unique = client.gets("c")
    same(value, b"1")
    same(client.cas("c", b"2", unique), True)
    same(client.cas("c", b"3", unique), False)
    same(client.cas("none", b"3", unique), None)
    same(len(client.gets_many(["c", "none"])), 1)


def numbers(client):
    client.set("n", b"10")
    same(client.incr("n", 5), 15)
    same(client.decr("n", 20), 0)
    same(client.incr("none", 1), None)
    client.set("n", b"word")
    refused(MemcacheClientError, client.incr, "n", 1)


def times(client):
    client.set("t", b"1", expire=1)
    wait_until_gone(client.get, "t")
    client.set("t", b"1")
    same(client.touch("t", 100), True)
    same(client.touch("none", 100), False)
    same(client.raw_command("gat 1 t", b"END\r\n"), b"VALUE t 0 1\r\n1\r\n")
    wait_until_gone(client.get, "t")


def values(client):
    same(client.set("large", LARGE), True)
    same(client.get("large"), LARGE)
    refused(MemcacheServerError, client.set, "large", LARGE + LARGE)
    client.set("binary", BINARY)
    same(client.get("binary"), BINARY)
    client.set("empty", b"")
    same(client.get("empty"), b"")


def silence(client):
    client.set("s", b"1", noreply=True)
    client.append("s", b"2", noreply=True)
    client.incr("s", 1, noreply=True)
    same(client.get("s"), b"13")
    client.delete("s", noreply=True)
    same(client.get("s"), None)


def server(client):
    same(client.version().startswith(b"1.6."), True)
    stats = client.stats()
    same({b"pid", b"curr_items", b"cmd_get"} <= set(stats), True)
    same(b"item_size_max" in client.stats("settings"), True)
    client.set("f", b"1")
    same(client.flush_all(), True)
    same(client.get("f"), None)


def main(host, port):
    client = Client((host, int(port)), timeout=20, connect_timeout=20, default_noreply=False)
    for part in (storage, cas, numbers, times, values, silence, server):
        part(client)
    client.quit()


main(*sys.argv[1:])
