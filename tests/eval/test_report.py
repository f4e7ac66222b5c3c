"""The report in a real browser: filters filter, keys move, nothing in an article runs, every text can be read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from chromium import open_chromium

from data.schema import TASKS, Document, Mention, Relation
from eval.report.articles import embed_json, title_of, utf16_offsets
from eval.report.page import describe_provenance, embed_report, render_markdown, write_report
from eval.scoring.confidence import TaskItems, score_confidence
from eval.scoring.faults import find_faults
from eval.scoring.metrics import score_split
from eval.scoring.parse import Answer
from eval.scoring.score import match_answers, score_answers

EVIL = "</script><script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\"> {{data}} <!-- "
ELSEWHERE = Path(__file__)
GOLD_C, GOLD_D = ("Lithium", "zinc salt"), ("tremor", "acute renal failure")
TEXT = "\U0001f9ea Lithium gave tremor; zinc salt, and iron, acute renal failure. "


def article(number: int, text: str = TEXT, ids: bool = True) -> Document:
    mentions = [Mention(n, "Chemical", ids=(f"C{n}",) if ids else ()) for n in GOLD_C]
    mentions += [Mention(n, "Disease", ids=(f"D{n}",) if ids else ()) for n in GOLD_D]
    concepts = ("CLithium", "Dtremor") if ids else (None, None)
    return Document(f"a{number}", text, f"Title {number}", tuple(mentions), (Relation("Lithium", "tremor", *concepts),))


def answer(document: Document, number: int) -> dict:
    """Every third article: all right; a wrong name; a malformed answer for diseases."""
    answers = {(document.id, task): Answer(document.gold(task), "ok") for task in TASKS}
    if number % 3 == 1:
        answers[document.id, "chemicals"] = Answer(("lithium", "iron", EVIL), "ok")
        answers[document.id, "relations"] = Answer((("iron", "tremor"),), "ok")
    if number % 3 == 2:
        answers[document.id, "diseases"] = Answer((), "malformed")
    return answers


def evaluate(documents, **extra):
    predictions = {key: own for i, d in enumerate(documents) for key, own in answer(d, i).items()}
    scored = match_answers(documents, predictions)
    faults = find_faults(scored)
    sure = {key: tuple(0.9 if i == 0 else 0.4 for i, _ in enumerate(own.items)) for key, own in predictions.items()}
    metrics = score_split(documents[:2], scored, faults) | extra
    return {"scored": scored, "faults": faults, "metrics": metrics, "confidences": sure}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Nine articles, one of which holds markup; all sections there."""
    documents = [article(i, TEXT + (EVIL if i == 4 else "")) for i in range(9)]
    items = TaskItems(*map(np.array, ([-0.1, -0.2, -2.0, -3.0], [True, True, True, False])), 4)
    baselines = {
        "dictionary": {task: {"f1": 0.3} for task in TASKS},
        "cooccurrence": {"relations": {"f1": 0.2}},
        "base_model": None,
    }
    confidence = score_confidence({"chemicals": items}, {"chemicals": items})
    evaluated = evaluate(documents, baselines=baselines, confidence=confidence)
    path = tmp_path_factory.mktemp("report") / "report.html"
    notes = ["model <b>tiny</b>"]
    return write_report(path, **evaluated, title=f"Run {EVIL}", notes=notes)


@pytest.fixture(scope="module")
def browser():
    with open_chromium() as page:
        yield page


@pytest.fixture
def page(browser, report):
    """The report as it opens; loaded anew only where a test has left it."""
    if browser.run("location.href") != report.as_uri():
        browser.said.clear()
        browser.asked.clear()
        browser.open(report)
    browser.run("document.getElementById('filters').reset(); applyFilters(); show(0); scrollTo(0, 0)")
    return browser


def found(page) -> str:
    return page.run("document.getElementById('found').textContent")


def states(page) -> list[str]:
    return page.run("[...document.querySelectorAll('#items tbody .state')].map(cell => cell.className)")


