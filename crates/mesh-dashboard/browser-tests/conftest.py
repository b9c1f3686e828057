"""A real lab and a real Chromium for the tests of the page.

Every test has a page of its own on one lab. A test that breaks something mends it: `lab.well()` waits until all is well.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

CHECKOUT = Path(__file__).resolve().parents[3]
PROGRAMS = Path(os.environ.get("CARGO_TARGET_DIR", CHECKOUT / "target")) / os.environ.get("MESH_PROFILE", "debug")
CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def until(what, condition, seconds=20.0, every=0.05):
    """Waits until `condition()` is true, and returns what it returned."""
    deadline = time.monotonic() + seconds
    last = None
    while time.monotonic() < deadline:
        try:
            last = condition()
            if last:
                return last
        except (urllib.error.URLError, ConnectionError, OSError, KeyError, TypeError) as error:
            last = error
        time.sleep(every)
    raise AssertionError(f"no {what} within {seconds} s; last: {last!r}")


def free_base(brokers):
    """A base port all of whose ports are free; the lab takes up to 72 above it."""
    for base in range(26_010, 31_900, 100):
        wanted = [base - 1, *range(base, base + brokers + 1), base + 70, base + 71, base + 72]
        sockets = []
        try:
            for port in wanted:
                one = socket.socket()
                sockets.append(one)
                one.bind(("127.0.0.1", port))
            return base
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()
    raise AssertionError("no free ports")


class Lab:
    """A running `meshctl lab up`."""

    def __init__(self, brokers=5):
        self.base = free_base(brokers)
        self.url = f"http://127.0.0.1:{self.base + 70}"
        self.folder = Path(tempfile.mkdtemp(prefix="mesh-page-"))
        self.state = self.folder / "lab"
        command = [PROGRAMS / "meshctl", "lab", "up", "--state", self.state, "--base-port", str(self.base)]
        self.process = subprocess.Popen(
            [*command, "--brokers", str(brokers)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        said = []
        for line in self.process.stdout:
            said.append(line)
            if line.strip() == "ready":
                break
        else:
            raise AssertionError("the lab did not start:\n" + "".join(said))
        self.clients = []

    def fault(self, kind, process):
        subprocess.run([PROGRAMS / "meshctl", "lab", "fault", kind, process, "--state", self.state], check=True)

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=5) as answer:
            return answer.read().decode()

    def post(self, path):
        request = urllib.request.Request(self.url + path, method="POST", headers={"x-mesh-action": "1"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.read().decode()

    def status(self):
        return json.loads(self.get("/api/v1/status"))

    def metric(self, name):
        for line in self.get("/metrics").splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
        raise KeyError(name)

    def well(self):
        """Waits until every broker is healthy and mesh-health answers."""

        def is_well():
            state = self.status()
            healthy = all(broker["health"] == "healthy" for broker in state["snapshot"]["brokers"])
            return healthy and state["health"]["reachable"] and state["snapshot"]["state"] == "ok"

        until("a network that is well", is_well, 60)

    def connect(self, count):
        """Connects clients through the balancer; they come back when they are cut."""
        for number in range(count):
            command = ["mosquitto_sub", "-p", str(self.base), "-i", f"page-{number}", "-t", "plant/#", "-q", "1"]
            self.clients.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def publish(self, seconds, every=0.02):
        """A client that publishes for a while in the background."""
        script = f"for i in $(seq 1 {int(seconds / every)}); do echo $i; sleep {every}; done"
        command = f"({script}) | exec mosquitto_pub -p {self.base} -t plant/line1/temperature -q 1 -l"
        self.clients.append(subprocess.Popen(["sh", "-c", command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True))

    def stop(self):
        for client in self.clients:
            client.terminate()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def lab():
    lab = Lab()
    try:
        lab.connect(6)
        yield lab
    finally:
        lab.stop()


@pytest.fixture(scope="session")
def browser():
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "Chromium is missing; install it: apt install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, lab):
    """Opens pages; whatever a page complains of in its console is an error, unless the test expects it."""
    contexts = []
    complaints = []
    expected = []

    def opened(path="/", width=1280, height=800, context=None, wait=True, of=None, **options):
        if context is None:
            context = browser.new_context(viewport={"width": width, "height": height}, **options)
            contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(f"{path}: {error}"))
        page.on("console", lambda message: complaints.append(f"{path}: {message.text}") if message.type == "error" else None)
        page.goto((of or lab).url + path)
        if wait:
            page.wait_for_selector('.pill[data-state="live"]', timeout=15_000)
        return page

    opened.expect = expected.append
    yield opened
    for context in contexts:
        context.close()
    wrong = [one for one in complaints if not any(words in one for words in expected)]
    assert not wrong, wrong


def settled(page):
    """Waits until a page has drawn itself and has everything that it asked for."""
    page.wait_for_function("() => document.title.includes('·') && !document.querySelector('main').innerText.includes('Asking …')")


def watched_for(page, ms):
    """Waits until the page has seen so much of the network."""
    page.wait_for_function("(ms) => { const range = document.querySelector('.scrub input'); return range && range.max - range.min > ms; }", arg=ms)


@contextmanager
def mended(lab, kind, process, by):
    """A fault for as long as the block lasts."""
    lab.fault(kind, process)
    try:
        yield
    finally:
        lab.fault(by, process)
        lab.well()
