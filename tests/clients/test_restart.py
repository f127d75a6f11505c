"""paho-mqtt and the mosquitto clients over a restart of the server, asked to end or killed: nothing that was acknowledged is lost."""

import signal
import subprocess
import time

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from conftest import MOSQUITTO
from phone import V5, V311, Phone

VERSIONS = pytest.mark.parametrize("version", [V311, V5], ids=["v311", "v5"])
# mosquitto keeps what it has when it ends in good order, and not when it is killed.
WAYS = [signal.SIGTERM] if MOSQUITTO else [signal.SIGTERM, signal.SIGKILL]
HOW = pytest.mark.parametrize("how", WAYS, ids=[way.name for way in WAYS])


def durable(version):
    return {"clean": False, "expiry": 600 if version == V5 else None}


def nothing_else_comes(phone, topic, server, version):
    """What was on its way to the phone would come before this."""
    other = Phone(server.port, version, "last")
    other.publish(topic, b"last", 1)
    assert phone.take_until(b"last") == []
    other.leave()


@VERSIONS
@HOW
def test_a_queue(server, version, how):
    phone = Phone(server.port, version, "sleeps", **durable(version))
    assert not phone.present
    phone.subscribe("queue/+", 2)
    phone.leave()
    other = Phone(server.port, V5, "feeds")
    for n in range(100):
        other.publish(f"queue/{'ab'[n % 2]}", str(n), 1 + n % 2)
    server.restart(how)
    other = Phone(server.port, V311, "feeds")
    for n in range(100, 120):
        other.publish(f"queue/{'ab'[n % 2]}", str(n), 1 + n % 2)
    phone = Phone(server.port, version, "sleeps", **durable(version))
    assert phone.present
    messages = [phone.take() for _ in range(120)]
    # paho hands a QoS 2 message over at PUBREL, so each QoS is in order by itself.
    for odd in (0, 1):
        mine = [message for message in messages if int(message.payload) % 2 == odd]
        assert [int(message.payload) for message in mine] == list(range(odd, 120, 2))
        assert {(message.topic, message.qos, message.retain) for message in mine} == {(f"queue/{'ab'[odd]}", 1 + odd, False)}
    nothing_else_comes(phone, "queue/a", server, version)
    phone.fence()
    # It was all taken: another restart brings nothing again.
    phone.leave()
    server.restart(how)
    phone = Phone(server.port, version, "sleeps", **durable(version))
    assert phone.present
    nothing_else_comes(phone, "queue/a", server, version)
    phone.leave()


@VERSIONS
@HOW
@pytest.mark.skipif(MOSQUITTO, reason="mosquitto has no reactors")
def test_another_number_of_reactors(server, version, how):
    for n in range(10):
        phone = Phone(server.port, version, f"moves-{n}", **durable(version))
        phone.subscribe(f"moves/{n}", 1)
        phone.leave()
    other = Phone(server.port, V5, "feeds")
    for n in range(10):
        other.publish(f"moves/{n}", f"to {n}", 1)
    for reactors in (2, 5, 1):
        server.restart(how, reactors)
    for n in range(10):
        phone = Phone(server.port, version, f"moves-{n}", **durable(version))
        assert phone.present
        assert phone.take().payload == f"to {n}".encode()
        nothing_else_comes(phone, f"moves/{n}", server, version)
        phone.leave()


@VERSIONS
@HOW
def test_a_phone_that_is_online(server, version, how):
    phone = Phone(server.port, version, "online", **durable(version))
    phone.subscribe("online/#", 2)
    phone.subscribe("left", 2)
    phone.unsubscribe("left")
    server.restart(how)
    other = Phone(server.port, version, "feeds")
    other.publish("left", b"not for it", 1)
    other.publish("online/x", b"while away", 2)
    phone.come_back(server.port)
    assert phone.present
    assert phone.take().payload == b"while away"
    nothing_else_comes(phone, "online/x", server, version)
    phone.leave()


