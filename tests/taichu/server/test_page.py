"""The page in a real browser: files of every modality go in, and what is made is shown."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
import skimage
import sklearn
import trimesh

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install chromium")

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--use-angle=swiftshader",  # WebGL without a GPU
    "--enable-unsafe-swiftshader",
]
MADE_OF = {
    "text": "image",
    "image": "audio",
    "audio": "video",
    "video": "shape3d",
    "shape3d": "text",
}
WORDS = {"en-GB": ("No answer", "stopped"), "zh-CN": ("没有得到回答", "已停止")}
API = "**/v1/chat/completions"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, served):
    """Opens the page. In the end nothing was asked of another host, and nothing went wrong in it
    but what the server had refused."""
    addresses, problems, contexts = [], [], []

    def note(message):
        if message.type == "error" and "/v1/" not in message.location["url"]:
            problems.append(message.text)

    def visit(locale="en-GB", width=1280, **settings):
        size = {"width": width, "height": 800}
        contexts.append(
            browser.new_context(locale=locale, viewport=size, reduced_motion="reduce", **settings)
        )
        page = contexts[-1].new_page()
        page.set_default_timeout(30_000)
        page.on("request", lambda request: addresses.append(request.url))
        page.on("console", note)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(served)
        page.wait_for_selector(".toggle")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert addresses
    assert [a for a in addresses if not a.startswith((f"{served}/", "data:", "blob:"))] == []
    assert problems == []


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """Real files: a photograph, a recording, a clip; and a solid."""
    solid = tmp_path_factory.mktemp("files") / "cone.glb"
    trimesh.creation.cone(1, 2).export(solid)
    return {
        "image": Path(sklearn.__file__).parent / "datasets" / "images" / "flower.jpg",
        "audio": Path(scipy.io.__file__).parent
        / "tests"
        / "data"
        / "test-44100Hz-le-1ch-4bytes.wav",
        "video": Path(skimage.__file__).parent / "data" / "no_time_for_that_tiny.gif",
        "shape3d": solid,
    }


def choose(page, *names):
    """Press the toggles so that these are made, in this order."""
    for toggle in page.locator(".toggle[aria-pressed=true]").all():
        toggle.click()
    for name in names:
        page.click(f".toggle[name={name}]")


def send(page):
    """Ask what was put together, and wait for the whole answer: its element."""
    number = page.locator(".entry").count() + 1
    page.click("#send")
    page.wait_for_selector(f".entry:nth-child({number}):not([aria-busy])")
    return page.locator(".entry").last


def until(page, true):
    """Wait for a condition, asked again and again: the page's own policy lets no string be run."""
    for _ in range(200):
        if true():
            return
        page.wait_for_timeout(50)
    pytest.fail("it has not come true")


def pixels(element) -> np.ndarray:
    """A picture (H, W, 3) of an element as it is seen."""
    element.scroll_into_view_if_needed()
    encoded = np.frombuffer(element.screenshot(), np.uint8)
    return cv2.imdecode(encoded, cv2.IMREAD_COLOR).astype(int)


def share_changed(one: np.ndarray, other: np.ndarray) -> float:
    return float((np.abs(one - other).max(-1) > 8).mean())


def check_shown(page, entry, modality: str):
    """The one thing that was made is really to be seen or heard."""
    assert entry.locator(".error").count() == 0
    if modality == "text":
        assert entry.locator(".answer .text").inner_text().strip()
        return
    figure = entry.locator(f"figure[data-modality={modality}]")
    assert figure.count() == 1 == entry.locator("figure").count()
    assert figure.locator("a[download]").get_attribute("download").startswith(modality)
    shown = figure.locator(".shown")
    if modality == "image":
        until(page, lambda: shown.evaluate("e => e.naturalWidth") == 16)
        assert shown.evaluate("e => getComputedStyle(e).imageRendering") == "pixelated"
        assert shown.bounding_box()["width"] > 150
    elif modality == "shape3d":
        check_turns(page, figure.locator("iframe"))
    else:
        shown.evaluate("e => { e.muted = true; e.play(); }")
        until(page, lambda: shown.evaluate("e => e.duration > 0 && e.currentTime > 0"))
        assert modality == "audio" or shown.evaluate("e => e.videoWidth") > 0


