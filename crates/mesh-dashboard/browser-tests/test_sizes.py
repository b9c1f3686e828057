"""The smallest and the largest network that the picture is made for, each a lab of its own."""

import pytest
from conftest import Lab, settled, until
from test_page import THEMES, violations


@pytest.fixture(scope="module", params=[2, 12])
def network(request):
    network = Lab(brokers=request.param)
    network.brokers = request.param
    try:
        yield network
    finally:
        network.stop()


def overlaps(page):
    """Pairs of brokers whose signs or words lie over each other."""
    return page.evaluate(
        """() => {
          const parts = (node) => [...node.querySelectorAll(".glyph, text")].filter((one) => one.tagName !== "text" || one.textContent).map((one) => one.getBoundingClientRect());
          const apart = (a, b) => a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top;
          const nodes = [...document.querySelectorAll(".topology .node")].map((node) => [node.textContent, parts(node)]);
          return nodes.flatMap(([one, own], i) => nodes.slice(0, i).filter(([, others]) => own.some((a) => others.some((b) => !apart(a, b)))).map(([other]) => `${one} / ${other}`));
        }"""
    )


@pytest.mark.parametrize("width,height", [(360, 740), (1440, 900)])
@pytest.mark.parametrize("theme", THEMES)
def test_every_broker_and_link_has_its_place(open_page, network, theme, width, height):
    page = open_page("/", of=network, width=width, height=height, color_scheme=theme)
    settled(page)
    count = network.brokers
    page.wait_for_function("(count) => document.querySelectorAll('.topology .node').length === count", arg=count)
    assert page.locator(".topology .link").count() == count * (count - 1)
    assert overlaps(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert violations(page) == []
    page.goto(network.url + "/?view=table")
    page.wait_for_selector("main table")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert violations(page) == []


def test_a_failover_is_seen(open_page, network):
    network.well()
    page = open_page("/", of=network)
    page.wait_for_function("(count) => document.querySelector('.sentence').innerText.startsWith(`${count} of ${count} up`)", arg=network.brokers)
    network.fault("kill", "broker1")
    page.wait_for_selector('.topology a[href="/brokers/broker1"].health-dead', timeout=10_000)
    page.wait_for_selector('.topology a[href="/brokers/broker2"].role-primary', timeout=10_000)
    network.fault("restart", "broker1")
    until("a network that is well", lambda: network.status()["snapshot"]["state"] == "ok", 90)
