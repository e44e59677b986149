"""The pages as a browser shows them: the layer sheet and the report, by pointer and keys, wide and narrow.

scripts/browser.sh installs what this needs: Debian's Chromium, and the Nu HTML checker from npm.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from clips import make_clip
from helpers import save_frames

from deepdream.arguments import parse
from deepdream.options import DreamOptions, RenderOptions
from deepdream.show.report import write_report
from deepdream.show.sheet import Sheet, Tile, write_sheet
from deepdream.show.still import Still
from deepdream.show.survey import Survey

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHECKER = Path(sys.prefix, "vnu") / "node_modules/vnu-jar/build/dist/vnu.jar"
WIDTHS = (390, 1440)
EVIL = "\"'><script>document.title = 'owned'</script>&amp;<img src=x onerror=\"document.title='owned'\">\nline\u202e"
SHOWN = EVIL.replace("\n", r"\n").replace("\u202e", r"\u202e")


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: NOT TESTED in a browser")
    if not CHROMIUM:
        pytest.skip("no Chromium (scripts/browser.sh installs it): NOT TESTED in a browser")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(params=WIDTHS)
def open_page(browser, request):
    """A function that opens a page from disk, in dark colours where it is wide. It may ask for nothing else."""
    wide = request.param > 1000
    context = browser.new_context(
        viewport={"width": request.param, "height": 800},
        color_scheme="dark" if wide else "light",
        permissions=["clipboard-read", "clipboard-write"],
    )
    asked, complaints = [], []

    def open_page(path):
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield open_page
    context.close()
    assert {url for url in asked if not url.startswith("data:")} == {asked[0]} and asked[0].startswith("file:")
    assert complaints == []


def picture(seed, size=(54, 96)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


@pytest.fixture(scope="module")
def sheet(tmp_path_factory):
    """A sheet of three tiles and one that could not be dreamed, whose names are hostile."""
    path = tmp_path_factory.mktemp("sheet") / "sheet.html"
    still = Still(EVIL, picture(0), 3, 9)
    tiles = [
        Tile("conv1", "conv1", picture(1), step_size=1.5),
        Tile(EVIL, EVIL, picture(2), step_size=0.7),
        Tile("deep", "deep", note=f"{EVIL} is too deep"),
        Tile("last", "last", picture(3), step_size=2),
    ]
    arguments = parse(["-i", "my clip.mp4"])
    write_sheet(path, Sheet(still, picture(0), tiles, EVIL, arguments, RenderOptions(DreamOptions(dream_width=96))))
    return path


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The report of a render under way of two shots, with a video, whose names are hostile."""
    place = tmp_path_factory.mktemp("report")
    source, output = place / "<b>Input", place / "<i>Output\n"
    save_frames([picture(0)] * 3 + [255 - picture(0)] * 4, source, pattern=f"{{}}{EVIL.replace('/', '')}.png")
    save_frames([picture(1)] * 6, output, pattern="frame_{:06d}.png")
    settings = {"--input": str(source), "--image_type": "png", "--layers": [EVIL], EVIL: {EVIL: 1}, "--guide": None}
    (output / "render.json").write_text(json.dumps(settings))
    lines = [{"run": {EVIL: EVIL}}]
    lines += [{"frame": number, "sums": ["", ""], "target": EVIL, "seconds": 1 + number} for number in range(6)]
    (output / "frames.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    survey = Survey(output)
    survey.measure()
    return write_report(survey, make_clip(place / "Video.mp4", "-pix_fmt", "yuv420p", frames=12))


@pytest.fixture(params=["sheet", "report"])
def either(request):
    return request.getfixturevalue(request.param)


def test_nothing_overflows(open_page, either):
    page = open_page(either)
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    beyond = """[...document.querySelectorAll("body *")]
        .filter(element => !element.closest(".said, dialog, svg") && element.checkVisibility())
        .filter(element => element.getBoundingClientRect().right > innerWidth + 1).map(each => each.outerHTML)"""
    assert page.evaluate(beyond) == []


def test_pictures_keep_their_shape(open_page, either):
    page = open_page(either)
    shapes = """[...document.images].filter(image => image.checkVisibility())
        .map(image => [image.width / image.height, image.naturalWidth / image.naturalHeight])"""
    found = page.evaluate(shapes)
    assert len(found) == 4 and all(shown == pytest.approx(own, rel=0.03) for shown, own in found)


def test_names_are_text(open_page, either):
    page = open_page(either)
    page.wait_for_timeout(100)
    assert page.title() != "owned" and page.locator("img[src=x]").count() == 0
    assert SHOWN in page.locator("body").inner_text()


def test_it_is_accessible(open_page, either):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed: NOT TESTED")
    page = open_page(either)
    if either.name == "sheet.html":
        page.locator(".open").first.click()
    found = axe.Axe().run(page).response["violations"]
    serious = [each for each in found if each["impact"] in ("serious", "critical", "moderate")]
    assert serious == [], [(each["id"], [node["html"] for node in each["nodes"]]) for each in serious]


def test_it_is_valid(either):
    if not (CHECKER.exists() and shutil.which("java")):
        pytest.skip("no Nu HTML checker (scripts/browser.sh installs it): NOT TESTED for valid HTML")
    command = ["java", "-jar", CHECKER, "--format", "json", "--exit-zero-always", either]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    messages = json.loads(done.stderr)["messages"]
    assert [message["message"] for message in messages if message["type"] != "info"] == []


def clipboard(page):
    return page.evaluate("navigator.clipboard.readText()")


def test_a_tile_is_enlarged_and_the_arrows_go_on(open_page, sheet):
    page = open_page(sheet)
    dialog, name = page.locator("dialog"), page.locator("dialog h2")
    assert page.locator(".open").count() == 4 and page.locator(".none").count() == 1
    page.locator(".open").nth(1).click()
    assert dialog.is_visible() and name.inner_text() == "conv1"
    shown = page.locator("dialog img").get_attribute("src")
    page.keyboard.press("ArrowRight")
    assert name.inner_text() == SHOWN
    page.keyboard.press("ArrowLeft")
    assert name.inner_text() == "conv1" and page.locator("dialog img").get_attribute("src") == shown
    page.keyboard.press("s")
    assert page.locator("dialog img").get_attribute("src") == page.locator(".open img").first.get_attribute("src")
    page.keyboard.press("s")
    assert page.locator("dialog img").get_attribute("src") == shown
    page.keyboard.press("ArrowLeft")
    assert name.inner_text() == "source" and page.locator("dialog .command").is_hidden()
    page.keyboard.press("ArrowLeft")
    assert name.inner_text() == "last"  # round to the end
    page.keyboard.press("Escape")
    assert dialog.is_hidden()
    page.wait_for_function("document.activeElement.ariaLabel == 'Enlarge last'")  # browsers tell of the end later
    page.keyboard.press("Enter")
    assert dialog.is_visible() and name.inner_text() == "last"
    page.locator("dialog .next").click()
    assert name.inner_text() == "source"
    page.locator("dialog .close").click()
    assert dialog.is_hidden()


def test_the_command_of_a_tile_copies(open_page, sheet):
    page = open_page(sheet)
    page.locator(".open").nth(1).click()
    page.locator("dialog .copy").click()
    wanted = "dreamer.py --input 'my clip.mp4' --layers conv1 --dreamwidth 96 --output Video.mp4"
    assert clipboard(page) == wanted
    assert page.locator("dialog .copy").inner_text() == "Copied"


def test_without_a_clipboard_the_command_copies_the_old_way(open_page, sheet):
    """As on pages of a plain file server."""
    page = open_page(sheet)
    page.evaluate("navigator.clipboard.writeText('before')")
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(); }")
    page.locator(".open").nth(3).click()
    page.locator("dialog .copy").click()
    assert clipboard(page).startswith("dreamer.py --input 'my clip.mp4' --layers last --stepsize 2")


