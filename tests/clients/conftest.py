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
    return [binary, "serve", "--listen", "127.0.0.1:0", "--reactors", str(reactors), "--data-dir", directory / "data"]


def mosquitto(directory):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = directory / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n")
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


@pytest.fixture(scope="module", params=[1, 3], ids=["reactors_1", "reactors_3"])
def port(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("server")
    log = directory / "log"
    command = mosquitto(directory) if MOSQUITTO else stillwire(request.param, directory)
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield ready(log, process)
        assert process.poll() is None, f"the server died by itself:\n{log.read_text()}"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, f"SIGTERM ends it with 0:\n{log.read_text()}"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
