"""Figures that move in a static page: inline SVG, a slider, and arrays computed beforehand.

A `Moving` figure is a row of panels and one slider. Every frame is computed in Python; the page only swaps
coordinates, with a few lines of plain JavaScript: no library, no network, no Python at reading time. The slider
is an ordinary range input, so the keyboard works and a screen reader speaks its value; what the frame shows is
written below it in words and announced. Nothing moves by itself. Without scripts one frame stays, with its
words. Colours follow the page, light or dark::

    figure = Moving("step size", values=["0.1", "0.2"], captions=["Too small.", "Just right."])
    panel = figure.panel("Error", x=(0, 1), y=(1e-3, 1), logy=True, xlabel="step", ylabel="error")
    panel.line(xs, ys)                   # stays
    panel.dot([0.1, 0.2], [0.5, 0.01])   # one point for each frame
    figure                               # the last line of a cell shows it

`ask` and `recall` keep a reader's guess, made before the theory, and bring it back after the measurement.
"""

import hashlib
import html
import json
import math
import re
from collections.abc import Sequence

import numpy as np

WIDTH, HEIGHT = 380, 290
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 30, 44  # margins of a panel, in SVG units
_KEY = "zm-key"  # stands for the figure's name in the page until that is known
_RAISED = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")

_STYLE = """<style>
.zolib-moving{--zm-a:var(--zo-info,#2a7ab8);--zm-b:var(--zo-noise,#d2691e);margin:1.2rem 0}
.zolib-moving .panels{display:flex;flex-wrap:wrap;gap:.5rem 1rem}
.zolib-moving svg{flex:1 1 19rem;min-width:0;max-width:36rem;height:auto;font-family:inherit;overflow:visible}
.zolib-moving text{fill:currentColor;font-size:12.5px}
.zolib-moving .title{font-weight:600}
.zolib-moving .frame{fill:none;stroke:currentColor;opacity:.55}
.zolib-moving .line{fill:none;stroke-width:2.2;stroke-linejoin:round;stroke:currentColor}
.zolib-moving .a{stroke:var(--zm-a)}.zolib-moving .b{stroke:var(--zm-b)}
.zolib-moving .quiet{opacity:.5;stroke-width:1.4}
.zolib-moving .dot{stroke:none;fill:currentColor}
.zolib-moving .dot.a,.zolib-moving text.a{fill:var(--zm-a);stroke:none}
.zolib-moving .dot.b,.zolib-moving text.b{fill:var(--zm-b);stroke:none}
.zolib-moving text.note{paint-order:stroke;stroke:var(--pst-color-background,var(--jp-layout-color0,#fff));stroke-width:4px;stroke-linejoin:round}
.zolib-moving label,.zolib-guess label{display:block;margin-top:.4rem;font-weight:600}
.zolib-moving input,.zolib-guess input{width:100%;max-width:40rem;accent-color:var(--zo-info,#2a7ab8)}
.zolib-moving .words{min-height:3.2em;margin:.3rem 0 0}
html .bd-content div.cell_output .text_html:has(.zolib-moving,.zolib-guess){background:none!important;color:inherit!important;padding:0!important}
</style>"""

_SCRIPT = """<script>(function(){
var box=document.getElementById("%s"),data=%s;if(!box)return;
var input=box.querySelector("input"),words=box.querySelector(".words"),out=box.querySelector("output");
box.querySelector(".control").hidden=false;
function show(){var i=+input.value;
data.moves.forEach(function(m){var e=box.querySelector('[data-move="'+m.id+'"]');
for(var k in m.set)e.setAttribute(k,m.set[k][i]);});
input.setAttribute("aria-valuetext",data.values[i]);out.textContent=data.values[i];words.textContent=data.captions[i];}
input.addEventListener("input",show);show();})();</script>"""


_ASK = """<script>(function(){var b=document.getElementById("%s"),c=%s;if(!b)return;b.hidden=false;
var i=b.querySelector("input"),o=b.querySelector("output"),k="zolib-"+b.id;
function old(){try{return localStorage.getItem(k)}catch(e){return null}}
function say(){o.textContent=c[+i.value];i.setAttribute("aria-valuetext",c[+i.value])}
var v=c.indexOf(old());if(v>=0)i.value=v;say();
i.addEventListener("input",function(){say();try{localStorage.setItem(k,c[+i.value])}catch(e){}
document.dispatchEvent(new CustomEvent(k,{detail:c[+i.value]}))});})();</script>"""

_RECALL = """<script>(function(){var o=document.getElementById("%s-r"),k="zolib-%s";if(!o)return;
function say(v){o.textContent=v?"Your guess: "+v+". ":""}
try{say(localStorage.getItem(k))}catch(e){}
document.addEventListener(k,function(e){say(e.detail)});})();</script>"""


