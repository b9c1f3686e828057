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


def boxes(page):
    """Where each broker is drawn: left, top, right, bottom."""
    return page.evaluate(
        """() => [...document.querySelectorAll(".topology .node")].map((node) => {
             const box = node.getBoundingClientRect();
             return [box.left, box.top, box.right, box.bottom];
           })"""
    )


@pytest.mark.parametrize("width,height", [(360, 740), (1440, 900)])
@pytest.mark.parametrize("theme", THEMES)
def test_every_broker_and_link_has_its_place(open_page, network, theme, width, height):
    page = open_page("/", of=network, width=width, height=height, color_scheme=theme)
    settled(page)
    count = network.brokers
    page.wait_for_function("(count) => document.querySelectorAll('.topology .node').length === count", arg=count)
    assert page.locator(".topology .link").count() == count * (count - 1)
    drawn = boxes(page)
    for one in range(count):
        for other in range(one):
            (left, top, right, bottom), (left2, top2, right2, bottom2) = drawn[one], drawn[other]
            assert right <= left2 or right2 <= left or bottom <= top2 or bottom2 <= top, (one + 1, other + 1, drawn)
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
