"""The explorer in a real browser: what a user does, and what must come of it."""

import hashlib
import signal
import sqlite3
import tarfile
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from explorer.table import SCORES, encode_picture, set_column, write_large_table, write_liked_table, write_table

from browser.conftest import HOSTILE, opened, served, started, text_of, wait_until
from tastemaker import RunOptions, ScoreTable, TextSearch, rescore, run_scoring

MODEL = "window.tastemaker.model"
CUT = f"{MODEL}.cut"


def counts(page):
    return [int(text_of(page, f"#{name}").replace(",", "")) for name in ("keep", "drop")]


def test_counts_follow_the_handle_and_what_is_typed_and_are_what_duckdb_counts(browser, many):
    scores, table = many.scores, ScoreTable(str(many.folder))
    with opened(browser, many.address) as page:
        box = page.locator("#histogram").bounding_box()
        middle = box["y"] + box["height"] / 3
        page.mouse.move(box["x"] + 0.4 * box["width"], middle)
        page.mouse.down()
        seen = []
        for part in (0.42, 0.5, 0.58, 0.63, 0.7):
            page.mouse.move(box["x"] + part * box["width"], middle, steps=5)
            seen.append((page.evaluate(f"{CUT}.score"), *counts(page)))
        page.mouse.up()
        assert len({score for score, _, _ in seen}) == 5
        for score, kept, dropped in seen:
            assert round(score, 2) == score
            assert kept == table.cutoff(min_score=score).kept
            assert kept + dropped == len(scores)
        for typed, options in (
            ("5.4", {"min_score": 5.4}),
            ("20%", {"top": 0.2}),
            ("100k", {"keep": 100_000}),
            ("5.4321", {"min_score": 5.4321}),
        ):
            expected = table.cutoff(**options).kept
            page.locator("#cut").fill(typed)
            page.keyboard.press("Enter")
            wait_until(page, f"{CUT}.kept === {expected}")
            assert counts(page)[0] == expected


def test_a_wrong_cut_off_changes_nothing_and_the_cut_off_moves_by_keys(browser, small):
    with opened(browser, f"{small.address}#cut=5.42") as page:
        field = page.locator("#cut")
        for typed, old in (("nonsense", None), ("5,5", "5.42")):
            field.fill(typed)
            page.keyboard.press("Enter")
            wait_until(page, "document.getElementById('cut-note').classList.contains('wrong')")
            assert "share" in text_of(page, "#cut-note")
            assert page.evaluate(f"{CUT}.score") == 5.42
            if old:
                field.fill(old)
            page.keyboard.press("Enter" if old else "Escape")
            wait_until(page, "document.getElementById('cut-note').textContent === ''")
            assert not page.evaluate("document.getElementById('cut-note').classList.contains('wrong')")
            assert field.input_value() == "5.42"
        field.fill("5.2")
        page.keyboard.press("Enter")
        page.locator("#handle").focus()
        for key, score in [
            ("ArrowRight", 5.21),
            ("Shift+ArrowRight", 5.31),
            ("ArrowLeft", 5.3),
            ("]", 5.31),
            ("[", 5.3),
            ("Shift+ArrowLeft", 5.2),
        ]:
            page.keyboard.press(key)
            assert page.evaluate(f"{CUT}.score") == score
            assert counts(page)[0] == int((small.scores >= np.float32(score)).sum())
        wait_until(page, "document.getElementById('handle').ariaValueText.includes('5.20, keeps')")
        assert text_of(page, ".flag") == "5.20"
        before = counts(page)
        page.locator("#varied input[type=checkbox]").check()
        wait_until(page, f"{CUT}.kept === 15 && document.querySelector('.cell')?.ariaSetSize === '15'")
        page.keyboard.press("]")
        page.keyboard.press("]")
        wait_until(page, f"{CUT}.kept === 17 && document.querySelector('.cell')?.ariaSetSize === '17'")
        page.locator("#varied input[type=range]").fill("7")
        wait_until(page, f"{CUT}.kept === 7 && location.hash.includes('cut=varied+7')")
        assert text_of(page, "#export-count") == "7"
        field.fill("9")
        page.keyboard.press("Enter")
        wait_until(page, f"{CUT}.kept === 9")
        page.locator("#varied input[type=checkbox]").uncheck()
        wait_until(page, f"{CUT}.score === 5.2 && document.querySelector('.cell')?.ariaSetSize === '60'")
        assert counts(page) == before


