"""What a client needs beyond paho-mqtt to live through the death of its broker.

- `Session` connects to the balancer or to a list of brokers in order, comes back by itself, and subscribes again
  where the broker does not know the session.
- `Outbox` keeps what is published in SQLite until it is acknowledged, also over a crash of this program.
- `Seen` tells a message that has come before.

Everything happens in `Session.step()`, on the thread that calls it: there are no locks, and no callback runs while
other code does. MQTT 5 throughout, since properties carry what makes duplicates known.
"""

import argparse
import getpass
import os
import random
import sqlite3
import ssl
import sys
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

CONNECT_PATIENCE = 3.0
"""Seconds for a connection, and again for the CONNACK. A hung broker accepts and says nothing."""

SETTLED = 10.0
"""Seconds after which a connection counts as a good one; a shorter one is a failed attempt."""

FIRST_PAUSE = 0.2
"""Upper bound of the first pause before a new attempt, in seconds; doubled with each round of failures."""

MESSAGE_ID = "message-id"
"""User property by which a subscriber knows a message that its publisher sent twice."""

MESH_STAMP = "mesh"
"""User property that the mesh adds: where a message entered, and its number there."""


@dataclass
class Options:
    """How to reach the network, and as whom."""

    brokers: Sequence[tuple[str, int]] = (("127.0.0.1", 18830),)
    """The balancer, or brokers in order of preference."""
    client_id: str = field(default_factory=lambda: f"example-{uuid.uuid4().hex[:12]}")
    keep_alive: int = 10
    """Seconds. It is what ends a connection to a hung broker when nobody else does."""
    longest_pause: float = 30.0
    """Seconds that a pause between attempts has at most."""
    username: str | None = None
    password: str | None = None
    ca_file: str | None = None
    """Certificates to trust; turns TLS on. `system` means those of the operating system."""
    certificate: str | None = None
    """A client's certificate and its key, where the broker asks for one."""
    key: str | None = None
    websockets: bool = False
    """By WebSockets, as browsers have to; the balancer has ports of their own for that."""


def backoff(failures: int, longest: float) -> float:
    """Seconds to wait after so many rounds of failures: exponential, with full jitter.

    The jitter is not a nicety: all clients of a dead broker are cut in the same millisecond.
    """
    return random.uniform(0.0, min(longest, FIRST_PAUSE * 2.0 ** min(failures, 30)))


