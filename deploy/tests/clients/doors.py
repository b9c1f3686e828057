#!/usr/bin/env python3
"""Tries what strangers and ordinary users may not do over MQTT, at the balancer and at a broker.

    doors.py --balancer HOST --ca FILE --user NAME BROKER=HOST…

The passwords are in DOORS_PASSWORD (of NAME) and DOORS_HEALTH (of mesh-health). Prints a line for each attempt,
`ok: …` or `not so: …`, and ends with 1 if any was not as it should be. What must be refused is tried beside what must
go well, so that nothing passes because nothing works at all.
"""

import argparse
import os
import queue
import sys
import time
import uuid
from typing import Any, Literal

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PATIENCE = 10.0
"""Seconds for whatever has to happen."""

WEBSOCKETS = 8084
"""The port on which the balancer takes MQTT over WebSockets with TLS."""

FAR_FUTURE = "V_______"
"""A time of a stamp that is later than any other, in the years after 6000: milliseconds since the epoch, in base 64."""


class Client:
    """A client that connects, or is told why not."""

    def __init__(
        self,
        address: tuple[str, int],
        ca: str | None = None,
        user: str | None = None,
        password: str | None = None,
        client_id: str | None = None,
    ) -> None:
        self.messages: queue.Queue[mqtt.MQTTMessage] = queue.Queue()
        self._told: queue.Queue[tuple[str, Any]] = queue.Queue()
        client_id = client_id if client_id is not None else f"doors-{uuid.uuid4().hex[:8]}"
        transport: Literal["tcp", "websockets"] = "websockets" if address[1] == WEBSOCKETS else "tcp"
        self.mqtt = mqtt.Client(CallbackAPIVersion.VERSION2, client_id, protocol=mqtt.MQTTv5, transport=transport)
        self.mqtt.connect_timeout = PATIENCE
        if user is not None:
            self.mqtt.username_pw_set(user, password)
        if ca is not None:
            self.mqtt.tls_set(ca)
        self.mqtt.on_connect = lambda client, data, flags, reason, properties: self._told.put(("connect", reason))
        self.mqtt.on_disconnect = lambda client, data, flags, reason, properties: self._told.put(("connect", reason))
        self.mqtt.on_subscribe = lambda client, data, mid, reasons, properties: self._told.put(("subscribe", reasons))
        self.mqtt.on_publish = lambda client, data, mid, reason, properties: self._told.put(("publish", reason))
        self.mqtt.on_message = lambda client, data, message: self.messages.put(message)
        try:
            self.mqtt.connect(*address)
            self.mqtt.loop_start()
            self.answer = str(self._await("connect"))
        except (OSError, ValueError) as error:
            self.answer = f"no connection: {error}"
        except queue.Empty:
            self.answer = "no answer"

    def _await(self, what: str) -> Any:
        end = time.monotonic() + PATIENCE
        while True:
            told, value = self._told.get(timeout=max(end - time.monotonic(), 0.01))
            if told == what:
                return value

    def subscribe(self, topic: str) -> None:
        self.mqtt.subscribe(topic, 1)
        self._await("subscribe")

    def publish(self, topic: str, payload: str, retain: bool = False, stamp: str | None = None) -> str:
        """What the broker answers."""
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if stamp is not None:
            properties.UserProperty = ("mesh", stamp)
        self.mqtt.publish(topic, payload, 1, retain, properties)
        return str(self._await("publish"))

    def hears(self, payload: str) -> mqtt.MQTTMessage | None:
        """The message with this payload, if it comes."""
        end = time.monotonic() + PATIENCE
        try:
            while True:
                message = self.messages.get(timeout=max(end - time.monotonic(), 0.01))
                if message.payload == payload.encode():
                    return message
        except queue.Empty:
            return None

    def close(self) -> None:
        self.mqtt.disconnect()
        self.mqtt.loop_stop()


def stamp_of(message: mqtt.MQTTMessage) -> str:
    """The stamp that counts: the last one."""
    properties: list[tuple[str, str]] = getattr(message.properties, "UserProperty", [])
    return [value for name, value in properties if name == "mesh"][-1]