def test_words_rank_the_pictures_and_without_them_the_score_does_again(browser, tmp_path, photo_folder, model_dir):
    run_scoring(photo_folder, tmp_path / "scores", RunOptions(model_dir=str(model_dir)))
    table = ScoreTable(tmp_path / "scores")
    found, cosines = TextSearch(table, model_dir).find("boats at sunset", k=1000)
    with served(tmp_path / "scores", model_dir=str(model_dir)) as address, opened(browser, address) as page:
        score = float(page.locator("#cut").input_value())
        page.keyboard.press("/")
        words = page.get_by_label("Words")
        words.fill("boats at sunset")
        page.keyboard.press("Enter")
        wait_until(page, "document.getElementById('ranking').textContent === 'likeness to “boats at sunset”'")
        wait_until(page, "document.querySelectorAll('.cell .score').length && document.querySelector('.cell').picture")
        cells = "[...document.querySelectorAll('.cell')].sort((a, b) => a.place - b.place)"
        assert page.evaluate(f"{cells}.map((cell) => cell.picture.row)") == found.tolist()
        assert page.evaluate(f"{cells}.map((cell) => cell.querySelector('.score').textContent)") == [
            f"{cosine:.3f}" for cosine in cosines
        ]
        middle = f"{cosines[1]:.9f}"
        page.locator("#cut").fill(middle)
        page.keyboard.press("Enter")
        wait_until(page, f"{CUT}.kept === {int((cosines >= np.float32(middle)).sum())}")
        words.focus()
        page.keyboard.press("Escape")
        wait_until(page, "!window.tastemaker.model.view.like")
        assert words.input_value() == ""
        assert not page.locator("#ranking").is_visible()
        assert float(page.locator("#cut").input_value()) == score
        words.press_sequentially("boats at sunset")  # and a pause
        wait_until(page, "window.tastemaker.model.view.like === 'boats at sunset'")
        assert page.locator("#cut").input_value() == page.evaluate(f"{CUT}.name")
        assert counts(page)[0] == int((cosines >= np.float32(middle)).sum())


def test_very_many_pictures_scroll_to_any_of_them_and_by_as_much_as_the_wheel_says(browser, many):
    order = np.argsort(-many.scores, kind="stable")
    with opened(browser, f"{many.address}#at=100000&cut=5.5") as page:
        wait_until(page, "document.querySelector('.cell.active .score')?.textContent !== ''")
        active = page.locator(".cell.active")
        assert active.get_attribute("aria-posinset") == "100001"
        assert active.get_attribute("title") == f"picture-{order[100_000]}"
        box, frame = active.bounding_box(), page.locator("#scroller").bounding_box()
        assert frame["y"] <= box["y"] <= frame["y"] + frame["height"]
        for top in (0, 8_000_000, 3_000_000, 5_123_456):
            page.evaluate(f"document.getElementById('scroller').scrollTop = {top}")
            wait_until(page, "[...document.querySelectorAll('.cell')].every((cell) => cell.picture)")
            assert page.evaluate("document.querySelectorAll('.cell').length") < 150
        page.mouse.move(700, 700)
        page.wait_for_timeout(400)  # header and cut-off have folded
        before = page.evaluate("window.tastemaker.gridState().top")
        for n in range(1, 6):
            page.mouse.wheel(0, 120)
            wait_until(page, f"Math.abs(window.tastemaker.gridState().top - {before + 120 * n}) < 2")
        page.wait_for_timeout(400)  # the scroll position is set anew; the pictures stay
        assert abs(page.evaluate("window.tastemaker.gridState().top") - before - 600) < 2
        page.locator("#grid").focus()
        page.keyboard.press("End")
        wait_until(page, "document.querySelector('.cell.active .score')?.textContent !== ''")
        assert page.locator(".cell.active").get_attribute("title") == f"picture-{order[-1]}"
        page.keyboard.press("Home")
        assert page.evaluate("window.tastemaker.gridState().top") == 0


_MARKS = """[...document.querySelectorAll(".cell")].sort((a, b) => a.place - b.place)
  .map((cell) => [cell.picture.stars, cell.querySelector(".mark").textContent !== "", cell.picture.rejected])"""


def test_a_rating_given_by_key_outlives_a_killed_server(browser, tmp_path):
    folder = write_table(tmp_path)
    with started(folder) as (process, address), opened(browser, address) as page:
        page.keyboard.press("ArrowRight")
        page.keyboard.press("4")
        wait_until(page, "document.getElementById('saved').textContent.includes('saved')")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("x")
        wait_until(page, "document.querySelectorAll('.cell.rejected').length === 1")
        page.keyboard.press("Home")
        page.keyboard.press("2")
        wait_until(page, "document.querySelector('.cell.active .mark').textContent.includes('★')")
        page.keyboard.press("u")
        wait_until(page, "document.querySelector('.cell.active .mark').textContent === ''")
        process.send_signal(signal.SIGKILL)
        process.wait()
    with served(folder) as address, opened(browser, address) as page:
        wait_until(page, "[...document.querySelectorAll('.cell')].some((cell) => cell.picture)")
        marks = page.evaluate(_MARKS)
        assert marks[:4] == [[0, False, False], [4, True, False], [0, True, True], [0, False, False]]
    with sqlite3.connect(folder / "_tastemaker" / "ratings.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM ratings WHERE stars = 4 OR rejected").fetchone() == (2,)


def test_keys_that_come_faster_than_ratings_are_saved_rate_one_picture_each(browser, tmp_path):
    with served(write_table(tmp_path)) as address, opened(browser, address) as page:
        page.route("**/api/ratings", lambda route: (page.wait_for_timeout(100), route.continue_()))
        wait_until(page, "document.querySelector('.cell.active')?.picture")
        for key in ("Shift+Digit3", "Enter", "Shift+X", "Digit4", "Digit2", "X"):
            page.keyboard.press(key)
        wait_until(page, f"JSON.stringify({_MARKS}.slice(0, 3)) === '[[3,true,false],[0,true,true],[2,true,true]]'")
        assert page.evaluate(_MARKS)[:4] == [[3, True, False], [0, True, True], [2, True, True], [0, False, False]]