class Session:
    """An MQTT session that comes back by itself; it lives from one `step()` to the next.

    With `session_expiry` 0 each connection begins anew, as suits a publisher: what was not acknowledged is sent
    again in full. (A resumed QoS 2 handshake would be finished on a broker that has never seen its message.) With
    more, the broker keeps subscriptions and queued messages for so many seconds, as suits a subscriber.
    """

    def __init__(
        self,
        options: Options,
        session_expiry: int = 0,
        subscriptions: Sequence[tuple[str, int]] = (),
        on_message: Callable[[mqtt.MQTTMessage], None] = lambda message: None,
        on_acknowledged: Callable[[int, ReasonCode], None] = lambda mid, reason: None,
    ) -> None:
        self.connected = False
        self.address = options.brokers[0]
        self.connections = 0
        self.trouble = ""
        """Why there is no connection."""
        self._options = options
        self._session_expiry = session_expiry
        self._subscriptions = list(subscriptions)
        self._is_subscribed = False
        self._place = 0
        self._failures = 0
        self._is_open = False
        self._since = 0.0
        self._next_attempt = 0.0
        self.mqtt = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            options.client_id,
            protocol=mqtt.MQTTv5,
            transport="websockets" if options.websockets else "tcp",
        )
        self.mqtt.connect_timeout = CONNECT_PATIENCE
        if options.username is not None:
            self.mqtt.username_pw_set(options.username, options.password)
        if options.ca_file is not None:
            ca_file = None if options.ca_file == "system" else options.ca_file
            self.mqtt.tls_set(ca_file, options.certificate, options.key, ssl.CERT_REQUIRED)
        self.mqtt.on_connect = self._on_connect
        self.mqtt.on_subscribe = self._on_subscribe
        # paho sends the PUBACK when this has returned: what is acknowledged has been dealt with.
        self.mqtt.on_message = lambda client, data, message: on_message(message)
        self.mqtt.on_publish = lambda client, data, mid, reason, properties: on_acknowledged(mid, reason)

    def step(self, timeout: float) -> None:
        """Serves the connection for at most `timeout` seconds, or makes one when it is time to."""
        now = time.monotonic()
        if not self._is_open:
            if now >= self._next_attempt:
                self._connect()
            else:
                time.sleep(min(timeout, self._next_attempt - now))
            return
        code = self.mqtt.loop(timeout)
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS or self.mqtt.socket() is None:
            self._lost(mqtt.error_string(code))
        elif not self.connected and now > self._since + CONNECT_PATIENCE:
            self._lost("no CONNACK")

    def close(self) -> None:
        """Says goodbye. The broker keeps the session for as long as was agreed."""
        if self.connected:
            self.mqtt.disconnect()

    def _connect(self) -> None:
        host, port = self.address = self._options.brokers[self._place]
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._session_expiry
        self._since = time.monotonic()
        try:
            self.mqtt.connect(
                host,
                port,
                self._options.keep_alive,
                clean_start=self._session_expiry == 0,
                properties=properties,
            )
            self._is_open = True
        except OSError as error:
            self._lost(str(error))

    def _on_connect(
        self,
        client: mqtt.Client,
        data: Any,
        flags: mqtt.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            say(f"{self._name()} refuses us: {reason}")
            return
        self.connected = True
        self.connections += 1
        self._since = time.monotonic()
        say(f"connected to {self._name()}, session {'resumed' if flags.session_present else 'new'}")
        # Another broker does not know our subscriptions. And a session may be there without them: one of an earlier
        # run with other topics, or one that was cut before it could subscribe.
        if not (flags.session_present and self._is_subscribed) and self._subscriptions:
            self._is_subscribed = False
            self.mqtt.subscribe(list(self._subscriptions))

    def _on_subscribe(
        self, client: mqtt.Client, data: Any, mid: int, reasons: list[ReasonCode], properties: Properties | None
    ) -> None:
        for (topic, _), reason in zip(self._subscriptions, reasons, strict=False):
            say(f"subscription to {topic}: {reason}")
        self._is_subscribed = True

    def _lost(self, why: str) -> None:
        """Closes what is left of the connection and decides when and where to try next."""
        was_good = self.connected and time.monotonic() - self._since >= SETTLED
        if self.connected:
            say(f"lost {self._name()}: {why}")
        self.connected = self._is_open = False
        self.trouble = why
        sock = self.mqtt.socket()
        if sock is not None:
            sock.close()
        if was_good:
            self._place = self._failures = 0
        else:
            self._place += 1
        pause = 0.0
        if was_good or self._place == len(self._options.brokers):
            pause = backoff(self._failures, self._options.longest_pause)
            self._place = 0
            self._failures += 1
        self._next_attempt = time.monotonic() + pause

    def __str__(self) -> str:
        """The state in words."""
        state = f"connected to {self._name()}" if self.connected else f"not connected {self.trouble}"
        return f"{state}, {self.connections} connections"

    def _name(self) -> str:
        return f"{self.address[0]}:{self.address[1]}"


@dataclass(frozen=True)
class Waiting:
    """A message that waits in the outbox; `row` rises with each message and is never used again."""

    row: int
    topic: str
    payload: bytes
    qos: int


class Outbox:
    """Messages that are not acknowledged yet, in the order of their publication.

    A killed program loses nothing that was added. A power cut may lose the last few; `synchronous=FULL` would
    prevent that, for an fsync with each transaction.
    """

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, timeout=1.0)
        try:
            # Two programs with one outbox would send everything twice.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS outbox (row INTEGER PRIMARY KEY AUTOINCREMENT,"
                " topic TEXT NOT NULL, payload BLOB NOT NULL, qos INTEGER NOT NULL)"
            )
            self._db.execute("CREATE TABLE IF NOT EXISTS name (name TEXT NOT NULL)")
            self._db.execute("INSERT INTO name SELECT ? WHERE NOT EXISTS (SELECT * FROM name)", (uuid.uuid4().hex,))
        except sqlite3.OperationalError as error:
            raise SystemExit(
                f"the outbox {path} cannot be used: {error}; does another publisher run with it?"
            ) from None
        (self._name,) = self._db.execute("SELECT name FROM name").fetchone()

    def add(self, messages: Iterable[tuple[str, bytes, int]]) -> None:
        """Keeps messages (topic, payload, QoS), in one transaction."""
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("INSERT INTO outbox (topic, payload, qos) VALUES (?, ?, ?)", messages)
        self._db.execute("COMMIT")

    def after(self, row: int, limit: int) -> list[Waiting]:
        """The next messages behind `row`."""
        found = self._db.execute(
            "SELECT row, topic, payload, qos FROM outbox WHERE row > ? ORDER BY row LIMIT ?", (row, limit)
        )
        return [Waiting(*values) for values in found]

    def remove(self, rows: Iterable[int]) -> None:
        """Forgets messages that were acknowledged, in one transaction."""
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("DELETE FROM outbox WHERE row = ?", ((row,) for row in rows))
        self._db.execute("COMMIT")

    def count(self) -> int:
        """How many messages wait."""
        (count,) = self._db.execute("SELECT count(*) FROM outbox").fetchone()
        return int(count)

    def message_id(self, row: int) -> str:
        """An id that no other message has, of this outbox or another."""
        return f"{self._name}/{row}"


