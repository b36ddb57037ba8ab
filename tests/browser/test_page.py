"""The page of `search.py --serve`, as visitors use it."""

import csv
import io
import re
import threading

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect
from served import Served, person, png, running, write_shop

from benchmarks import serving as made_up
from san_jax.commands import own_pictures
from san_jax.data import crops
from san_jax.serving import gallery_watch, queries

pytestmark = pytest.mark.browser


@pytest.fixture
def shop(tmp_path):
    return write_shop(tmp_path / "shop", each=4)


@pytest.fixture
def street(tmp_path):
    """Where a list of grey people with cameras and times lies."""
    folder = write_shop(tmp_path / "street", colours=["grey"], each=4)
    listed = [
        crops.Crop(crops.Frame(path), path.stem, camid=f"door {number % 2}", time=f"2026-11-28T14:0{number}:00")
        for number, path in enumerate(sorted(folder.iterdir()))
    ]
    return folder, lambda: crops.Crops(str(folder), tuple(listed))


@pytest.fixture
def address(model, shop, street, tmp_path, monkeypatch):
    monkeypatch.setattr(gallery_watch, "POLL_SECONDS", 0.2)
    with running(Served(model, tmp_path, shop, street, threshold=1.0), watches=True) as address:
        yield address


def file(content, name="wanted.png"):
    return {"name": name, "mimeType": "image/png", "buffer": content}


def choose(page, *pictures):
    page.set_input_files("#file", [file(png(picture), f"{number}.png") for number, picture in enumerate(pictures)])


def names(page):
    return page.locator(".card").evaluate_all("cards => cards.map(card => card.hit.name)")


def distances(page):
    return page.locator(".card").evaluate_all("cards => cards.map(card => card.hit.distance)")


def found(page, first):
    """Waits until the pictures of a colour are the first ones."""
    expect(page.locator(".card").first).to_have_attribute("title", re.compile(first))
    return names(page)


def test_picture_is_chosen_and_the_nearest_ones_are_found(address, opened):
    page = opened(address)
    expect(page.locator("#nothing")).to_contain_text("Whom are you looking for?")
    expect(page.locator(".law")).to_contain_text("Ask the people in the pictures for their consent")
    choose(page, person("red", seed=50))
    assert {name[:3] for name in found(page, "red")[:4]} == {"red"}
    expect(page.locator("#said")).to_contain_text(re.compile(r"^16 of 16 pictures, \d+ under the threshold 1\.000"))
    expect(page.locator("#queries img")).to_have_count(1)
    assert all(page.locator(".card img").evaluate_all("images => images.map(i => i.alt.startsWith('Person, rank '))"))


def test_picture_is_dropped_or_pasted(address, opened):
    page = opened(address)
    for number, (kind, colour) in enumerate([("drop", "blue"), ("paste", "green")]):
        data = page.evaluate_handle(
            """([bytes, kind]) => {
                const data = new DataTransfer();
                data.items.add(new File([new Uint8Array(bytes)], kind + ".png", {type: "image/png"}));
                return data;
            }""",
            [list(png(person(colour, seed=60 + number))), kind],
        )
        if kind == "drop":
            page.dispatch_event("body", "dragenter", {"dataTransfer": data})
            expect(page.locator("#over")).to_be_visible()
            page.dispatch_event("body", "drop", {"dataTransfer": data})
        else:
            paste = "data => document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data}))"
            page.evaluate(paste, data)
        assert {name[:4] for name in found(page, colour)[:4]} == {colour[:4]}
        expect(page.locator("#over")).to_be_hidden()


def test_right_pictures_refine_and_wrong_ones_vanish_and_both_can_be_taken_back(address, opened):
    page = opened(address)
    choose(page, person("red", seed=50))
    found(page, "red")
    right, wrong = (page.locator(".card").nth(number) for number in (0, 1))
    gone = wrong.get_attribute("title")
    expect(page.locator(".card")).to_have_count(16)
    before = distances(page)
    wrong.get_by_role("button", name="Wrong").click()
    expect(page.locator(f'.card[title="{gone}"]')).to_have_count(0)
    expect(page.locator(".strip.wrong")).to_contain_text("Wrong: 1")
    assert len(names(page)) == 15
    right.get_by_role("button", name="Right").click()
    expect(page.locator(".strip.right")).to_contain_text("The search is for the mean of the query and these.")
    expect(page.locator(".card.right")).to_have_count(1)
    assert max(np.abs(np.subtract(distances(page)[:4], before[:4]))) > 1e-4
    expect(page.locator("#said")).not_to_contain_text("threshold")
    page.locator(".strip.wrong button").click()
    expect(page.locator(".strip.right button")).to_be_focused()
    page.locator(".strip.right button").click()
    expect(page.locator(".strip")).to_have_count(0)
    expect(page.locator(".card")).to_have_count(16)
    np.testing.assert_allclose(distances(page), before, atol=1e-5)