def test_a_key_rates_the_picture_that_one_sees_while_what_is_shown_changes(browser, tmp_path):
    """The best pictures are p00005, p00000, p00009 and p00011."""
    folder = write_table(tmp_path)
    name, marks = "document.querySelector('.facts h2.name').textContent", {}

    with served(folder) as address, opened(browser, f"{address}#cut=5.42&part=kept") as page:
        wait_until(page, "document.querySelector('.cell.active')?.picture")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        page.wait_for_selector("#picture .large.here")
        page.keyboard.down("x")
        page.keyboard.down("x")  # as a key that is held
        page.keyboard.up("x")
        wait_until(page, "document.querySelector('.verdict').textContent === 'rejected'")
        page.wait_for_timeout(200)  # what is kept is shown anew once the cut-off rests; this picture stays
        page.keyboard.press("4")
        page.keyboard.press("ArrowRight")
        wait_until(page, f"{name} === 'p00009.jpg' && document.querySelector('#rejected').textContent")
        page.keyboard.press("1")
        page.keyboard.press("}")  # above 5.75 only one is kept
        for _ in range(60):
            page.keyboard.press("]")
        wait_until(page, f"{CUT}.score > 6.1 && {MODEL}.part === 'kept' && {name} === 'p00005.jpg'")
        page.keyboard.press("2")
        page.keyboard.press("Escape")
        page.evaluate(  # what one types on a German keyboard
            "document.body.dispatchEvent(new KeyboardEvent('keydown',"
            "{ key: '/', code: 'Digit7', shiftKey: true, bubbles: true }))"
        )
        page.locator("#filter-clear").click()
        wait_until(page, f"{MODEL}.part === '' && document.querySelectorAll('.cell').length === 12")

        views = hold_first(page, "**/api/view*")
        page.locator("#filter-text").fill("p00001")
        page.locator("#filter-text").press("Enter")
        wait_until(page, f"{MODEL}.filter.text === 'p00001'")
        page.keyboard.press("Escape")
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        wait_until(page, f"{name} === 'p00000.jpg'")
        release(page, views)
        wait_until(page, f"{MODEL}.view.images === 1 && document.querySelector('.onward').disabled")
        page.keyboard.press("0")
        page.keyboard.press("5")
        wait_until(page, "document.querySelectorAll('.facts .star.on').length === 5")
        page.keyboard.press("Escape")
        page.keyboard.press("/")
        page.locator("#filter-clear").click()
        wait_until(page, f"{MODEL}.view.images === 12 && document.querySelectorAll('.cell').length === 12")

        ratings = hold_first(page, "**/api/ratings*")
        page.keyboard.press("Escape")
        page.keyboard.press("End")
        page.keyboard.press("3")
        page.keyboard.press("y")
        wait_until(page, f"{MODEL}.view.images === 3")  # the server has not heard of the last one
        release(page, ratings)
        wait_until(page, f"{MODEL}.view.images === 4 && {MODEL}.view.rated.size === 4")
    with sqlite3.connect(folder / "_tastemaker" / "ratings.sqlite") as connection:
        for path, *mark in connection.execute("SELECT image_path, stars, rejected, label FROM ratings"):
            marks[path[-10:-4]] = mark
    assert marks == {"p00000": [5, 0, ""], "p00009": [1, 0, ""], "p00005": [2, 0, ""], "p00007": [3, 0, ""]}


def hold_first(page, pattern):
    """Return a list that takes the first question at this address; it waits until somebody continues it."""
    held = []
    page.route(pattern, lambda route: route.continue_() if held else held.append(route))
    return held


def release(page, held):
    while not held:
        page.wait_for_timeout(10)
    held[0].continue_()


def test_a_server_that_was_stopped_is_told_where_one_looks(browser, tmp_path):
    page = browser.new_page()
    with started(write_table(tmp_path)) as (_, address):
        page.goto(address)
        page.wait_for_selector("body.ready")
        assert not page.locator("#gone").is_visible()
        page.get_by_role("button", name="Understood").click()  # three sentences, the first time only
        page.reload()
        page.wait_for_selector("body.ready")
        assert not page.locator("#intro").is_visible()
        page.context.clear_cookies()  # as after a start with another token
        page.wait_for_selector("#gone:not([hidden])")
        page.goto(address)
        page.wait_for_selector("body.ready")
        page.wait_for_selector("#grid img")  # the page knows which picture it would rate
        assert not page.locator("#gone").is_visible()
    page.keyboard.press("4")
    wait_until(page, "document.getElementById('saved').textContent.startsWith('not saved')")
    assert "The server does not answer this page, and nothing is saved" in text_of(page, "#gone")
    page.keyboard.press("f")
    wait_until(page, "document.getElementById('failures').textContent.includes('the server does not answer')")
    page.close()


def test_stars_and_a_rejection_are_given_by_a_press_and_counted_at_once(browser, tmp_path):
    with served(write_table(tmp_path)) as address, opened(browser, f"{address}#cut=5.42") as page:
        kept, dropped = counts(page)
        page.keyboard.press("Enter")
        page.locator(".star").nth(3).click()
        wait_until(page, "document.querySelectorAll('.star.on').length === 4")
        page.locator(".reject").click()
        wait_until(page, "document.querySelector('.verdict').textContent === 'rejected'")
        assert counts(page) == [kept - 1, dropped]
        assert text_of(page, "#rejected") == "1 rejected, in no count"
        page.keyboard.press("Meta+z")
        wait_until(page, "document.querySelector('.verdict').textContent === 'kept'")
        page.locator(".star").nth(3).click()
        wait_until(page, "document.querySelectorAll('.star.on').length === 0")
        assert counts(page) == [kept, dropped]


