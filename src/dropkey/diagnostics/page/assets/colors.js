// Colors of weights: a scale puts a weight between 0 and 1, and a ramp of even lightness gives it a color.

const RAMP = ["#000004", "#1b0c41", "#4a0c6b", "#781c6d", "#a52c60", "#cf4446", "#ed6925", "#fb9b06", "#f7d13d", "#fcffa4"]
  .map((color) => [1, 3, 5].map((place) => parseInt(color.slice(place, place + 2), 16)));
const DOUBLINGS = 8; // that the logarithmic scale shows

function rampColor(share) {
  const place = Math.min(Math.max(share, 0), 1) * (RAMP.length - 1);
  const low = Math.min(Math.floor(place), RAMP.length - 2);
  return RAMP[low].map((value, channel) => Math.round(value + (place - low) * (RAMP[low + 1][channel] - value)));
}

// Return a function from a weight to [0, 1]. One artifact patch swallows a linear scale; on the others it cannot.
function scaleOf(kind, patches, peak) {
  if (kind === "percentile") {
    const sorted = Float32Array.from(patches).sort();
    return (weight) => rankIn(sorted, weight) / Math.max(1, sorted.length - 1);
  }
  if (!(peak > 0)) return () => 0;
  if (kind === "linear") return (weight) => weight / peak;
  return (weight) => (weight > 0 ? Math.max(0, 1 + Math.log2(weight / peak) / DOUBLINGS) : 0);
}

// Where a weight stands among sorted ones; equal weights share the middle of their places.
function rankIn(sorted, weight) {
  const first = placeIn(sorted, (other) => other < weight);
  const last = placeIn(sorted, (other) => other <= weight) - 1;
  return (first + Math.max(first, last)) / 2;
}

function placeIn(sorted, isBefore) {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (isBefore(sorted[middle])) low = middle + 1;
    else high = middle;
  }
  return low;
}

function endsOfScale(kind, peak) {
  if (kind === "percentile") return ["least", "most"];
  return kind === "linear" ? ["0", percent(peak)] : [`≤ ${percent(peak / 2 ** DOUBLINGS)}`, percent(peak)];
}

function percent(share) {
  const number = 100 * share;
  return `${number >= 10 ? number.toFixed(0) : number >= 1 ? number.toFixed(1) : number.toPrecision(2)}%`;
}

function paintBar(canvas, from = 0, to = 1) {
  const context = canvas.getContext("2d");
  for (let place = 0; place < canvas.width; place++) {
    context.fillStyle = `rgb(${rampColor(from + ((to - from) * place) / (canvas.width - 1))})`;
    context.fillRect(place, 0, 1, canvas.height);
  }
}

// A small canvas with one pixel for each patch.
function pixelsOf(patches, grid, scale, alphaOf = () => 255) {
  const canvas = document.createElement("canvas");
  [canvas.height, canvas.width] = grid;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  patches.forEach((weight, place) => {
    const share = scale(weight);
    pixels.data.set([...rampColor(share), alphaOf(share)], 4 * place);
  });
  context.putImageData(pixels, 0, 0);
  return canvas;
}
