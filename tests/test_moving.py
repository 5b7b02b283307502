"""Moving figures: what is in the page, what the script is told, and what remains without scripts."""

import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from zolib import moving
from zolib.moving import Moving, ask, recall


@pytest.fixture
def figure():
    figure = Moving("size", ["small & low", "big", "huge"], ["one <b>", "two", "three"])
    panel = figure.panel("A panel", (0, 2), (1e-2, 1), "x", "y", logy=True)
    panel.line([0, 1, 2], [0.01, 0.1, 1])
    panel.moving_line(np.zeros((3, 2)) + [0, 2], [[0.01, 0.1], [0.1, 0.1], [1, 0.1]], "a")
    panel.dot([0, 1, 2], [0.01, 0.1, 1], "b")
    panel.text(1, 0.5, "a < b")
    return figure


def script_data(html):
    return json.loads(re.search(r",data=(\{.*?\});if", html).group(1))


def svg(html):
    return ET.fromstring(re.search(r"<svg.*?</svg>", html, re.DOTALL).group(0))


def test_page_holds_a_named_drawing_and_a_labelled_slider(figure):
    html = figure.to_html()
    assert 'class="zolib-moving"' in html
    drawing = svg(html)  # well-formed
    assert drawing.get("role") == "img" and drawing.get("aria-label") == "A panel"
    key = re.search(r'<label for="([^"]+)"', html).group(1)
    (slider,) = re.findall(r"<input[^>]*>", html)
    assert f'id="{key}"' in slider and 'type="range"' in slider and 'max="2"' in slider
    assert 'aria-valuetext="big"' in slider
    assert 'aria-live="polite"' in html


def test_nothing_is_loaded_from_outside(figure):
    html = figure.to_html() + ask("a", "b", ["c", "d"])._repr_mimebundle_()["text/html"]
    assert not re.search(r"https?:|src=|@import|url\((?!#)", html)


def test_every_frame_is_in_the_page(figure):
    data = script_data(figure.to_html())
    assert data["values"] == ["small & low", "big", "huge"]
    assert data["captions"][0] == "one <b>"
    assert [set(move["set"]) for move in data["moves"]] == [{"points"}, {"cx", "cy"}]
    assert all(len(frames) == 3 for move in data["moves"] for frames in move["set"].values())
    assert len(set(data["moves"][1]["set"]["cx"])) == 3


def test_coordinates_follow_the_axes(figure):
    cx, cy = (list(map(float, script_data(figure.to_html())["moves"][1]["set"][k])) for k in ("cx", "cy"))
    assert cx[1] - cx[0] == pytest.approx(cx[2] - cx[1], abs=0.2)  # linear
    assert cy[0] - cy[1] == pytest.approx(cy[1] - cy[2], abs=0.2)  # 0.01, 0.1, 1 on a logarithmic axis
    assert cx[0] < cx[2] and cy[0] > cy[2]  # SVG counts downwards


def test_without_scripts_one_frame_and_its_words_remain(figure):
    html = figure.to_html()
    still = html[: html.index("<script>")]
    data = script_data(html)
    dot = next(e for e in svg(html).iter("circle"))
    assert dot.get("cx") == data["moves"][1]["set"]["cx"][1]
    assert ">two</p>" in still
    assert re.search(r'class="control" hidden', still)  # a slider that cannot move anything is not offered


def test_script_cannot_be_closed_by_data():
    figure = Moving("x", ["</script>", "b"], ["a", "b"])
    html = figure.to_html()
    assert html.count("</script>") == 1
    assert script_data(html)["values"][0] == "</script>"


def test_the_same_figure_gives_the_same_page(figure):
    assert figure.to_html() == figure.to_html()


def test_stored_form_is_text(figure):
    bundle = figure._repr_mimebundle_()
    assert bundle["text/plain"] == "A figure with a slider, size: small & low to huge."
    assert set(bundle) == {"text/html", "text/plain"}


