"""A server for each test module, with one reactor and with three, and what every client test needs.

STILLWIRE_BIN is the server; STILLWIRE_TEST_BROKER=mosquitto runs the same tests against mosquitto, to prove the tests.
"""

import os
import pathlib
import re
import signal
import socket
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MOSQUITTO = os.environ.get("STILLWIRE_TEST_BROKER") == "mosquitto"


def stillwire(reactors, directory):
    binary = os.environ.get("STILLWIRE_BIN", ROOT / "target/debug/stillwire")
    return [binary, "serve", "--listen", "127.0.0.1:0", "--lookup", "off", "--reactors", str(reactors), "--data-dir", directory / "data"]


def mosquitto(directory):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = directory / "mosquitto.conf"
    (directory / "data").mkdir(exist_ok=True)
    keep = f"persistence true\npersistence_location {directory / 'data'}/\n"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n{keep}")
    return ["sh", "-c", f"echo ready 127.0.0.1:{port}; exec mosquitto -c '{config}'"]


def ready(log, process, patience=20):
    """The port of the line that says ready."""
    end = time.monotonic() + patience
    while time.monotonic() < end and process.poll() is None:
        for line in log.read_text().splitlines(keepends=True):
            found = re.search(r"127\.0\.0\.1:(\d+)", line)
            if "ready" in line and line.endswith("\n") and found:
                port = int(found[1])
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    return port
                except ConnectionRefusedError:
                    pass
        time.sleep(0.01)
    raise AssertionError(f"the server did not get ready:\n{log.read_text()}")


class Server:
    """A server process that can be ended and started again with what it has kept."""

    def __init__(self, reactors, directory):
        self.reactors = reactors
        self.directory = directory
        self.start()

    def start(self):
        self.log = self.directory / "log"
        command = mosquitto(self.directory) if MOSQUITTO else stillwire(self.reactors, self.directory)
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self.port = ready(self.log, self.process)

    def end(self, how):
        assert self.process.poll() is None, f"the server died by itself:\n{self.log.read_text()}"
        self.process.send_signal(how)
        status = self.process.wait(20)
        assert how == signal.SIGKILL or status == 0, f"SIGTERM ends it with 0:\n{self.log.read_text()}"

    def restart(self, how, reactors=None):
        self.end(how)
        self.reactors = reactors or self.reactors
        self.start()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


REACTORS = {"params": [1, 3], "ids": ["reactors_1", "reactors_3"]}


@pytest.fixture(scope="module", **REACTORS)
def port(request, tmp_path_factory):
    server = Server(request.param, tmp_path_factory.mktemp("server"))
    try:
        yield server.port
        server.end(signal.SIGTERM)
    finally:
        server.close()


@pytest.fixture(**REACTORS)
def server(request, tmp_path):
    """One that a test restarts."""
    server = Server(request.param, tmp_path)
    try:
        yield server
        server.end(signal.SIGTERM)
    finally:
        server.close()