def test_click_on_a_picture_finds_more_like_it_and_one_can_go_back(address, opened):
    page = opened(address)
    choose(page, person("red", seed=50))
    found(page, "red")
    page.locator('.card[title="blue_2.png"] .like').click()
    assert {name[:4] for name in found(page, "blue")[:3]} == {"blue"}
    assert "blue_2.png" not in names(page)
    page.get_by_role("button", name="Back to the search before").click()
    found(page, "red")


def test_one_more_picture_of_the_person_is_added(address, opened):
    page = opened(address)
    choose(page, person("red", seed=50))
    found(page, "red")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Add one of the same person").click()
    chooser.value.set_files([file(png(person("red", seed=51)), "more.png")])
    expect(page.locator("#queries li")).to_have_count(2)
    page.get_by_role("button", name="Remove more.png").click()
    expect(page.locator("#queries li")).to_have_count(1)


def test_box_is_drawn_with_the_mouse(address, opened):
    page = opened(address)
    picture = Image.new("RGB", (400, 300), (128, 128, 128))
    picture.paste(person("blue", seed=70, size=(50, 100)), (300, 100))
    choose(page, picture)
    expect(page.locator(".hint")).to_contain_text("Draw a box around the one")
    page.get_by_role("button", name="Draw a box").click()
    seen = page.locator("#whole").bounding_box()
    scale = seen["width"] / 400
    page.mouse.move(seen["x"] + 300 * scale, seen["y"] + 100 * scale)
    page.mouse.down()
    page.mouse.move(seen["x"] + 340 * scale, seen["y"] + 150 * scale)
    page.mouse.move(seen["x"] + 350 * scale, seen["y"] + 200 * scale)
    page.mouse.up()
    values = [int(page.locator(f"#box-{side}").input_value()) for side in "xywh"]
    np.testing.assert_allclose(values, [300, 100, 50, 100], atol=2)
    page.get_by_role("button", name="Search for this person").click()
    assert {name[:4] for name in found(page, "blue")[:4]} == {"blue"}
    expect(page.get_by_role("button", name="Other box")).to_be_visible()
    expect(page.locator(".hint")).to_have_count(0)


def test_filters_of_camera_time_gallery_and_number(address, opened):
    page = opened(address)
    choose(page, person("grey", seed=50))
    found(page, "grey")
    page.locator("#cameras").get_by_text("door 1").click()
    expect(page.locator(".card")).to_have_count(2)
    assert set(names(page)) == {"grey_1", "grey_3"}
    page.fill("#from", "2026-11-28T14:02:00")
    page.locator("#from").blur()
    expect(page.locator(".card")).to_have_count(1)
    page.fill("#to", "2026-11-28T14:02:30")
    page.locator("#to").blur()
    expect(page.locator("#nothing")).to_contain_text("No picture is left")
    expect(page.locator("#said")).to_have_text("No pictures found.")
    page.get_by_role("button", name="Clear filters").click()
    expect(page.locator(".card")).to_have_count(16)
    page.locator("#places").get_by_text("shop").click()
    expect(page.locator(".card")).to_have_count(12)
    page.select_option("#top", "12")
    page.locator("#places").get_by_text("shop").click()
    expect(page.locator(".card")).to_have_count(12)


