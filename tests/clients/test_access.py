"""Clients that the field uses, with every way of saying who they are: paho and mosquitto's own, MQTT 3.1.1 and 5."""

import base64
import hashlib
import hmac
import http.server
import json
import os
import queue
import subprocess
import threading
import time

import paho.mqtt.client as paho
import pytest

from conftest import REACTORS, ROOT, Server, ready
from phone import PATIENCE

BINARY = str(os.environ.get("STILLWIRE_BIN", ROOT / "target/debug/stillwire"))
SECRET = b"01234567890123456789012345678901"


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def jwt(**claims):
    """HS256, as an app's identity provider signs it."""
    parts = [encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    signed = b".".join(parts)
    return (signed + b"." + encoded(hmac.new(SECRET, signed, hashlib.sha256).digest())).decode()


class Hook(http.server.BaseHTTPRequestHandler):
    """The app's own service: the password is the user name backwards."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        allowed = asked["password"] == asked["user"][::-1]
        answer = json.dumps({"result": "allow" if allowed else "deny"}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class WithAccess(Server):
    """A server with one method of access."""

    def __init__(self, reactors, directory, method, hook):
        self.method, self.hook = method, hook
        super().__init__(reactors, directory)

    def start(self):
        path = self.directory
        (path / "issuers").write_text(f'[[issuer]]\niss = "idp"\nalgorithm = "HS256"\nkey = "{SECRET.decode()}"\n')
        subprocess.run([BINARY, "key", path / "keys"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([BINARY, "passwd", path / "passwords", "ann"], input=b"right\n", check=True, stdout=subprocess.DEVNULL)
        files = "".join(f"{name} = '{path / name}'\n" for name in ("keys", "issuers", "passwords"))
        config = path / "stillwire.toml"
        config.write_text(
            f"auth = ['{self.method}']\nlisten = ['127.0.0.1:0']\nreactors = {self.reactors}\ndata_dir = '{path / 'data'}'\n"
            f"[access]\n{files}http_url = 'http://127.0.0.1:{self.hook}/'\n[lookup]\nlisten = []\n"
        )
        self.log = path / "log"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen([BINARY, "serve", "--config", config], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self.port = ready(self.log, self.process)

    def credentials(self, client_id):
        """Good ones, and bad ones."""
        if self.method == "open":
            return (None, None), None
        if self.method == "ticket":
            command = [BINARY, "token", "--keys", self.directory / "keys", "--client-id"]
            tokens = [subprocess.run([*command, of], check=True, capture_output=True, text=True).stdout.strip() for of in (client_id, "another")]
            return ("any", tokens[0]), ("any", tokens[1])
        if self.method == "jwt":
            end = int(time.time()) + 600
            return ("any", jwt(iss="idp", sub=client_id, exp=end)), ("any", jwt(iss="idp", sub=client_id, exp=end)[:-4] + "AAAA")
        if self.method == "http":
            return ("bob", "bob"[::-1]), ("bob", "wrong")
        return ("ann", "right"), ("ann", "wrong")


@pytest.fixture(scope="module")
def hook():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture(scope="module", params=[(method, reactors) for method in ("open", "ticket", "jwt", "password-file", "http") for reactors in REACTORS["params"]])
def server(request, hook, tmp_path_factory):
    method, reactors = request.param
    server = WithAccess(reactors, tmp_path_factory.mktemp("access"), method, hook)
    yield server
    server.close()


def connected(server, version, client_id, credentials):
    """A paho client, and the reason of its CONNACK."""
    said = queue.Queue()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=version)
    client.on_connect = lambda _client, _data, _flags, reason, _properties: said.put(reason)
    client.username_pw_set(*credentials)
    client.connect("127.0.0.1", server.port)
    client.loop_start()
    return client, said.get(timeout=PATIENCE)


@pytest.mark.parametrize("version", [paho.MQTTv311, paho.MQTTv5])
def test_paho(server, version):
    good, bad = server.credentials("paho")
    client, reason = connected(server, version, "paho", good)
    assert not reason.is_failure, reason
    heard = queue.Queue()
    client.on_subscribe = lambda *_: client.publish("a/b", "hello", 1)
    client.on_message = lambda _client, _data, message: heard.put(message.payload)
    client.subscribe("a/#", 1)
    assert heard.get(timeout=PATIENCE) == b"hello"
    client.disconnect()
    client.loop_stop()
    if bad:
        client, reason = connected(server, version, "paho", bad)
        client.loop_stop()
        assert reason.is_failure, reason


@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
def test_mosquitto_pub(server, version):
    good, bad = server.credentials("pub")
    command = ["mosquitto_pub", "-p", str(server.port), "-V", version, "-i", "pub", "-t", "a", "-m", "x", "-q", "1"]

    def publish(credentials):
        user, password = credentials
        flags = ["-u", user, "-P", password] if user else []
        return subprocess.run([*command, *flags], capture_output=True, timeout=PATIENCE).returncode

    assert publish(good) == 0
    assert bad is None or publish(bad) != 0
