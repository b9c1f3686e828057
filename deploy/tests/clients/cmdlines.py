#!/usr/bin/env python3
"""Notes every command line that can be seen in /proc until it is told to end (SIGTERM), then prints them.

Each process is looked at a few times, since it begins with the command line of who made it. Those that live for less
than a few milliseconds may be missed.
"""

import os
import signal
import sys
import time

LOOKS = 20
"""How often a process is looked at."""

PAUSE = 0.005
"""Seconds between two looks."""


def main() -> int:
    seen: set[bytes] = set()
    looks: dict[str, int] = {}
    stopped = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    while not stopped:
        there = [name for name in os.listdir("/proc") if name.isdigit()]
        looks = {name: looks.get(name, 0) + 1 for name in there}
        for name, count in looks.items():
            if count > LOOKS:
                continue
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    seen.add(file.read().replace(b"\0", b" "))
            except OSError:
                continue
        time.sleep(PAUSE)
    for line in sorted(seen):
        sys.stdout.buffer.write(line + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
