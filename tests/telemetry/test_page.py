"""The page of `telemetry plot`, in a browser: it draws without an error, and zooms to the millisecond."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, sync_playwright

from quarkctl.telemetry.plot import collect, page
from quarkctl.telemetry.timeline import open_timeline
from tests.telemetry.test_files import record, story

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("page")
    path = folder / "a.html"
    path.write_text(page(collect(open_timeline([record(folder / "a.qrec", story())]))), "utf-8")
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1000, "height": 700})
        tab.set_default_timeout(60_000)
        tab.goto(path.as_uri())
        tab.wait_for_selector("html[data-ready-ms], html[data-error]", state="attached")
        yield tab
        browser.close()


def data(tab: Page, name: str) -> str:
    return tab.locator("html").get_attribute(f"data-{name}") or ""


def test_it_draws_what_was_recorded(tab: Page) -> None:
    assert data(tab, "error") == ""
    labels = [x.strip() for x in tab.locator("nav label").all_inner_texts()]
    assert {"bus_mv", "bus_sample_mv", "pack_mv[1]", "zone_decic[4]"} <= set(labels)
    assert "5 frames lost" in tab.inner_text("header")
    colours = set()
    shot = tab.locator("#plot").screenshot()
    import io

    import matplotlib.image

    pixels = matplotlib.image.imread(io.BytesIO(shot), format="png")
    for row in pixels.reshape(-1, pixels.shape[-1])[::7]:
        colours.add(tuple(int(255 * c) for c in row[:3]))
    blue, red = (lambda c: c[2] > 200 and c[0] < 80), (lambda c: c[0] > 220 and 120 < c[1] < 230 and c[1] == c[2])
    assert any(map(blue, colours)) and any(map(red, colours))  # lines, and the lost frames


def test_the_wheel_zooms_and_a_double_click_shows_all(tab: Page) -> None:
    box = tab.locator("#plot").bounding_box()
    assert box
    whole = float(data(tab, "span-ms"))
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + 60)
    while float(data(tab, "span-ms")) > 1:
        tab.mouse.wheel(0, -400)
    assert "us" in tab.inner_text("#readout") or " ms" in tab.inner_text("#readout")
    tab.mouse.dblclick(box["x"] + box["width"] / 2, box["y"] + 60)
    tab.wait_for_selector(f"html[data-span-ms='{whole:.3f}']", state="attached")