@VERSIONS
@HOW
def test_a_publisher_whose_messages_are_under_way(server, version, how):
    watcher = Phone(server.port, V5, "watches", **durable(V5))
    watcher.subscribe("stream/+", 2)
    phone = Phone(server.port, version, "streams", **durable(version))
    # Fewer than the server's Receive Maximum: paho forgets that one when it comes back.
    sent = [phone.client.publish(f"stream/{1 + n % 2}", str(n), 1 + n % 2) for n in range(60)]
    sent[5].wait_for_publish(20)
    server.restart(how)
    watcher.come_back(server.port)
    phone.come_back(server.port)
    assert phone.present and watcher.present
    for message in sent:
        message.wait_for_publish(20)
        assert message.is_published()
    other = Phone(server.port, V5, "ends")
    for qos in (1, 2):
        other.publish(f"stream/{qos}", b"end", qos)
    got = {1: [], 2: []}
    ends = 0
    while ends < 2:
        message = watcher.take()
        ends += message.payload == b"end"
        if message.payload != b"end":
            got[message.qos].append(int(message.payload))
    assert got[2] == list(range(1, 60, 2)), "once each, and in order"
    # At QoS 1 some may come again; what comes first is in order.
    assert list(dict.fromkeys(got[1])) == list(range(0, 60, 2))
    for leaving in (phone, watcher, other):
        leaving.leave()


@VERSIONS
@HOW
def test_takeover(server, version, how):
    first = Phone(server.port, version, "twin", **durable(version))
    first.subscribe("twin", 2)
    first.leave()
    other = Phone(server.port, version, "feeds")
    other.publish("twin", b"kept", 2)
    server.restart(how)
    first = Phone(server.port, version, "twin", **durable(version))
    assert first.present
    assert first.take().payload == b"kept"
    second = Phone(server.port, version, "twin", **durable(version))
    first.event("disconnect")
    assert second.present
    other = Phone(server.port, version, "feeds")
    other.publish("twin", b"for the second", 2)
    assert second.take().payload == b"for the second"
    second.fence()
    server.restart(how)
    second.come_back(server.port)
    assert second.present
    nothing_else_comes(second, "twin", server, version)
    second.leave()
    first.vanish()


@HOW
def test_a_session_expires_while_the_server_is_away(server, how):
    short = Phone(server.port, V5, "short", clean=False, expiry=1)
    short.subscribe("expiry", 1)
    long = Phone(server.port, V5, "long", clean=False, expiry=600)
    long.subscribe("expiry", 1)
    short.leave()
    long.leave()
    other = Phone(server.port, V5, "feeds")
    other.publish("expiry", b"kept", 1)
    server.end(how)
    # The time is what is tested: a second must pass, wherever the server is meanwhile.
    time.sleep(2.5)
    server.start()
    short = Phone(server.port, V5, "short", clean=False, expiry=1)
    assert not short.present
    long = Phone(server.port, V5, "long", clean=False, expiry=600)
    assert long.present
    assert long.take().payload == b"kept"
    assert short.messages.empty()
    short.leave()
    long.leave()


@VERSIONS
@HOW
def test_a_clean_start_ends_what_was_kept(server, version, how):
    phone = Phone(server.port, version, "wipes", **durable(version))
    phone.subscribe("wipes", 1)
    phone.leave()
    other = Phone(server.port, version, "feeds")
    other.publish("wipes", b"never seen", 1)
    server.restart(how)
    phone = Phone(server.port, version, "wipes")
    assert not phone.present
    phone.leave()
    server.restart(how)
    phone = Phone(server.port, version, "wipes", **durable(version))
    assert not phone.present
    phone.subscribe("wipes", 1)
    nothing_else_comes(phone, "wipes", server, version)
    phone.leave()


@VERSIONS
@HOW
@pytest.mark.skipif(MOSQUITTO, reason="mosquitto forgets wills when it ends")
def test_the_will_of_a_phone_that_was_online(server, version, how):
    watcher = Phone(server.port, V5, "watches", **durable(V5))
    watcher.subscribe("will", 1)
    watcher.leave()
    will = {"topic": "will", "payload": "gone", "qos": 1}
    phone = Phone(server.port, version, "testator", will=will, **durable(version))
    server.restart(how)
    watcher = Phone(server.port, V5, "watches", **durable(V5))
    assert watcher.take().payload == b"gone"
    phone.come_back(server.port)
    assert phone.present
    phone.leave()
    nothing_else_comes(watcher, "will", server, version)
    watcher.leave()


