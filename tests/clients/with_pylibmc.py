"""pylibmc, which is libmemcached, against one server: `with_pylibmc.py HOST PORT`."""

import sys
import time

import pylibmc

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
    same(client.set("k", "1"), True)
    same(client.get("k"), "1")
    same(client.add("k", "2"), False)
    same(client.replace("k", b"3"), True)
    same(client.replace("none", "3"), False)
    same(client.append("k", b"4"), True)
    same(client.prepend("k", b"2"), True)
    same(client.get("k"), b"234")
    same(client.get("none"), None)
    same(client.set_multi({f"m{n}": n for n in range(100)}), [])
    same(client.get_multi([f"m{n}" for n in range(110)]), {f"m{n}": n for n in range(100)})
    same(client.delete("k"), True)
    same(client.delete("k"), False)
    same(client.delete_multi(["m1", "m2"]), True)
    same(client.get_multi(["m1", "m2", "m3"]), {"m3": 3})


def cas(client):
    client.set("c", "1")
    value, unique = client.gets("c")
    same(value, "1")
    same(client.cas("c", "2", unique), True)
    same(client.cas("c", "3", unique), False)


def numbers(client):
    client.set("n", 10)
    same(client.incr("n", 5), 15)
    same(client.decr("n", 20), 0)
    refused(pylibmc.NotFound, client.incr, "none")


def times(client):
    client.set("t", "1", time=1)
    wait_until_gone(client.get, "t")
    client.set("t", "1")
    same(client.touch("t", 1), True)
    wait_until_gone(client.get, "t")
    same(client.touch("t", 1), False)


def values(client):
    same(client.set("large", LARGE), True)
    same(client.get("large"), LARGE)
    refused(pylibmc.TooBig, client.set, "large", LARGE + LARGE)
    client.set("binary", BINARY)
    same(client.get("binary"), BINARY)
    client.set("empty", b"")
    same(client.get("empty"), b"")


def server(client):
    [(_, stats)] = client.get_stats()
    same({"pid", "curr_items", "cmd_get"} <= {str(name) for name in stats}, True)
    client.set("f", "1")
    same(client.flush_all(), True)
    same(client.get("f"), None)


def main(host, port):
    address = f"{host}:{port}"
    client = pylibmc.Client([address], binary=False, behaviors={"cas": True, "tcp_nodelay": True})
    for part in (storage, cas, numbers, times, values, server):
        part(client)
    # No reply is waited for; what is asked afterwards comes after it all the same.
    silent = pylibmc.Client([address], binary=False, behaviors={"_noreply": True})
    for number in range(100):
        silent.set("s", number)
    same(silent.get("s"), 99)


main(*sys.argv[1:])