class Panel:
    """One pair of axes of a `Moving` figure. Made by `Moving.panel`; kinds are "a", "b" or "" (text colour)."""

    def __init__(self, figure, title, x, y, xlabel, ylabel, logx, logy):
        for name, (low, high), log in (("x", x, logx), ("y", y, logy)):
            if not low < high or (log and low <= 0):
                raise ValueError(f"{name}=({low}, {high}): give (low, high), both positive on a logarithmic axis")
        self._figure, self._title, self._labels = figure, title, (xlabel, ylabel)
        self._x, self._y, self._logx, self._logy = x, y, logx, logy
        self._clip = f"{_KEY}-{len(figure._panels)}"
        self._parts: list[str] = []
        self._notes: list[str] = []  # above all lines

    def line(self, x, y, kind: str = "", quiet: bool = False, dash: str = "") -> None:
        """A line that stays: x and y of shape (points,)."""
        self._polyline(self._points(x, y), kind, quiet, dash)

    def moving_line(self, x, y, kind: str = "", dash: str = "") -> None:
        """A line that moves: x and y of shape (frames, points)."""
        frames = [self._points(a, b) for a, b in zip(x, y, strict=True)]
        self._polyline(frames[self._figure.start], kind, False, dash, self._figure._move(points=frames))

    def dot(self, x, y, kind: str = "") -> None:
        """A dot that moves: x and y of shape (frames,).  In frames where it lies outside the axes it is not shown."""
        cx, cy = self._map(x, y, -9, 10)
        inside = (LEFT - 1 <= cx) & (cx <= WIDTH - RIGHT + 1) & (TOP - 1 <= cy) & (cy <= HEIGHT - BOTTOM + 1)
        frames = {"cx": list(map(_number, cx)), "cy": list(map(_number, cy))}
        if not inside.all():
            frames["visibility"] = ["visible" if seen else "hidden" for seen in inside]
        now = "".join(f' {name}="{values[self._figure.start]}"' for name, values in frames.items())
        self._parts.append(f'<circle class="dot {kind}" r="6"{now}{self._figure._move(**frames)}/>')

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> None:
        """Words that stay, at (x, y) in data units."""
        (px,), (py,) = self._map([x], [y])
        self._notes.append(
            f'<text class="note {kind}" x="{px:.1f}" y="{py:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'
        )

    def _polyline(self, points, kind, quiet, dash, move=""):
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        kinds = f"line {kind}{' quiet' if quiet else ''}"
        self._parts.append(
            f'<polyline class="{kinds}" points="{points}"{dashed}{move} clip-path="url(#{self._clip})"/>'
        )

    def _map(self, x, y, least=0.0, most=1.0):
        """Data to SVG units. Words stay within the axes; lines and dots run on, to be cut off at the edge or hidden."""

        def scale(values, limits, log, low, high):
            change = np.log10 if log else np.asarray
            a, b = change(limits[0]), change(limits[1])
            with np.errstate(divide="ignore"):
                part = (change(np.asarray(values, dtype=float)) - a) / (b - a)
            return low + (high - low) * np.clip(part, least, most)

        return (scale(x, self._x, self._logx, LEFT, WIDTH - RIGHT), scale(y, self._y, self._logy, HEIGHT - BOTTOM, TOP))

    def _points(self, x, y) -> str:
        return " ".join(f"{_number(a)},{_number(b)}" for a, b in zip(*self._map(x, y, -9, 10), strict=True))

    def _svg(self) -> str:
        right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        title, xlabel, ylabel = map(html.escape, (self._title, *self._labels))
        across, along = (LEFT + right) / 2, (TOP + bottom) / 2
        parts = [
            f'<text class="title" x="{LEFT}" y="16">{title}</text>',
            f'<clipPath id="{self._clip}"><path d="M{LEFT} {TOP}H{right}V{bottom}H{LEFT}Z"/></clipPath>',
            f'<path class="frame" d="M{LEFT} {TOP}V{bottom}H{right}"/>',
            f'<text x="{across}" y="{HEIGHT - 8}" text-anchor="middle">{xlabel}</text>',
            f'<text transform="translate(11 {along}) rotate(-90)" text-anchor="middle">{ylabel}</text>',
        ]
        for value, name in _ticks(self._x, self._logx):
            x = self._map([value], [self._y[0]])[0][0]
            parts.append(
                f'<path class="frame" d="M{x:.1f} {bottom}v5"/>'
                f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{name}</text>'
            )
        for value, name in _ticks(self._y, self._logy):
            y = self._map([self._x[0]], [value])[1][0]
            parts.append(
                f'<path class="frame" d="M{LEFT} {y:.1f}h-5"/>'
                f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{name}</text>'
            )
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(self._title)}">'
            + "".join(parts + self._parts + self._notes)
            + "</svg>"
        )


