"""One look for every figure of the book: readable in grey, by the colour-blind, on paper and on a phone.

Colours are those of Okabe and Ito (Color Universal Design, 2008), the yellow left out because it is lost on
white. They differ in lightness too, and `use_style` gives each its own dash, so that no figure depends on
colour alone. Lines are named where they run (`label`) instead of in a legend that the eye must travel to.
"""

import matplotlib as mpl
import matplotlib.patheffects
import seaborn as sns
from cycler import cycler

# In the order in which lines take them. The names are for the few places that need one colour in particular.
COLOURS = {
    "blue": "#0072B2",
    "vermilion": "#D55E00",
    "green": "#009E73",
    "purple": "#AA4499",
    "sky": "#56B4E9",
    "black": "#222222",
}
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
GREY = "#6B7078"  # theory, guides and annotations


def use_style() -> None:
    """Set the book's style for all later figures of this process (matplotlib's global settings)."""
    sns.set_theme(
        context="notebook",
        style="ticks",
        rc={
            "axes.prop_cycle": cycler(color=list(COLOURS.values())) + cycler(linestyle=DASHES),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": GREY,
            "axes.labelsize": 12,
            "axes.titlesize": 12,
            "axes.titlelocation": "left",
            "axes.grid": True,
            "grid.color": "#E6E8EB",
            "grid.linewidth": 0.7,
            "xtick.color": GREY,
            "ytick.color": GREY,
            "xtick.labelcolor": "#222222",
            "ytick.labelcolor": "#222222",
            "lines.linewidth": 2.0,
            "lines.markersize": 6,
            "figure.figsize": (7.0, 4.2),
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "savefig.facecolor": "white",
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],
            "image.cmap": "viridis",
        },
    )


def label(
    ax: mpl.axes.Axes,
    x: float,
    y: float,
    text: str,
    color: str | None = None,
    dx: float = 6,
    dy: float = 0,
    ha: str = "left",
    va: str = "center",
) -> mpl.text.Annotation:
    """Write ``text`` beside the point (x, y), given in data units, moved by (dx, dy) points.

    The text has a white halo, so that it stays readable across a line.
    """
    note = ax.annotate(
        text,
        (x, y),
        xytext=(dx, dy),
        textcoords="offset points",
        color="#2a7fae" if color == COLOURS["sky"] else color or "#222222",  # words in the sky blue itself are too pale
        ha=ha,
        va=va,
        fontsize=10.5,
        annotation_clip=False,
    )
    note.set_path_effects([mpl.patheffects.withStroke(linewidth=3, foreground="white")])
    return note
