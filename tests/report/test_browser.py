"""The page as a person sees it: in Chromium, on a phone and on a desk, in light and in dark, and on paper."""

import made
import pytest
from browser import chromium

from aar_dist.report.page import write_page

SIZES = {"phone": (390, 844), "desk": (1280, 900)}
SMALLEST_PX = 14
LONG = "store://quickstart-behaviour.scratch.seed578.fold1@1"

# Elements that show text of their own, in pixels as computed.
FONTS = """Math.min(...[...document.querySelectorAll('body *')]
    .filter(e => [...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim()) && e.getClientRects().length)
    .map(e => parseFloat(getComputedStyle(e).fontSize)))"""
PAINTED = """[...document.querySelectorAll('svg')].filter(e => e.getClientRects().length)
    .filter(e => { const b = e.getBoundingClientRect(); return !(b.width > 8 && b.height > 8); }).length"""
UNNAMED = """[...document.querySelectorAll('svg, img')]
    .filter(e => !(e.ariaLabel || e.alt || e.closest('[aria-hidden]'))).length"""
# The widest of the first columns, which stay where they are when a table is pushed sideways.
STICKY = """Math.max(...[...document.querySelectorAll('.wide tbody th')]
    .filter(e => getComputedStyle(e).position == 'sticky').map(e => e.getBoundingClientRect().width))"""