class Moving:
    """Panels that one slider moves. ``values`` names each frame for the slider, ``captions`` says what it shows."""

    def __init__(self, label: str, values: Sequence[str], captions: Sequence[str], start: int | None = None):
        if len(values) != len(captions) or len(values) < 2:
            raise ValueError(
                f"{len(values)} values and {len(captions)} captions: give one caption for each value, and at least two"
            )
        self.label, self.values, self.captions = label, list(map(_prose, values)), list(map(_prose, captions))
        self.start = len(values) // 2 if start is None else range(len(values))[start]
        self._panels: list[Panel] = []
        self._moves: list[dict] = []

    def panel(
        self,
        title: str,
        x: tuple[float, float],
        y: tuple[float, float],
        xlabel: str = "",
        ylabel: str = "",
        logx: bool = False,
        logy: bool = False,
    ) -> Panel:
        """Add a pair of axes with the limits ``x`` and ``y``."""
        self._panels.append(Panel(self, title, x, y, xlabel, ylabel, logx, logy))
        return self._panels[-1]

    def _move(self, **attributes: list[str]) -> str:
        for name, frames in attributes.items():
            if len(frames) != len(self.values):
                raise ValueError(f"{len(frames)} frames of {name} for {len(self.values)} slider values: give one each")
        self._moves.append({"id": len(self._moves), "set": attributes})
        return f' data-move="{len(self._moves) - 1}"'

    def __repr__(self) -> str:
        return f"A figure with a slider, {self.label}: {self.values[0]} to {self.values[-1]}."

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        return {"text/html": self.to_html(), "text/plain": repr(self)}

    def to_html(self) -> str:
        """The figure as a fragment of HTML that needs nothing else."""
        drawing = "".join(panel._svg() for panel in self._panels)
        data = {"values": self.values, "captions": self.captions, "moves": self._moves}
        key = "zm-" + hashlib.sha256((drawing + json.dumps(data)).encode()).hexdigest()[:12]
        drawing = drawing.replace(_KEY, key)
        control = (
            f'<div class="control" hidden><label for="{key}-i">{html.escape(self.label)}: <output for="{key}-i">'
            f'{html.escape(self.values[self.start])}</output></label><input id="{key}-i" type="range" min="0" '
            f'max="{len(self.values) - 1}" step="1" value="{self.start}" autocomplete="off" '
            f'aria-valuetext="{html.escape(self.values[self.start])}"></div>'
        )
        return (
            f'{_STYLE}<div class="zolib-moving" id="{key}"><div class="panels">{drawing}</div>{control}'
            f'<p class="words" aria-live="polite">{html.escape(self.captions[self.start])}</p></div>'
            + _SCRIPT
            % (key, _embed(data))
        )


class Page:
    """A piece of HTML, shown by Jupyter, and the words that stand for it elsewhere."""

    def __init__(self, html: str, words: str):
        self._html, self._words = html, words

    def __repr__(self) -> str:
        return self._words

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        return {"text/html": self._html, "text/plain": self._words}


def ask(name: str, label: str, choices: Sequence[str], start: int = 0) -> Page:
    """A slider on which the reader sets a guess; the browser keeps it under ``name`` for `recall`."""
    choices = list(choices)
    key, first = f"zg-{name}", html.escape(choices[start])
    box = (
        f'<div class="zolib-guess" id="{key}" hidden><label for="{key}-i">{html.escape(label)} '
        f'<output for="{key}-i">{first}</output></label><input id="{key}-i" type="range" min="0" '
        f'max="{len(choices) - 1}" step="1" value="{range(len(choices))[start]}" autocomplete="off" '
        f'aria-valuetext="{first}"></div>'
        f'<noscript><p class="zolib-guess">{html.escape(label)} Write your guess down.</p></noscript>'
    )
    return Page(
        _STYLE + box + _ASK % (key, _embed(choices)), f"{label} Your guess, from {choices[0]} to {choices[-1]}?"
    )


def recall(name: str, measured: str) -> Page:
    """Show the guess kept by `ask` under ``name`` beside what was measured."""
    words = f"Measured: {measured}."
    box = f'<p class="zolib-guess"><span id="zg-{name}-r"></span>{html.escape(words)}</p>'
    return Page(_STYLE + box + _RECALL % (f"zg-{name}", f"zg-{name}"), words)


def _embed(data) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _prose(text: str) -> str:
    """Numbers as print has them: a minus and not a hyphen, powers of ten and not e-07, no line break before a %."""

    def power(found):
        raised = "10" + str(int(found[2])).translate(_RAISED)
        return raised if found[1] == "1" else f"{found[1]} \u00d7 {raised}"

    text = re.sub(r"\b(\d+(?:\.\d+)?)e([+-]\d+)\b", power, text)
    return re.sub(r"(?<![\w.)])-(?=\.?\d)", "\u2212", text).replace(" %", "\u00a0%")


def _number(value: float) -> str:
    return f"{value:.1f}"


def _ticks(limits: tuple[float, float], log: bool) -> list[tuple[float, str]]:
    low, high = limits
    if not log:
        step = 10 ** math.floor(math.log10(high - low))
        step = step / 2 if (high - low) / step < 3 else step
        first = math.ceil(low / step - 1e-9)
        return [
            (i * step, f"{i * step:.4g}".replace("-", "\u2212"))
            for i in range(first, math.floor(high / step + 1e-9) + 1)
        ]
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    if last - first < 1:  # too short for powers of ten alone
        between = (m * 10.0**i for i in range(first - 1, last + 1) for m in (1, 2, 5))
        return [(value, f"{value:.4g}") for value in between if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
    every = max(1, round((last - first) / 5))
    return [(10.0**i, "10" + str(i).translate(_RAISED)) for i in range(first, last + 1, every)]
