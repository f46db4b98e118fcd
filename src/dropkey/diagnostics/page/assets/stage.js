// The panels: the image of each model with the attention of one query over it, prefix tokens apart.

const pictures = data.images.map(({ source }) => {
  const picture = new Image();
  picture.src = source;
  return picture;
});

const panels = [];

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in made && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function buildPanel() {
  const canvas = element("canvas", { tabIndex: 0 });
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-roledescription", "attention map");
  canvas.setAttribute("aria-describedby", "keys");
  const panel = {
    canvas,
    name: element("h3"),
    site: element("p", { className: "site quiet" }),
    bar: element("canvas", { width: 256, height: 1 }),
    low: element("span"),
    high: element("span"),
    looks: element("dl"),
    prefix: element("div", { className: "prefix" }),
  };
  panel.bar.setAttribute("aria-hidden", "true");
  const legend = element("div", { className: "legend" }, panel.bar,
    element("div", { className: "ends" }, panel.low, panel.high));
  paintBar(panel.bar);
  panel.root = element("article", { className: "panel" }, panel.name, panel.site,
    element("div", { className: "stage" }, canvas),
    element("div", { className: "facts" }, legend, panel.looks, panel.prefix));
  listenTo(canvas);
  return panel;
}

function listenTo(canvas) {
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerType === "mouse") change({ hovered: tokenAt(canvas, event) });
  });
  canvas.addEventListener("pointerleave", () => change({ hovered: null }));
  canvas.addEventListener("click", (event) => {
    const token = tokenAt(canvas, event);
    if (token !== null) change({ query: token, hovered: null });
  });
  canvas.addEventListener("keydown", (event) => {
    const does = {
      ArrowUp: () => moveQuery(-1, 0), ArrowDown: () => moveQuery(1, 0),
      ArrowLeft: () => moveQuery(0, -1), ArrowRight: () => moveQuery(0, 1),
      Home: () => moveQuery(0, -1e6), End: () => moveQuery(0, 1e6),
      PageUp: () => moveSite(-1), PageDown: () => moveSite(1),
      "[": () => moveHead(-1), "]": () => moveHead(1), p: nextPrefix, P: nextPrefix,
    }[event.key];
    if (!does || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    does();
  });
}

function tokenAt(canvas, event) {
  const site = siteOf(state.first);
  if (!site.queryGrid) return null;
  const box = canvas.getBoundingClientRect();
  const [rows, columns] = site.queryGrid;
  const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
  const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
  if (row < 0 || column < 0 || row >= rows || column >= columns) return null;
  return prefixOfQueries(site) + row * columns + column;
}

// What each panel shows: the weights of its model, and a scale that both share.
async function viewOf(model) {
  const site = siteOf(model);
  const maps = await unpack(model, state.image, siteNumber(model));
  const weights = weightsOf(maps, site, headOf(site), queryOf(site));
  return { model, site, weights, patches: patchesOf(weights, site), query: queryOf(site) };
}

async function viewsNow() {
  const views = await Promise.all(shownModels().map(viewOf));
  const peak = Math.max(...views.map(({ patches }) => patches.reduce((most, weight) => Math.max(most, weight), 0)));
  views.forEach((view) => Object.assign(view, { peak, scale: scaleOf(state.scale, view.patches, peak) }));
  return views;
}

let drawing = 0;

async function drawPanels() {
  const mine = ++drawing;
  const views = await viewsNow();
  if (mine !== drawing) return; // something newer is on its way
  const box = document.getElementById("panels");
  while (panels.length < views.length) {
    panels.push(buildPanel());
    box.append(panels.at(-1).root);
  }
  panels.forEach((panel, place) => { panel.root.hidden = place >= views.length; });
  for (const each of [box, document.getElementById("looks")]) each.classList.toggle("pair", views.length > 1);
  views.forEach((view, place) => drawPanel(panels[place], view));
  announce(views[0]);
}

function drawPanel(panel, view) {
  const { site, model } = view;
  panel.name.textContent = data.models[model].label;
  const place = site.onImage ? "" : " · mean over the windows, not on the image";
  panel.site.textContent = `${site.name} · ${site.kind} · ${headText(site)}${place}`;
  drawStage(panel.canvas, view);
  [panel.low.textContent, panel.high.textContent] = endsOfScale(state.scale, view.peak);
  panel.looks.replaceChildren(...facts(view).flatMap(([name, value]) =>
    [element("dt", {}, name), element("dd", {}, value)]));
  drawPrefix(panel.prefix, view);
  panel.canvas.setAttribute("aria-label", `${data.models[model].label}: ${spoken(view)}`);
}

