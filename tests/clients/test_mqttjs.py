"""mqtt.js, the client of the Node world, driven by a script of its own."""

import os
import pathlib
import subprocess

import pytest


@pytest.mark.parametrize("version", [4, 5], ids=["v311", "v5"])
def test_mqttjs(port, version):
    modules = os.environ.get("STILLWIRE_NODE_MODULES")
    assert modules, "STILLWIRE_NODE_MODULES names the folder that holds mqtt (tests/all sets it)"
    script = pathlib.Path(__file__).with_name("mqttjs.cjs")
    done = subprocess.run(
        ["node", str(script), str(port), str(version)], env={**os.environ, "NODE_PATH": modules}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "all well"
