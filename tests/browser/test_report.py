"""The report in a real browser, from disk."""

import pytest

from browser.conftest import text_of, wait_until
from tastemaker import write_report


@pytest.fixture(scope="module")
def report(small, tmp_path_factory):
    """The address of a report of sixty pictures and two failures."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(small.folder, path, min_score=5.5)
    return path.as_uri()


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
def test_axe_finds_nothing_serious(browser, report, theme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, bypass_csp=True)
    page = context.new_page()
    page.goto(report)
    for _ in ("as it opens", "with all that unfolds"):
        found = [v for v in axe.run(page).response["violations"] if v["impact"] in ("serious", "critical")]
        assert not found, [(v["id"], [n["target"] for n in v["nodes"]]) for v in found]
        page.evaluate("document.querySelectorAll('details').forEach((item) => { item.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


@pytest.mark.parametrize("cut", [0.0, 9.0])
def test_a_cut_beyond_all_scores_makes_no_page_scroll_sideways(browser, small, tmp_path, cut):
    write_report(small.folder, tmp_path / "report.html", min_score=cut)
    page = browser.new_page(viewport={"width": 375, "height": 700})
    page.goto((tmp_path / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.close()


def test_the_cut_moves_and_comes_back(browser, report, small):
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(report)
    box = page.locator(".plot").bounding_box()
    page.mouse.click(box["x"] + 0.4 * box["width"], box["y"] + box["height"] / 2)
    wait_until(page, "!document.querySelector('.moved').hidden")
    shown = float(text_of(page, ".figures [data-live=score]"))
    assert int(text_of(page, "[data-live=kept]")) == sum(float(score) >= shown - 1e-6 for score in small.scores)
    page.locator("#back").click()
    assert float(text_of(page, ".figures [data-live=score]")) == 5.5
    assert errors == []
    context.close()
