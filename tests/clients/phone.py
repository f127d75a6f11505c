"""paho-mqtt, wrapped so that a test reads as a list of steps: every call waits until its effect is there."""

import queue

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

V311, V5 = mqtt.MQTTv311, mqtt.MQTTv5
PATIENCE = 20


class Phone:
    """One client with its network thread."""

    def __init__(self, port, version, name, clean=True, expiry=None, will=None, properties=None):
        self.version = version
        self.name = name
        self.messages = queue.Queue()
        self.events = queue.Queue()
        arguments = {} if version == V5 else {"clean_session": clean}
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=version, **arguments)
        # A test decides when a client comes back.
        self.client._reconnect_on_failure = False
        self.client.on_message = lambda client, data, message: self.messages.put(message)
        self.client.on_connect = lambda client, data, flags, reason, props: self.events.put(("connect", flags, reason, props))
        self.client.on_disconnect = lambda client, data, flags, reason, props: self.events.put(("disconnect", flags, reason, props))
        self.client.on_subscribe = lambda client, data, mid, reasons, props: self.events.put(("subscribe", mid, reasons, props))
        self.client.on_unsubscribe = lambda client, data, mid, reasons, props: self.events.put(("unsubscribe", mid, reasons, props))
        if will:
            self.client.will_set(**will)
        self.more = {}
        if version == V5:
            connect = properties or Properties(PacketTypes.CONNECT)
            if expiry is not None:
                connect.SessionExpiryInterval = expiry
            self.more = {"clean_start": clean, "properties": connect}
        self.come(port)

    def come(self, port):
        """Connects, or comes back with what the client itself has kept."""
        self.client.connect("127.0.0.1", port, keepalive=60, **self.more)
        self.client.loop_start()
        _, flags, reason, self.connack = self.event("connect")
        assert not reason.is_failure, reason
        self.present = flags.session_present

    def come_back(self, port):
        """After the server ended the connection."""
        self.event("disconnect")
        self.client.loop_stop()
        self.come(port)

    def event(self, kind):
        event = self.events.get(timeout=PATIENCE)
        assert event[0] == kind, event
        return event

    def subscribe(self, filter, qos=0, **more):
        self.client.subscribe(filter, **({"qos": qos} if not more else more))
        _, _, reasons, _ = self.event("subscribe")
        return [reason.value for reason in reasons]

    def unsubscribe(self, filter):
        self.client.unsubscribe(filter)
        self.event("unsubscribe")

    def publish(self, topic, payload, qos=0, retain=False, properties=None):
        sent = self.client.publish(topic, payload, qos, retain, properties)
        sent.wait_for_publish(PATIENCE)
        assert sent.is_published()

    def take(self):
        return self.messages.get(timeout=PATIENCE)

    def take_until(self, payload):
        out = []
        while (message := self.take()).payload != payload:
            out.append(message)
        return out

    def fence(self):
        """The server has handled every acknowledgement of what was taken."""
        # paho acknowledges after its callback has handed a message over: that is surely before the second of two publishes.
        for _ in range(2):
            self.publish(f"fence/{self.name}", b"", 1)

    def leave(self):
        """DISCONNECT, and the thread ends."""
        self.client.disconnect()
        self.client.loop_stop()

    def vanish(self):
        """The network is gone: no DISCONNECT."""
        self.client.loop_stop()
        self.client._sock_close()
