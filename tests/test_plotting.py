"""The book's figure style: colours that survive grey print and colour blindness, labels where they belong."""

import itertools
import subprocess
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from zolib import plotting

# Machado, Oliveira and Fernandes (2009): linear RGB as a protanope and a deuteranope see it, full severity.
PROTANOPE = np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]])
DEUTERANOPE = np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]])


@pytest.fixture
def style():
    with mpl.rc_context():
        plotting.use_style()
        yield
    plt.close("all")


def linear(colour):
    rgb = np.array(mpl.colors.to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def luminance(colour):
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("name", ["blue", "vermilion", "green", "purple", "black"])
def test_lines_stand_out_from_white(name):
    contrast = 1.05 / (luminance(plotting.COLOURS[name]) + 0.05)
    assert contrast >= 3  # WCAG 2.1, graphical objects


def test_words_in_grey_can_be_read():
    assert 1.05 / (luminance(plotting.GREY) + 0.05) >= 4.5  # WCAG 2.1, text


@pytest.mark.parametrize("eye", [np.eye(3), PROTANOPE, DEUTERANOPE], ids=["usual", "protanope", "deuteranope"])
def test_colours_differ_for_every_eye(eye):
    seen = {name: np.clip(eye @ linear(colour), 0, 1) ** (1 / 2.4) for name, colour in plotting.COLOURS.items()}
    for (one, a), (other, b) in itertools.combinations(seen.items(), 2):
        assert np.linalg.norm(a - b) > 0.12, (one, other)


def test_every_line_has_its_own_colour_and_dash(style):
    _, ax = plt.subplots()
    lines = [ax.plot([0, 1], [i, i])[0] for i in range(len(plotting.COLOURS))]
    looks = {(line.get_color(), str(line._unscaled_dash_pattern)) for line in lines}
    assert len({colour for colour, _ in looks}) == len({dash for _, dash in looks}) == len(lines)


def test_importing_changes_no_style():
    code = ("import matplotlib as m; before = dict(m.rcParams); import zolib.plotting; "
            "assert {k: v for k, v in m.rcParams.items() if before[k] != v} == {}")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_label_stands_beside_its_point(style):
    fig, ax = plt.subplots()
    ax.set(xlim=(0, 1), ylim=(0, 1))
    note = plotting.label(ax, 0.5, 0.5, "here", dx=10, dy=0)
    fig.canvas.draw()
    point = ax.transData.transform((0.5, 0.5))
    box = note.get_window_extent()
    assert box.x0 == pytest.approx(point[0] + 10 * fig.dpi / 72, abs=2)
    assert box.y0 < point[1] < box.y1
