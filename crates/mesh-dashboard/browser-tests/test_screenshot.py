"""The picture in the README: the page of the running lab in the middle of a failover. `MESH_SCREENSHOT=FILE` keeps it."""

import os
import shutil

from conftest import until, watched_for


def test_the_picture_of_the_readme(open_page, lab, tmp_path):
    lab.well()
    lab.publish(25)
    page = open_page("/", width=1440, height=1000, color_scheme="light", device_scale_factor=1.5)
    watched_for(page, 20_000)
    serving = lab.status()["snapshot"]["primary"]
    lab.fault("kill", serving)
    try:
        page.wait_for_selector(f'.topology a[href="/brokers/{serving}"].health-dead', timeout=10_000)
        until("clients back", lambda: any(step["phase"] == "first_client_back" for step in lab.status()["incident"]["phases"]))
        page.wait_for_selector(".stage-list >> text=client back")
        # The way of the clients has moved, and the charts show what became of it.
        killed = page.evaluate("Number(document.querySelector('.scrub input').max)")
        page.wait_for_function("(killed) => document.querySelector('.scrub input').max - killed > 3000", arg=killed)
        picture = tmp_path / "overview.png"
        page.screenshot(path=picture)
        assert picture.stat().st_size > 50_000
        if os.environ.get("MESH_SCREENSHOT"):
            shutil.copy(picture, os.environ["MESH_SCREENSHOT"])
    finally:
        lab.fault("restart", serving)
    lab.well()
