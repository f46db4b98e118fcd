// All blocks and heads at once: where the query looks in each, as small maps to choose from.

const tables = [];

function buildTable(model) {
  const { sites, label } = data.models[model];
  const most = Math.max(...sites.map((site) => site.heads));
  const room = Math.min(520, document.documentElement.clientWidth - 130);
  const small = Math.max(20, Math.min(44, Math.floor(room / most) - 3));
  const head = element("tr", {}, element("td"), ...Array.from({ length: most }, (_, number) =>
    element("th", { scope: "col" }, most <= 16 ? `head ${number + 1}` : `${number + 1}`)));
  if (most > 8) Array.from(head.children).slice(1).forEach((cell, number) => { cell.textContent = number + 1; });
  const cells = [];
  const rows = sites.map((site, number) => element("tr", {},
    element("th", { scope: "row", title: site.name }, shortName(site, number)),
    ...Array.from({ length: site.heads }, (_, which) => {
      const [down, across] = gridOfKeys(site);
      const canvas = element("canvas", { width: across, height: down });
      canvas.style.width = `${small}px`;
      canvas.style.height = `${Math.max(6, Math.round((small * down) / across))}px`;
      canvas.setAttribute("aria-hidden", "true");
      const button = element("button", { type: "button", tabIndex: -1 }, canvas);
      button.setAttribute("aria-label", `${site.name}, head ${which + 1}`);
      button.addEventListener("click", () => choose(model, number, which));
      cells.push({ number, which, button, canvas });
      return element("td", {}, button);
    })));
  const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
  const scroll = element("div", { className: "scroll" }, table);
  scroll.setAttribute("role", "group");
  scroll.setAttribute("aria-label", `${label}: all blocks and heads; arrow keys move`);
  table.addEventListener("keydown", (event) => moveInTable(event, model, cells));
  return { model, cells, root: element("div", {}, element("h3", {}, label), scroll) };
}

function shortName(site, number) {
  return site.kind === "rollout" ? "rollout" : `block ${site.block + 1}${isSecondOfBlock(site, number) ? ", next" : ""}`;
}

function isSecondOfBlock(site, number) {
  const before = data.models[state.first].sites[number - 1];
  return before !== undefined && before.block === site.block;
}

function choose(model, number, which) {
  const own = data.models[state.first].sites.length;
  const count = data.models[model].sites.length;
  const site = own === count ? number : Math.round((number * (own - 1)) / Math.max(1, count - 1));
  change({ site, head: data.models[model].sites[number].heads === 1 ? null : which, hovered: null });
}

function moveInTable(event, model, cells) {
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  const now = cells.find(({ button }) => button === document.activeElement);
  if (!steps || !now) return;
  event.preventDefault();
  const number = clamped(now.number + steps[0], data.models[model].sites.length);
  const which = clamped(now.which + steps[1], data.models[model].sites[number].heads);
  cells.find((cell) => cell.number === number && cell.which === which).button.focus();
  choose(model, number, which);
}

let overviewDrawing = 0;

async function drawOverview() {
  const mine = ++overviewDrawing;
  const box = document.getElementById("overview");
  for (const model of shownModels()) tables[model] ??= buildTable(model);
  const wanted = shownModels().map((model) => tables[model].root);
  if (wanted.length !== box.childElementCount || wanted.some((root, place) => box.children[place] !== root)) {
    box.replaceChildren(...wanted);
  }
  for (const model of shownModels()) await drawTable(tables[model], mine);
}

async function drawTable({ model, cells }, mine) {
  for (const { number, which, button, canvas } of cells) {
    const site = data.models[model].sites[number];
    const maps = await unpack(model, state.image, number);
    if (mine !== overviewDrawing) return; // something newer is on its way
    const weights = weightsOf(maps, site, which, queryOf(site));
    const patches = patchesOf(weights, site);
    const peak = patches.reduce((most, weight) => Math.max(most, weight), 0);
    const pixels = pixelsOf(patches, gridOfKeys(site), scaleOf(state.scale, patches, peak));
    canvas.getContext("2d").drawImage(pixels, 0, 0);
    const isChosen = number === siteNumber(model) && which === (headOf(site) ?? (site.heads === 1 ? 0 : -1));
    button.setAttribute("aria-current", String(isChosen));
    button.tabIndex = isChosen || (number === siteNumber(model) && which === 0 && headOf(site) === null) ? 0 : -1;
  }
}