def test_header_and_cut_off_fold_while_one_scrolls_and_come_back(browser, many):
    with opened(browser, many.address) as page:
        page.mouse.move(700, 700)
        page.mouse.wheel(0, 470)
        wait_until(page, "window.tastemaker.gridState().top > 460")
        cell = page.evaluate("document.elementFromPoint(700, 700).closest('.cell').id")
        before = page.locator(f"#{cell}").bounding_box()["y"]
        page.mouse.wheel(0, 30)
        wait_until(page, "document.body.classList.contains('folded')")
        page.wait_for_timeout(200)
        assert abs(page.locator(f"#{cell}").bounding_box()["y"] - before + 30) < 2  # what is on screen has not jumped
        assert page.locator(".bar").bounding_box()["height"] <= 49
        assert not page.locator("#strip").is_visible()
        assert f"keep {page.evaluate(f'{CUT}.kept.toLocaleString()')}" in text_of(page, "#folded")
        page.locator("#folded").click()
        wait_until(page, "!document.body.classList.contains('folded')")
        assert page.evaluate("window.tastemaker.gridState().top") == 0
        page.set_viewport_size({"width": 390, "height": 844})
        side = "document.querySelector('{}').getBoundingClientRect().{}"
        assert page.evaluate(side.format("[for=cut]", "left")) == page.evaluate(side.format("#cut", "left"))
        assert page.evaluate(side.format("#export-open", "right")) <= 390
        page.evaluate("document.body.classList.add('folded')")
        assert page.evaluate(side.format("#export-open", "right")) <= 390  # its number is whole


def test_a_picture_opens_by_key_walks_and_is_named_by_the_address(browser, small):
    order = np.argsort(-small.scores, kind="stable")
    with opened(browser, small.address) as page:
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        page.wait_for_selector("#picture .large.here")
        page.keyboard.press("ArrowRight")
        wait_until(page, f"location.hash.includes('picture={order[2]}')")
        wait_until(page, f"document.querySelector('.facts .rank')?.textContent.startsWith('rank 3 of {len(order)}')")
        assert f"p{order[2]:05d}" in text_of(page, ".facts .name")
        assert page.locator("#picture .large").get_attribute("alt") == f"{HOSTILE} {order[2]}"
        assert HOSTILE in text_of(page, ".facts .caption")
        assert page.evaluate("document.querySelectorAll('.facts img, .facts script').length") == 0
        page.wait_for_selector(".neighbour-row button")
        link = page.url
        page.keyboard.press("Escape")
        wait_until(page, "!location.hash.includes('picture')")
        page.goto("about:blank")
        page.goto(link)
        page.wait_for_selector("#picture[open] .large.here")
        assert f"p{order[2]:05d}" in text_of(page, ".facts .name")


def test_a_picture_is_shown_at_its_own_size_and_the_next_one_in_the_same_place(browser, tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(3):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(encode_picture(number, 3001, 2001))
    run_scoring([str(tmp_path / "photos")], tmp_path / "out", RunOptions(rank_by="technical_quality", signals=True))
    with served(tmp_path / "out") as address, opened(browser, address, has_touch=True) as page:
        page.keyboard.press("Enter")
        page.wait_for_selector("#picture .large.here")
        move_fingers(page, [[(600, 400)], [(500, 405)], [(400, 405)]])  # on to the next picture, and back
        wait_until(page, f"{MODEL}.active === 1")
        move_fingers(page, [[(400, 400)], [(500, 400)], [(700, 400)]])
        wait_until(page, f"{MODEL}.active === 0 && document.querySelector('#picture .large.here')")
        fits = page.locator(".fit").bounding_box()["width"]
        move_fingers(page, [[(450, 400), (550, 400)], [(400, 400), (600, 400)], [(350, 400), (650, 400)]])
        assert page.locator(".fit").bounding_box()["width"] == pytest.approx(3 * fits, rel=0.01)
        move_fingers(page, [[(350, 400), (650, 400)], [(450, 400), (550, 400)], [(480, 400), (520, 400)]])
        assert page.locator(".fit").bounding_box()["width"] == pytest.approx(fits)
        box = page.locator(".fit").bounding_box()
        page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 0.25 * box["height"])
        for key in (None, "ArrowRight", "ArrowRight"):
            if key:
                page.keyboard.press(key)
            wait_until(page, "document.querySelector('#picture .large.here')?.naturalWidth === 3001")
            shown, stage = page.locator(".fit").bounding_box(), page.locator(".stage").bounding_box()
            assert (shown["width"], shown["height"]) == (3001, 2001)
            middle = [stage[a] + stage[b] / 2 - shown[a] for a, b in (("x", "width"), ("y", "height"))]
            assert middle == pytest.approx([0.75 * 3000, 0.25 * 2000], abs=5)
        page.mouse.move(500, 400)
        page.mouse.down()
        page.mouse.move(560, 420, steps=3)
        page.mouse.up()
        assert page.locator(".fit").bounding_box()["x"] == pytest.approx(shown["x"] + 60, abs=2)
        for number in (2, 3, 1, 2):
            page.keyboard.press("v")
            wait_until(page, f"document.querySelectorAll('.pane').length === {number}")
        page.mouse.down()
        page.mouse.move(700, 500, steps=3)
        page.mouse.up()
        parts = page.evaluate(_PARTS)
        assert len(parts) == 2
        assert parts[0] == pytest.approx(parts[1], abs=1)
        page.keyboard.press("2")
        page.locator(".pane").nth(0).locator(".colour").first.click()
        wait_until(page, "document.querySelectorAll('.pane .star.on').length === 2")
        wait_until(page, "document.querySelector('.colour[aria-pressed=true]')?.closest('.pane:not(.active)')")
        page.keyboard.press("v")
        wait_until(page, "document.querySelectorAll('.pane').length === 3")
        page.keyboard.press("v")
        page.keyboard.press("z")
        wait_until(page, "document.querySelector('.fit').getBoundingClientRect().width < 1200")
        page.keyboard.press("Escape")
        assert not page.locator("#picture").is_visible()
    (tmp_path / "photos" / "2.jpg").unlink()
    with served(tmp_path / "out") as address, opened(browser, address, device_scale_factor=2) as page:
        wait_until(page, "document.querySelector('.no-picture')?.textContent === 'the file is gone'")
        page.keyboard.press("Enter")
        page.wait_for_selector("#picture .large.here")
        page.keyboard.press("z")
        wait_until(page, "document.querySelector('#picture .large.here')?.naturalWidth === 3001")
        shown = page.locator(".fit").bounding_box()
        assert [2 * shown[side] for side in ("width", "height")] == [3001, 2001], "a pixel is one of the screen's"
        assert 2 * shown["x"] % 1 == 2 * shown["y"] % 1 == 0
        assert "3001 × 2001 pixels" in text_of(page, ".taken")