def test_a_line_that_leaves_the_axes_keeps_its_slope():
    figure = Moving("x", ["a", "b"], ["a", "b"])
    panel = figure.panel("p", (0, 1), (0, 1))
    panel.line([0, 1], [0, 3])
    html = figure.to_html()
    (start, end) = ([float(v) for v in p.split(",")] for p in svg(html).find("polyline").get("points").split())
    assert (start[1] - end[1]) / (end[0] - start[0]) == pytest.approx(3 * (246 - 30) / (368 - 56), rel=1e-3)
    name = re.search(r'clip-path="url\(#([^)]+)\)"', html).group(1)
    assert f'<clipPath id="{name}">' in html and name.startswith(re.search(r'id="(zm-\w+)"', html).group(1))


def test_a_dot_outside_the_axes_is_not_shown():
    figure = Moving("x", ["a", "b", "c"], ["a", "b", "c"], start=0)
    panel = figure.panel("p", (0, 1), (1e-3, 1), logy=True)
    panel.dot([0.5, 0, 1], [0, 1e-3, 1])
    panel.dot([-5, 0.5, 0.5], [0.1, 1e9, 0.1])
    panel.dot([0, 0.5, 1], [1, 1, 1])
    drawing = figure.to_html()
    moves = [move["set"] for move in script_data(drawing)["moves"]]
    assert [move.get("visibility") for move in moves] == [
        ["hidden", "visible", "visible"], ["hidden", "hidden", "visible"], None]
    assert [circle.get("visibility") for circle in svg(drawing).iter("circle")] == ["hidden", "hidden", None]
    assert [float(v) for v in moves[0]["cx"]] == [212, 56, 368] and float(moves[0]["cy"][1]) == 246


def test_words_stand_above_all_lines():
    figure = Moving("x", ["a", "b"], ["a", "b"])
    panel = figure.panel("p", (0, 1), (0, 1))
    panel.text(0.5, 0.5, "words")
    panel.line([0, 1], [0, 1])
    drawing = figure.to_html()
    assert drawing.index("<polyline") < drawing.index(">words</text>")


@pytest.mark.parametrize(("written", "printed"), [
    ("a step of -0.5, or -.5", "a step of \u22120.5, or \u2212.5"), ("L-BFGS, 2-3, (a)-1, x-1", "L-BFGS, 2-3, (a)-1, x-1"),
    ("1e-07 of 2.5e+12", "10\u207b\u2077 of 2.5 \u00d7 10\u00b9\u00b2"), ("75 % is", "75\u00a0% is"), ("-1e-3", "\u221210\u207b\u00b3"),
])
def test_numbers_in_words_are_set_as_in_print(written, printed):
    figure = Moving("x", [written, "b"], [written, "b"])
    assert figure.values[0] == figure.captions[0] == printed


def test_a_short_logarithmic_axis_has_more_ticks_than_powers_of_ten():
    assert [name for _, name in moving._ticks((0.03, 0.9), True)] == ["0.05", "0.1", "0.2", "0.5"]
    assert [name for _, name in moving._ticks((0.5, 200), True)] == ["10\u2070", "10\u00b9", "10\u00b2"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Moving("x", ["a"], ["a"]), "at least two"),
        (lambda: Moving("x", ["a", "b"], ["a"]), "one caption for each"),
        (lambda: Moving("x", ["a", "b"], ["a", "b"]).panel("p", (1, 0), (0, 1)), r"x=\(1, 0\)"),
        (lambda: Moving("x", ["a", "b"], ["a", "b"]).panel("p", (0, 1), (0, 1), logy=True), r"y=\(0, 1\)"),
        (lambda: Moving("x", ["a", "b"], ["a", "b"]).panel("p", (0, 1), (0, 1)).dot([1, 1, 1], [0, 0, 0]), "one each"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_guess_is_asked_and_recalled_under_one_name():
    asked = ask("step", "My step:", ["1e-3", "1e-1"])._repr_mimebundle_()
    told = recall("step", "1e-3")._repr_mimebundle_()
    assert "zolib-zg-step" in told["text/html"] and 'id="zg-step"' in asked["text/html"]
    assert asked["text/plain"] == "My step: Your guess, from 1e-3 to 1e-1?"
    assert told["text/plain"] == "Measured: 1e-3."
    assert "<noscript>" in asked["text/html"]
