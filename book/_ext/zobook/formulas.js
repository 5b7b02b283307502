// Typesets formulas, and reports those that fail.
// stdin: {mathjax: folder, macros: {...}, formulas: [{tex, display}]}
// stdout: {errors: {position: message}, html: [one for each formula], glyphs: {name: drawing}, style: their style sheet}
const fs = require("fs");
const path = require("path");

const task = JSON.parse(fs.readFileSync(0, "utf8"));
const packages = ["base", "ams", "newcommand", "configmacros", "require", "autoload"]; // no "noundefined"

require(path.join(task.mathjax, "node-main.js"))
  .init({
    loader: { load: ["input/tex", "adaptors/liteDOM", "output/svg", "a11y/assistive-mml"], require: require,
              paths: { mathjax: task.mathjax } },
    tex: { packages: packages, macros: task.macros },
    svg: { fontCache: "global" },
    startup: { typeset: false },
  })
  .then(async (MathJax) => {
    const { adaptor, output } = MathJax.startup;
    const errors = {}, html = [], glyphs = {};
    for (const [index, formula] of task.formulas.entries()) {
      html.push(adaptor.outerHTML(await MathJax.tex2svgPromise(formula.tex, { display: formula.display })));
      const error = html[index].match(/data-mjx-error="([^"]*)"/);
      if (error) errors[index] = error[1];
    }
    for (const glyph of adaptor.childNodes(output.fontCache.getCache()))
      glyphs[adaptor.getAttribute(glyph, "id")] = adaptor.outerHTML(glyph);
    const style = adaptor.textContent(MathJax.svgStylesheet());
    process.stdout.write(JSON.stringify({ errors, html, glyphs, style }));
  })
  .catch((error) => {
    process.stderr.write(String(error && error.message || error));
    process.exit(1);
  });
