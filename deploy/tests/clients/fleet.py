#!/usr/bin/env python3
"""Clients that live through what is done to the brokers, and the account of what became of their messages.

    fleet.py --balancer HOST:PORT --websockets HOST:PORT --ca FILE --user NAME --folder DIR BROKER=HOST…

They are the project's own examples (client-examples/python): publishers with an outbox, QoS 1, and subscribers, behind
the balancer, one of each by WebSockets; and at each broker itself a witness with a session that outlives its connection.
The password is in MQTT_PASSWORD.

It makes DIR/ready when messages pass everywhere, goes on until it is told to end (SIGTERM), waits until every witness
has what was acknowledged, and then says how it was, a line `ok: …` or `not so: …` each; it ends with 1 if anything was
not so.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[3] / "client-examples" / "python"

PUBLISHERS = 4
RATE = 10
"""Messages a second, of each."""
SUBSCRIBERS = 4
PATIENCE = 60.0
"""Seconds until the last message has to be everywhere."""

LONGEST_GAP = 3.0
"""Seconds for which a subscriber that is moved may be without its subscription."""


class Process:
    """One of the examples: what it prints, and what it says of its connections."""

    def __init__(self, folder: Path, name: str, script: str, *arguments: str) -> None:
        self.name = name
        self.out, self.said = folder / f"{name}.out", folder / f"{name}.err"
        command = [sys.executable, str(EXAMPLES / script), "--client-id", f"fleet-{name}", *arguments]
        with self.out.open("wb") as out, self.said.open("wb") as said:
            self.process = subprocess.Popen(command, stdout=out, stderr=said)  # noqa: S603

    def lines(self) -> list[str]:
        """Those that are whole."""
        text = self.out.read_text()
        return text[: text.rfind("\n") + 1].splitlines()

    def connections(self) -> int:
        """How often it was connected: what it says then begins a line."""
        return sum(
            line.startswith("connected to ") and "session" in line for line in self.said.read_text().splitlines()
        )

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def numbers(received: Process) -> dict[str, list[int]]:
    """What a subscriber has had, by publisher."""
    had: dict[str, list[int]] = {}
    for line in received.lines():
        topic, _, payload = line.partition("\t")
        had.setdefault(topic.removeprefix("fleet/"), []).append(int(payload))
    return had


class Fleet:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.folder: Path = arguments.folder
        self.folder.mkdir(parents=True)
        login = ["--username", arguments.user, "--longest-pause", "1"]

        def balanced(n: int) -> list[str]:
            way = ["--broker", arguments.balancer] if n else ["--broker", arguments.websockets, "--websockets"]
            return [*way, "--ca-file", arguments.ca, *login]

        every = ["--topic", "fleet/#"]
        self.witnesses = [
            Process(self.folder, f"at-{name}", "subscriber.py", "--broker", f"{host}:1883", *login, *every)
            for name, host in (pair.split("=") for pair in arguments.broker)
        ]
        self.subscribers = [
            Process(self.folder, f"subscriber{n}", "subscriber.py", *balanced(n), *every) for n in range(SUBSCRIBERS)
        ]
        subscribed = [*self.witnesses, *self.subscribers]
        self.wait("everybody is subscribed", lambda: all("subscription to" in p.said.read_text() for p in subscribed))
        self.publishers = [
            Process(
                self.folder,
                f"publisher{n}",
                "publisher.py",
                *balanced(n),
                *(
                    "--topic",
                    f"fleet/publisher{n}",
                    "--rate",
                    str(RATE),
                    "--outbox",
                    str(self.folder / f"outbox{n}.db"),
                ),
            )
            for n in range(PUBLISHERS)
        ]
        self.wait("messages pass everywhere", lambda: all(len(numbers(p)) == PUBLISHERS for p in subscribed))
        self.failed = 0

    def wait(self, what: str, holds: Callable[[], bool]) -> bool:
        end = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > end:
                print(f"not so: {what}, within {PATIENCE:.0f} s", flush=True)
                return False
            time.sleep(0.1)
        return True

    def check(self, text: str, holds: bool, detail: object) -> None:
        print(f"ok: {text}: {detail}" if holds else f"not so: {text}: {detail}", flush=True)
        self.failed += not holds

    def account(self) -> None:
        for publisher in self.publishers:
            publisher.end()
        acknowledged = {p.name: {int(line) for line in p.lines()} for p in self.publishers}
        count = sum(map(len, acknowledged.values()))

        def lacking(process: Process) -> dict[str, list[int]]:
            had = numbers(process)
            lacks = {name: sorted(all_of - set(had.get(name, []))) for name, all_of in acknowledged.items()}
            return {name: lack for name, lack in lacks.items() if lack}

        self.wait("every witness has everything", lambda: not any(map(lacking, self.witnesses)))
        for process in [*self.witnesses, *self.subscribers]:
            process.end()
        missing = {p.name: lack for p in self.witnesses if (lack := lacking(p))}
        everywhere = f"{count} at each of {len(self.witnesses)}"
        self.check("no acknowledged message is missing at any broker", not missing, missing or everywhere)
        clients = [*self.publishers, *self.subscribers]
        connections = {p.name: p.connections() for p in clients}
        again = [count - 1 for count in connections.values()]
        self.check("no client had to connect again more than once", max(again) <= 1, connections)
        self.check("all clients of the balancer were moved", min(again) == 1, connections)
        # Whoever is moved is nowhere for a moment: the next broker does not know its subscriptions.
        gaps = {p.name: lack for p in self.subscribers if (lack := lacking(p))}
        most = int(LONGEST_GAP * RATE)
        short = all(lack[-1] - lack[0] < most for lacks in gaps.values() for lack in lacks.values())
        longest = max((lack[-1] - lack[0] + 1 for lacks in gaps.values() for lack in lacks.values()), default=0)
        self.check("what a subscriber missed was while it was moved", short, f"{longest / RATE:.1f} s at most")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--balancer", required=True)
    parser.add_argument("--websockets", required=True)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("broker", nargs="+")
    stopped = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    fleet = Fleet(parser.parse_args())
    (fleet.folder / "ready").touch()
    while not stopped:
        time.sleep(0.1)
    fleet.account()
    return 1 if fleet.failed else 0


if __name__ == "__main__":
    if not os.environ.get("MQTT_PASSWORD"):
        sys.exit("the password belongs into MQTT_PASSWORD")
    sys.exit(main())