def test_the_page_says_nothing_and_asks_for_nothing(page, report):
    assert page.said == []
    assert page.asked == [report.as_uri()]
    assert found(page) == "9 of 9 articles, 54 items"


def test_markup_in_articles_answers_and_title_stays_text(page):
    assert page.run("document.title").startswith("Run </script>")
    page.type("#search", "onerror")
    assert found(page).startswith("3 of 9 articles")
    for number in range(3):
        page.run(f"document.querySelectorAll('#list > div')[{number}].click()")
        assert "onerror" in page.run("document.getElementById('article').innerText")
    assert page.run("document.querySelectorAll('img').length") == 0
    assert page.run("document.querySelectorAll('script').length") == 2
    assert page.run("document.querySelectorAll('.notes b').length") == 0
    page.run("new Promise(done => setTimeout(done, 100))")
    assert page.run("document.title").startswith("Run </script>")
    assert page.said == []


def test_the_policy_stops_a_script_that_got_in(page):
    said = len(page.said)
    page.run("document.body.appendChild(Object.assign(document.createElement('script'), {textContent: 'document.title = 1'}))")
    page.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title = 1\">')")
    page.run("new Promise(done => setTimeout(done, 200))")
    assert page.run("document.title") != "1"
    assert any("Content Security Policy" in words for words in page.said[said:])
    page.open(ELSEWHERE)  # the next test gets a page that nobody has touched


@pytest.mark.parametrize(
    ("task", "fault", "articles", "shown"),
    [
        ("", "wrong", 6, {"state fp", "state fn"}),
        ("", "tp", 9, {"state tp"}),
        ("chemicals", "fp", 3, {"state fp"}),
        ("diseases", "fp", 0, set()),
        ("diseases", "fault:unreadable", 3, {"state fn"}),
        ("", "status:malformed", 3, {"state tp", "state fn"}),
        ("relations", "fault:wrong_chemical", 3, {"state fp", "state fn"}),
        ("chemicals", "fault:not_in_text", 2, {"state fp"}),
    ],
)
def test_filters(page, task, fault, articles, shown):
    page.choose("#task", task)
    page.choose("#fault", fault)
    assert found(page).startswith(f"{articles} of 9 articles")
    assert page.run("document.querySelectorAll('#list > div').length") == articles
    assert set(states(page)) == shown
    page.click("button[type=reset]")
    page.run("new Promise(done => setTimeout(done, 50))")
    assert found(page).startswith("9 of 9")


def test_filter_by_confidence(page):
    page.choose("#task", "chemicals")
    page.type("#from", "0.5")
    assert found(page) == "9 of 9 articles, 9 items"
    page.type("#to", "0.8")
    assert found(page) == "0 of 9 articles, 0 items"
    page.type("#from", "0.3")
    assert found(page) == "9 of 9 articles, 12 items"
    assert "state fn" not in states(page)


def test_places_are_marked_and_told_apart_without_colour(page):
    page.run("document.querySelectorAll('#list > div')[1].click()")
    marks = page.run("[...document.querySelectorAll('#text mark')].map(m => [m.className, m.textContent])")
    assert ["tp", "✓CLithium"] in marks  # after a character of two UTF-16 units
    assert ["fp", "✗Ciron"] in marks
    assert ["fn", "○Czinc salt"] in marks
    style = (
        "(k => { const s = getComputedStyle(document.querySelector('#text mark.' + k)); return s.textDecorationLine + ' ' + "
    )
    style += "s.textDecorationStyle + ' ' + s.outlineStyle })"
    assert len({page.run(f"{style}({kind!r})") for kind in ("tp", "fp", "fn")}) == 3
    page.choose("#task", "relations")
    assert ["fp", "✗Ciron"] in page.run("[...document.querySelectorAll('#text mark')].map(m => [m.className, m.textContent])")


def test_an_item_points_at_its_place(page):
    page.click("#items tbody button")
    assert page.run("[...document.querySelectorAll('mark.shown')].map(m => m.textContent)") == ["✓CLithium"]