def test_list_and_contact_sheet_are_saved(address, opened, tmp_path):
    page = opened(address)
    choose(page, person("red", seed=50))
    found(page, "red")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save list").click()
    download.value.save_as(tmp_path / "saved.csv")
    rows = list(csv.DictReader((tmp_path / "saved.csv").open()))
    assert [row["path"].rpartition("/")[2] for row in rows if row["path"].endswith(".png")][:4] == names(page)[:4]
    assert download.value.suggested_filename == "found.csv"
    page.locator(".card").nth(2).get_by_role("button", name="Right").click()
    expect(page.locator(".card.right")).to_have_count(1)
    page.get_by_label("Only right ones").check()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save contact sheet").click()
    download.value.save_as(tmp_path / "saved.png")
    with Image.open(tmp_path / "saved.png") as sheet:
        assert np.asarray(sheet).std() > 20


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "This picture cannot be read (it is no picture); give another one."),
        (b"no picture", "This picture cannot be read (it is no picture); give another one."),
        (png(person("red"))[:300], "This picture cannot be read ("),
        (bytes(queries.MOST_BYTES + 1), "bad.png has more than 20 MB; give a smaller one."),
    ],
)
def test_bad_file_is_one_clear_line_and_the_search_stays(content, line, address, opened, tmp_path):
    page = opened(address)
    choose(page, person("red", seed=50))
    before = found(page, "red")
    (tmp_path / "bad.png").write_bytes(content)
    page.set_input_files("#file", tmp_path / "bad.png")
    expect(page.get_by_role("alert")).to_contain_text(line)
    assert names(page) == before
    page.get_by_role("button", name="Close").first.click()
    expect(page.get_by_role("alert")).to_be_empty()


def test_new_pictures_appear_and_gone_ones_vanish_by_themselves(address, opened, shop):
    page = opened(address)
    choose(page, person("red", seed=50))
    found(page, "red")
    page.get_by_role("button", name="Draw a box").focus()
    person("red", seed=50).save(shop / "red_new.png")
    expect(page.locator(".card").first).to_have_attribute("title", "red_new.png", timeout=30_000)
    expect(page.get_by_role("button", name="Draw a box")).to_be_focused()
    (shop / "red_new.png").unlink()
    expect(page.locator('.card[title="red_new.png"]')).to_have_count(0, timeout=30_000)


def test_whole_search_by_keyboard(address, opened):
    """From the first Tab to a refined search, without a mouse."""
    page = opened(address)
    expect(page.locator(".gallery .state").last).to_have_text("4 pictures", timeout=30_000)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the pictures found")).to_be_focused()
    while not page.locator("#file").evaluate("input => input === document.activeElement"):
        page.keyboard.press("Tab")
    picture = Image.new("RGB", (400, 300), (128, 128, 128))
    picture.paste(person("blue", seed=70, size=(50, 100)), (300, 100))
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files([file(png(picture))])
    expect(page.locator(".card").first).to_be_visible()
    while not page.get_by_role("button", name="Draw a box").evaluate("button => button === document.activeElement"):
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#stage")).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("ArrowLeft")
    for side, value in zip("whxy", (50, 100, 300, 100), strict=True):
        page.locator(f"#box-{side}").focus()
        page.keyboard.press("Control+A")
        page.keyboard.type(str(value))
    page.keyboard.press("Enter")
    found(page, "blue")
    page.locator(".card .like").first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".card .like").nth(1)).to_be_focused()
    page.keyboard.press("r")
    expect(page.locator(".card.right")).to_have_count(1)
    expect(page.locator(".card.right .like")).to_be_focused()
    page.keyboard.press("d")
    expect(page.locator("#details")).to_be_visible()
    expect(page.locator("#facts")).to_contain_text("blue_")
    page.keyboard.press("Escape")
    expect(page.locator("#details")).to_be_hidden()
    page.keyboard.press("ArrowRight")
    wrong = page.evaluate("document.activeElement.closest('.card').hit.name")
    page.keyboard.press("w")
    expect(page.locator(f'.card[title="{wrong}"]')).to_have_count(0)
    assert page.evaluate("document.activeElement.className") == "like", "the focus goes to the next picture"
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Back to the search before")).to_be_visible()


