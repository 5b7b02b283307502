"""Every page is audited by axe-core, light and dark, wide and on a phone; and what it cannot see is tried by hand.

axe-core needs seconds for each thousand elements, and a chapter has twenty thousand, nearly all of them alike: glyphs of
formulas and words of code. So formulas are emptied (a test of their own says that they are named), and of what is made
by one rule again and again, words of code, claims, functions of the library, a few of each kind are kept.
"""

import pytest
from axe_playwright_python.base import AXE_SCRIPT

THIN = """() => {
  for (const formula of document.querySelectorAll("mjx-container")) formula.replaceChildren();
  for (const kind of [".claim-reproduced", ".claim-departs", ".claim-recorded", "dl.py.function", "dl.py.class", "dl.py.method",
                      "dl.py.exception", "dl.py.attribute", "div.citation", ".genindextable li", "nav.bd-links li.toctree-l1"])
    for (const e of [...document.querySelectorAll(kind)].slice(5)) e.remove();
  const seen = new Set();
  for (const span of document.querySelectorAll("pre span, code span, dt.sig span, dt.sig em")) {
    const box = span.closest(".cell_input, .cell_output, pre, dt, code");
    const kind = [span.className, span.parentElement.className, box && box.className].join("|");
    if (seen.has(kind)) span.replaceWith(...span.childNodes); else seen.add(kind);
  }
}"""
AUDIT = """() => axe.run(document, {resultTypes: ["violations"]}).then((found) =>
  found.violations.flatMap((v) => v.nodes.map((n) => [v.impact, v.id, n.target.join(" ")])))"""
GRAVE = ("serious", "critical")


def audit(page):
    """What axe-core calls serious or critical on the page, as sentences."""
    return [f"{impact}: {rule} at {place}" for impact, rule, place in page.evaluate(AUDIT) if impact in GRAVE]


def test_the_audit_finds_what_it_should(chromium):
    page = chromium.new_page()
    page.set_content("""<html lang="en"><title>t</title><main><h1>t</h1><button></button>
        <pre><span class="k" style="color: #ccc">pale</span> <span class="k">pale</span></pre></main></html>""")
    page.evaluate(THIN)
    page.evaluate(AXE_SCRIPT)
    assert {found.split(" at ")[0] for found in audit(page)} == {"critical: button-name", "serious: color-contrast"}
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_no_page_has_a_grave_finding(addresses, open_page, pages, width, scheme):
    problems = []
    for name in pages:
        with open_page(f"{addresses['file']}/{name}", width, scheme) as page:
            page.evaluate(THIN)
            page.evaluate(AXE_SCRIPT)
            problems += [f"{name}: {problem}" for problem in audit(page)]
    assert problems == []


BY_HAND = """() => {
  const bad = [], ids = new Map();
  for (const e of document.querySelectorAll("[id]")) ids.set(e.id, (ids.get(e.id) || 0) + 1);
  for (const [id, count] of ids) if (count > 1) bad.push(`${count} elements have the id ${id}`);
  if (document.querySelectorAll("article h1").length > 1) bad.push("more than one title");
  let last = 0;
  for (const h of document.querySelectorAll("article :is(h1, h2, h3, h4, h5, h6)")) {
    const level = +h.tagName[1];
    if (level > last + 1) bad.push(`level ${level} follows ${last}: ${h.textContent}`);
    last = level;
  }
  for (const formula of document.querySelectorAll("article mjx-container"))
    if (!formula.querySelector("mjx-assistive-mml math")) bad.push("a formula cannot be spoken");
  for (const formula of document.querySelectorAll("article mjx-container[display]"))
    if ((formula.scrollWidth > formula.clientWidth + 1) !== (formula.tabIndex === 0))
      bad.push("the keyboard does not reach a formula that scrolls, or stops at one that fits");
  for (const table of document.querySelectorAll("article table")) {
    const box = table.getBoundingClientRect();
    if (box.right <= innerWidth + 1) continue;
    let e = table;
    while (e && !/auto|scroll/.test(getComputedStyle(e).overflowX)) e = e.parentElement;
    if (!e || e.getBoundingClientRect().right > innerWidth + 1) bad.push("a table neither fits nor scrolls");
  }
  return bad;
}"""

UNSIZED = """() => [...document.querySelectorAll("article img")].filter((i) => !(i.getAttribute("width") && i.getAttribute("height"))
  && getComputedStyle(i).aspectRatio === "auto").map((i) => i.src.split("/").pop())"""
MOVES = """() => document.getAnimations().map((a) => a.animationName || a.transitionProperty).concat(
  [...document.querySelectorAll("body *")].filter((e) => { const s = getComputedStyle(e);
    return parseFloat(s.animationDuration) > 0.01 && s.animationName !== "none" || s.scrollBehavior === "smooth"; })
    .map((e) => e.tagName + "." + e.className))"""


@pytest.mark.slow
def test_every_page_is_in_order_beyond_what_axe_sees(addresses, open_page, pages):
    problems = []
    for name in pages:
        with open_page(f"{addresses['file']}/{name}", 390) as page:
            found = page.evaluate(BY_HAND) + [f"moves though asked not to: {thing}" for thing in page.evaluate(MOVES)]
            found += [f"leaves no room for {image}" for image in page.evaluate(UNSIZED)]
            problems += [f"{name}: {problem}" for problem in found]
    assert not problems, "\n".join(problems)


def test_focus_can_be_seen(addresses, open_page):
    """Along the first forty stops of the keyboard on a chapter, each has an outline or another border than before."""
    with open_page(f"{addresses['file']}/chapters/1-orders/05-estimating-gradients.html") as page:
        seen = set()
        for _ in range(40):
            page.keyboard.press("Tab")
            name, outline = page.evaluate("""() => { const e = document.activeElement, s = getComputedStyle(e);
                return [e.outerHTML.slice(0, 90), s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 1
                        || s.boxShadow !== "none"]; }""")
            assert outline, name
            seen.add(name)
        assert len(seen) > 20