# Of the text that is shown, what contrasts least with the background it stands on (WCAG's ratio).
CONTRAST = """(() => {
  const numbers = c => (c.startsWith('color(') ? c.match(/[\\d.]+/g).map((v, i) => i < 3 ? v * 255 : +v)
                                               : c.match(/[\\d.]+/g).map(Number));
  const linear = v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = c => { const [r, g, b] = c.map(v => linear(v / 255));
                       return .2126 * r + .7152 * g + .0722 * b; };
  const under = e => { if (!e) return [255, 255, 255];
                       const [r, g, b, a = 1] = numbers(getComputedStyle(e).backgroundColor);
                       if (a == 1) return [r, g, b];
                       return under(e.parentElement).map((v, i) => v * (1 - a) + [r, g, b][i] * a); };
  let least = [99, ''];
  for (const e of document.querySelectorAll('body *')) {
    if (e.closest('svg') || !e.getClientRects().length) continue;
    if (![...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim())) continue;
    const [a, b] = [light(numbers(getComputedStyle(e).color).slice(0, 3)), light(under(e))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < least[0]) least = [ratio, e.outerHTML.slice(0, 120)];
  }
  return least; })()"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as window:
        yield window


@pytest.fixture(scope="module")
def html(folds, pretraining, tmp_path_factory):
    """A pretraining, folds with many classes of long names, folds of a target: everything the page can draw."""
    root = tmp_path_factory.mktemp("page")
    classes = ["Grazing with the head down in high grass", *(f"behaviour {k}" for k in range(8))]
    many = made.make_folds(root / "many", classes=classes, n_subjects=14, name=LONG, simulated=False)
    target, tuned = made.make_regression(root / "target"), made.make_finetuning(root / "tuned")
    return write_page([folds, pretraining, many, target, tuned], root / "page.html")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_reads_well(browser, html, size, dark):
    width, height = SIZES[size]
    requests = browser.open(html, width=width, height=height, dark=dark)
    browser.run("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert [r for r in requests if not r.startswith("data:")] == [html.resolve().as_uri()]
    assert browser.complaints() == []
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("innerWidth") == width
    assert browser.run(FONTS) >= SMALLEST_PX
    assert browser.run(STICKY) < width / 2, "there is room for what stands beside it"
    assert browser.run("[...document.images].filter(i => !(i.naturalWidth > 0)).length") == 0
    assert browser.run("document.images.length") == 1
    assert browser.run("document.querySelectorAll('svg').length") > 100
    assert browser.run(PAINTED) == 0
    ratio, where = browser.run(CONTRAST)
    assert ratio >= 4.5, where


def test_more_subjects_than_colours_have_a_map_each(browser, html):
    browser.open(html, width=390, height=844)
    names = browser.run("[...document.querySelectorAll('.small-maps figcaption')].map(e => e.innerText)")
    assert names == [f"herd/{k}" for k in range(14)], "in their natural order"
    boxes = browser.run("[...document.querySelectorAll('.small-maps svg')].map(e => e.getBoundingClientRect().width)")
    assert min(boxes) > 100
    grey = "[...document.querySelectorAll('.small-maps use')].map(e => e.getBBox().width)"
    assert min(browser.run(grey)) > 50, "all windows are drawn behind each"
    assert browser.run("document.querySelectorAll('.small-maps path.rest').length") == 1


def test_a_switch_colours_the_map(browser, html):
    browser.open(html, width=390, height=844)
    strokes = "new Set([...document.querySelectorAll('#r1 .map path.point')].map(e => getComputedStyle(e).stroke)).size"
    legends = "[...document.querySelectorAll('#r1 .map > div[class^=of-]')].map(e => getComputedStyle(e).display)"
    assert (browser.run(strokes), browser.run(legends)) == (4, ["block", "none"]), "a colour for each class"
    browser.run("document.querySelector('#r1-map-subject').click()")
    assert (browser.run(strokes), browser.run(legends)) == (6, ["none", "block"]), "a colour for each subject"


def test_a_picture_is_not_pushed_sideways_on_a_phone(browser, html):
    browser.open(html, width=390, height=844)
    shown, whole = browser.run("(e => [e.clientWidth, e.scrollWidth])(document.querySelector('.photo'))")
    assert shown == whole
    assert browser.run("document.images[0].getBoundingClientRect().width") <= shown
    assert browser.run("document.images[0].naturalWidth / document.images[0].naturalHeight") < 1.2


def test_its_parts_are_there(browser, html):
    browser.open(html, width=390, height=844)
    headings = browser.run("[...document.querySelectorAll('h1, h2, h3')].map(e => e.innerText)")
    for heading in (
        "herd", "Methods compared", "By subject", "By class", "Data and balance", "Loss curves", "Embedding map",
        "Held-out animals in time", "Reconstructions", "Leak audit", "What reproduces it",
    ):  # fmt: skip
        assert heading in headings
    banner = browser.run("document.querySelector('.banner.simulated').getBoundingClientRect().toJSON()")
    assert banner["height"] > 20
    assert 0 <= banner["top"] < 844  # on the first screen of a phone
    assert "Simulated data" in browser.run("document.querySelector('.banner.simulated').innerText")
    assert browser.run(UNNAMED) == 0


def test_dark_is_dark_and_paper_is_white(browser, html):
    def background() -> str:
        return browser.run("getComputedStyle(document.body).backgroundColor")

    browser.open(html, width=1280, height=900)
    assert background() == "rgb(255, 255, 255)"
    browser.open(html, width=1280, height=900, dark=True)
    assert background() == "rgb(18, 22, 27)"
    browser.open(html, width=1280, height=900, dark=True, medium="print")
    assert background() == "rgb(255, 255, 255)"
    assert browser.run("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"


def test_what_is_wrong_is_noticed(browser, tmp_path):
    """The checks above can fail."""
    page = tmp_path / "page.html"
    page.write_text(
        "<body style='margin:0'><p style='font-size:9px; color:#ccc; width:500px'>x</p>"
        "<img src='missing.png'><script>console.error('no')</script>"
    )
    requests = browser.open(page, width=390, height=844)
    assert any(r.endswith("missing.png") for r in requests)
    assert len(browser.complaints()) >= 2
    assert browser.run("document.documentElement.scrollWidth") >= 500
    assert browser.run(FONTS) == 9
    assert browser.run(CONTRAST)[0] < 2


def test_without_chromium_it_says_what_to_do(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(AssertionError, match=r"launch/packages\.sh"), chromium():
        pass