class Doors:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.ca = arguments.ca
        self.user = arguments.user
        self.password = os.environ["DOORS_PASSWORD"]
        self.health = os.environ["DOORS_HEALTH"]
        self.balancer = (arguments.balancer, 8883)
        self.brokers = {name: (host, 1883) for name, host in (pair.split("=") for pair in arguments.broker)}
        self.first = next(iter(self.brokers.values()))
        self.last = list(self.brokers.values())[-1]
        self.failed = 0

    def check(self, text: str, holds: bool, detail: object = "") -> None:
        print(f"ok: {text}" if holds else f"not so: {text} ({detail})", flush=True)
        self.failed += not holds

    def answer(self, address: tuple[str, int], ca: str | None, *login: str | None) -> str:
        client = Client(address, ca, *login)
        client.close()
        return client.answer

    def ordinary(self, address: tuple[str, int]) -> Client:
        client = Client(address, None, self.user, self.password)
        assert client.answer == "Success", client.answer  # noqa: S101
        return client

    def mesh(self, address: tuple[str, int]) -> Client:
        client = Client(address, None, "mesh-health", self.health, f"mesh.doors.{uuid.uuid4().hex[:8]}")
        assert client.answer == "Success", client.answer  # noqa: S101
        return client

    def logins(self, where: str, address: tuple[str, int], ca: str | None) -> None:
        def refused(text: str, *login: str | None) -> None:
            answer = self.answer(address, ca, *login)
            self.check(f"{where}, {text} is refused", answer == "Not authorized", answer)

        answer = self.answer(address, ca, self.user, self.password)
        self.check(f"{where}, a user with the password is let in", answer == "Success", answer)
        refused("somebody without a name")
        refused("a wrong password", self.user, self.password[:-1] + "_")
        refused("an empty password", self.user, "")
        refused("a name that nobody has", "nobody", self.password)
        link = "mesh.link.broker1.broker2"
        refused("a user with the client id of a link", self.user, self.password, link)
        refused("the client id of a link and no name", None, None, link)
        refused("the name of a link without its password", "mesh-link", None, link)
        refused("the name of a link with a user's password", "mesh-link", self.password, link)
        refused("the name of a link with mesh-health's password", "mesh-link", self.health, link)
        refused("the name of mesh-health with a user's password", "mesh-health", self.password, "mesh.x")

    def plain(self) -> None:
        answer = self.answer(self.balancer, None, self.user, self.password)
        self.check("at the balancer, a client without TLS gets no answer where TLS is", answer != "Success", answer)

    def writing(self) -> None:
        user, watcher = self.ordinary(self.first), self.mesh(self.last)
        for topic in ("$mesh/#", "$SYS/#", "$other/#", "#"):
            watcher.subscribe(topic)
        for topic in (
            "$mesh/canary/broker1",
            "$mesh/seen/broker2",
            "$SYS/broker/mesh/boot",
            "$SYS/broker/x",
            "$other/x",
        ):
            answer = user.publish(topic, "forged")
            self.check(f"a user's message to {topic} is refused", answer == "Not authorized", answer)
        answer = user.publish("doors/control", "genuine")
        topics: list[str] = []
        while not topics or topics[-1] != "doors/control":
            message = watcher.messages.get(timeout=PATIENCE)
            if message.payload in (b"forged", b"genuine"):
                topics.append(message.topic)
        self.check("none of them reaches anybody, and what is sent elsewhere does", topics == ["doors/control"], topics)
        user.close()
        watcher.close()

    def reading(self) -> None:
        user, watcher = self.ordinary(self.first), self.mesh(self.first)
        for topic in ("$SYS/#", "$mesh/#", "+/#", "doors/#"):
            user.subscribe(topic)
        # Canaries come each second, and what brokers tell of themselves too. One of each after both have subscribed.
        told: set[str] = set()
        for topic in ("$SYS/broker/uptime", "$mesh/canary/#"):
            watcher.subscribe(topic)
        while len(told) < 2:
            message = watcher.messages.get(timeout=PATIENCE)
            told.add(message.topic.split("/")[0] if not message.retain else "")
            told.discard("")
        user.publish("doors/control", "after")
        came = user.hears("after")
        self.check("a user who subscribes to $SYS and $mesh hears what is sent elsewhere", came is not None)
        user.publish("doors/control", "at last")
        topics = []
        while (message := user.messages.get(timeout=PATIENCE)).payload != b"at last":
            topics.append(message.topic)
        self.check("and nothing of $SYS and $mesh", not [t for t in topics if t.startswith("$")], topics)
        user.close()
        watcher.close()

    def retained(self, address: tuple[str, int], topic: str, wanted: str) -> str:
        """What a broker retains, once it is as wanted or the time is over."""
        end = time.monotonic() + PATIENCE
        got = "nothing"
        while got != wanted and time.monotonic() < end:
            client = self.ordinary(address)
            client.subscribe(topic)
            try:
                got = client.messages.get(timeout=1.0).payload.decode()
            except queue.Empty:
                got = "nothing"
            client.close()
        return got

    def stamps(self) -> None:
        user, far = self.ordinary(self.first), self.ordinary(self.last)
        far.subscribe("doors/#")
        topic = f"doors/{uuid.uuid4().hex[:8]}"
        user.publish(topic, "genuine")
        message = far.hears("genuine")
        assert message is not None, "nothing comes to the last broker"  # noqa: S101
        genuine = stamp_of(message)
        # As if it had come before: whoever believed that would drop it.
        user.publish(topic, "copied", stamp=genuine)
        message = far.hears("copied")
        self.check("a message with the stamp of another one is not taken for it", message is not None)
        self.check(
            "it gets a stamp of its own behind the forged one", message is not None and stamp_of(message) != genuine
        )
        version, origin, epoch, number, _, flags = genuine.split(" ")
        # With a digit more the number is a later one.
        forged = " ".join((version, origin, epoch, number + "0", FAR_FUTURE, flags))
        user.publish(topic, "from the future", retain=True, stamp=forged)
        user.publish(topic, "now", retain=True)
        for name, address in self.brokers.items():
            got = self.retained(address, topic, "now")
            self.check(f"a retained value from the future does not win at {name}", got == "now", got)
        # What comes behind the forged number still arrives.
        user.publish(topic, "behind")
        self.check("nor are later messages taken for repetitions", far.hears("behind") is not None)
        user.publish(topic, "", retain=True)
        user.close()
        far.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--balancer", required=True)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("broker", nargs="+")
    doors = Doors(parser.parse_args())
    doors.logins("at the balancer, over TLS", doors.balancer, doors.ca)
    doors.logins("at the balancer, by WebSockets", (doors.balancer[0], WEBSOCKETS), doors.ca)
    doors.logins("at a broker", doors.first, None)
    doors.plain()
    doors.writing()
    doors.reading()
    doors.stamps()
    return 1 if doors.failed else 0


if __name__ == "__main__":
    sys.exit(main())
