// Measures over depth, and how alike blocks are, as SVG with the same numbers in tables.

// What each measure says, in a few words.
const MEASURES = {
  entropy: "Entropy of the attention of a query, in nats: 0 is one key, larger is wider.",
  peak: "Largest weight of a query: 1 is one key alone.",
  distance: "How far away, in patches, a query looks on average.",
  head_similarity: "Cosine of the maps of every two heads: 1 means that all heads do the same.",
  effective_rank: "Effective rank of the maps: how many different rows they are made of.",
  prefix_share: "Share of attention on prefix tokens: class, register and distillation tokens.",
  sink_share: "Share of attention on the one key that gets most of it.",
  sink_value_norm: "Length of that key's value against the others': below 1, the sink says little.",
};

const LIKENESS = [0.08, 0.92]; // the part of the color ramp from a similarity of 0 to 1

const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function mean(values) {
  const known = values.filter((value) => value !== null);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}

function short(value) {
  return value === null ? "–" : Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
}

// For each block: the value of every head in the image that is shown, and their mean.
function curveOf(model) {
  return data.models[model].sites.flatMap((site, number) => {
    const heads = site.measures[state.measure]?.[state.image];
    return heads ? [{ number, heads, mean: mean(heads) }] : [];
  });
}

function ticksOf(low, high) {
  const step = 10 ** Math.floor(Math.log10((high - low) / 4));
  const nice = [1, 2, 5, 10].map((factor) => factor * step).find((size) => (high - low) / size <= 5) ?? 10 * step;
  const first = Math.ceil(low / nice);
  return Array.from({ length: Math.floor(high / nice) - first + 1 }, (_, place) => (first + place) * nice);
}

function drawDepth() {
  const box = document.getElementById("depth");
  document.getElementById("measure-text").textContent = MEASURES[state.measure] ?? "";
  const models = shownModels();
  const curves = models.map(curveOf);
  const values = curves.flat().flatMap(({ heads }) => heads.filter((value) => value !== null));
  if (!values.length) {
    box.replaceChildren(element("p", { className: "quiet" }, "Not defined for these blocks."));
    return;
  }
  box.replaceChildren(keysOf(models), depthSvg(curves, values), depthTable(models, curves));
}

function keysOf(models) {
  return element("ul", { className: "keys" }, ...models.map((model, place) => {
    const key = element("i");
    key.style.background = `var(--series-${place + 1})`;
    return element("li", {}, key, `${data.models[model].label}: mean of the heads, a dot for each`);
  }));
}

