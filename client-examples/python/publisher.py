#!/usr/bin/env python3
"""Publishes numbered messages and loses none, whatever becomes of the broker, the network or this program.

    python publisher.py --broker 127.0.0.1:18830 --topic example/a --count 1000 --rate 100 --outbox outbox.db

Each message goes into the outbox first and leaves it with its PUBACK. Kill this program, start it again with the same
outbox, and it goes on where it was. Standard output has the number of each message that was acknowledged.
"""

import argparse
import signal
import sys
import time

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from mesh_client import MESSAGE_ID, Options, Outbox, Session, Status, Waiting, add_options, options_of, say

WINDOW = 20
"""Messages that may be unacknowledged at the broker. Stock Mosquitto allows no more (`max_inflight_messages`)."""

BACKLOG = 10 * WINDOW
"""Without a rate, so many messages are made ahead."""


class Publisher:
    """Sends what is in the outbox, in order, and removes what is acknowledged."""

    def __init__(self, options: Options, outbox: Outbox) -> None:
        self.session = Session(options, on_acknowledged=self._acknowledged)
        self.waiting = outbox.count()
        self.acknowledged = 0
        self.refused = 0
        self._outbox = outbox
        self._in_flight: dict[int, int] = {}
        self._sent = 0
        self._done: list[int] = []

    def add(self, topic: str, payloads: list[bytes], qos: int) -> None:
        """Takes messages on; from here on they are safe."""
        self._outbox.add((topic, payload, qos) for payload in payloads)
        self.waiting += len(payloads)

    def step(self, timeout: float) -> None:
        """Sends and receives for at most `timeout` seconds."""
        self.session.step(timeout)
        if self._done:
            self._outbox.remove(self._done)
            self.waiting -= len(self._done)
            self.acknowledged += len(self._done)
            for row in self._done:
                print(row, flush=True)
            self._done.clear()
        # Over a reconnect, paho itself sends again what is in flight; the outbox is for this program's own death.
        if self.session.connected and len(self._in_flight) < min(WINDOW, self.waiting):
            for message in self._outbox.after(self._sent, WINDOW - len(self._in_flight)):
                self._send(message)

    def _send(self, message: Waiting) -> None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.UserProperty = (MESSAGE_ID, self._outbox.message_id(message.row))
        # If the connection has just ended, paho keeps the message and sends it over the next one.
        info = self.session.mqtt.publish(message.topic, message.payload, message.qos, properties=properties)
        self._sent = message.row
        if message.qos == 0:
            self._done.append(message.row)
        else:
            self._in_flight[info.mid] = message.row

    def _acknowledged(self, mid: int, reason: ReasonCode) -> None:
        row = self._in_flight.pop(mid, None)
        if row is None:
            return
        # What a broker refuses it would refuse again, and everything behind it would wait for ever.
        if reason.is_failure:
            say(f"message {row} was refused and is given up: {reason}")
            self.refused += 1
            self._outbox.remove([row])
            self.waiting -= 1
        else:
            self._done.append(row)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_options(parser)
    parser.add_argument("--topic", default="example/messages")
    parser.add_argument("--qos", type=int, choices=(0, 1, 2), default=1, help="0 is gone once it is sent")
    parser.add_argument("--count", type=int, default=0, help="end after so many messages (default: go on)")
    parser.add_argument("--rate", type=float, default=1.0, help="messages a second; 0 for as fast as it goes")
    parser.add_argument("--outbox", default="outbox.db", metavar="FILE")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    publisher = Publisher(options_of(args), Outbox(args.outbox))
    status = Status()
    stopped = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    if publisher.waiting:
        say(f"{publisher.waiting} messages of last time are in the outbox")
    made, start = 0, time.monotonic()
    while not stopped:
        due = made + BACKLOG - publisher.waiting
        if args.rate > 0:
            due = int((time.monotonic() - start) * args.rate) + 1
        if args.count:
            due = min(due, args.count)
        if due > made:
            publisher.add(args.topic, [f"{number}".encode() for number in range(made + 1, due + 1)], args.qos)
            made = due
        if args.count and made == args.count and publisher.waiting == 0:
            break
        pause = start + made / args.rate - time.monotonic() if args.rate > 0 else 0.2
        publisher.step(min(max(pause, 0.0), 0.2))
        status.show(
            f"{publisher.session}, {made} published, {publisher.acknowledged} acknowledged, {publisher.waiting} waiting"
        )
    publisher.session.close()
    say(
        f"{made} published, {publisher.acknowledged} acknowledged, {publisher.refused} refused, "
        f"{publisher.waiting} wait in {args.outbox}"
    )
    return 1 if publisher.refused else 0


if __name__ == "__main__":
    sys.exit(main())
