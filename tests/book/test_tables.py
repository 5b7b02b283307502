"""The taxonomy can be sorted and searched, the ledger searched; without scripts both are plain and whole."""

import html as markup
import re

import zolib
from zolib import claims

COLUMN = "rows => rows.map(row => row.cells[{}].textContent.trim())"


def keys(table):
    """The keys of the rows that are shown, in order."""
    return table.locator("tbody tr:not([hidden]) td:first-child code").all_inner_texts()


def test_the_taxonomy_sorts_and_filters_by_keyboard(addresses, open_page):
    rules = [row[0] for row in zolib.catalogue.table().rows]
    with open_page(f"{addresses['file']}/book/taxonomy.html") as page:
        table = page.locator("table.catalogue")
        assert keys(table) == rules
        heads = table.locator("thead th")
        assert [head.get_attribute("aria-sort") for head in heads.all()] == ["none"] * heads.count()
        for column in range(heads.count()):
            heads.nth(column).get_by_role("button").focus()
            page.keyboard.press("Enter")
            assert [head.get_attribute("aria-sort") for head in heads.all()].count("none") == heads.count() - 1
            assert heads.nth(column).get_attribute("aria-sort") == "ascending"
            up = table.locator("tbody tr").evaluate_all(COLUMN.format(column))
            assert len(up) == len(rules)
            page.keyboard.press("Space")
            assert heads.nth(column).get_attribute("aria-sort") == "descending"
            down = table.locator("tbody tr").evaluate_all(COLUMN.format(column))
            assert up[0] == down[-1] and up[-1] == down[0] and sorted(up) == sorted(down)
        page.get_by_role("searchbox", name="Filter the rules").fill("spsa two-point")
        shown = keys(table)
        assert 0 < len(shown) < len(rules) and "spsa" in shown
        assert f"{len(shown)} of {len(rules)} rules" in page.locator("form.filter output").inner_text()
        page.get_by_role("searchbox").fill("xyzzyplugh")
        assert keys(table) == []
        page.get_by_role("searchbox").fill("")
        assert len(keys(table)) == len(rules)
        assert page.faults == []


def test_the_ledger_filters(addresses, open_page):
    declared = claims.load()
    departing = {f"claim-{name}" for name, claim in declared.items() if claim.expected == "departs"}
    with open_page(f"{addresses['file']}/book/claims.html") as page:
        def shown():
            return {claim.get_attribute("id") for claim in page.locator("div.claim:not([hidden])").all()}

        assert len(shown()) == len(declared)
        page.get_by_label("Verdict").select_option("departs")
        assert shown() == departing
        chapters = {claim.chapter for claim in declared.values() if claim.expected == "departs"}
        assert page.locator("section.claims-chapter:visible").count() == len(chapters)
        page.get_by_label("Verdict").select_option("")
        page.get_by_role("searchbox", name="Filter the claims").fill("Stein")
        assert 0 < len(shown()) < len(declared)
        assert page.faults == []


def test_every_claim_of_every_chapter_is_shown(html):
    page = (html / "book" / "claims.html").read_text(encoding="utf-8")
    rows = dict(re.findall(r'<div class="claim claim-(?:\w+) docutils container" id="(claim-[^"]+)">(.*?)</dl>', page, re.DOTALL))
    declared = claims.load()
    assert set(rows) == {f"claim-{name}" for name in declared}
    for name, claim in declared.items():
        row = rows[f"claim-{name}"]
        words = " ".join(markup.unescape(re.sub(r"<[^>]+>", "", row)).split())
        assert claim.expected in words and f"chapter {int(claim.chapter)}, cell" in words, name
        assert claims.number(claim.value) in words and claim.grade in words, name
        assert re.search(r'href="[^"]*#claim-' + re.escape(name), row), name
        assert claim.kind.capitalize() in words and "Tolerance" in words and "Source" in words, name
    totals = page[page.index("claims-totals"):page.index("claims-legend")]
    words = " ".join(re.sub(r"<[^>]+>", " ", totals).split())
    assert f"{len(declared)} claims" in words
    for name, claim in declared.items():
        assert claim.expected == "reproduced" or f"#claim-{name}" in totals, name


def test_without_scripts_both_are_whole(addresses, open_page):
    with open_page(f"{addresses['file']}/book/taxonomy.html", scripts=False) as page:
        assert page.locator("table.catalogue tbody tr").count() == len(zolib.catalogue.table().rows)
        assert page.locator("form.filter, button.sort, [aria-sort]").count() == 0
        assert page.locator("table.catalogue thead th").first.inner_text() == "rule"
    with open_page(f"{addresses['file']}/book/claims.html", scripts=False) as page:
        assert page.locator("div.claim:visible").count() == len(claims.load())