function depthSvg(curves, values) {
  const narrow = document.documentElement.clientWidth < 560;
  const [wide, high, left, bottom] = narrow ? [420, 260, 44, 34] : [1040, 260, 52, 34];
  const counts = curves.map((curve) => Math.max(...curve.map(({ number }) => number)) + 1);
  const count = Math.max(...counts, 2);
  const ticks = ticksOf(Math.min(0, ...values), Math.max(...values) || 1);
  const top = Math.max(ticks.at(-1), ...values);
  const low = Math.min(ticks[0], ...values);
  const x = (number) => left + ((wide - left - 12) * number) / (count - 1);
  const y = (value) => 10 + (high - bottom - 10) * (1 - (value - low) / (top - low || 1));
  const chart = svg("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img" });
  chart.setAttribute("aria-label", `${state.measure} over the blocks; the numbers are in the table below`);
  for (const tick of ticks) {
    chart.append(svg("line", { class: "grid", x1: left, x2: wide - 12, y1: y(tick), y2: y(tick) }),
      svg("text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, short(tick)));
  }
  const every = Math.ceil(count / (narrow ? 8 : 24));
  for (let number = 0; number < count; number += every) {
    chart.append(svg("text", { x: x(number), y: high - 14, "text-anchor": "middle" }, number + 1));
  }
  chart.append(svg("text", { x: (left + wide) / 2, y: high, "text-anchor": "middle" }, "site of attention"));
  if (state.site < count) {
    chart.append(svg("line", { class: "chosen", x1: x(state.site), x2: x(state.site), y1: 10, y2: high - bottom }));
  }
  curves.forEach((curve, place) => chart.append(curveSvg(curve, x, y, `var(--series-${place + 1})`)));
  return chart;
}

function curveSvg(curve, x, y, color) {
  const known = curve.filter((point) => point.mean !== null);
  const points = known.map((point) => `${x(point.number).toFixed(1)},${y(point.mean).toFixed(1)}`).join(" ");
  const dots = known.flatMap(({ number, heads }) => heads.filter((value) => value !== null).map((value) =>
    svg("circle", { cx: x(number).toFixed(1), cy: y(value).toFixed(1), r: 2.5, fill: color, "fill-opacity": 0.4 })));
  const means = known.map((point) => svg("circle",
    { cx: x(point.number).toFixed(1), cy: y(point.mean).toFixed(1), r: 3.5, fill: color }));
  return svg("g", {}, ...dots, svg("polyline", { class: "line", points, stroke: color }), ...means);
}

function depthTable(models, curves) {
  const rows = curves.flatMap((curve, place) => curve.map((point) =>
    [data.models[models[place]].label, data.models[models[place]].sites[point.number].name, short(point.mean),
      point.heads.map(short).join(" ")]));
  return numbersTable(["model", "site", "mean", "heads"], rows);
}

function numbersTable(header, rows) {
  return element("details", { className: "no-print" }, element("summary", {}, "The numbers as a table"),
    element("div", { className: "numbers" }, element("table", {},
      element("thead", {}, element("tr", {}, ...header.map((name) => element("th", { scope: "col" }, name)))),
      element("tbody", {}, ...rows.map(([first, ...others]) => element("tr", {}, element("th", { scope: "row" }, first),
        ...others.map((value) => element("td", {}, value))))))));
}

function buildSimilarityKey() {
  const bar = element("canvas", { width: 256, height: 1 });
  bar.setAttribute("aria-hidden", "true");
  paintBar(bar, ...LIKENESS);
  document.getElementById("similarity-key").append(bar, element("div", { className: "ends" },
    element("span", {}, "0, nothing in common"), element("span", {}, "1, the same")));
}

function drawSimilarity() {
  const figures = shownModels().flatMap((model) => {
    const { label, sites, similarity, blocks, featureSimilarity } = data.models[model];
    const names = sites.map((site) => site.name);
    return [
      heatmap(`${label}: attention maps`, names, similarity, (number) => change({ site: number, hovered: null })),
      heatmap(`${label}: outputs of blocks`, blocks, featureSimilarity, null),
    ];
  });
  document.getElementById("similarity").replaceChildren(...figures.filter((figure) => figure !== null));
}

function heatmap(title, names, matrix, onChoice) {
  const count = matrix.length;
  if (!count || matrix.flat().every((value) => value === null)) return null;
  const side = 300 / count;
  const chart = svg("svg", { viewBox: "-26 0 328 326", role: "img" });
  chart.setAttribute("aria-label", `${title}: similarity of every two; the numbers are in the table below`);
  matrix.forEach((row, y) => row.forEach((value, x) => {
    const cell = svg("rect", { x: x * side, y: y * side, width: side + 0.3, height: side + 0.3,
      fill: value === null ? "var(--empty)" : `rgb(${rampColor(LIKENESS[0] + (LIKENESS[1] - LIKENESS[0]) * Math.max(0, value))})` },
    svg("title", {}, `${names[y]} and ${names[x]}: ${short(value)}`));
    if (onChoice) {
      cell.setAttribute("class", "cell");
      cell.addEventListener("click", () => onChoice(y));
    }
    chart.append(cell);
  }));
  const every = Math.ceil(count / 12);
  for (let number = 0; number < count; number += every) {
    const middle = (number + 0.5) * side;
    chart.append(svg("text", { x: -6, y: middle + 4, "text-anchor": "end" }, number + 1),
      svg("text", { x: middle, y: 316, "text-anchor": "middle" }, number + 1));
  }
  if (onChoice && state.site < count) {
    chart.append(svg("rect", { class: "chosen", fill: "none", x: 0, y: state.site * side, width: 300, height: side }));
  }
  const rows = matrix.map((row, place) => [names[place], ...row.map(short)]);
  return element("figure", {}, element("figcaption", {}, title), chart,
    numbersTable(["", ...names.map((_, number) => number + 1)], rows));
}
