// Sliders, choices and thumbnails: each sets a part of the state and shows it.

const field = (id) => document.getElementById(id);

function buildControls() {
  field("images").append(...data.images.map(({ source, name }, number) => {
    const input = element("input", { type: "radio", name: "image", value: number, checked: number === 0 });
    input.addEventListener("change", () => change({ image: number, hovered: null }));
    return element("label", { title: name }, input, element("img", { src: source, alt: name }));
  }));
  fillModels();
  field("measure").append(...measureNames().map((name) => element("option", { value: name }, name.replaceAll("_", " "))));
  state.measure = measureNames()[0] ?? null;
  const sets = {
    site: (value) => ({ site: Number(value) }),
    head: (value) => ({ head: Number(value) === 0 ? null : Number(value) - 1 }),
    overlay: (value) => ({ overlay: value / 100 }),
    scale: (value) => ({ scale: value }),
    first: (value) => ({ first: Number(value) }),
    second: (value) => ({ second: value === "" ? null : Number(value) }),
    measure: (value) => ({ measure: value }),
    epoch: (value) => ({ first: Number(value) }),
  };
  for (const [id, read] of Object.entries(sets)) {
    field(id).addEventListener("input", (event) => change({ ...read(event.target.value), hovered: null }));
  }
  field("theme").addEventListener("click", nextTheme);
}

function fillModels() {
  const options = () => data.models.map(({ label }, number) => element("option", { value: number }, label));
  field("first").append(...options());
  field("second").append(element("option", { value: "" }, "nothing"), ...options());
  field("second-field").hidden = data.models.length < 2;
  field("epoch-field").hidden = !data.areEpochs || data.models.length < 2;
  field("epoch").max = data.models.length - 1;
  if (data.areEpochs) state.first = data.models.length - 1;
  if (data.models.length > 1) state.second = data.areEpochs ? 0 : 1;
}

function measureNames() {
  return Object.keys(data.models[0].sites[0].measures);
}

function showControls() {
  const { sites, label } = data.models[state.first];
  if (state.site >= sites.length) state.site = sites.length - 1;
  const site = siteOf(state.first);
  show("site", state.site, sites.length - 1, `${state.site + 1} of ${sites.length}: ${site.name}`);
  show("head", headOf(site) === null ? 0 : headOf(site) + 1, site.heads === 1 ? 0 : site.heads, headText(site));
  show("overlay", Math.round(100 * state.overlay), 100, `${Math.round(100 * state.overlay)}%`);
  show("epoch", state.first, data.models.length - 1, label);
  field("scale").value = state.scale;
  field("first").value = state.first;
  field("second").value = state.second ?? "";
  field("measure").value = state.measure;
}

function show(id, value, max, text) {
  const input = field(id);
  input.max = max;
  input.value = value;
  input.setAttribute("aria-valuetext", text);
  field(`${id}-text`).textContent = text;
}

function nextTheme() {
  const root = document.documentElement;
  const next = { undefined: "light", light: "dark", dark: undefined }[root.dataset.theme];
  if (next === undefined) delete root.dataset.theme;
  else root.dataset.theme = next;
  const name = next ?? "auto";
  field("theme").textContent = `Theme: ${name}`;
  field("theme").setAttribute("aria-label", `Color theme: ${next ?? "automatic"}`);
}

function showNotes() {
  const saysModel = data.models.length > 1 && !data.areEpochs;
  const notes = data.models.flatMap((model) => model.notes.map((note) => (saysModel ? `${model.label}: ${note}` : note)));
  field("notes").append(...[...new Set([...data.notes, ...notes])].map((note) => element("li", {}, `${note}.`)));
  const sizes = [...new Set(data.images.map(({ width, height }) => `${width} × ${height}`))].join(", ");
  const [first, last] = [data.models[0], data.models.at(-1)];
  const models = data.areEpochs ? `${first.model}, ${first.label} to ${last.label}`
    : data.models.map(({ label, model }) => (label === model ? label : `${label} (${model})`)).join(", ");
  field("lead").textContent = `${models}; ${data.images.length} image${data.images.length > 1 ? "s" : ""}, ${sizes} pixels`;
}