def move_fingers(page, steps):
    """Put fingers on a page and move them: at each step [x, y] of each."""
    touches = page.context.new_cdp_session(page)
    for number, fingers in enumerate(steps):
        points = [{"x": x, "y": y, "id": n} for n, (x, y) in enumerate(fingers)]
        touches.send(
            "Input.dispatchTouchEvent", {"type": "touchMove" if number else "touchStart", "touchPoints": points}
        )
    touches.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


_PARTS = """[...document.querySelectorAll(".pane")].map((pane) => {
  const [box, room] = [".fit", ".view"].map((name) => pane.querySelector(name).getBoundingClientRect());
  return [room.x + room.width / 2 - box.x, room.y + room.height / 2 - box.y];
})"""


def test_pictures_that_are_picked_are_rated_at_once_and_opened_side_by_side(browser, tmp_path):
    with served(write_table(tmp_path)) as address, opened(browser, address) as page:
        wait_until(page, "[...document.querySelectorAll('.cell')].every((cell) => cell.picture)")
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("Shift+ArrowRight")
        page.locator(".cell").nth(4).click(modifiers=["Control"])
        page.keyboard.press("3")
        page.keyboard.press("7")
        wait_until(page, "document.querySelectorAll('.cell[data-colour=yellow]').length === 4")
        stars = f"JSON.stringify({_MARKS}.map(([stars]) => stars).slice(0, 6))"
        assert page.evaluate(stars) == "[3,3,3,0,3,0]"
        assert "4 of 12 rated" in page.locator(".bar .progress").text_content()
        for width in (1024, 820, 390, 1440):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.locator(".bar .progress").evaluate("(place) => place.scrollWidth <= place.clientWidth"), width
        page.keyboard.press("Enter")
        wait_until(page, "document.querySelectorAll('.pane').length === 4")
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        wait_until(page, "window.tastemaker.model.active === 4")
        page.keyboard.press("Escape")
        page.keyboard.press("u")
        page.keyboard.press("u")
        wait_until(page, f"{stars} === '[0,0,0,0,0,0]'")
        page.keyboard.press("ArrowLeft")
        assert page.locator(".cell.picked").count() == 0
        page.keyboard.press("Meta+a")
        wait_until(page, "document.querySelectorAll('.cell.picked').length === 12")
        page.keyboard.press("Escape")
        page.keyboard.press("Control+a")
        wait_until(page, "document.querySelectorAll('.cell.picked').length === 12")


def test_one_goes_on_after_a_rating_to_what_is_not_rated_and_sees_at_the_end_what_has_stars(browser, tmp_path):
    with served(write_table(tmp_path)) as address, opened(browser, address) as page:
        wait_until(page, "document.querySelector('.cell.active')?.picture")
        page.keyboard.press("Enter")
        page.get_by_label("go on after a rating").check()
        for key in ("4", "x", "1", "ArrowLeft", "ArrowLeft"):
            page.keyboard.press(key)
        wait_until(page, "window.tastemaker.model.view.rated.size === 3")
        page.keyboard.press("n")
        wait_until(page, "window.tastemaker.model.active === 3")
        for key in "xxxxxxxxx":
            page.keyboard.press(key)
        page.locator("#picture .survey").click()
        wait_until(page, "window.tastemaker.model.view.images === 2")
        page.keyboard.press("y")
        wait_until(page, f"window.tastemaker.model.view.images === {len(SCORES)}")


