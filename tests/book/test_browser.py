"""The built book, opened page by page in a real browser with the network cut off."""

import re

import pytest
import weight

# What a reader would see of a formula that was not typeset: MathJax's error marks, or its source.
FORMULAS = r"""() => {
  const bad = [];
  for (const formula of document.querySelectorAll("article .math"))
    if (!formula.querySelector("mjx-container svg")) bad.push("not typeset: " + formula.textContent.slice(0, 80));
  for (const error of document.querySelectorAll("[data-mjx-error], mjx-merror, [data-mml-node='merror']"))
    bad.push("error: " + (error.getAttribute("data-mjx-error") || error.textContent));
  const texts = document.createTreeWalker(document.querySelector("article") || document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode;
    if (text.parentElement.closest("pre, code, script, style, mjx-container")) continue;
    if (/\\\(|\\\[|\$\$|\\(frac|sigma|mathbb|begin)\b/.test(text.data)) bad.push("source: " + text.data.trim());
  }
  return bad;
}"""

IMAGES = """() => {
  const bad = [];
  for (const image of document.querySelectorAll("article img")) {
    if (!(image.alt || "").trim()) bad.push("without words: " + image.src);
    if (!image.naturalWidth) bad.push("not shown: " + image.src);
  }
  for (const svg of document.querySelectorAll("article svg")) {
    if (svg.closest("mjx-container, a.headerlink, button, [aria-hidden=true]")) continue;
    if (!svg.getAttribute("aria-label") && !svg.getAttribute("aria-labelledby"))
      bad.push("svg without words: " + svg.outerHTML.slice(0, 80));
  }
  return bad;
}"""


def test_the_searches_above_find_what_they_should(chromium):
    page = chromium.new_page()
    page.set_content(r"""<article><span class="math">\(x\)</span> <p>and \frac{1}{2}</p>
        <code>\sigma is code</code> <img src="data:," alt="words"> <img src="data:,"><svg></svg>
        <svg aria-label="words"></svg><span data-mjx-error="Missing argument">x</span></article>""")
    assert [found.split(":")[0] for found in page.evaluate(FORMULAS)] == ["not typeset", "error", "source", "source"]
    assert [found.split(":")[0] for found in page.evaluate(IMAGES)] == ["not shown", "without words", "not shown",
                                                                        "svg without words"]
    page.set_content("<p>above</p>" + "<div style='height: 100px; background: red'>below</div>" * 9)
    page.wait_for_timeout(600)  # for half a second after its window got its size a browser counts no shift
    assert page.evaluate(weight.MOVED) == 0
    page.evaluate("document.querySelector('p').style.height = '300px'")
    assert page.evaluate(weight.MOVED) > 0.1
    page.close()


def test_every_page_was_built(html, pages):
    assert [name for name in [*pages, "index.html"] if not (html / name).exists()] == []


def test_no_page_names_an_address_that_it_would_load_from(html):
    loads = re.compile(r"""<(?:script|img|link|iframe|source|video)\b[^>]*(?:src|href)=["'](https?:)?//[^"']+""", re.I)
    found = {page.name: match[0] for page in html.rglob("*.html") if "_static" not in page.parts
             for match in loads.finditer(page.read_text(encoding="utf-8")) if 'rel="canonical"' not in match[0]}
    assert found == {}


@pytest.mark.slow
@pytest.mark.parametrize(("way", "width", "scheme"), [("file", 390, "dark"), ("http", 1280, "light")])
def test_every_page_opens_whole(addresses, open_page, pages, way, width, scheme):
    problems = []
    for name in pages:
        with open_page(f"{addresses[way]}/{name}", width, scheme) as page:
            found = [*page.faults, *page.evaluate(FORMULAS), *page.evaluate(IMAGES)]
            if page.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
                found.append(f"scrolls sideways at {width} px")
            if (moved := page.evaluate(weight.MOVED)) > 0.1:
                found.append(f"what is seen moves by {moved:.2f} while it loads")
            if page.evaluate("document.documentElement.dataset.theme") != scheme:
                found.append(f"does not follow the {scheme} scheme")
            problems += [f"{name}: {problem}" for problem in found]
    assert problems == []


