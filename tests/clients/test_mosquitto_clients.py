"""mosquitto_pub and mosquitto_sub, the command line that everybody tries first."""

import subprocess
import time

import pytest

VERSIONS = pytest.mark.parametrize("version", ["mqttv31", "mqttv311", "mqttv5"])


class Sub:
    """mosquitto_sub that ends after `count` messages."""

    def __init__(self, port, version, count, *arguments):
        # Without stdbuf it writes to a pipe at its end only.
        command = ["stdbuf", "-oL", "mosquitto_sub", "-p", str(port), "-V", version, "-C", str(count), "-W", "20", "-d", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1)
        self.lines = []
        # -d tells when the subscription stands; a persistent session that is there already has no SUBACK to wait for.
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith("Subscribed"):
                return
        raise AssertionError(f"not subscribed: {self.lines}")

    def messages(self):
        # -W ends it at the latest.
        lines = self.lines + [line.rstrip("\n") for line in self.process.stdout]
        self.process.wait()
        debug = ("Client ", "Subscribed", "  ")
        return [line for line in lines if not line.startswith(debug)]


def pub(port, version, *arguments):
    subprocess.run(["mosquitto_pub", "-p", str(port), "-V", version, *arguments], check=True, timeout=30)


@VERSIONS
@pytest.mark.parametrize("qos", ["0", "1", "2"])
def test_pub_and_sub(port, version, qos):
    topic = f"cli/{version}/{qos}"
    sub = Sub(port, version, 2, "-t", f"cli/{version}/#", "-q", qos, "-v", "-i", f"sub-{version}-{qos}")
    pub(port, version, "-t", topic, "-q", qos, "-m", "one")
    pub(port, version, "-t", topic, "-q", qos, "-m", "two")
    assert sub.messages() == [f"{topic} one", f"{topic} two"]


@VERSIONS
def test_retained_and_will(port, version):
    pub(port, version, "-t", f"cli-r/{version}", "-m", "kept", "-r", "-q", "1")
    sub = Sub(port, version, 1, "-t", f"cli-r/{version}", "-i", f"r-{version}")
    assert sub.messages() == ["kept"]
    pub(port, version, "-t", f"cli-r/{version}", "-n", "-r")
    watcher = Sub(port, version, 1, "-t", f"cli-will/{version}", "-i", f"w-{version}")
    victim = Sub(port, version, 1, "-t", "never", "-i", f"v-{version}", "--will-topic", f"cli-will/{version}", "--will-payload", "gone")
    victim.process.kill()
    victim.process.wait()
    assert watcher.messages() == ["gone"]


@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
def test_session_over_two_runs(port, version):
    more = ["-c"] + (["-x", "600"] if version == "mqttv5" else [])
    arguments = ["-t", f"cli-q/{version}", "-q", "1", "-i", f"q-{version}", *more]
    sub = Sub(port, version, 1, *arguments)
    pub(port, version, "-t", f"cli-q/{version}", "-q", "1", "-m", "first")
    assert sub.messages() == ["first"]
    time.sleep(0.1)
    for n in range(5):
        pub(port, version, "-t", f"cli-q/{version}", "-q", "1", "-m", f"while away {n}")
    sub = subprocess.run(
        ["mosquitto_sub", "-p", str(port), "-V", version, "-C", "5", "-W", "20", *arguments],
        capture_output=True, text=True, timeout=30, check=True,
    )
    assert sub.stdout.splitlines() == [f"while away {n}" for n in range(5)]


def test_a_file_of_a_megabyte(port, tmp_path):
    file = tmp_path / "payload"
    file.write_bytes(bytes(range(256)) * 3900)
    out = tmp_path / "out"
    with out.open("wb") as to:
        sub = subprocess.Popen(["mosquitto_sub", "-p", str(port), "-V", "mqttv5", "-C", "1", "-W", "20", "-N", "-t", "file"], stdout=to)
        time.sleep(0.5)
        pub(port, "mqttv5", "-t", "file", "-q", "1", "-f", str(file))
        assert sub.wait(30) == 0
    assert out.read_bytes() == file.read_bytes()
