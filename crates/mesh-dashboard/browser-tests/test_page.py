"""What a person sees, in a real Chromium over a real lab."""

import json
import re
import subprocess
import time

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import mended, settled, until

PAGES = ["/", "/?view=table", "/brokers/broker2", "/incidents", "/flow", "/api", "/nowhere"]
THEMES = ["light", "dark"]


def sentence(page):
    return page.inner_text(".sentence")


def violations(page):
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['help']}: {[node['html'] for node in one['nodes'][:3]]}" for one in found]


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("path", PAGES)
def test_no_page_has_an_axe_violation(open_page, path, theme):
    open_page.expect("404")
    page = open_page(path, color_scheme=theme)
    settled(page)
    assert violations(page) == []


@pytest.mark.parametrize("theme", THEMES)
def test_nor_has_what_is_stale_or_asked(open_page, lab, theme):
    page = open_page("/brokers/broker3", color_scheme=theme)
    settled(page)
    page.click("text=Drain …")
    page.wait_for_selector("dialog")
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    page.keyboard.press("?")
    page.wait_for_selector("dialog")
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    page.evaluate("document.documentElement.dataset.stale = ''")
    assert violations(page) == []


@pytest.mark.parametrize("width,height", [(360, 740), (768, 1024), (1440, 900), (3840, 2160)])
def test_nothing_is_cut_off_at_any_width(open_page, width, height):
    for path in PAGES:
        open_page.expect("404")
        page = open_page(path, width=width, height=height)
        settled(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        page.close()


def test_the_first_page_is_small_and_soon_there(open_page, lab):
    page = open_page("/", wait=False)
    page.wait_for_selector(".topology .node")
    ready = page.evaluate("performance.now()")
    page.wait_for_selector('.pill[data-state="live"]')
    sizes = page.evaluate(
        """() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
             .filter((one) => !one.name.includes("/events")).map((one) => [one.name, one.transferSize])"""
    )
    total = sum(size for _, size in sizes)
    print(f"first page: {total} bytes in {len(sizes)} answers, picture after {ready:.0f} ms")
    assert 10_000 < total <= 80 * 1024, sizes
    # The browser asks for the state once, and not only when the modules are there.
    asked = page.evaluate(
        """() => performance.getEntriesByType("resource").filter((one) => one.name.endsWith("/api/v1/status")).map((one) => [one.initiatorType, one.startTime])"""
    )
    modules_end = page.evaluate("Math.max(...performance.getEntriesByType('resource').filter((one) => one.name.includes('/js/')).map((one) => one.responseEnd))")
    assert [kind for kind, _ in asked] == ["link"], asked
    assert asked[0][1] < modules_end


def test_a_killed_primary_is_said_within_a_second_and_its_incident_has_all_phases(open_page, lab):
    lab.well()
    before = lab.status()["snapshot"]["primary"]
    page = open_page("/")
    until("clients on the primary", lambda: [b for b in lab.status()["snapshot"]["brokers"] if b["id"] == before and b["clients"]])
    page.wait_for_function("() => document.querySelector('.sentence').innerText.startsWith('5 of 5 up')")
    page.evaluate(
        """() => {
          const line = document.querySelector(".sentence");
          window.said = null;
          new MutationObserver(() => {
            if (window.said === null && !line.innerText.startsWith("5 of 5 up")) window.said = [Date.now(), line.innerText];
          }).observe(line, { subtree: true, childList: true, characterData: true });
        }"""
    )
    way = page.get_attribute(".topology .way", "d")
    lab.fault("kill", before)
    try:
        page.wait_for_function("() => window.said !== null", timeout=5_000)
        said_at, words = page.evaluate("window.said")
        incident = until("an incident", lambda: (lab.status()["incident"] or {}).get("broker") == before and lab.status()["incident"])
        began = page.evaluate("(at) => Date.parse(at)", incident["began_at"])
        print(f"said after {said_at - began:.0f} ms: {words}")
        assert said_at - began < 1_000
        assert before in words

        # The clients' way moves to the next broker, and the picture says who is what.
        after = until("another primary", lambda: lab.status()["snapshot"]["primary"] != before and lab.status()["snapshot"]["primary"])
        page.wait_for_selector(f'.topology a[href="/brokers/{after}"].role-primary')
        page.wait_for_selector(f'.topology a[href="/brokers/{before}"].health-dead')
        page.wait_for_function("(old) => document.querySelector('.topology .way').getAttribute('d') !== old", arg=way)
        page.wait_for_function("(words) => document.querySelector('.sentence').innerText.includes(words)", arg=f"{after} serves")
        page.wait_for_selector(f'.topology .link[aria-label^="Link {before} to {after}"][data-state="unknown"]', state="attached")
        # Somebody who listens is told once, and not by every tenth of a second.
        page.wait_for_function("() => document.getElementById('announcer').innerText.includes('dead')")
        assert not re.search(r"\d (s|ms)\b", page.inner_text("#announcer"))
    finally:
        lab.fault("restart", before)
    lab.well()

    page.goto(f"{lab.url}/incidents/{incident['id']}")
    page.wait_for_selector("text=healthy again")
    steps = page.locator("tbody th").all_inner_texts()
    wanted = ["first sign", "taken for dead", "new plan installed", "balancer runs it", "sessions moved", "first client back", "healthy again"]
    assert [step for step in wanted if not any(step in one for one in steps)] == [], steps
    assert violations(page) == []


def test_ten_tabs_share_one_stream_and_the_next_takes_it_over(open_page, lab, browser):
    until("the end of earlier streams", lambda: lab.metric("mesh_dashboard_streams") == 0)
    context = browser.new_context()
    pages = [open_page("/", context=context) for _ in range(10)]
    until("one stream for ten tabs", lambda: lab.metric("mesh_dashboard_streams") == 1)
    leader = next(page for page in pages if page.evaluate("document.documentElement.dataset.stream") == "own")
    leader.close()
    rest = [page for page in pages if page is not leader]
    until("another one that has the stream", lambda: any(page.evaluate("document.documentElement.dataset.stream") == "own" for page in rest))
    until("one stream for nine tabs", lambda: lab.metric("mesh_dashboard_streams") == 1)
    for page in rest:
        page.wait_for_selector('.pill[data-state="live"]')
    context.close()


def test_a_server_that_dies_or_hangs_is_said_and_found_again(open_page, lab):
    open_page.expect("ERR_")
    page = open_page("/")
    lab.fault("hang", "mesh-dashboard")
    try:
        page.wait_for_selector('.pill[data-state="stale"]', timeout=12_000)
        assert page.evaluate("'stale' in document.documentElement.dataset")
        assert "No connection to mesh-dashboard" in page.inner_text(".notices")
        assert re.search(r"stale \d+ s", page.inner_text(".pill"))
    finally:
        lab.fault("resume", "mesh-dashboard")
    page.wait_for_selector('.pill[data-state="live"]', timeout=10_000)
    lab.fault("kill", "mesh-dashboard")
    page.wait_for_selector('.pill[data-state="stale"]', timeout=5_000)
    page.wait_for_selector('.pill[data-state="live"]', timeout=15_000)
    page.wait_for_function("() => !('stale' in document.documentElement.dataset)")


def test_without_mesh_health_what_is_old_is_said_to_be_old(open_page, lab):
    page = open_page("/")
    with mended(lab, "hang", "mesh-health", "resume"):
        page.wait_for_selector("text=mesh-health does not answer", timeout=10_000)
        assert page.evaluate("'stale' in document.documentElement.dataset")
        assert sentence(page).startswith("mesh-health is away; last:")
        assert page.inner_text(".pill") == "live", "the server itself is there"
        assert violations(page) == []
    page.wait_for_function("() => !('stale' in document.documentElement.dataset) && !document.querySelector('.notice')")


def test_without_mesh_health_the_incidents_come_from_the_database(open_page, lab):
    def stored():
        return json.loads(lab.get("/api/v1/incidents"))["incidents"]

    if not stored():
        lab.fault("kill", "broker5")
        until("an incident", stored)
        lab.fault("restart", "broker5")
    lab.well()
    newest = stored()[0]["id"]
    # mesh-logs asks mesh-health every 10 s.
    until("the incident in the database", lambda: any(row["attributes"].get("incident") == newest for row in json.loads(lab.get("/api/v1/logs?q=event:incident.step"))["rows"]), 30)
    with mended(lab, "hang", "mesh-health", "resume"):
        # A server that starts now has never heard of it.
        lab.fault("kill", "mesh-dashboard")
        until("a server of the page", lambda: lab.get("/"), 30)
        page = open_page("/incidents")
        page.wait_for_selector("text=these are the ones that were stored", timeout=15_000)
        page.click(f'tbody a[href="/incidents/{newest}"]')
        page.wait_for_selector("h2:text('Phases')")
    page.goto(f"{lab.url}/incidents")
    page.wait_for_function("() => !document.querySelector('main').innerText.includes('were stored')")


def test_without_the_database_what_needs_it_says_so(open_page, lab):
    open_page.expect("503")
    database, away = lab.state / "mesh.db", lab.state / "away.db"
    page = open_page("/logs")
    page.wait_for_selector(".lines .line")
    # Who writes it has it open, and goes on.
    database.rename(away)
    try:
        page.wait_for_selector("text=The database of mesh-logs cannot be read")
        page.goto(f"{lab.url}/incidents")
        page.wait_for_selector("text=Only those that mesh-health remembers")
        page.goto(f"{lab.url}/clients")
        page.wait_for_selector("text=Not available now")
        page.goto(f"{lab.url}/logs")
        page.wait_for_selector("text=Not available now")
        page.goto(f"{lab.url}/")
        page.wait_for_selector(".topology .node")
        page.goto(f"{lab.url}/logs")
    finally:
        away.rename(database)
    # It is there again, and searched without being asked to.
    page.wait_for_selector(".lines .line", timeout=10_000)
    page.wait_for_function("() => !document.querySelector('.notice')")


def test_everything_can_be_reached_by_the_keyboard(open_page):
    page = open_page("/")
    page.wait_for_selector(".topology .link")
    page.focus('.topology .link[tabindex="0"]')
    label = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert re.match(r"Link broker\d to broker\d: ", label), label
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") != label
    assert "msg/s" in page.inner_text(".detail")

    page.keyboard.press("t")
    page.wait_for_selector(".card table.rows >> nth=0")
    assert page.evaluate("location.search") == "?view=table"
    page.reload()
    page.wait_for_selector("text=View as picture")

    page.keyboard.press("Space")
    page.wait_for_selector('.pill[data-state="paused"]')
    page.keyboard.press("Space")
    page.wait_for_selector('.pill[data-state="live"]')

    page.keyboard.press("g")
    page.keyboard.press("i")
    page.wait_for_selector("h1:text('Incidents')")
    page.wait_for_selector('tbody a[href^="/incidents/"]')
    page.keyboard.press("j")
    page.wait_for_function("() => document.activeElement.getAttribute('href')?.startsWith('/incidents/')")
    page.keyboard.press("Enter")
    page.wait_for_selector("h2:text('Phases')")
    page.go_back()
    page.wait_for_selector("h1:text('Incidents')")
    page.go_back()
    page.wait_for_function("() => location.search === '?view=table'")
    page.keyboard.press("?")
    assert page.inner_text("dialog h2") == "Keys"
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")


def test_the_last_minutes_can_be_replayed(open_page, lab):
    page = open_page("/")
    until("a quarter of a minute of history", lambda: len(json.loads(lab.get("/api/v1/history"))["at"]) > 3)
    page.reload()
    page.wait_for_selector('.pill[data-state="live"]')
    page.wait_for_function("() => Number(document.querySelector('.scrub input').max) - Number(document.querySelector('.scrub input').min) > 5000")
    page.focus(".scrub input")
    page.keyboard.press("Home")
    page.wait_for_selector("text=Replaying")
    page.wait_for_selector(".scrub output:text('ago')")
    page.keyboard.press("Escape")
    page.wait_for_function("() => document.querySelector('.scrub output').innerText === 'now'")
    page.click('button:text-is("Replay")')
    page.wait_for_selector("text=Replaying")
    page.click("text=Back to now")
    page.wait_for_selector(".scrub output:text-is('now')")


def test_a_broker_is_drained_and_enabled_from_the_page(open_page, lab):
    lab.well()
    page = open_page("/brokers/broker5")
    page.click("text=Drain …")
    page.wait_for_selector("dialog >> text=broker5 does not serve now")
    page.click("dialog >> text=Drain >> nth=-1")
    page.wait_for_selector("dd:text-matches('draining|disabled')")
    page.wait_for_function("() => document.querySelector('.sentence').innerText.includes('broker5 draining')")
    page.click("text=Enable …")
    page.click("dialog button.strong")
    page.wait_for_selector("dd:text-is('enabled')")


def test_what_mesh_health_refuses_is_said_in_its_words(open_page, lab):
    lab.well()
    open_page.expect("409")
    primary = lab.status()["snapshot"]["primary"]
    others = [broker["id"] for broker in lab.status()["snapshot"]["brokers"] if broker["id"] != primary]
    post = {"x-mesh-action": "1"}
    page = open_page(f"/brokers/{primary}")
    try:
        for broker in others:
            assert page.request.post(f"{lab.url}/api/v1/brokers/{broker}/drain", headers=post).ok
        page.click("text=Drain …")
        page.click("dialog button.strong")
        page.wait_for_selector("dialog .problem:not(:empty)")
        assert len(page.inner_text("dialog .problem")) > 20
        page.wait_for_selector("dialog >> text=Drain all the same")
        page.click("text=Cancel")
    finally:
        for broker in others:
            page.request.post(f"{lab.url}/api/v1/brokers/{broker}/enable", headers=post)
    lab.well()


def test_a_test_message_is_watched_at_every_broker(open_page, lab):
    lab.well()
    page = open_page("/flow")
    page.click("text=Send a test message")
    page.wait_for_selector(".arrivals")
    figures = page.locator(".arrivals b").all_inner_texts()
    assert len(figures) == 6
    assert all(re.fullmatch(r"[\d.,]+ ms", figure) for figure in figures), figures
    assert page.locator(".arrivals .is-bad").count() == 0


def test_the_theme_follows_the_system_until_somebody_chooses(open_page):
    page = open_page("/", color_scheme="dark")
    theme = "document.documentElement.dataset.theme"
    assert page.evaluate(theme) == "dark"
    page.emulate_media(color_scheme="light")
    page.wait_for_function(f"() => {theme} === 'light'")
    for _ in range(2):
        page.click('[aria-label^="Theme"]')
    assert page.evaluate(theme) == "dark"
    page.reload()
    assert page.evaluate(theme) == "dark"


def test_nothing_moves_for_those_who_want_it_calm(open_page, lab):
    lab.publish(8)
    page = open_page("/", reduced_motion="reduce")
    # Something moves in the picture, if it may.
    page.wait_for_selector('.topology .dash:not([data-speed="0"])', state="attached")
    assert page.evaluate("document.getAnimations().length") == 0
    lively = open_page("/")
    lively.wait_for_selector(".topology .dash")
    lively.wait_for_function("() => document.getAnimations().length > 0", timeout=10_000)


def test_text_never_becomes_markup(open_page):
    open_page.expect("TrustedHTML")
    page = open_page("/")
    with pytest.raises(Exception, match="TrustedHTML"):
        page.evaluate("document.body.innerHTML = '<img src=x onerror=alert(1)>'")


def test_an_open_page_costs_little(open_page, lab):
    lab.publish(14)
    page = open_page("/")
    settled(page)
    page.wait_for_selector(".strips svg")
    session = page.context.new_cdp_session(page)
    # The time that the page itself has used, not the time that others took from it.
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def metrics():
        session.send("HeapProfiler.collectGarbage")
        return {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}

    first, began = metrics(), time.monotonic()
    page.wait_for_timeout(10_000)
    last, seconds = metrics(), time.monotonic() - began
    share = (last["TaskDuration"] - first["TaskDuration"]) / seconds
    print(f"an open overview takes {100 * share:.1f} % of a core; heap {first['JSHeapUsedSize'] / 1e6:.1f} MB, then {last['JSHeapUsedSize'] / 1e6:.1f} MB")
    assert share < 0.3
    assert last["Nodes"] < 1.2 * first["Nodes"] + 200


def test_there_is_nothing_left_to_say_of_an_unknown_broker(open_page):
    page = open_page("/brokers/broker99")
    page.wait_for_selector("text=There is no broker of this name.")
    page.wait_for_selector("button:disabled:text('Drain …')")
