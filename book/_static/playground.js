/* The playground: learners of the book on landscapes of two coordinates, computed in the reader's browser.

   The noise is zolib's own stream, version 1 (zolib/noise/stream.py), bit for bit, so that a seed gives the same path here
   and in Python; tests/book/test_playground.py compares them. First the numbers, then the page. */
(function () {
"use strict";

// -- the stream ----------------------------------------------------------------------------------------------------

const SIGN = 1, NORMAL = 2, fr = Math.fround;
const float = new Float32Array(1), int = new Int32Array(float.buffer);

function high(a, b) {  // the upper 32 bits of a product of two 32-bit words
  const al = a & 0xffff, ah = a >>> 16, bl = b & 0xffff, bh = b >>> 16;
  const cross = al * bh, other = ah * bl;
  const middle = ((al * bl) >>> 16) + (cross & 0xffff) + (other & 0xffff);
  return (ah * bh + (cross >>> 16) + (other >>> 16) + (middle >>> 16)) >>> 0;
}

function philox(c, k) {  // Philox4x32-10
  let [c0, c1, c2, c3] = c, [k0, k1] = k;
  for (let round = 0; round < 10; round++) {
    const p0 = high(c0, 0xD2511F53), q0 = Math.imul(c0, 0xD2511F53) >>> 0;
    const p1 = high(c2, 0xCD9E8D57), q1 = Math.imul(c2, 0xCD9E8D57) >>> 0;
    [c0, c1, c2, c3] = [(p1 ^ c1 ^ k0) >>> 0, q1, (p0 ^ c3 ^ k1) >>> 0, q0];
    k0 = (k0 + 0x9E3779B9) >>> 0; k1 = (k1 + 0xBB67AE85) >>> 0;
  }
  return [c0, c1, c2, c3];
}

// A seed is two 32-bit words, the low one first. The key of one law, or the seed of one use, is hashed from it.
const fold = (seed, law) => philox([law, 0, 0, 1], seed).slice(0, 2);

function horner(coefficients, x) {
  let value = fr(coefficients[coefficients.length - 1]);
  for (let i = coefficients.length - 2; i >= 0; i--) value = fr(fr(value * x) + fr(coefficients[i]));
  return value;
}
const LOG = [0.33333316, -0.25000808, 0.20002286, -0.16624597, 0.14181215, -0.13128404, 0.12881404, -0.078602076];
const SIN = [-0.16666655, 0.008332181, -0.00019517593], COS = [0.041666646, -0.0013887378, 2.4439483e-05];

function pair(first, second) {  // Box-Muller in single precision, each operation rounded on its own
  float[0] = fr(fr(fr(first) * 2 ** -32) + 2 ** -33);
  const bits = int[0], exponent = (bits - 0x3F3504F3) >> 23;
  int[0] = bits - (exponent << 23);
  const f = fr(float[0] - 1), square = fr(f * f);
  const rest = fr(fr(fr(square * f) * horner(LOG, f)) - fr(square * 0.5));
  const log = fr(fr(exponent * fr(0.6931472)) + fr(f + rest));
  const radius = fr(Math.sqrt(fr(log * -2)));
  const quarter = Math.floor((second + 2 ** 29) / 2 ** 30) & 3;
  const turn = ((((second << 2) >>> 0) + 2 ** 31) % 2 ** 32) - 2 ** 31;
  const a = fr(fr(turn) * fr(3.6572952e-10)), aa = fr(a * a);
  const sin = fr(a + fr(fr(aa * a) * horner(SIN, aa)));
  const cos = fr(fr(1 - fr(aa * 0.5)) + fr(fr(aa * aa) * horner(COS, aa)));
  let [x, y] = quarter & 1 ? [sin, cos] : [cos, sin];
  if (quarter === 1 || quarter === 2) x = -x;
  if (quarter >= 2) y = -y;
  return [fr(radius * x), fr(radius * y)];
}

// Two values of sample `sample` at step `step`: standard normal, or signs.
function normals(seed, step, sample) {
  const w = philox([0, 0, sample, step], fold(seed, NORMAL));
  return pair(w[0], w[1]);
}
function signs(seed, step, sample) {
  const w = philox([0, 0, sample, step], fold(seed, SIGN))[0];
  return [(w & 1) * 2 - 1, (w >>> 1 & 1) * 2 - 1];
}

// -- landscapes: value, gradient, Hessian [xx, xy, yy], and the third derivative applied twice ---------------------------

const C = Math.cos(Math.PI / 6), S = Math.sin(Math.PI / 6), A = 0.3, W = 2 * Math.PI / 0.8;
const landscapes = {
  bowl: {
    label: "Bowl, steeper across than along", x: [-2, 2], y: [-2, 2], start: [-1.6, -0.2], low: 0,
    f: ([x, y]) => 0.5 * ((C * x + S * y) ** 2 + 10 * (C * y - S * x) ** 2),
    g: ([x, y]) => { const u = C * x + S * y, v = 10 * (C * y - S * x); return [C * u - S * v, S * u + C * v]; },
    h: () => [C * C + 10 * S * S, C * S - 10 * C * S, S * S + 10 * C * C],
    t: () => [0, 0],
  },
  valley: {
    label: "Curved valley", x: [-2, 2], y: [-1, 3], start: [-1.2, 2], low: 0,
    f: ([x, y]) => (1 - x) ** 2 + 10 * (y - x * x) ** 2,
    g: ([x, y]) => [-2 * (1 - x) - 40 * x * (y - x * x), 20 * (y - x * x)],
    h: ([x, y]) => [2 - 40 * (y - x * x) + 80 * x * x, -40 * x, 20],
    t: ([x], [a, b]) => [240 * x * a * a - 80 * a * b, -40 * a * a],
  },
  wells: {
    label: "Two wells and a saddle between", x: [-2, 2], y: [-2, 2], start: [0.1, 1.6], low: -0.25,
    f: ([x, y]) => x ** 4 / 4 - x * x / 2 + y * y / 2,
    g: ([x, y]) => [x ** 3 - x, y],
    h: ([x]) => [3 * x * x - 1, 0, 1],
    t: ([x], [a]) => [6 * x * a * a, 0],
  },
  ripples: {
    label: "Bowl with ripples", x: [-2, 2], y: [-2, 2], start: [-1.7, 1.5], low: 0,
    f: ([x, y]) => (x * x + y * y) / 2 + A * (2 - Math.cos(W * x) - Math.cos(W * y)),
    g: (p) => p.map(v => v + A * W * Math.sin(W * v)),
    h: ([x, y]) => [1 + A * W * W * Math.cos(W * x), 0, 1 + A * W * W * Math.cos(W * y)],
    t: (p, n) => p.map((v, i) => -A * W ** 3 * Math.sin(W * v) * n[i] ** 2),
  },
};

// -- learners --------------------------------------------------------------------------------------------------------
// Each is made with (ask, start, options) and returns a step: t -> the new point, which is drawn. `ask` answers, with
// noise, and charges: value 1 evaluation, slope 3 (a pass, and twice that back), curvature 12, third 24.

const add = (p, q, c) => [p[0] + c * q[0], p[1] + c * q[1]];
function solve([xx, xy, yy], [a, b]) {
  const det = xx * yy - xy * xy;
  return [(yy * a - xy * b) / det, (xx * b - xy * a) / det];
}

function differences(ask, p, { sigma }, directions) {  // two values along each direction: the mean of slope times z
  let g = [0, 0];
  for (const z of directions) {
    const c = (ask.value(add(p, z, sigma)) - ask.value(add(p, z, -sigma))) / (2 * sigma);
    g = add(g, z, c / directions.length);
  }
  return g;
}

function centred(values) {  // ranks from -1/2 to 1/2; ties share
  return values.map(v => {
    const below = values.filter(w => w < v).length, equal = values.filter(w => w === v).length;
    return (below + (equal - 1) / 2) / (values.length - 1) - 0.5;
  });
}

function descend(estimate) {
  return (ask, start, o) => { let p = start; return t => p = add(p, estimate(ask, p, o, t), -o.rate); };
}

const methods = {
  "coordinates": {
    label: "0: each coordinate in turn", rate: 0.08, sigma: 0.1,
    make: descend((ask, p, o) => {
      const g = [];
      for (const e of [[1, 0], [0, 1]]) g.push(differences(ask, p, o, [e])[e[0] ? 0 : 1]);
      return g;
    }),
  },
  "spsa": {
    label: "0: SPSA, random signs", rate: 0.04, sigma: 0.1,
    make: descend((ask, p, o, t) => differences(ask, p, o, [signs(o.seed, t, 0)])),
  },
  "gaussian": {
    label: "0: two Gaussian directions", rate: 0.04, sigma: 0.1,
    make: descend((ask, p, o, t) => differences(ask, p, o, [0, 1].map(k => normals(o.seed, t, k)))),
  },
  "evolution": {
    label: "0: evolution strategy", rate: 0.06, sigma: 0.3,
    make: descend((ask, p, o, t) => {
      const z = [0, 1, 2, 3, 4, 5, 6, 7].map(k => normals(o.seed, t, k)), values = [];
      for (const v of z) for (const s of [1, -1]) values.push(ask.value(add(p, v, s * o.sigma)));
      const u = centred(values);
      let g = [0, 0];
      z.forEach((v, k) => g = add(g, v, (u[2 * k] - u[2 * k + 1]) / (2 * o.sigma) / z.length));
      return g;
    }),
  },
  "snes": {
    label: "0: natural evolution (SNES)", rate: 1, sigma: 0.5,
    make(ask, start, o) {
      const size = 6, eta = o.rate * (3 + Math.log(2)) / (5 * Math.SQRT2);
      const raw = Array.from({ length: size }, (_, k) => Math.max(0, Math.log(size / 2 + 1) - Math.log(k + 1)));
      const total = raw.reduce((a, b) => a + b), utility = raw.map(u => u / total - 1 / size);
      const seed = fold(o.seed, 0x6D690000);
      let p = start, spread = [o.sigma, o.sigma];
      return t => {
        const z = raw.map((_, k) => normals(seed, t, k));
        const values = z.map(v => ask.value([p[0] + spread[0] * v[0], p[1] + spread[1] * v[1]]));
        const order = values.map((_, k) => k).sort((i, j) => values[i] - values[j]);
        let first = [0, 0], second = [0, 0];
        order.forEach((k, place) => {
          first = add(first, z[k], utility[place]);
          second = add(second, z[k].map(v => v * v), utility[place]);
        });
        p = p.map((v, i) => v + spread[i] * first[i]);
        spread = spread.map((s, i) => s * Math.exp(eta / 2 * second[i]));
        return p;
      };
    },
  },
  "oua": {
    label: "0: Ornstein-Uhlenbeck", rate: 2, sigma: 0.5,
    make(ask, start, o) {
      const dt = 0.05, seed = fold(o.seed, 0x6F75), spread = Math.sqrt(-Math.expm1(-2 * dt) / 2);
      let mean = start, p = start, expected = null;
      return t => {
        const reward = -ask.value(p), z = normals(seed, t, 0);
        if (expected === null) expected = reward;
        const error = reward - expected;
        mean = add(mean, add(p, mean, -1), error * o.rate * dt);
        p = p.map((v, i) => mean[i] + (v - mean[i]) * Math.exp(-dt) + o.sigma * spread * z[i]);
        expected -= error * Math.expm1(-dt);
        return mean;
      };
    },
  },
  "gradient": { label: "1: gradient descent", rate: 0.08, make: descend((ask, p) => ask.slope(p)) },
  "momentum": {
    label: "1: with momentum 0.9", rate: 0.01,
    make(ask, start, o) {
      let p = start, v = [0, 0];
      return () => { v = add(ask.slope(p), v, 0.9); return p = add(p, v, -o.rate); };
    },
  },
  "newton": { label: "2: Newton", rate: 1, make: descend((ask, p) => solve(ask.curvature(p), ask.slope(p))) },
  "chebyshev": {
    label: "3: Chebyshev", rate: 1,
    make: descend((ask, p) => {
      const h = ask.curvature(p), n = solve(h, ask.slope(p));
      return add(n, solve(h, ask.third(p, n)), 0.5);
    }),
  },
};

function run({ landscape, method, start, rate, sigma = 0.1, noise = 0, budget = 300, seed = 0 }) {
  const land = landscapes[landscape], words = [seed >>> 0, 0], shaken = fold(words, 0x6E6F);
  let spent = 0, t = 0, asked = 0;
  const error = () => noise ? noise * normals(shaken, t, asked++)[0] : 0;
  const ask = {
    value: p => { spent += 1; return land.f(p) + error(); },
    slope: p => { spent += 3; return land.g(p).map(v => v + error()); },
    curvature: p => { spent += 12; return land.h(p); },
    third: (p, n) => { spent += 24; return land.t(p, n); },
  };
  const step = methods[method].make(ask, start, { rate, sigma, seed: words });
  const path = [start], cost = [0], values = [land.f(start)];
  let each = 0, ran = false;
  while (spent + each <= budget && path.length < 5000) {
    const before = spent;
    asked = 0;
    const p = step(t);
    if (!p.every(v => Math.abs(v) < 1e6)) { ran = true; break; }
    each = spent - before; t += 1;
    path.push(p); cost.push(spent); values.push(land.f(p));
  }
  return { path, cost, values, ran, each };
}

window.zolibPlayground = { philox, fold, normals, signs, landscapes, methods, run };

// -- the page ----------------------------------------------------------------------------------------------------------

function page(box) {
  const W0 = 400, LEFT = 60, RIGHT = 12, TOP = 28, BOTTOM = 42, H0 = 340;
  const el = (name, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const control = name => box.querySelector(`[name="${name}"]`);
  const out = name => box.querySelector(`[data-out="${name}"]`);
  const state = { landscape: "bowl", method: "spsa", start: null, shown: Infinity, timer: 0 };
  const logged = { rate: v => 10 ** v, sigma: v => 10 ** v, noise: v => v <= -4 ? 0 : 10 ** v, budget: v => Math.round(10 ** v) };
  const raised = k => "10" + [...String(k)].map(c => "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"[c] || "\u207b").join("");
  const spoken = v => {  // 0.0123, or 1.3 times a power of ten
    if (v >= 1e-3 && v < 1e5) return String(+v.toPrecision(2));
    const k = Math.floor(Math.log10(v)); return (v / 10 ** k).toFixed(1) + " \u00d7 " + raised(k);
  };
  const number = v => v === 0 ? "0" : v >= 100 ? String(Math.round(v)) : String(+v.toPrecision(2));

  for (const [name, entries] of [["landscape", landscapes], ["method", methods]]) {
    for (const key in entries) {
      const option = document.createElement("option");
      option.value = key; option.textContent = entries[key].label;
      control(name).append(option);
    }
  }

  function scale(limits, low, high, log) {
    const change = log ? Math.log10 : v => v, [a, b] = limits.map(change);
    return v => Math.max(-1e4, Math.min(1e4, low + (high - low) * (change(v) - a) / (b - a)));
  }

  function contours(land, sx, sy) {  // level lines by marching squares, closer together near the bottom
    const n = 60, level = [], grid = [];
    const at = (i, limits) => limits[0] + (limits[1] - limits[0]) * i / n;
    for (let i = 0; i <= n; i++) grid.push(Array.from({ length: n + 1 }, (_, j) => land.f([at(i, land.x), at(j, land.y)])));
    const top = Math.max(...grid.flat()) - land.low;
    for (let k = 1; k <= 13; k++) level.push(land.low + top * (k / 13.5) ** 3);
    let d = "";
    for (const v of level) {
      for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) {
        const corner = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]], cut = [];
        for (let e = 0; e < 4; e++) {
          const [a, b] = [corner[e], corner[(e + 1) % 4]], fa = grid[a[0]][a[1]], fb = grid[b[0]][b[1]];
          if ((fa < v) !== (fb < v)) {
            const r = (v - fa) / (fb - fa);
            cut.push([sx(at(a[0] + r * (b[0] - a[0]), land.x)), sy(at(a[1] + r * (b[1] - a[1]), land.y))]);
          }
        }
        for (let e = 0; e + 1 < cut.length; e += 2)
          d += `M${cut[e].map(q => q.toFixed(1))}L${cut[e + 1].map(q => q.toFixed(1))}`;
      }
    }
    return d;
  }

  function frame(svg, x, y, labels, log) {
    const sx = scale(x, LEFT, W0 - RIGHT, log.x), sy = scale(y, H0 - BOTTOM, TOP, log.y);
    svg.append(el("path", { class: "frame", d: `M${LEFT} ${TOP}V${H0 - BOTTOM}H${W0 - RIGHT}` }));
    const ticks = (limits, isLog) => {
      if (!isLog) { const s = limits[1] - limits[0] > 100 ? 10 ** Math.floor(Math.log10(limits[1] / 2)) : 1;
        const r = []; for (let v = Math.ceil(limits[0] / s) * s; v <= limits[1]; v += s) r.push(v);
        return r.length > 7 ? r.filter((_, i) => i % Math.ceil(r.length / 6) === 0) : r; }
      const a = Math.ceil(Math.log10(limits[0])), b = Math.floor(Math.log10(limits[1])), every = Math.max(1, Math.ceil((b - a) / 5));
      const r = []; for (let k = a; k <= b; k += every) r.push(10 ** k); return r;
    };
    const text = (v, isLog) => isLog && (v < 1e-3 || v > 1e4) ? raised(Math.round(Math.log10(v))) : String(+v.toPrecision(4)).replace("-", "\u2212");
    for (const v of ticks(x, log.x)) {
      svg.append(el("path", { class: "frame", d: `M${sx(v)} ${H0 - BOTTOM}v5` }));
      svg.append(el("text", { x: sx(v), y: H0 - BOTTOM + 18, "text-anchor": "middle" }, text(v, log.x)));
    }
    for (const v of ticks(y, log.y)) {
      svg.append(el("path", { class: "frame", d: `M${LEFT} ${sy(v)}h-5` }));
      svg.append(el("text", { x: LEFT - 8, y: sy(v) + 4, "text-anchor": "end" }, text(v, log.y)));
    }
    svg.append(el("text", { class: "title", x: LEFT, y: 16 }, labels[0]));
    svg.append(el("text", { x: (LEFT + W0 - RIGHT) / 2, y: H0 - 6, "text-anchor": "middle" }, labels[1]));
    svg.append(el("text", { transform: `translate(12 ${(TOP + H0 - BOTTOM) / 2}) rotate(-90)`, "text-anchor": "middle" }, labels[2]));
    return [sx, sy];
  }

  const [map, curve] = box.querySelectorAll("svg");
  const drawn = { landscape: null };

  function settings() {
    const o = { landscape: state.landscape, method: state.method, start: state.start, seed: +control("seed").value || 0 };
    for (const name in logged) o[name] = logged[name](+control(name).value);
    return o;
  }

  function path() {  // computed anew only if a setting has changed
    const o = settings(), key = JSON.stringify(o);
    if (drawn.key !== key) { drawn.key = key; drawn.run = run(o); }
    return drawn.run;
  }

  /* What lies outside the axes is cut off. */
  function axesOf(svg, id) {
    const clip = el("clipPath", { id });
    clip.append(el("path", { d: `M${LEFT} ${TOP}H${W0 - RIGHT}V${H0 - BOTTOM}H${LEFT}Z` }));
    svg.append(clip);
    return `url(#${id})`;
  }

  function draw() {
    const land = landscapes[state.landscape], o = settings(), r = path();
    const shown = Math.min(state.shown, r.path.length - 1), way = r.path.slice(0, shown + 1);
    if (drawn.landscape !== state.landscape) {
      map.replaceChildren();
      [drawn.sx, drawn.sy] = frame(map, land.x, land.y, ["Where it goes", "first coordinate", "second coordinate"], {});
      map.append(el("path", { class: "level", d: contours(land, drawn.sx, drawn.sy) }));
      drawn.path = el("polyline", { class: "path", "clip-path": axesOf(map, "zolib-playground-map") });
      drawn.start = el("circle", { class: "start", r: 5 }); drawn.end = el("circle", { class: "end", r: 6 });
      map.append(drawn.path, drawn.start, drawn.end);
      drawn.landscape = state.landscape;
    }
    const place = p => [drawn.sx(p[0]), drawn.sy(p[1])], inside = p => [Math.max(LEFT, Math.min(W0 - RIGHT, p[0])), Math.max(TOP, Math.min(H0 - BOTTOM, p[1]))];
    drawn.path.setAttribute("points", way.map(p => place(p).map(v => v.toFixed(1)).join()).join(" "));
    for (const [dot, p] of [[drawn.start, way[0]], [drawn.end, way[shown]]]) {
      const [x, y] = inside(place(p)); dot.setAttribute("cx", x); dot.setAttribute("cy", y);
    }
    curve.replaceChildren();
    const height = r.values.map(v => Math.max(v - land.low, 1e-16)), most = Math.max(...height), least = Math.min(...height);
    const y = [10 ** Math.floor(Math.log10(Math.max(least, 1e-16))), 10 ** Math.ceil(Math.log10(Math.min(most, 1e12)) + 1e-9)];
    if (y[0] >= y[1]) y[1] = 10 * y[0];
    const [sx, sy] = frame(curve, [0, o.budget], y, ["How far above the bottom", "evaluations spent", "objective minus its least value"], { y: true });
    curve.append(el("polyline", { class: "path", "clip-path": axesOf(curve, "zolib-playground-curve"), points: way.map((_, i) => `${sx(r.cost[i]).toFixed(1)},${sy(height[i]).toFixed(1)}`).join(" ") }));
    curve.append(el("circle", { class: "end", r: 5, cx: sx(r.cost[shown]), cy: Math.max(TOP, sy(height[shown])) }));
    for (const name in logged) {
      out(name).textContent = number(o[name]);
      control(name).setAttribute("aria-valuetext", number(o[name]));
    }
    const probes = methods[state.method].sigma !== undefined;
    control("sigma").disabled = !probes;
    if (!probes) out("sigma").textContent = "not used";
    const words = r.ran && shown === r.path.length - 1
      ? `It runs away after ${shown} steps: the step is too long, or the ground falls off.`
      : `After ${shown} steps, ${r.cost[shown]} evaluations (${r.each} for each step), it is ${spoken(height[shown])} above the bottom.`;
    out("words").textContent = words;
    map.setAttribute("aria-label", `Level lines of the landscape, and the path from the start (${way[0].map(v => v.toFixed(1))}) to (${way[shown].map(v => v.toFixed(2))}).`);
    curve.setAttribute("aria-label", `Height above the bottom against evaluations, from ${spoken(height[0])} to ${spoken(height[shown])}.`);
    return r;
  }

  const whole = () => { clearInterval(state.timer); state.shown = Infinity; play.textContent = "Play"; draw(); };
  function choose(name) {
    state[name] = control(name).value;
    if (name === "landscape") { state.start = landscapes[state.landscape].start.slice(); starts(); }
    const method = methods[state.method];
    if (name === "method") {
      control("rate").value = Math.log10(method.rate);
      if (method.sigma) control("sigma").value = Math.log10(method.sigma);
    }
    whole();
  }
  function starts() {
    const land = landscapes[state.landscape];
    ["x", "y"].forEach((axis, i) => {
      const input = control("start-" + axis);
      [input.min, input.max] = land[axis]; input.step = 0.05; input.value = state.start[i];
      out("start-" + axis).textContent = number2(state.start[i]); input.setAttribute("aria-valuetext", number2(state.start[i]));
    });
  }
  const number2 = v => v.toFixed(2).replace("-", "\u2212");

  for (const name of ["landscape", "method"]) control(name).addEventListener("change", () => choose(name));
  for (const name of [...Object.keys(logged), "seed"]) control(name).addEventListener("input", whole);
  ["x", "y"].forEach((axis, i) => control("start-" + axis).addEventListener("input", e => {
    state.start[i] = +e.target.value; starts(); whole();
  }));
  map.addEventListener("click", e => {
    const corner = map.getBoundingClientRect(), land = landscapes[state.landscape];
    const px = (e.clientX - corner.left) * W0 / corner.width, py = (e.clientY - corner.top) * H0 / corner.height;
    const to = (v, low, high, limits) => Math.max(limits[0], Math.min(limits[1], limits[0] + (limits[1] - limits[0]) * (v - low) / (high - low)));
    state.start = [to(px, LEFT, W0 - RIGHT, land.x), to(py, H0 - BOTTOM, TOP, land.y)];
    starts(); whole();
  });
  const play = box.querySelector('[data-do="play"]'), one = box.querySelector('[data-do="step"]');
  play.addEventListener("click", () => {
    if (play.textContent === "Stop") { clearInterval(state.timer); play.textContent = "Play"; return; }
    state.shown = 0; play.textContent = "Stop";
    const last = path().path.length - 1, stride = Math.max(1, Math.round(last / 150));
    state.timer = setInterval(() => {
      state.shown = Math.min(last, state.shown + stride); draw();
      if (state.shown >= last) { clearInterval(state.timer); play.textContent = "Play"; }
    }, 40);
  });
  one.addEventListener("click", () => {
    clearInterval(state.timer); play.textContent = "Play";
    const last = path().path.length - 1;
    state.shown = state.shown >= last ? 0 : state.shown + 1; draw();
  });
  box.querySelector('[data-do="reset"]').addEventListener("click", () => { control("seed").value = 0; control("noise").value = -4; choose("landscape"); choose("method"); });

  control("method").value = state.method;
  state.start = landscapes.bowl.start.slice();
  starts(); choose("method");
}

function begin() { const box = document.getElementById("zolib-playground"); if (box) page(box); }
if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin); else begin();
})();