def test_mouse_and_keys_move(page):
    def name():
        return page.run("document.getElementById('name').textContent")

    assert name() == "Title 0"
    assert page.run("document.getElementById('id').textContent") == "a0"
    page.click("#next")
    assert name() == "Title 1"
    page.click("#list > div:nth-child(3)")
    assert name() == "Title 2"
    page.run("document.getElementById('list').focus()")
    for key, expected in (("ArrowDown", 3), ("ArrowUp", 2), ("End", 8), ("ArrowDown", 8), ("Home", 0)):
        page.press(key)
        assert name() == f"Title {expected}"
    assert page.run("document.querySelectorAll('[aria-selected=true]').length") == 1


def test_every_control_is_reached_by_tab(page):
    page.run("document.getElementById('search').focus()")
    reached = []
    for _ in range(8):
        page.press("Tab")
        reached.append(page.run("document.activeElement.id || document.activeElement.type"))
    assert reached[:6] == ["task", "fault", "from", "to", "reset", "list"]
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"


CONTRAST = """(() => {
  const parse = (c) => { const n = c.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n };
  const light = (c) => {
    const [r, g, b] = c.slice(0, 3).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b };
  const ground = (e) => {
    for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] === 1) return c }
    return [255, 255, 255, 1] };
  let worst = [99, ''];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    const e = node.parentElement;
    if (!node.textContent.trim() || !e.getClientRects().length || e.closest('script')) continue;
    const s = getComputedStyle(e);
    const [a, b] = [light(parse(e.namespaceURI.includes('svg') ? s.fill : s.color)), light(ground(e))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < worst[0]) worst = [ratio, node.textContent];
  }
  return worst })()"""  # WCAG 2.2, contrast ratio


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_contrast(page, scheme):
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    page.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.run("document.querySelectorAll('#list > div')[1].click()")
    ratio, words = page.run(CONTRAST)
    ground = page.run("getComputedStyle(document.body).backgroundColor")
    page.call("Emulation.setEmulatedMedia", features=[])
    assert ratio >= 4.5, words
    assert (ground == "rgb(251, 251, 249)") == (scheme == "light")


def test_no_sideways_scrolling_on_a_phone(page):
    page.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
    wide = page.run("document.documentElement.scrollWidth")
    page.call("Emulation.clearDeviceMetricsOverride")
    assert wide <= 390


@pytest.mark.slow
def test_500_articles(browser, tmp_path):
    documents = [article(i, TEXT + f"Word{i} " + "more words to read " * 80) for i in range(500)]
    browser.open(write_report(tmp_path / "r.html", **evaluate(documents)))
    assert found(browser).startswith("500 of 500")
    took = browser.run("(() => { const t = performance.now(); applyFilters(); return performance.now() - t })()")
    browser.type("#search", "word499 ")
    assert found(browser).startswith("1 of 500")
    assert took < 3000


def test_metrics_alone_make_a_report(tmp_path, browser):
    documents = [article(0, ids=False)]
    scored = match_answers(documents, answer(documents[0], 0))
    browser.said.clear()
    browser.open(write_report(tmp_path / "r.html", scored=scored, faults=[], metrics=score_answers(scored)))
    assert browser.run("[...document.querySelectorAll('h2')].map(h => h.textContent)") == ["Scores", "Faults", "Articles"]
    assert browser.run("document.getElementById('confidence-range').hidden")
    assert browser.said == []


def test_markdown_tells_the_same_and_holds_no_markup():
    documents = [article(i) for i in range(6)]
    metrics = evaluate(documents)["metrics"]
    written = render_markdown(metrics)
    figures = metrics["tasks"]["diseases"]
    assert f"| diseases | {100 * figures['f1']:.1f} (" in written
    assert "alias-aware" in written and "none:" not in written
    assert "<script>" not in written and "\\<script\\>" in written
    rows = [line for line in written.splitlines() if line.startswith("|")]
    assert all(re.sub(r"\\.", "", row).count("|") >= 3 for row in rows)
    assert render_markdown(metrics, ["scores"]).count("###") == 2


