/* Without this script the taxonomy is a plain table and the ledger a plain list; with it one can be sorted and both be searched. */

(() => {
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  /* A button in each header sorts by its column; pressed again, the other way round. */
  function sortable(table) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = make("button", { type: "button", className: "sort" }, head.textContent.trim());
      head.replaceChildren(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const text = (row) => row.cells[column].textContent.trim();
        body.append(...[...body.rows].sort((a, b) => collator.compare(text(a), text(b)) * (down ? -1 : 1)));
      });
    });
  }

  /* A box for words, and for the ledger one for the verdict. All words must occur; how many are left is said aloud. */
  function searchable(anchor, items, noun, { groups = [], verdicts = [] } = {}) {
    const box = make("input", { type: "search", autocomplete: "off", id: `filter-${noun}` });
    const count = make("output", { htmlFor: `filter-${noun}` });
    const tools = make("form", { className: "filter" }, make("label", { htmlFor: box.id }, `Filter the ${noun} `), box);
    const choice = make("select", { id: `filter-${noun}-verdict` }, make("option", { value: "" }, "all"));
    if (verdicts.length) {
      choice.append(...verdicts.map((verdict) => make("option", { value: verdict }, verdict)));
      tools.append(make("label", { htmlFor: choice.id }, "Verdict "), choice);
    }
    tools.append(count);
    tools.setAttribute("role", "search");
    tools.setAttribute("aria-label", `Filter the ${noun}`);
    const show = () => {
      const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const item of items) {
        const text = item.textContent.toLowerCase();
        const fits = words.every((word) => text.includes(word))
          && (!choice.value || item.classList.contains(`claim-${choice.value}`));
        item.hidden = !fits;
        shown += fits;
      }
      for (const group of groups) group.hidden = !items.some((item) => !item.hidden && group.contains(item));
      count.textContent = `${shown} of ${items.length} ${noun}`;
    };
    tools.addEventListener("submit", (event) => event.preventDefault());
    tools.addEventListener("input", show);
    anchor.before(tools);
    show();
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    sortable(table);
    searchable(table.closest(".pst-scrollable-table-container") || table, [...table.tBodies[0].rows], "rules");
  }

  const claims = [...document.querySelectorAll("div.claim")];
  const groups = [...document.querySelectorAll("section.claims-chapter")];
  if (groups.length) searchable(groups[0], claims, "claims", { groups, verdicts: ["reproduced", "departs", "recorded"] });
})();
