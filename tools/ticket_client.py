#!/usr/bin/env python3
"""How an app finds Stillwire: kept ticket, lookup, fallback list, connect, refresh. To try it: ticket_client.py CLIENT-ID LOOKUP-URL HOST:PORT..."""
import json, random, sys, time, urllib.error, urllib.parse, urllib.request
from contextlib import suppress
from pathlib import Path
import paho.mqtt.client as mqtt

class TicketClient:
    """The app sets callbacks on `mqtt`. `delivered` is the list it comes with, for when there is nothing else."""
    def __init__(self, client_id, lookup, delivered, file):
        self.id, self.file = client_id, Path(file)
        self.url = f"{lookup}/v1/ticket?client_id={urllib.parse.quote(client_id, safe='')}"
        self.delivered = [(host, int(port)) for host, port in (place.rsplit(":", 1) for place in delivered)]
        self.mqtt = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id)
        self.ticket = {"places": [], "fallback": [], "token": None, "refresh": 0, "expires": 0, "retry": (1, 120)}
        with suppress(OSError, ValueError, TypeError):  # Or none was kept, or no whole one.
            self.ticket |= json.loads(self.file.read_text())

    def ask(self):
        """Asks for a ticket. Returns the seconds to wait then, and whether to go on; without a good answer the old ticket stays."""
        try:
            said, now = json.load(urllib.request.urlopen(self.url, timeout=3)), time.time()
            rng = random.Random(self.id)  # The home port first; by weight among equals, in the same order each time.
            order = lambda e: (e["priority"], not e["home"], -rng.random() ** (1 / max(e["weight"], 1)))
            plain = lambda key: [(e["ip"], e["port"]) for e in sorted(said[key], key=order) if e["proto"] == "mqtt" and not e["tls"]]
            self.ticket = {"places": plain("endpoints"), "fallback": plain("fallback"), "token": said["token"], "expires": now + said["ttl"],
                           "refresh": now + (said["refresh_at"] - said["server_time"]) / 1000,  # This device's clock need not be right.
                           "retry": (said["retry"]["min"], said["retry"]["max"])}
            self.file.write_text(json.dumps(self.ticket))
            return said["connect_after"] / 1000, True
        except urllib.error.HTTPError as error:
            wait = random.uniform(1, 2) * float(error.headers.get("Retry-After") or 1) if error.code in (429, 503) else 0  # Too busy.
        except (OSError, ValueError, LookupError, TypeError):
            wait = 0  # No lookup, no network, no name server, or nonsense.
        self.ticket["refresh"] = time.time() + wait + random.uniform(*self.ticket["retry"])
        return wait, wait == 0

    def run(self):
        failures, lost = 0, False
        while True:
            go_on, tries = not lost and time.time() < self.ticket["refresh"], 0
            while not go_on and (tries := tries + 1) <= 8:
                wait, go_on = self.ask()
                time.sleep(wait)
            up, valid = False, time.time() < self.ticket["expires"]
            places = (self.ticket["places"] if valid else []) + self.ticket["fallback"] + self.delivered
            self.mqtt.username_pw_set("" if valid else None, self.ticket["token"] if valid else None)
            with suppress(OSError):  # Nobody there.
                self.mqtt.connect(*places[failures % len(places)], keepalive=300)
                while self.mqtt.loop(1) == mqtt.MQTT_ERR_SUCCESS:
                    up = up or self.mqtt.is_connected()
                    if up and time.time() >= self.ticket["refresh"]:
                        self.ask()
            failures, lost = 0 if up else failures + 1, True
            time.sleep(random.uniform(0, min(self.ticket["retry"][1], self.ticket["retry"][0] * 2 ** min(failures, 20))))  # Full jitter.

if __name__ == "__main__":
    phone = TicketClient(*sys.argv[1:3], delivered=sys.argv[3:], file=f"{sys.argv[1]}.ticket")
    phone.mqtt.on_connect = lambda client, data, flags, reason, properties: print(reason, client._host, client._port, flush=True)
    phone.run()
