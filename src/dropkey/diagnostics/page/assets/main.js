// Start: the controls, one listener for each part of the page, and a first look from the middle of the image.

function middle() {
  const site = siteOf(state.first);
  if (!site.queryGrid) return 0;
  const [rows, columns] = site.queryGrid;
  return prefixOfQueries(site) + Math.floor(rows / 2) * columns + Math.floor(columns / 2);
}

let drawnCharts = "";

// Charts do not change with the query.
function drawCharts() {
  const shown = JSON.stringify([shownModels(), state.image, state.site, state.measure]);
  if (shown === drawnCharts) return;
  drawnCharts = shown;
  drawDepth();
  drawSimilarity();
}

async function start() {
  if (typeof DecompressionStream === "undefined") throw new Error("it needs a browser of 2023 or later");
  buildControls();
  buildExport();
  buildSimilarityKey();
  showNotes();
  document.querySelector("main").hidden = false;
  state.site = data.models[state.first].sites.findLastIndex((site) => site.kind !== "rollout");
  state.query = middle();
  await pictures[0].decode().catch(() => {});
  showControls();
  await drawPanels();
  const redraw = () => Promise.all([showControls(), drawPanels(), drawOverview(), drawCharts()]);
  onChange(redraw);
  pictures.forEach((picture) => picture.addEventListener("load", () => change({})));
  addEventListener("resize", () => { drawnCharts = ""; change({}); });
  document.documentElement.dataset.ready = Math.round(performance.now());
  change({}); // the rest of the page, once the first map can be used
}

start().catch((error) => {
  const box = document.getElementById("failure");
  box.hidden = false;
  box.textContent = `This page cannot be shown: ${error.message}.`;
});
