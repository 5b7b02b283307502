"""The checks that the build makes beyond Sphinx's own, each on a small piece."""

import enum
from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils import nodes
from zobook import alt_text, docstrings, formulas, image_sizes, public_names, scripts, semantics

import zolib

MACROS = {"R": r"\mathbb{R}", "half": [r"\tfrac{1}{2} #1", 1]}


def test_formulas_that_are_right_pass():
    right = [(r"\half{x} \in \R", False), (r"\boldsymbol{x} + \cancel{y}", True),
             (r"\begin{split}a &= b \\ c &= d\end{split}", True), (r"\begin{cases} 0 \\ 1 \end{cases}", True)]
    assert formulas.typeset(right, MACROS)["errors"] == {}


@pytest.mark.parametrize("wrong", [r"\frac{1}", r"\nope", r"\left( x", r"x^2^3", r"\begin{split} x", r"{x", r"a & b",
                                   r"\half"])
def test_formulas_that_are_wrong_are_found(wrong):
    errors = formulas.typeset([("x", False), (wrong, True), ("y", True)], MACROS)["errors"]
    assert list(errors) == [1]
    assert errors[1]


def test_formulas_are_checked_as_pages_hold_them():
    assert formulas.as_browser_sees_it(nodes.math("", "x")) == "x"
    assert formulas.as_browser_sees_it(nodes.math_block("", r"a &= b \\ c &= d")).startswith(r"\begin{split}")
    block = nodes.math_block("", r"\begin{align}a\end{align}")
    block["nowrap"] = True
    assert formulas.as_browser_sees_it(block) == r"\begin{align}a\end{align}"


def test_formulas_of_a_page_are_drawn_where_they_stand():
    page = ('<html><head></head><body><p><span class="math notranslate nohighlight">\\(a &lt; b\\)</span></p>'
            '<div class="math notranslate nohighlight" id="e">\n<span class="eqno">(1)<a href="#e">#</a></span>\\[c^2\\]</div>'
            '<pre>\\(code\\)</pre></body></html>')
    assert formulas.written(page) == [("a < b", False), ("c^2", True)]
    found = formulas.typeset(formulas.written(page) + [("d", False)], {})
    drawn = formulas.drawn(page, dict(zip(formulas.written(page), found["html"], strict=False)), found["glyphs"], found["style"])
    assert formulas.written(drawn) == []
    assert drawn.count("<mjx-container") == drawn.count("<math ") == 2 and "\\(code\\)" in drawn and "(1)<a" in drawn
    assert drawn.count('id="MJX-TEX-I-1D44E"') == 1  # each glyph that is used stands once in the page
    assert 'id="MJX-TEX-I-1D451"' not in drawn       # and those of other pages do not


def page(*content):
    document = nodes.container()
    document.extend(content)
    return document


def cell_output(text, **attributes):
    """The nodes of a cell that shows one image, with this text form beside it."""
    image = nodes.container("", nodes.image(uri="x.png", **attributes), mime_type="image/png")
    words = nodes.container("", nodes.literal_block("", text), mime_type="text/plain")
    bundle = nodes.container("", image, words, nb_element="mime_bundle")
    return nodes.container("", bundle, nb_element="cell_code", cell_index=3)


def faults(document):
    alt_text.name_figures(document)
    return [problem for _, problem in alt_text.nameless(document)]


def test_images_need_words():
    assert faults(page(nodes.image(uri="x.png"))) == ["image without alternative text"]
    assert faults(page(nodes.image(uri="x.png", alt="  "))) == ["image without alternative text"]
    assert faults(page(nodes.image(uri="x.png", alt="A slope."))) == []


def test_the_figure_of_a_cell_takes_the_words_of_its_output():
    document = page(cell_output("Error falls\nwith the step."))
    assert faults(document) == []
    assert next(iter(document.findall(nodes.image)))["alt"] == "Error falls with the step."


def test_the_default_text_of_a_figure_is_no_words():
    assert faults(page(cell_output("<Figure size 640x480 with 1 Axes>"))) == ["image without alternative text"]
    assert faults(page(cell_output("<Figure size 640x480 with 1 Axes>", alt="Set in the cell's metadata."))) == []


@pytest.mark.parametrize(("html", "count"), [
    ('<img src="x.png">', 1),
    ('<img src="x.png" alt="">', 1),
    ('<img src="x.png" alt="A slope.">', 0),
    ("<svg><path/></svg>", 1),
    ('<svg role="img"><path/></svg>', 1),
    ('<svg role="img" aria-label="A slope."><path/></svg>', 0),
    ('<svg role="group" aria-labelledby="t"><title id="t">A map</title></svg>', 0),
    ('<svg aria-hidden="true"><path/></svg>', 0),
    ("<p>no picture</p>", 0),
])
def test_pictures_in_raw_html_need_words(html, count):
    assert len(faults(page(nodes.raw("", html, format="html")))) == count


def test_what_python_writes_itself_is_not_documentation():
    class Kind(enum.Enum):
        ONE = 1

    lines = ["Alias for field number 2", "", "|g| is a norm; field number 2."]
    docstrings._process(None, "attribute", "name", None, None, lines)
    assert lines == ["", r"\|g\| is a norm; field number 2."]
    assert docstrings._sign(None, "class", "name", Kind, None, "(value, names=None)", None) == ("", None)
    assert docstrings._sign(None, "class", "name", dict, None, "(x)", None) is None


