"""What every chapter's first cell needs: the same numbers on every machine, and figures in one style.

Nothing happens on import; `setup` is for notebooks alone and is the only place that fixes a thread count or
a global seed.
"""

import io
import random
from importlib.util import find_spec

import numpy as np
import torch


def setup(seed: int = 0) -> None:
    """Make a notebook repeatable: one thread, fixed seeds, the book's figure style.

    One thread, because the order in which a parallel sum is taken changes its last digits. The seeds are those
    of ``random``, NumPy and torch, for the notebook's own draws; zolib's never depend on them.
    """
    torch.set_num_threads(1)
    _one_blas_thread()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if find_spec("matplotlib") and find_spec("seaborn"):
        from zolib import plotting

        plotting.use_style()


def show(figure, alt: str) -> None:
    """Show a matplotlib figure with ``alt``, the words that stand for it where it cannot be seen, and close it.

    The words are the text form of the figure: a screen reader speaks them, and a notebook stored without
    images keeps them. Say what the figure shows, not that it is a figure. Numbers in ``alt`` have at most four
    significant digits.
    """
    if not isinstance(alt, str) or len(alt.split()) < 4:
        raise ValueError(f"alt={alt!r}: describe what the figure shows, in a sentence")
    import matplotlib.pyplot as plt
    from IPython.display import display

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    plt.close(figure)
    display({"image/png": buffer.getvalue(), "text/plain": " ".join(alt.split())}, raw=True)


def _one_blas_thread() -> None:
    if find_spec("threadpoolctl"):
        from threadpoolctl import threadpool_limits

        threadpool_limits(1)