@pytest.mark.parametrize("way", ["file", "http"])
def test_the_first_page_leads_into_the_book(addresses, open_page, way):
    with open_page(f"{addresses[way]}/index.html") as page:
        page.wait_for_url("**/book/index.html")
        page.wait_for_load_state()
        page.get_by_role("link", name=re.compile("Estimating gradients")).first.click()
        page.wait_for_url("**/05-estimating-gradients.html")
        assert "Estimating gradients" in page.inner_text("article h1")
        assert page.faults == []


@pytest.mark.parametrize("way", ["file", "http"])
def test_search_finds_words(addresses, open_page, way):
    with open_page(f"{addresses[way]}/search.html?q=gradient") as page:
        page.wait_for_selector("#search-results li a")
        assert page.locator("#search-results li a").count() >= 3
        assert page.faults == []
    with open_page(f"{addresses[way]}/search.html?q=xyzzyplugh") as page:
        page.wait_for_function("document.querySelector('#search-results p')?.innerText.includes('did not match')")


def test_dark_and_light_differ_and_can_be_read(addresses, open_page):
    contrast = """() => {
      const rgb = (c) => c.match(/[\\d.]+/g).slice(0, 3).map((v) => {
        v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
      const light = (c) => { const [r, g, b] = rgb(c); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const ground = getComputedStyle(document.body).backgroundColor;
      const ratio = (e) => { const [a, b] = [light(getComputedStyle(e).color), light(ground)];
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); };
      const low = [...document.querySelectorAll("article p, article dt, article dd, article figcaption, .caption-text")]
        .filter((e) => e.innerText && !e.closest("[class*=admonition], .cell_output, pre"))
        .map((e) => [ratio(e), e.innerText.slice(0, 40)]).filter(([r]) => r < 4.5);
      return {ground, low};
    }"""
    grounds = set()
    for scheme in ("light", "dark"):
        for name in ("book/claims.html", "chapters/1-orders/05-estimating-gradients.html", "book/index.html"):
            with open_page(f"{addresses['file']}/{name}", scheme=scheme) as page:
                seen = page.evaluate(contrast)
                assert seen["low"] == [], f"{name}, {scheme}: too little contrast"
                grounds.add((scheme, seen["ground"]))
    assert len(grounds) == 2


def test_a_claim_leads_to_the_cell_that_measures_it(addresses, open_page):
    with open_page(f"{addresses['file']}/book/claims.html") as page:
        assert page.locator("div.claim").count() > 0
        assert page.locator(".claim-facts", has_text="not measured").count() == 0
        link = page.locator(".claim-facts a[href*='#claim-']").first
        target = link.get_attribute("href").split("#")[1]
        link.click()
        page.wait_for_url(f"**#{target}")
        assert page.locator(f"[id='{target}']").is_visible()
        assert page.faults == []


def moving_pages(html):
    return sorted(page.relative_to(html).as_posix() for page in (html / "chapters").rglob("*.html")
                  if 'class="zolib-moving' in page.read_text(encoding="utf-8"))


def test_moving_figures_move(html, addresses, open_page):
    """By keyboard and by mouse, each changes what the figure shows and what it says."""
    names = moving_pages(html)
    assert "chapters/1-orders/05-estimating-gradients.html" in names
    for name in names:
        with open_page(f"{addresses['file']}/{name}") as page:
            for figure in page.locator(".zolib-moving").all():
                slider = figure.locator("input[type=range]")
                assert slider.count() == 1
                assert slider.evaluate("e => e.labels.length > 0 || !!e.getAttribute('aria-label')"), "slider unnamed"

                def shown():
                    return figure.evaluate("e => [...e.querySelectorAll('svg')].map(s => s.innerHTML).join()")

                def words():
                    return slider.get_attribute("aria-valuetext") or slider.input_value()

                slider.evaluate("e => { e.value = e.min; e.dispatchEvent(new Event('input')); }")
                start = shown(), words()
                slider.focus()
                page.keyboard.press("ArrowRight")
                stepped = shown(), words()
                assert stepped[0] != start[0] and stepped[1] != start[1], f"{name}: the keyboard moves nothing"
                slider.scroll_into_view_if_needed()
                box = slider.bounding_box()
                page.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + 0.5 * box["height"])
                clicked = shown(), words()
                assert clicked[0] != stepped[0] and clicked[1] != stepped[1], f"{name}: the mouse moves nothing"
            assert page.faults == []
