/* A formula that is wider than the page scrolls in its box. The keyboard reaches those that do, and no others. */

(() => {
  const formulas = [...document.querySelectorAll('mjx-container[display="true"]')];
  const look = () => {
    const wide = formulas.map((formula) => formula.scrollWidth > formula.clientWidth + 1);
    formulas.forEach((formula, i) => {
      if (wide[i]) formula.tabIndex = 0;
      else formula.removeAttribute("tabindex");
    });
  };
  look();
  addEventListener("resize", look);
})();
