// Typesets formulas and reports those that fail.
// stdin: {mathjax: folder, macros: {...}, formulas: [{tex, display}]}; stdout: {position: message}.
const fs = require("fs");
const path = require("path");

const task = JSON.parse(fs.readFileSync(0, "utf8"));
const packages = ["base", "ams", "newcommand", "configmacros", "require", "autoload"]; // no "noundefined"

require(path.join(task.mathjax, "node-main.js"))
  .init({
    loader: { load: ["input/tex", "adaptors/liteDOM", "output/svg"], require: require,
              paths: { mathjax: task.mathjax } },
    tex: { packages: packages, macros: task.macros },
    startup: { typeset: false },
  })
  .then(async (MathJax) => {
    const errors = {};
    for (const [index, formula] of task.formulas.entries()) {
      const html = MathJax.startup.adaptor.outerHTML(
        await MathJax.tex2svgPromise(formula.tex, { display: formula.display }));
      const error = html.match(/data-mjx-error="([^"]*)"/);
      if (error) errors[index] = error[1];
    }
    process.stdout.write(JSON.stringify(errors));
  })
  .catch((error) => {
    process.stderr.write(String(error && error.message || error));
    process.exit(1);
  });