def test_only_the_best_of_each_group_are_shown_and_counted(browser, tmp_path):
    folder = write_table(tmp_path)
    (path,) = folder.glob("*.parquet")
    table = pq.read_table(path)
    names = ["a" if number < 9 else "b" if number in (9, 11) else None for number in range(len(table))]
    table = table.drop_columns(["subject_sharpness", "exposure"])  # so that their scores say which is best
    pq.write_table(table.append_column("group", pa.array(names)), path)
    taken = [datetime(2024, 5, 1, 9, 0, 59 - number) for number in range(len(table))]
    set_column(folder, "captured_at", pa.array(taken, pa.timestamp("us")))
    with (
        served(folder) as address,
        opened(browser, f"{address}#cut=5.42", bypass_csp=True, reduced_motion="reduce") as page,
    ):
        before = counts(page)
        page.locator("#group").check()
        wait_until(page, "window.tastemaker.model.view.images === 3")
        assert sum(before) == len(SCORES)
        assert counts(page) == [2, 1]
        wait_until(page, "document.querySelectorAll('.cell').length === 3")
        wait_until(page, "location.hash.includes('group=best')")
        page.locator("#grid").focus()
        page.keyboard.press("Home")
        wait_until(page, "[...document.querySelectorAll('.cell')].every((cell) => cell.picture)")
        assert page.locator(".cell .stack").all_inner_texts() == ["9", "2"]
        while not page.locator(".cell.active .stack").count():
            page.keyboard.press("ArrowRight")
        page.keyboard.press("g")
        wait_until(page, "window.tastemaker.model.view.images === 9")
        wait_until(page, "[...document.querySelectorAll('.cell')].every((cell) => cell.picture)")
        names = "Array.from({ length: 9 }, (_, n) => document.getElementById(`cell-${n}`).picture.name)"
        assert page.evaluate(names) == [f"p{number:05d}" for number in reversed(range(9))]
        assert faults_found(page) == []
        assert page.locator(".stack.best").get_attribute("title") == "highest score of 9"
        assert page.evaluate("document.querySelector('.cell.active').contains(document.querySelector('.stack.best'))")
        page.get_by_role("button", name="Back to the stacks").click()
        wait_until(page, "document.querySelector('.cell.active .stack:not(.best)') !== null")
        assert page.locator("#order").input_value() == "best"
        page.locator(".cell .stack").first.click()
        wait_until(page, "window.tastemaker.model.view.images === 9")
        page.keyboard.press("g")
        wait_until(page, "document.querySelector('.cell.active .stack:not(.best)') !== null")
        page.keyboard.press("j")
        wait_until(page, "window.tastemaker.model.view.images === 2")
        page.keyboard.press("j")
        page.get_by_text("no further stack").wait_for()
        wait_until(page, "document.querySelector('.cell.active .stack')?.textContent === '2'")
        page.keyboard.press("Home")
        page.keyboard.press("Enter")
        wait_until(page, "document.querySelectorAll('.members button').length === 8")
        assert page.locator("#group-label").count() == 1
        page.keyboard.press("Escape")
        page.locator("#group").uncheck()
        wait_until(page, f"window.tastemaker.model.view.images === {len(SCORES)}")
        assert counts(page) == before


def test_filters_slices_and_failures(browser, small):
    scores = small.scores
    with opened(browser, small.address) as page:
        page.keyboard.press("/")
        page.locator("#filter-more summary").first.click()
        page.locator("#filter-where").fill("width > height")
        page.keyboard.press("Enter")
        wait_until(page, f"window.tastemaker.model.view.images === {len(scores) // 2}")
        assert sum(counts(page)) == len(scores) // 2
        page.locator("#filter-where").fill("widht > 3")
        page.keyboard.press("Enter")
        wait_until(page, "document.getElementById('filter-error').textContent.includes('is width meant?')")
        page.locator("#filter-clear").click()
        wait_until(page, f"window.tastemaker.model.view.images === {len(scores)}")
        page.locator("[data-show=slices]").click()
        page.wait_for_selector(".slices tbody tr")
        page.keyboard.press("5")  # no picture is seen that it could be for
        page.locator("#dimension").select_option("shape")
        wait_until(page, "document.querySelectorAll('.slices tbody tr').length === 4")
        images = page.evaluate(
            "[...document.querySelectorAll('.slices tbody tr')].map((row) => row.cells[1].textContent)"
        )
        assert sum(map(int, images)) == len(scores)
        page.locator("[data-show=failures]").click()
        page.locator("#failures summary").click()
        wait_until(page, "document.querySelectorAll('#failures li').length === 2")
        assert page.evaluate(f"{MODEL}.view.rated.size") == 0


