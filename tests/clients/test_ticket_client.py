"""The reference client of tools/ticket_client.py against a real server: by the lookup, by what it kept, by the list that it was delivered with."""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading

import pytest

from conftest import REACTORS, ROOT, Server, ready
from phone import PATIENCE

KEYS = '[[key]]\nid = "k"\nalgorithm = "HS256"\nsecret = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="\nsign = true\n'

# Where nobody listens: a lookup that is gone, and a list that leads nowhere.
DEAD = "127.0.0.1:1"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


class WithLookup(Server):
    """A server with a lookup, at the same addresses after a restart."""

    def __init__(self, reactors, directory, auth):
        self.auth, self.asks, self.listens = auth, free_port(), free_port()
        super().__init__(reactors, directory)

    def start(self):
        keys, config = self.directory / "keys.toml", self.directory / "stillwire.toml"
        keys.write_text(KEYS)
        config.write_text(
            f"auth = {json.dumps(self.auth)}\nlisten = ['127.0.0.1:{self.listens}']\nreactors = {self.reactors}\n"
            f"data_dir = '{self.directory / 'data'}'\n[access]\nkeys = '{keys}'\n[lookup]\nlisten = ['127.0.0.1:{self.asks}']\n"
        )
        self.log = self.directory / "log"
        binary = os.environ.get("STILLWIRE_BIN", ROOT / "target/debug/stillwire")
        with self.log.open("wb") as out:
            self.process = subprocess.Popen([binary, "serve", "--config", config], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self.port = ready(self.log, self.process)


class Client:
    """The reference client in a process of its own, killed at the end: each start is another start of the app on the same device."""

    def __init__(self, directory, lookup, *delivered):
        self.file = directory / "phone-1.ticket"
        command = [sys.executable, ROOT / "tools/ticket_client.py", "phone-1", f"http://{lookup}", *delivered]
        self.process = subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, text=True)
        self.lines = queue.Queue()
        threading.Thread(target=lambda: [self.lines.put(line.split()) for line in self.process.stdout], daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def says(self, *words):
        assert self.lines.get(timeout=PATIENCE) == list(words)

    def is_in(self, server):
        self.says("Success", "127.0.0.1", str(server.port))

    def ticket(self):
        return json.loads(self.file.read_text())


@pytest.fixture(**REACTORS)
def server(request, tmp_path):
    server = WithLookup(request.param, tmp_path, ["ticket", "open"])
    try:
        yield server
        server.end(signal.SIGTERM)
    finally:
        server.close()


def test_by_the_lookup_wherever_the_server_is(server, tmp_path):
    with Client(tmp_path, f"127.0.0.1:{server.asks}", DEAD) as client:
        client.is_in(server)
        first = client.ticket()
        assert ["127.0.0.1", server.port] in first["places"]
        assert first["token"].count(".") == 2
        # It comes back elsewhere: whoever lost a connection asks, though its ticket is fresh.
        server.listens = free_port()
        server.restart(signal.SIGKILL)
        client.is_in(server)
        assert client.ticket()["places"] == [["127.0.0.1", server.listens]]


def test_a_ticket_that_was_kept_needs_no_lookup(server, tmp_path):
    with Client(tmp_path, f"127.0.0.1:{server.asks}", DEAD) as client:
        client.is_in(server)
        kept = client.ticket()
    with Client(tmp_path, DEAD, DEAD) as client:
        client.is_in(server)
        # Nor to come back after a loss.
        server.restart(signal.SIGKILL)
        client.is_in(server)
    # One that is old but valid does as well.
    (tmp_path / "phone-1.ticket").write_text(json.dumps(kept | {"refresh": 0}))
    with Client(tmp_path, DEAD, DEAD) as client:
        client.is_in(server)


def test_without_a_ticket_the_delivered_list_leads_in(server, tmp_path):
    # Nothing kept, half a file, something else, and a ticket that has expired.
    for kept in (None, '{"places": [', "[]", '{"expires": 1, "refresh": 1, "token": "x", "places": [["127.0.0.1", 1]]}'):
        if kept:
            (tmp_path / "phone-1.ticket").write_text(kept)
        with Client(tmp_path, DEAD, DEAD, f"127.0.0.1:{server.port}") as client:
            client.is_in(server)


def test_an_answer_that_is_no_ticket_changes_nothing(server, tmp_path):
    # Whoever listens there is no lookup: an MQTT server closes on what it is asked.
    with Client(tmp_path, f"127.0.0.1:{server.port}", f"127.0.0.1:{server.port}") as client:
        client.is_in(server)
        assert not client.file.exists()
