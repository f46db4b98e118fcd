// The maps that are shown, as a PNG or SVG file.

const MARGIN = 24;
const TEXT = 46;

function placesOf(views) {
  const [wide, high] = sizeOfStage(views[0].site);
  return {
    wide,
    high,
    width: MARGIN + views.length * (wide + MARGIN),
    height: TEXT + high + 60,
    left: (place) => MARGIN + place * (wide + MARGIN),
  };
}

function captionOf({ site, model, query }) {
  return [data.models[model].label, `${site.name}, ${headText(site)}, from ${tokenName(site, query)}`];
}

async function pngBlob() {
  const views = await viewsNow();
  const at = placesOf(views);
  const canvas = element("canvas", { width: at.width, height: at.height });
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, at.width, at.height);
  views.forEach((view, place) => {
    const stage = element("canvas");
    drawStage(stage, view);
    context.drawImage(stage, at.left(place), TEXT, at.wide, at.high);
    const [title, text] = captionOf(view);
    context.fillStyle = "#111";
    context.font = "600 17px system-ui, sans-serif";
    context.fillText(title, at.left(place), 20, at.wide);
    context.font = "14px system-ui, sans-serif";
    context.fillText(text, at.left(place), 38, at.wide);
    for (let step = 0; step < 256; step++) {
      context.fillStyle = `rgb(${rampColor(step / 255)})`;
      context.fillRect(at.left(place) + (step * at.wide) / 256, TEXT + at.high + 10, at.wide / 256 + 1, 12);
    }
    const [low, high] = endsOfScale(state.scale, view.peak);
    context.fillStyle = "#111";
    context.fillText(low, at.left(place), TEXT + at.high + 40);
    context.textAlign = "right";
    context.fillText(high, at.left(place) + at.wide, TEXT + at.high + 40);
    context.textAlign = "left";
  });
  return new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); });
}

async function svgText() {
  const views = await viewsNow();
  const at = placesOf(views);
  const root = svg("svg", { xmlns: SVG, viewBox: `0 0 ${at.width} ${at.height}`, width: at.width, height: at.height,
    "font-family": "system-ui, sans-serif" });
  root.append(svg("rect", { width: at.width, height: at.height, fill: "#fff" }), rampGradient());
  views.forEach((view, place) => root.append(svg("g", { transform: `translate(${at.left(place)} 0)` },
    ...captionSvg(view), mapSvg(view, at), ...legendSvg(view, at))));
  return new XMLSerializer().serializeToString(root);
}

function captionSvg(view) {
  const [title, text] = captionOf(view);
  return [svg("text", { y: 20, "font-size": 17, "font-weight": 600 }, title), svg("text", { y: 38, "font-size": 14 }, text)];
}

function mapSvg({ site, patches, scale, query }, at) {
  const [rows, columns] = gridOfKeys(site);
  const [wide, high] = [at.wide / columns, at.high / rows];
  const group = svg("g", { transform: `translate(0 ${TEXT})`, "shape-rendering": "crispEdges" });
  if (site.onImage) group.append(svg("image", { href: data.images[state.image].source, width: at.wide, height: at.high,
    preserveAspectRatio: "none" }));
  patches.forEach((weight, place) => {
    const share = scale(weight);
    group.append(svg("rect", { x: ((place % columns) * wide).toFixed(2), y: (Math.floor(place / columns) * high).toFixed(2),
      width: wide.toFixed(2), height: high.toFixed(2), fill: `rgb(${rampColor(share)})`, "fill-opacity": opacityOf(share, site).toFixed(3) }));
  });
  const own = query - prefixOfQueries(site);
  if (site.queryGrid && own >= 0) {
    const [across, down] = [at.wide / site.queryGrid[1], at.high / site.queryGrid[0]];
    for (const [color, line] of [["#000", 7], ["#fff", 3]]) {
      group.append(svg("rect", { x: (own % site.queryGrid[1]) * across, y: Math.floor(own / site.queryGrid[1]) * down,
        width: across, height: down, fill: "none", stroke: color, "stroke-width": line }));
    }
  }
  return group;
}

function rampGradient() {
  const stops = RAMP.map((_, place) => svg("stop", { offset: place / (RAMP.length - 1),
    "stop-color": `rgb(${rampColor(place / (RAMP.length - 1))})` }));
  return svg("defs", {}, svg("linearGradient", { id: "ramp" }, ...stops));
}

function legendSvg(view, at) {
  const [low, high] = endsOfScale(state.scale, view.peak);
  const y = TEXT + at.high;
  return [svg("rect", { y: y + 10, width: at.wide, height: 12, fill: "url(#ramp)" }),
    svg("text", { y: y + 40, "font-size": 14 }, low),
    svg("text", { x: at.wide, y: y + 40, "font-size": 14, "text-anchor": "end" }, high)];
}

function download(blob, ending) {
  const link = element("a", { href: URL.createObjectURL(blob), download: `attention.${ending}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function buildExport() {
  field("png").addEventListener("click", async () => download(await pngBlob(), "png"));
  field("svg").addEventListener("click", async () =>
    download(new Blob([await svgText()], { type: "image/svg+xml" }), "svg"));
}
