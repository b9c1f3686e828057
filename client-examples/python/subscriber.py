#!/usr/bin/env python3
"""Prints what is published below a topic, each message once, whatever becomes of the broker.

    python subscriber.py --broker 127.0.0.1:18830 --topic 'example/#' --client-id reader-1

With a client id of its own the session outlives this program: start it again within the session's expiry, and the
broker delivers what came meanwhile. Standard output has a line for each message: its topic, a tab, its payload.
"""

import argparse
import signal
import sys

import paho.mqtt.client as mqtt

from mesh_client import Seen, Session, Status, add_options, options_of, say


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_options(parser)
    parser.add_argument("--topic", action="append", help="topic filter; may be given several times (default example/#)")
    parser.add_argument("--qos", type=int, choices=(0, 1, 2), default=1)
    parser.add_argument("--count", type=int, default=0, help="end after so many messages (default: go on)")
    parser.add_argument("--session-expiry", type=int, default=3600, metavar="SECONDS")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    seen, status = Seen(), Status()
    received = duplicates = 0
    stopped = False

    def on_message(message: mqtt.MQTTMessage) -> None:
        nonlocal received, duplicates
        if not seen.is_new(message):
            duplicates += 1
            return
        # Whatever is to be done with a message is done here: when this returns, it is acknowledged.
        received += 1
        print(message.topic, message.payload.decode(errors="replace"), sep="\t", flush=True)

    def stop(number: int, frame: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    subscriptions = [(topic, args.qos) for topic in args.topic or ["example/#"]]
    session = Session(options_of(args), args.session_expiry, subscriptions, on_message)
    while not stopped and not 0 < args.count <= received:
        session.step(0.2)
        status.show(f"{session}, {received} received, {duplicates} duplicates dropped")
    session.close()
    say(f"{received} received, {duplicates} duplicates dropped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