def test_facets_act_at_once_and_pictures_come_by_time_or_only_those_on_one_side(browser, small):
    canon, nikon = (page_value(f'camera "{name}"') for name in ("Canon EOS R5", "NIKON Z 8"))
    with opened(browser, f"{small.address}#cut=5.3") as page:
        assert page.locator(".bars .ghost").count() == 0
        page.keyboard.press("/")
        page.locator(canon).press("Space")
        wait_until(page, "window.tastemaker.model.view.images === 20")
        wait_until(page, f"document.activeElement.matches(`{canon}[aria-pressed=true]`)")  # the list was made anew
        page.locator(nikon).click()
        wait_until(page, "window.tastemaker.model.view.images === 40")
        assert page.locator(".bars .ghost path").get_attribute("d").startswith("M")
        page.locator("#order").select_option("oldest")
        wait_until(page, "location.hash.includes('order=oldest')")
        page.locator(page_value("kept")).click()
        expected = [row for row in range(60) if row % 3 < 2 and small.scores[row] >= np.float32(5.3)]
        wait_until(page, f"document.querySelector('.cell')?.ariaSetSize === '{len(expected)}'")
        names = [f"p{row:05d}" for row in sorted(expected, key=lambda row: (7 * row % 61, row))]
        wait_until(page, "location.hash.includes('camera=') && location.hash.includes('part=kept')")
        page.keyboard.press("Escape")
        assert not page.locator("#filter").is_visible()
        page.keyboard.press("Home")
        page.keyboard.press("Enter")
        wait_until(page, "document.querySelector('.facts .taken')?.textContent.includes('May 2024, ')")
        for name in names[:3]:
            wait_until(page, f"document.querySelector('.facts .name')?.textContent.includes('{name}')")
            page.keyboard.press("ArrowRight")
        page.goto("about:blank")
        page.goto(f"{small.address}#cut=5.3&order=oldest&part=dropped&camera=%5Bnull%5D")
        page.wait_for_selector("body.ready")
        wait_until(page, "document.querySelector('.cell')?.picture")
        assert page.locator("#filter-toggle").inner_text() == "Filter (2)"
        expected = [row for row in range(2, 60, 3) if small.scores[row] < np.float32(5.3)]
        first = min(expected, key=lambda row: (7 * row % 61, row))
        wait_until(page, f"document.querySelector('#cell-0')?.picture?.name === 'p{first:05d}'")
        page.keyboard.press("/")
        page.locator("#filter-clear").click()
        wait_until(page, f"document.querySelector('.cell')?.ariaSetSize === '{len(small.scores)}'")


def page_value(key):
    return f"#facets [data-key='{key}']"


def test_an_export_has_the_bytes_of_what_is_kept_and_of_nothing_else(browser, tmp_path):
    folder = write_table(tmp_path)
    with served(folder) as address, opened(browser, f"{address}#cut=5.42") as page:
        page.keyboard.press("x")  # the best one
        wait_until(page, "document.querySelectorAll('.cell.rejected').length === 1")
        page.keyboard.press("e")
        for form in ("webdataset", "folder"):
            page.locator(f"#form-{form}").check()
            page.locator("#export-to").fill(str(tmp_path / form))
            page.keyboard.press("Enter")
            wait_until(page, f"document.querySelector('#export .result').textContent.includes('{form}')")
            assert f"5 images written to {tmp_path / form}" in text_of(page, "#export .result")
        page.locator("#export .sheet-head button").focus()
        page.evaluate(  # a key that comes before the focus has left the dialog
            "document.getElementById('export').close();"
            "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', bubbles: true}))"
        )
        page.wait_for_selector("#picture[open]")
    before = digests(tmp_path / "shards")
    kept = {f"p{n:05d}" for n, score in enumerate(SCORES) if score >= 5.42} - {"p00005"}
    for form in ("webdataset", "folder"):
        assert digests(tmp_path / form) == {name: d for name, d in before.items() if name.partition(".")[0] in kept}


def digests(folder):
    """Return name -> SHA-256 of every file in a folder and in its tars."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix == ".tar":
            with tarfile.open(path) as tar:
                found |= {member.name: hashlib.sha256(tar.extractfile(member).read()).hexdigest() for member in tar}
        elif path.is_file() and "_tastemaker" not in path.parts:
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def test_empty_tables_and_filters_lead_on(browser, tmp_path, small):
    for folder, shown in (
        (write_large_table(tmp_path / "none", []).parent, "empty"),
        (write_table(tmp_path, [], broken=3), "failures"),
    ):
        with served(folder) as address, opened(browser, address) as page:
            wait_until(page, f"document.getElementById('{shown}').checkVisibility()")
            if shown == "failures":
                wait_until(page, "document.getElementById('failures').textContent.includes('not an image')")
                page.keyboard.press("p")
                page.get_by_role("button", name="Show why").click()
                assert page.locator("#failures").is_visible()
            else:  # the first rows show themselves; later ones wait until one asks for them
                write_large_table(folder, [5.0, 6.0])
                page.locator("#about:has-text('2 images')").wait_for()
                page.wait_for_selector("body.ready")
                page.keyboard.press("ArrowRight")
                write_large_table(folder / "more", [4.0, 5.0, 6.0])
                (folder / "more" / "rows.parquet").rename(folder / "more.parquet")
                page.locator("#news:has-text('3 new rows.')").wait_for()
                page.get_by_role("button", name="Show them").click()
                page.locator("#about:has-text('5 images')").wait_for()
    with opened(browser, f"{small.address}#where=width+>+99999") as page:
        page.get_by_role("button", name="Clear the filter").click()
        wait_until(page, f"window.tastemaker.model.view.images === {len(small.scores)}")


@pytest.mark.parametrize(("theme", "size"), [("light", (1440, 900)), ("dark", (390, 844))])
def test_axe_finds_nothing(browser, small, theme, size):
    with opened(browser, small.address, color_scheme=theme, bypass_csp=True, reduced_motion="reduce") as page:
        page.set_viewport_size({"width": size[0], "height": size[1]})
        wait_until(page, "[...document.querySelectorAll('.cell')].every((cell) => cell.picture)")
        page.get_by_role("button", name="View", exact=True).click()
        assert faults_found(page) == []
        page.locator("#names").click()
        page.locator(".cell .file").first.wait_for()
        page.keyboard.press("Escape")
        for keys in (
            [],
            ["/"],
            ["Escape", "s"],
            ["f"],
            ["p", "?"],
            ["Escape", "e"],
            ["Escape", "Home", "Shift+End"],
            ["Home", "i", "Enter"],
            ["v"],
            ["v"],
        ):
            for key in keys:
                page.keyboard.press(key)
                page.wait_for_timeout(250)
            assert faults_found(page) == [], keys
        page.route("**/api/table*", lambda route: route.fulfill(status=409, json={"error": "there are no rows yet"}))
        page.route("**/api/news*", lambda route: None)  # not answered yet
        page.goto("about:blank")
        page.goto(small.address)
        page.get_by_text("looking for pictures").wait_for()
        assert not page.locator("#export-open").is_visible()
        assert faults_found(page) == []


def faults_found(page):
    """Return what axe finds in a page that lets it in, and in which nothing fades."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    found = axe.run(page).response["violations"]
    return [(v["id"], [n["target"] for n in v["nodes"]]) for v in found]