class Seen:
    """Which messages have come before, of the last `limit`.

    A message comes again for two reasons, and each is told by a property of its own: a broker or the mesh delivers
    it again, then the mesh's stamp (where it entered, and its number there) is the same; or its publisher, who has
    missed the acknowledgement, sends it again, then it enters anew, but with the id that its publisher gave it.
    """

    def __init__(self, limit: int = 100_000) -> None:
        self._limit = limit
        self._keys: OrderedDict[str, None] = OrderedDict()

    def is_new(self, message: mqtt.MQTTMessage) -> bool:
        """Whether this is its first time. A message without any id is always new."""
        keys = keys_of(getattr(message.properties, "UserProperty", []))
        is_new = not any(key in self._keys for key in keys)
        for key in keys:
            self._keys[key] = None
            self._keys.move_to_end(key)
        while len(self._keys) > self._limit:
            self._keys.popitem(last=False)
        return is_new


def keys_of(properties: Iterable[tuple[str, str]]) -> list[str]:
    """What tells a message from all others, by its user properties."""
    # Of several properties of one name the last one counts: the mesh appends its stamp to whatever is there.
    last = dict(properties)
    keys = []
    # "2 broker1 PoAFoiG g 8RW.3 r1": version, origin, epoch, number, time, flags. Version 1 only writes numbers
    # in another way.
    stamp = last.get(MESH_STAMP, "").split(" ")
    if len(stamp) == 6 and stamp[0] in ("1", "2"):
        keys.append("stamp " + " ".join(stamp[1:4]))
    if MESSAGE_ID in last:
        keys.append("id " + last[MESSAGE_ID])
    return keys


class Status:
    """A line on standard error that is kept up to date; without a terminal, a line every ten seconds."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._next = 0.0

    def show(self, text: str) -> None:
        """Shows the text when it is time to."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (0.2 if self._is_terminal else 10.0)
        if self._is_terminal:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
        else:
            print(text, file=sys.stderr, flush=True)


def say(text: str) -> None:
    """A line on standard error that stays."""
    print(f"\r\x1b[K{text}" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The arguments that say how to reach the network."""
    parser.add_argument(
        "--broker",
        metavar="HOST[:PORT]",
        action="append",
        type=_address,
        help="the balancer; or several times, brokers in order of preference (default 127.0.0.1:18830)",
    )
    parser.add_argument("--client-id", help="name of the session (default: a new one each time)")
    parser.add_argument("--keep-alive", type=int, default=10, metavar="SECONDS")
    parser.add_argument("--longest-pause", type=float, default=30.0, metavar="SECONDS", help="between two attempts")
    parser.add_argument("--username", help="the password is that of MQTT_PASSWORD, or asked for")
    parser.add_argument("--ca-file", help="use TLS and trust these certificates; `system` for the system's own")
    parser.add_argument("--certificate", help="the client's own certificate, for TLS")
    parser.add_argument("--key", help="the key of that certificate")
    parser.add_argument("--websockets", action="store_true", help="MQTT over WebSockets, where that is served")


def options_of(arguments: argparse.Namespace) -> Options:
    """What `add_options` was told."""
    options = Options(keep_alive=arguments.keep_alive, longest_pause=arguments.longest_pause)
    options.brokers = arguments.broker or options.brokers
    options.client_id = arguments.client_id or options.client_id
    if arguments.username is not None:
        options.username = arguments.username
        # A password among the arguments could be read by everyone on this machine.
        options.password = os.environ.get("MQTT_PASSWORD") or getpass.getpass("password: ")
    options.ca_file, options.certificate, options.key = arguments.ca_file, arguments.certificate, arguments.key
    options.websockets = arguments.websockets
    return options


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":") if ":" in text else (text, "", "1883")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST or HOST:PORT")
    return host, int(port)