function headText(site) {
  if (site.heads === 1) return site.kind === "rollout" ? "all heads and blocks up to the last" : "one head";
  return headOf(site) === null ? `mean of ${site.heads} heads` : `head ${headOf(site) + 1} of ${site.heads}`;
}

function strongest(view) {
  let best = 0;
  view.patches.forEach((weight, place) => { if (weight > view.patches[best]) best = place; });
  return best;
}

function facts(view) {
  const { site, patches, weights } = view;
  const prefix = prefixOfKeys(site);
  const best = strongest(view);
  const onPrefix = weights.subarray(0, prefix).reduce((sum, weight) => sum + weight, 0);
  const all = weights.reduce((sum, weight) => sum + weight, 0);
  const entropy = weights.reduce((sum, weight) => (weight > 0 ? sum - (weight / all) * Math.log2(weight / all) : sum), 0);
  return [
    ["from", tokenName(site, view.query)],
    ["most to", `${tokenName(site, best + prefix, prefix, gridOfKeys(site))}, ${percent(patches[best])}`],
    ["spread over", `about ${Math.max(1, Math.round(2 ** entropy))} of ${site.columns} tokens`],
    ...(prefix ? [["prefix tokens", percent(onPrefix)]] : []),
  ];
}

function spoken(view) {
  return facts(view).map(([name, value]) => `${name} ${value}`).join("; ");
}

function drawStage(canvas, view) {
  const picture = pictures[state.image];
  const [wide, high] = sizeOfStage(view.site);
  if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
  const context = canvas.getContext("2d");
  context.fillStyle = "#777";
  context.fillRect(0, 0, wide, high);
  context.imageSmoothingEnabled = picture.naturalWidth > 128;
  if (view.site.onImage && picture.complete && picture.naturalWidth) context.drawImage(picture, 0, 0, wide, high);
  drawHeat(context, view, wide, high);
  drawQuery(context, view, wide, high);
}

function sizeOfStage(site) {
  const { width, height } = data.images[state.image];
  const [rows, columns] = gridOfKeys(site);
  return site.onImage ? stageSize(width, height) : stageSize(columns, rows);
}

function stageSize(width, height) {
  const side = 720;
  return width >= height ? [side, Math.round((side * height) / width)] : [Math.round((side * width) / height), side];
}

// Weak attention lets the image through, strong attention covers it.
function opacityOf(share, site) {
  return site.onImage ? state.overlay * (0.3 + 0.7 * share) : 1;
}

function drawHeat(context, view, wide, high) {
  const alphaOf = (share) => Math.round(255 * opacityOf(share, view.site));
  const heat = pixelsOf(view.patches, gridOfKeys(view.site), view.scale, alphaOf);
  context.imageSmoothingEnabled = false;
  context.drawImage(heat, 0, 0, wide, high);
}

function drawQuery(context, view, wide, high) {
  const { site, query } = view;
  const prefix = prefixOfQueries(site);
  if (!site.queryGrid || query < prefix) return;
  const [rows, columns] = site.queryGrid;
  const [row, column] = [Math.floor((query - prefix) / columns), (query - prefix) % columns];
  for (const [color, line] of [["#000", 7], ["#fff", 3]]) {
    context.strokeStyle = color;
    context.lineWidth = line;
    context.strokeRect((column * wide) / columns, (row * high) / rows, wide / columns, high / rows);
  }
}

// One button for each prefix token: how much it is looked at, and to look from it.
function drawPrefix(box, view) {
  const { site, weights, query } = view;
  const count = Math.max(prefixOfKeys(site), site.queryGrid ? prefixOfQueries(site) : 0);
  if (box.childElementCount !== count) {
    box.replaceChildren(...Array.from({ length: count }, (_, token) => {
      const button = element("button", { type: "button" }, element("span", {}, `prefix ${token + 1}`),
        element("span", { className: "bar" }, element("i")), element("span", { className: "number" }));
      button.addEventListener("click", () => change({ query: token, hovered: null }));
      return button;
    }));
  }
  Array.from(box.children).forEach((button, token) => {
    const weight = token < prefixOfKeys(site) ? weights[token] : 0;
    button.querySelector("i").style.width = `${Math.min(100, 100 * weight)}%`;
    button.querySelector(".number").textContent = percent(weight);
    button.setAttribute("aria-pressed", String(query === token && token < prefixOfQueries(site)));
    button.setAttribute("aria-label", `look from prefix token ${token + 1}, which gets ${percent(weight)}`);
  });
}

// Said after a pause, and not while the mouse is passing over.
let speaking = 0;

function announce(view) {
  if (state.hovered !== null) return;
  clearTimeout(speaking);
  speaking = setTimeout(() => {
    document.getElementById("status").textContent = `${view.site.name}, ${headText(view.site)}: ${spoken(view)}`;
  }, 250);
}