def check_turns(page, frame):
    """A solid is drawn, and turns by the mouse and by the keyboard."""
    frame.scroll_into_view_if_needed()
    until(page, lambda: frame.get_attribute("data-shown") is not None)
    before = pixels(frame)
    ground = before[len(before) // 2, 2]
    assert 0.05 < share_changed(before, ground) < 0.9
    box = frame.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 50, y + 35, steps=4)
    page.mouse.up()
    wait_for_change(page, frame, before)
    for key in ("ArrowLeft", "ArrowUp"):  # the first also frames what has the focus
        before = pixels(frame)
        page.keyboard.press(key)
        wait_for_change(page, frame, before)


def wait_for_change(page, frame, before: np.ndarray):
    until(page, lambda: share_changed(before, pixels(frame)) > 0.02)


@pytest.mark.parametrize(("locale", "width"), [("en-GB", 1280), ("zh-CN", 360)])
def test_every_modality_goes_in_and_comes_out(visit, files, locale, width):
    page = visit(locale, width)
    page.click("summary")
    page.fill("#seed", "3")
    page.click("summary")
    for given, made in MADE_OF.items():
        if given == "text":
            page.fill("#words", "a red seven 左上角的红色七")
        else:
            page.set_input_files("#files", files[given])
            assert page.locator("#attached li").get_attribute("data-modality") == given
        choose(page, made)
        entry = send(page)
        assert entry.locator(".given > *").count() == 1
        check_shown(page, entry, made)
        assert page.locator("#attached li").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("html").get_attribute("lang") == locale.replace("en-GB", "en")


def test_several_are_made_in_the_order_chosen(visit):
    page = visit(color_scheme="dark")
    choose(page, "shape3d", "text", "audio", "image")
    assert page.locator(".toggle b").all_inner_texts() == ["2", "4", "3", "", "1"]
    made = "es => es.map(e => e.dataset.modality ?? 'text')"
    entry = send(page)
    assert entry.locator(".answer > *").evaluate_all(made) == ["shape3d", "text", "audio", "image"]
    # the best of two is known at the end, and comes whole
    page.click("summary")
    page.fill("#candidates", "2")
    page.click("summary")
    entry = send(page)
    assert entry.locator(".answer > *").evaluate_all(made) == ["shape3d", "text", "audio", "image"]


@pytest.mark.parametrize("locale", list(WORDS))
def test_what_the_server_refuses_is_told_beside_the_question(visit, locale):
    page = visit(locale)
    damaged = {"name": "photo.png", "mimeType": "image/png", "buffer": b"no picture"}
    page.set_input_files("#files", damaged)
    page.wait_for_selector("#attached .name")  # it cannot be shown either
    choose(page, "text")
    error = send(page).locator("[role=alert]")
    assert WORDS[locale][0] in error.inner_text()
    assert "image" in error.inner_text()
    page.fill("#words", "seven")
    assert send(page).locator("[role=alert]").count() == 0  # it goes on


def test_files_are_dropped_pasted_replaced_and_removed(visit, files):
    page = visit()
    hand_over = """([kind, event, name, type]) => {
        const data = new DataTransfer();
        data.items.add(new File(["some bytes"], name, { type }));
        const options = { bubbles: true, cancelable: true };
        document.body.dispatchEvent(kind === "drag"
            ? new DragEvent(event, { ...options, dataTransfer: data })
            : new ClipboardEvent(event, { ...options, clipboardData: data }));
    }"""
    attached = page.locator("#attached li")
    page.evaluate(hand_over, ["drag", "dragenter", "one.obj", ""])
    assert page.locator("#drop").is_visible()
    page.evaluate(hand_over, ["drag", "drop", "one.obj", ""])
    assert not page.locator("#drop").is_visible()
    assert "one.obj, 0.0 KB" in attached.inner_text()
    page.evaluate(hand_over, ["paste", "paste", "TWO.STL", ""])
    assert attached.count() == 1 and "TWO.STL" in attached.inner_text()
    assert "one.obj" in page.inner_text("#notice")
    page.evaluate(hand_over, ["drag", "drop", "notes.docx", ""])
    assert attached.count() == 1 and "notes.docx" in page.inner_text("#notice")
    page.set_input_files("#files", [files["audio"], files["shape3d"]])
    assert attached.count() == 2
    check_turns(page, page.locator("#attached iframe"))
    page.get_by_label("Remove cone.glb").click()
    assert attached.count() == 1