def test_outside_and_double_scripts_are_dropped():
    class Script:
        def __init__(self, filename=None, body=None):
            self.filename, self.attributes = filename, {"body": body} if body else {}

    mine, inline = Script("_static/mine.js"), Script(body="let x = 1")
    context = {"script_files": [mine, Script("https://unpkg.com/thebe@0.8.2"), inline, Script("_static/mine.js"),
                                Script(body="const THEBE_JS_URL = 1"), Script(body="let x = 1"),
                                Script("https://example.org/mathjax@3/tex.js"), Script(body="window.MathJax = {}")]}
    scripts._clean(None, "page", "page.html", context, None)
    assert context["script_files"] == [mine, inline]


def test_the_script_that_draws_icons_again_is_dropped(tmp_path):
    kept = '<head>\n  <script src="../_static/mine.js"></script></head>'
    page, script = tmp_path / "book" / "page.html", tmp_path / "_static" / "scripts" / "fontawesome.js"
    for file in (page, script):
        file.parent.mkdir(parents=True)
    page.write_text(kept.replace("<head>", '<head>\n  <script defer src="../_static/scripts/fontawesome.js?digest=5"></script>'))
    script.write_text("")
    app = SimpleNamespace(outdir=tmp_path, builder=SimpleNamespace(format="html"))
    scripts._drop_icons(app, None)
    assert page.read_text() == kept and not script.exists()


def test_bars_in_docstrings_are_bars():
    lines = ["E|g|^2 and ``a | b`` and `c|d`", "", ".. math:: |x|", "          |y|", "", "after |z|", "code::", "", "    a | b",
             "", ">>> a | b"]
    docstrings.escape_bars(lines)
    assert lines == [r"E\|g\|^2 and ``a | b`` and `c|d`", "", ".. math:: |x|", "          |y|", "", r"after \|z\|", "code::", "",
                     "    a | b", "", ">>> a | b"]


def test_every_public_name_has_its_place_in_the_library_pages():
    shown = [name for kind in public_names.KINDS for name in public_names.public(kind)]
    modules = [name for name in zolib.__all__ if public_names.kind(getattr(zolib, name)) is None]
    assert sorted(shown + modules) == sorted(zolib.__all__)
    page = (Path(__file__).parents[2] / "book" / "api.md").read_text()
    for kind in public_names.KINDS:
        assert f".. public-names:: {kind}" in page
    assert all(getattr(zolib, name).__doc__ for name in zolib.__all__)


def test_signatures_and_bibliographies_are_proper_lists():
    signature = ('<dt class="sig py" id="f"><span>f</span>(\n\n<dl>\n<dd><em>a</em>,</dd>\n<dd><em>b</em>,</dd>\n</dl>\n\n)</dt>'
                 '<dd><dl><dt>Raises</dt><dd>no</dd></dl></dd>')
    assert semantics.mended(signature) == (
        '<dt class="sig py" id="f"><span>f</span>(\n\n<span class="sig-lines">\n<span><em>a</em>,</span>\n<span><em>b</em>,</span>\n'
        '</span>\n\n)</dt><dd><dl><dt>Raises</dt><dd>no</dd></dl></dd>')
    assert semantics.mended('<div class="proof admonition" id="proof"><section id="proof-content">') == (
        '<div class="proof admonition proof"><section class="proof-content">')
    assert semantics.mended('<div class="citation" role="doc-biblioentry">') == '<div class="citation" role="listitem">'
    assert semantics.mended('<span class="pre">tests/core/test_half_the_weights.py</span> <span class="pre">a_b</span>') == (
        '<span class="pre">tests/<wbr>core/<wbr>test_<wbr>half_<wbr>the_<wbr>weights.py</span> <span class="pre">a_b</span>')


def test_a_mark_stays_with_the_formula_before_it():
    formula = r'<span class="math notranslate nohighlight">\(x &lt; 1\)</span>'
    assert formulas.tied(f"{formula}, and") == f'<span class="with-mark">{formula},</span> and'
    assert formulas.tied(f"({formula}).") == f'(<span class="with-mark">{formula}).</span>'
    assert formulas.tied(f"{formula} and") == f"{formula} and"
    assert formulas.tied("<span>x</span>, and") == "<span>x</span>, and"


def test_pictures_state_their_size(tmp_path):
    def picture(width):
        return b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + width.to_bytes(4, "big") + (5).to_bytes(4, "big")

    png, wide = tmp_path / "x.png", tmp_path / "wide.png"
    png.write_bytes(picture(7))
    wide.write_bytes(picture(900))
    body = '<img alt="a" src="../_images/x.png" /> <img src="../_images/x.png" width="3"> <img src="other.png">'
    assert image_sizes.sized(body, {"x.png": png}) == body.replace('x.png" />', 'x.png" width="7" height="5" />')
    assert image_sizes.sized('<img src="_images/wide.png">', {"wide.png": wide}) == (
        '<a class="wide-picture" href="_images/wide.png"><img src="_images/wide.png" width="900" height="5"></a>')
    with pytest.raises(ValueError, match="not a PNG"):
        image_sizes.size(b"GIF89a")