def test_charts_keep_their_text_readable_on_a_phone(page):
    page.call("Emulation.setDeviceMetricsOverride", width=400, height=800, deviceScaleFactor=1, mobile=True)
    small = page.run(
        "Math.min(...[...document.querySelectorAll('figure text, figure span, figure li')].map(e => "
        "parseFloat(getComputedStyle(e).fontSize) * (e.getScreenCTM ? e.getScreenCTM().a : 1)).filter(size => size))"
    )
    dots = page.run("[...document.querySelectorAll('.forest .dot')].map(e => e.getBoundingClientRect().width)")
    page.call("Emulation.clearDeviceMetricsOverride")
    assert small >= 11
    assert len(dots) == 5 and min(dots) >= 10


def test_articles_are_listed_by_title_or_first_line(page):
    listed = page.run("[...document.querySelectorAll('#list strong')].map(e => e.textContent)")
    assert listed == [f"Title {number}" for number in range(9)]
    assert title_of(Document("4f", "Effects of zinc\nZinc is a metal.")) == "Effects of zinc"
    assert title_of(Document("4f", "word " * 50)) == "word " * 24 + "…"


def test_a_report_inside_another_page_keeps_its_style_to_itself(browser, report, tmp_path):
    before = "<!doctype html><body style='background: rgb(1, 2, 3)'><p id='own'>A notebook.</p>"
    (tmp_path / "notebook.html").write_text(before + embed_report(report.read_text(encoding="utf-8")), encoding="utf-8")
    browser.said.clear()
    browser.open(tmp_path / "notebook.html")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(1, 2, 3)"
    assert browser.run("document.querySelectorAll('iframe').length") == 1
    assert browser.run("document.querySelectorAll('.cards, #articles, h2').length") == 0
    browser.run("new Promise(done => setTimeout(done, 300))")
    assert browser.said == []


def test_the_head_says_what_produced_the_answers(tmp_path):
    path = tmp_path / "provenance.json"
    assert describe_provenance(path) == []
    found = {"engine": "llama.cpp", "model": "x.gguf", "sha256": "ab" * 32, "grounded": True, "logprobs": True}
    path.write_text(json.dumps(found), encoding="utf-8")
    lines = ["answered through llama.cpp", "model x.gguf", "weights sha256 abababababab", "grounded"]
    assert describe_provenance(path) == lines


def test_a_folder_of_weights_is_named_with_the_hash_of_each_file(tmp_path):
    path = tmp_path / "provenance.json"
    found = {"base_sha256": {"model.safetensors": "ab" * 32}, "adapter_sha256": "cd" * 32}
    path.write_text(json.dumps(found), encoding="utf-8")
    assert describe_provenance(path) == ["adapter sha256 cdcdcdcdcdcd", "base sha256 abababababab (model.safetensors)"]


def test_every_baseline_there_is_stands_beside_the_model():
    documents = [article(i) for i in range(6)]
    names = ("base_model", "base_model_lenient", "crf", "dictionary")
    baselines = {name: {task: {"f1": 0.01 * len(name)} for task in TASKS} for name in names}
    written = render_markdown(evaluate(documents, baselines=baselines)["metrics"], ["scores"])
    assert "| task | this model | filtered | untuned | untuned, strict | CRF | dictionary |" in written
    assert "6 articles: under 30, these intervals are too narrow." in written


def test_json_in_a_script_element_stays_in_it():
    value = {"a": "</script><!--&", "b": "\u2028\ud800"}
    embedded = embed_json(value)
    assert not set(embedded) & set("<>&\u2028")
    assert json.loads(embedded) == value


def test_offsets_count_as_the_browser_does():
    assert list(utf16_offsets("a\U0001f9eab")) == [0, 1, 3, 4]
    assert list(utf16_offsets("ab")) == [0, 1, 2]