def test_keys_and_language(visit):
    page = visit()
    choose(page, "text")
    page.fill("#words", "七")
    composing = "new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true})"
    page.locator("#words").evaluate(f"e => e.dispatchEvent({composing})")
    page.locator("#words").press("Shift+Enter")
    page.locator("#words").press_sequentially("next")
    lines = "e => [e.scrollHeight <= e.clientHeight, e.clientHeight > 60]"
    assert page.locator("#words").evaluate(lines) == [True, True]  # both are seen
    assert page.locator(".entry").count() == 0
    page.locator("#words").press("Enter")
    assert page.locator(".question .text").inner_text() == "七\nnext"
    page.wait_for_selector(".foot:has-text('seed')")
    page.click("#language")
    assert "种子" in page.inner_text(".foot")
    page.reload()
    page.wait_for_selector("h2:has-text('想生成什么')")
    assert not re.search("[a-z]{4}", page.inner_text("#composer"))


def stream(*deltas) -> str:
    """What a server sends, not ended."""
    chunks = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)


def test_nothing_a_server_sends_becomes_html(visit):
    page = visit()
    html = "<img src=x onerror=alert(1)><b>bold</b>"
    svg = {"type": "image_url", "image_url": {"url": "data:image/svg+xml;base64,PHN2Zy8+"}}
    away = {"type": "image_url", "image_url": {"url": "http://example.org/a.png"}}
    empty = {"type": "shape3d_url", "shape3d_url": None, "error": {"message": html}}
    body = stream({"content": html[:9]}, {"content": html[9:]}, {"parts": [svg, away, empty]})
    page.route(API, lambda route: route.fulfill(content_type="text/event-stream", body=body))
    answer = send(page).locator(".answer")
    assert answer.locator(".text").inner_text() == html
    assert answer.locator("img, b").count() == 0
    errors = answer.locator("[role=alert]").all_inner_texts()
    assert "unknown kind" in errors[0] and "unknown kind" in errors[1]
    assert errors[2].startswith("3D") and html in errors[2]
    assert len(errors) == 4 and "broke off" in errors[3]


def test_errors_in_an_answer_and_stop(visit):
    page = visit("zh-CN")
    failed = 'data: {"error": {"message": "the model fell over", "type": "server_error"}}\n\n'
    body = stream({"content": "a red"}) + failed
    page.route(API, lambda route: route.fulfill(content_type="text/event-stream", body=body))
    entry = send(page)
    assert entry.locator(".answer .text").inner_text() == "a red"
    assert "the model fell over" in entry.locator("[role=alert]").inner_text()
    page.unroute(API)
    page.route(API, lambda route: None)  # never answered
    page.locator("#send").press("Enter")
    page.wait_for_selector("#stop:focus").press("Enter")
    page.wait_for_selector(f".foot:has-text('{WORDS['zh-CN'][1]}')")
    assert page.locator(".entry").last.locator("[role=alert]").count() == 0
    assert page.locator("#send").is_visible()


def test_a_key_is_asked_for_and_kept_in_the_tab_only(visit):
    page = visit()
    keys = []

    def guard(route):
        keys.append(route.request.headers.get("authorization"))
        if keys[-1] == "Bearer secret":
            route.continue_()
        else:
            route.fulfill(status=401, json={"error": {"message": "give the API key"}})

    page.route("**/v1/*", guard)
    page.reload()
    page.fill("#key-field", "secret")
    page.press("#key-field", "Enter")
    page.wait_for_selector(".toggle")
    assert not page.locator("#key").is_visible()
    assert keys == [None, "Bearer secret"]
    assert page.evaluate("[sessionStorage.length, Object.keys(localStorage).length]") == [1, 0]