CONTRAST = """() => {
    const parse = (colour) => (colour.match(/[\\d.]+/g) ?? []).map(Number);
    const linear = (v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const light = (colour) => colour.slice(0, 3).map(v => linear(v / 255))
        .reduce((sum, v, place) => sum + v * [.2126, .7152, .0722][place], 0);
    const behind = (node) => {
        for (let at = node; at; at = at.parentElement) {
            const found = parse(getComputedStyle(at).backgroundColor);
            if (found.length === 3 || found[3] === 1) return found;
            if (found[3] > 0) return null; // over a picture
        }
        return [255, 255, 255];
    };
    const low = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const node = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !node.checkVisibility()) continue;
        const back = behind(node);
        if (!back) continue;
        const [a, b] = [light(parse(getComputedStyle(node).color)), light(back)].sort((x, y) => y - x);
        const ratio = (a + .05) / (b + .05);
        if (ratio < 4.5) low.push(`${walker.currentNode.data.trim()}: ${ratio.toFixed(2)}`);
    }
    return low;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(scheme, address, opened):
    page = opened(address, color_scheme=scheme)
    choose(page, person("red", seed=50))
    found(page, "red")
    page.locator(".card").nth(1).get_by_role("button", name="Right").click()
    expect(page.locator(".card.right")).to_have_count(1)
    assert page.evaluate(CONTRAST) == []
    red, green, blue = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (red + green + blue > 600) == (scheme == "light")


def test_page_fits_a_phone_and_is_used_by_touch(address, opened):
    page = opened(address, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    choose(page, person("red", seed=50, size=(300, 200)))
    found(page, "red|blue|green|grey")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.get_by_role("button", name="Draw a box").tap()
    assert page.locator("#boxing").bounding_box()["width"] <= 360
    seen = page.locator("#whole").bounding_box()
    assert seen["width"] <= 340
    touch = page.context.new_cdp_session(page)
    shares = 0.25, 0.5, 0.75
    at = [{"x": seen["x"] + share * seen["width"], "y": seen["y"] + share * seen["height"]} for share in shares]
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": at[:1]})
    for point in at[1:]:
        touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
    # A finger that is lifted while it moves starts a fling, and while there is one, chromium takes no tap for a click.
    page.wait_for_timeout(150)
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    values = [int(page.locator(f"#box-{side}").input_value()) for side in "xywh"]
    np.testing.assert_allclose(values, [75, 50, 150, 100], atol=3)
    page.get_by_role("button", name="Search for this person").tap()
    expect(page.get_by_role("button", name="Other box")).to_be_visible()
    page.set_input_files("#file", [file(b"no picture")])
    close = page.locator("#trouble button")
    expect(close).to_be_visible()
    assert close.bounding_box()["height"] < 48, "its text is broken into lines"
    heights = page.locator("button:visible").evaluate_all("all => all.map(b => b.getBoundingClientRect().height)")
    assert min(heights) >= 24


def test_progress_is_shown_and_what_is_embedded_can_be_searched_meanwhile(model, shop, tmp_path, opened, monkeypatch):
    monkeypatch.setattr(gallery_watch, "SHOW_SECONDS", 0.0)
    goes_on, add = threading.Event(), gallery_watch._Growing.add

    def slow(self, rows, feats):
        add(self, rows, feats)
        if self._count >= 6:
            goes_on.wait(60)

    monkeypatch.setattr(gallery_watch._Growing, "add", slow)
    with running(Served(model, tmp_path, shop), watches=True) as address:
        page = opened(address)
        expect(page.locator(".gallery progress")).to_be_visible()
        expect(page.locator(".gallery .state")).to_have_text(re.compile(r"^\d of 12 pictures$"))
        choose(page, person("blue", seed=50))
        expect(page.locator(".card")).to_have_count(6)
        goes_on.set()
        expect(page.locator(".card")).to_have_count(12, timeout=30_000)
        expect(page.locator(".gallery progress")).to_be_hidden()
        expect(page.locator(".gallery .state")).to_have_text("12 pictures")


def test_server_that_is_gone_is_said_in_one_line(model, shop, tmp_path, opened):
    with running(Served(model, tmp_path, shop).look()) as address:
        page = opened(address)
    line = "The server does not answer. Is it still running?"
    expect(page.get_by_role("alert")).to_contain_text(line, timeout=30_000)


def test_hundred_thousand_pictures_are_searched(model, tmp_path, opened):
    listed = own_pictures.of_list(made_up.write_list(tmp_path, 100_000))
    feats = made_up.write_index(tmp_path / "index0", listed, model)
    with running(Served(model, tmp_path, (tmp_path / "people.csv", lambda: listed)), watches=True) as address:
        page = opened(address)
        expect(page.locator(".gallery .state")).to_have_text("100,000 pictures", timeout=120_000)
        picture = person("red", size=(64, 128))
        choose(page, picture)
        expect(page.locator(".card")).to_have_count(24)
        expect(page.locator("#said")).to_contain_text("24 of 100,000 pictures")
        far = np.square(feats - model.features([Image.open(io.BytesIO(png(picture)))])).sum(axis=1)
        nearest = np.argsort(far, kind="stable")[:24]
        assert set(names(page)) == {listed.crops[row].name for row in nearest.tolist()}
        page.locator("#cameras").get_by_text("3", exact=True).click()
        expect(page.locator("#said")).to_contain_text("24 of 12,500 pictures")
        page.select_option("#top", "500")
        expect(page.locator(".card")).to_have_count(500)