@HOW
@pytest.mark.skipif(MOSQUITTO, reason="mosquitto forgets wills when it ends")
def test_the_delayed_will_of_a_phone_that_was_online(server, how):
    watcher = Phone(server.port, V5, "watches", **durable(V5))
    watcher.subscribe("will/+", 1)
    phones = []
    for name, delay in (("soon", 1), ("late", 600)):
        properties = Properties(PacketTypes.WILLMESSAGE)
        properties.WillDelayInterval = delay
        will = {"topic": f"will/{name}", "payload": name, "qos": 1, "properties": properties}
        phones.append(Phone(server.port, V5, name, will=will, **durable(V5)))
    server.restart(how)
    watcher.come_back(server.port)
    assert watcher.take().payload == b"soon"
    # The other one is back in time.
    for phone in phones:
        phone.come_back(server.port)
        assert phone.present
        phone.leave()
    nothing_else_comes(watcher, "will/late", server, V5)
    watcher.leave()


@VERSIONS
@HOW
def test_retained(server, version, how):
    other = Phone(server.port, version, "keeps")
    for n in range(5):
        other.publish(f"kept/{n}", f"value {n}", n % 2 + 1, retain=True)
    other.publish("kept/1", b"", 1, retain=True)
    other.publish("kept/2", b"newer", 1, retain=True)
    server.restart(how)
    for again in (False, True):
        reader = Phone(server.port, version, f"reads-{again}")
        reader.subscribe("kept/+", 2)
        got = {message.topic: (message.payload, message.qos, message.retain) for message in (reader.take() for _ in range(4))}
        assert got == {
            "kept/0": (b"value 0", 1, True),
            "kept/2": (b"newer", 1, True),
            "kept/3": (b"value 3", 2, True),
            "kept/4": (b"value 4", 1, True),
        }
        nothing_else_comes(reader, "kept/1", server, version)
        reader.leave()
        server.restart(how)


@VERSIONS
@HOW
def test_message_expiry_goes_on(server, version, how):
    phone = Phone(server.port, version, "waits", **durable(version))
    phone.subscribe("expires", 1)
    phone.leave()
    other = Phone(server.port, V5, "feeds")
    for expiry, payload in ((1, b"short"), (100, b"long"), (None, b"ever")):
        properties = Properties(PacketTypes.PUBLISH)
        if expiry:
            properties.MessageExpiryInterval = expiry
        other.publish("expires", payload, 1, properties=properties)
    server.end(how)
    # Here too the time is what is tested.
    time.sleep(2.5)
    server.start()
    phone = Phone(server.port, version, "waits", **durable(version))
    assert phone.present
    message = phone.take()
    assert message.payload == b"long"
    if version == V5:
        assert 80 <= message.properties.MessageExpiryInterval <= 98
    assert phone.take().payload == b"ever"
    nothing_else_comes(phone, "expires", server, version)
    phone.leave()


@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
@HOW
def test_the_mosquitto_clients(server, version, how):
    def run(command, *arguments):
        command = [command, "-p", str(server.port), "-V", version, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()

    more = ["-c", "-i", "mosquitto", "-q", "2", "-W", "20"] + (["-x", "600"] if version == "mqttv5" else [])
    sub = ["mosquitto_sub", "-t", "m/+", *more]
    # Subscribes and ends.
    run(*sub, "-E")
    for n in range(10):
        run("mosquitto_pub", "-t", "m/x", "-q", "1", "-m", f"away {n}")
    run("mosquitto_pub", "-t", "kept", "-q", "1", "-r", "-m", "value")
    server.restart(how)
    assert run("mosquitto_sub", "-t", "kept", "-C", "1", "-W", "20") == ["value"]
    run("mosquitto_pub", "-t", "m/x", "-q", "2", "-m", "after")
    assert run(*sub, "-C", "11") == [f"away {n}" for n in range(10)] + ["after"]
    server.restart(how)
    run("mosquitto_pub", "-t", "m/x", "-q", "1", "-m", "end")
    got = run(*sub, "-C", "1")
    # mosquitto_sub ends with its last message, so that one may come again: it had no time to acknowledge it.
    assert got in (["end"], ["after"])
