"""paho-mqtt (Eclipse) in 3.1.1 and 5: what an application does with it."""

import time

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from conftest import MOSQUITTO
from phone import V5, V311, Phone

VERSIONS = pytest.mark.parametrize("version", [V311, V5], ids=["v311", "v5"])


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("granted", [0, 1, 2])
def test_every_qos_both_ways(port, version, qos, granted):
    phone = Phone(port, version, f"both-{version}-{qos}-{granted}")
    other = Phone(port, V5 if version == V311 else V311, f"other-{version}-{qos}-{granted}")
    topic = f"both/{version}/{qos}/{granted}"
    assert phone.subscribe(topic, granted) == [granted]
    for n in range(20):
        other.publish(topic, str(n), qos)
    for n in range(20):
        message = phone.take()
        assert (message.payload, message.qos, message.retain) == (str(n).encode(), min(qos, granted), False)
    phone.unsubscribe(topic)
    phone.leave()
    other.leave()


@VERSIONS
def test_retained(port, version):
    phone = Phone(port, version, f"retains-{version}")
    for n in range(5):
        phone.publish(f"retained/{version}/{n}", f"kept {n}", 1, retain=True)
    phone.publish(f"retained/{version}/2", b"", 1, retain=True)
    late = Phone(port, version, f"late-{version}")
    late.subscribe(f"retained/{version}/#", 1)
    got = sorted(late.take().payload for _ in range(4))
    assert got == [b"kept 0", b"kept 1", b"kept 3", b"kept 4"]
    phone.publish(f"retained/{version}/0", b"end", 1)
    message = late.take()
    assert (message.payload, message.retain) == (b"end", False)
    for n in range(5):
        phone.publish(f"retained/{version}/{n}", b"", 1, retain=True)
    phone.leave()
    late.leave()


@VERSIONS
def test_will(port, version):
    watcher = Phone(port, V5, f"watches-{version}")
    watcher.subscribe(f"will/{version}/#", 2)
    will = {"topic": f"will/{version}/x", "payload": "gone", "qos": 1}
    Phone(port, version, f"leaves-{version}", will=will).leave()
    Phone(port, version, f"vanishes-{version}", will=will).vanish()
    message = watcher.take()
    assert (message.payload, message.qos) == (b"gone", 1)
    watcher.publish(f"will/{version}/end", b"end", 1)
    assert watcher.take_until(b"end") == []
    watcher.leave()


@VERSIONS
def test_takeover(port, version):
    will = {"topic": f"takeover/{version}", "payload": "taken", "qos": 1}
    watcher = Phone(port, V5, f"watches-takeover-{version}")
    watcher.subscribe(f"takeover/{version}", 1)
    first = Phone(port, version, f"twin-{version}", will=will)
    second = Phone(port, version, f"twin-{version}")
    _, _, reason, _ = first.event("disconnect")
    if version == V5 and not MOSQUITTO:
        assert reason.value == 0x8E
    assert watcher.take().payload == b"taken"
    second.subscribe(f"twin/{version}", 1)
    second.publish(f"twin/{version}", b"mine", 1)
    assert second.take().payload == b"mine"
    for phone in (first, second, watcher):
        phone.leave()


@VERSIONS
def test_session_keeps_its_queue(port, version):
    options = {"clean": False, "expiry": 600 if version == V5 else None}
    name = f"sleeps-{version}"
    phone = Phone(port, version, name, **options)
    assert not phone.present
    phone.subscribe([(f"queue/{version}/a", 1), (f"queue/{version}/b", 2)] if version == V311 else f"queue/{version}/+", 2)
    phone.leave()
    time.sleep(0.1)
    other = Phone(port, V311, f"feeds-{version}")
    for n in range(100):
        other.publish(f"queue/{version}/{'ab'[n % 2]}", str(n), 1 + n % 2)
    phone = Phone(port, version, name, **options)
    assert phone.present
    got = [int(phone.take().payload) for _ in range(100)]
    # paho hands a QoS 2 message over at PUBREL, so each QoS is in order by itself.
    assert [n for n in got if n % 2 == 0] == list(range(0, 100, 2))
    assert [n for n in got if n % 2 == 1] == list(range(1, 100, 2))
    phone.leave()
    clean = Phone(port, version, name)
    assert not clean.present
    clean.leave()
    other.leave()


@VERSIONS
def test_shared_subscription(port, version):
    members = [Phone(port, version, f"member-{version}-{n}") for n in range(4)]
    for member in members:
        member.subscribe(f"$share/g/jobs/{version}/+", 1)
    time.sleep(0.1)
    other = Phone(port, V5, f"boss-{version}")
    for n in range(200):
        other.publish(f"jobs/{version}/{n % 7}", str(n), 1)
    end = time.monotonic() + 20
    while sum(member.messages.qsize() for member in members) < 200 and time.monotonic() < end:
        time.sleep(0.01)
    shares = [[int(message.payload) for message in list(member.messages.queue)] for member in members]
    assert sorted(sum(shares, [])) == list(range(200))
    assert min(len(share) for share in shares) >= 15, [len(share) for share in shares]
    for phone in [*members, other]:
        phone.leave()


def test_properties_of_mqtt_5(port):
    phone = Phone(port, V5, "properties")
    phone.subscribe("properties/+", options=SubscribeOptions(qos=1, noLocal=True, retainAsPublished=True))
    other = Phone(port, V5, "other properties")
    properties = Properties(PacketTypes.PUBLISH)
    properties.ContentType = "text/plain"
    properties.ResponseTopic = "answers"
    properties.CorrelationData = b"\x00\x01"
    properties.PayloadFormatIndicator = 1
    properties.MessageExpiryInterval = 100
    properties.UserProperty = [("a", "1"), ("b", "2"), ("a", "3")]
    phone.publish("properties/own", b"own", 1)
    other.publish("properties/x", "grüße", 1, retain=True, properties=properties)
    message = phone.take()
    assert (message.topic, message.payload.decode(), message.retain) == ("properties/x", "grüße", True)
    got = message.properties
    assert (got.ContentType, got.ResponseTopic, got.CorrelationData, got.PayloadFormatIndicator) == ("text/plain", "answers", b"\x00\x01", 1)
    assert got.UserProperty == [("a", "1"), ("b", "2"), ("a", "3")]
    assert 90 <= got.MessageExpiryInterval <= 100
    other.publish("properties/x", b"", 1, retain=True)
    phone.leave()
    other.leave()


def test_topic_alias_and_receive_maximum(port):
    properties = Properties(PacketTypes.CONNECT)
    properties.ReceiveMaximum = 2
    phone = Phone(port, V5, "narrow", properties=properties)
    phone.subscribe("narrow/#", 2)
    other = Phone(port, V5, "alias")
    for n in range(60):
        publish = Properties(PacketTypes.PUBLISH)
        publish.TopicAlias = 1
        other.publish("narrow/x" if n == 0 else "", str(n), n % 3, properties=publish)
    got = [phone.take() for _ in range(60)]
    assert {message.topic for message in got} == {"narrow/x"}
    assert sorted(int(message.payload) for message in got) == list(range(60))
    phone.leave()
    other.leave()


@VERSIONS
def test_many_large_messages(port, version):
    phone = Phone(port, version, f"large-{version}")
    phone.subscribe(f"large/{version}", 1)
    for n in range(10):
        payload = bytes([n]) * 300_000
        phone.publish(f"large/{version}", payload, n % 2)
        assert phone.take().payload == payload
    phone.leave()