def test_the_border_between_source_and_dream_moves(open_page, report):
    page = open_page(report)
    assert page.locator(".pair").count() == 2
    cut = "getComputedStyle(document.querySelector('.dream')).clipPath"
    before = page.evaluate(cut)
    slider = page.locator(".pair input").first
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate(cut) == before.replace("50%", "51%") != before
    box = slider.bounding_box()
    page.mouse.click(box["x"] + 0.25 * box["width"], box["y"] + box["height"] / 2)
    share = float(re.search(r"([\d.]+)%\)$", page.evaluate(cut))[1])
    assert 20 <= share <= 30
    page.reload()
    assert page.evaluate(cut) == f"inset(0px 0px 0px {page.locator('.pair input').first.input_value()}%)"


def test_the_video_plays(open_page, report):
    page = open_page(report)
    page.evaluate("document.querySelector('video').muted = true")
    page.evaluate("document.querySelector('video').play()")
    plays = """new Promise(resolve => document.querySelector("video").addEventListener("timeupdate",
        event => event.target.currentTime > 0.1 && resolve(true)))"""
    assert page.evaluate(plays)
    assert page.evaluate("document.querySelector('video').videoWidth") == 64


def test_the_charts_are_read_frame_by_frame(open_page, report):
    page = open_page(report)
    reading = page.locator("#reading")
    assert reading.inner_text().startswith("frame 0")
    page.locator("#frame").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert reading.inner_text().startswith("frame 3") and "a shot starts" in reading.inner_text()
    assert page.locator(".cursor").first.get_attribute("x1") == "500.0"
    box = page.locator(".plot svg").first.bounding_box()
    page.locator(".plot svg").first.scroll_into_view_if_needed()
    box = page.locator(".plot svg").first.bounding_box()
    page.mouse.move(box["x"] + 0.34 * box["width"], box["y"] + 20)
    assert reading.inner_text().startswith("frame 2")


def test_a_render_under_way_is_looked_at_again(open_page, report):
    page = open_page(report)
    assert "6 of 7 frames are dreamed, the rest takes about 0:00:04" in page.locator(".state").inner_text()
    with page.expect_navigation():
        page.locator(".reload").click()


def test_paper_shows_source_and_dream_whole(open_page, report):
    page = open_page(report)
    page.emulate_media(media="print")
    source, dream = (page.locator(f".pair img:nth-of-type({number})").first.bounding_box() for number in (1, 2))
    assert source["x"] + source["width"] <= dream["x"] and source["y"] == dream["y"]
    assert page.evaluate("getComputedStyle(document.querySelector('.dream')).clipPath") == "none"
    assert page.locator("button:visible").count() == 0