def test_at_no_size_the_page_scrolls_sideways_or_covers_a_control_and_pictures_can_be_reached_by_key(browser, small):
    with opened(browser, small.address) as page:
        for width, height in [(1440, 900), (1024, 768), (820, 1180), (844, 390), (720, 450), (390, 844), (320, 640)]:
            page.set_viewport_size({"width": width, "height": height})
            page.wait_for_timeout(200)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            covered = page.evaluate(_COVERED)
            assert covered == [], (width, covered)
        page.set_viewport_size({"width": 640, "height": 360})  # 1280 x 720 at 200 %
        page.keyboard.press("/")
        page.wait_for_selector("#filter-text")
        assert (
            page.evaluate("document.querySelector('.bar').scrollHeight - document.querySelector('.bar').clientHeight")
            <= 1
        )
        page.keyboard.press("Escape")
        page.keyboard.press("End")
        box = page.locator(".cell.active .frame").bounding_box()
        assert box["height"] > 100
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= 360


def test_with_forced_colours_the_handle_and_the_chosen_view_are_seen(browser, small):
    with opened(browser, small.address, forced_colors="active") as page:
        handle, ground, chosen, other = (
            page.locator(selector).first.evaluate(f"(item) => getComputedStyle(item).{name}")
            for selector, name in (
                (".flag", "backgroundColor"),
                ("body", "backgroundColor"),
                (".bar nav [aria-pressed=true]", "borderBottomColor"),
                (".bar nav [aria-pressed=false]", "borderBottomColor"),
            )
        )
        assert handle != ground
        assert chosen != other


_COVERED = """[...document.querySelectorAll(".bar button, .bar select, #cut, #handle")].filter((item) => {
  const box = item.getBoundingClientRect();
  if (!box.width || getComputedStyle(item).display === "none") return false;
  const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
  return !(item.contains(top) || top?.contains(item));
}).map((item) => item.id || item.textContent)"""


def test_a_taste_is_learned_from_ratings_by_key_ranks_the_pictures_and_is_saved(browser, tmp_path, model_dir):
    folder, stars = write_liked_table(tmp_path, 45)
    with (
        served(folder, model_dir=str(model_dir)) as address,
        opened(browser, address, bypass_csp=True, reduced_motion="reduce") as page,
    ):
        page.keyboard.press("l")
        assert faults_found(page) == []
        assert page.get_by_role("button", name="Learn from my ratings").is_disabled()
        page.get_by_role("button", name="Show a dozen to rate").click()
        for dozen in range(3):
            wait_until(page, "document.getElementById('proposal').textContent.includes('0 of 12 rated')")
            assert not page.locator("#histogram").is_visible()
            assert dozen or faults_found(page) == []
            page.keyboard.press("Home")
            for place in range(12):
                wait_until(page, f"document.querySelector('.cell.active')?.picture && {MODEL}.active === {place}")
                row = page.evaluate("document.querySelector('.cell.active').picture.row")
                page.keyboard.press(f"Shift+Digit{stars[row]}")
            wait_until(page, "document.getElementById('proposal').textContent.includes('12 of 12 rated')")
            page.get_by_role("button", name="Another dozen" if dozen < 2 else "Learn from my ratings").click()
        wait_until(page, "document.querySelector('#taste h2').textContent.includes('learned from 36 ratings')")
        assert "on pictures that it was not learned from" in text_of(page, "#taste")
        assert faults_found(page) == []
        page.get_by_label("Save as").fill(str(tmp_path / "mine.safetensors"))
        page.keyboard.press("Enter")
        wait_until(page, "document.querySelector('#taste form').textContent.includes('Saved')")
        page.get_by_role("button", name="Rank by your taste").click()
        wait_until(page, f"{MODEL}.view.by === 'your taste' && {MODEL}.view.images === 45")
        wait_until(
            page, "document.querySelector('.cell')?.picture && document.querySelector('.cell .score').textContent"
        )
        cells = "[...document.querySelectorAll('.cell')].sort((a, b) => a.place - b.place)"
        shown = page.evaluate(f"{cells}.slice(0, 5).map((cell) => cell.picture.row)")
        assert page.locator("#by").input_value() == "your taste"
    rescore(folder, str(tmp_path / "mine.safetensors"))
    assert shown == np.argsort(-ScoreTable(folder).values("mine"), kind="stable")[:5].tolist()
