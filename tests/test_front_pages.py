"""What the front pages show works: their code runs, and the links of the map lead somewhere."""

import pathlib
import re

import pytest
import torch

ROOT = pathlib.Path(__file__).parents[1]


def code_blocks(page):
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)


def test_the_readme_trains_a_network(capsys):
    blocks = code_blocks("README.md")
    assert len(blocks) >= 2
    names = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    losses = [float(line.split()[1]) for line in printed.splitlines() if re.fullmatch(r"\d+ [\d.]+", line)]
    assert losses[-1] < 0.5 * losses[0]
    assert names["g"].shape == (10,)


def test_the_landing_page_trains_a_network():
    blocks = code_blocks("book/index.md")
    assert blocks
    model = torch.nn.Linear(3, 2)
    x, y = torch.linspace(-1, 1, 30).view(10, 3), torch.arange(10) % 2
    names = {"model": model, "x": x, "y": y, "loss_fn": torch.nn.functional.cross_entropy}
    before = names["loss_fn"](model(x), y).item()
    for block in blocks:
        exec(compile(block, "book/index.md", "exec"), names)
    assert names["loss"].item() < before


@pytest.mark.parametrize("drawing", ["one-loop-wide.svg", "one-loop-phone.svg"])
def test_the_links_of_the_map_lead_to_chapters(drawing):
    links = re.findall(r'href="([^"]+)"', (ROOT / "book/_static" / drawing).read_text())
    assert len(links) >= 12
    for link in links:
        page = (ROOT / "book" / link.partition("#")[0]).resolve()
        assert any(page.with_suffix(suffix).exists() for suffix in (".md", ".ipynb")), link
