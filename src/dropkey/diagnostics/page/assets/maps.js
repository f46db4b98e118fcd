// The attention maps: stored as text, one block of one image each, and unpacked when they are first looked at.

const data = JSON.parse(document.getElementById("data").textContent);

// The weight of every code, as a share of its row's peak.
const weightOfCode = Float32Array.from({ length: data.levels }, (_, code) =>
  code === 0 ? 0 : 2 ** (data.octaves * (code / (data.levels - 1) - 1)));

const unpacked = new Map();

function unpack(model, image, site) {
  const id = `m${model}-i${image}-s${site}`;
  if (!unpacked.has(id)) unpacked.set(id, unpackText(id, data.models[model].sites[site]));
  return unpacked.get(id);
}

async function unpackText(id, site) {
  const packed = Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const bytes = await new Response(stream).arrayBuffer();
  const numRows = site.heads * site.rows;
  const peaks = Float32Array.from(new Uint16Array(bytes, 0, numRows), halfToNumber);
  return { peaks, codes: new Uint8Array(bytes, 2 * numRows) };
}

function halfToNumber(bits) {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const size = exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15);
  return bits & 32768 ? -size : size;
}

// Where one query looks: a weight for each key. `head` counts from 0; null is the mean over the heads.
function weightsOf(maps, site, head, query) {
  const weights = new Float32Array(site.columns);
  const heads = head === null ? Array.from({ length: site.heads }, (_, number) => number) : [head];
  for (const each of heads) {
    const row = each * site.rows + query;
    const scale = maps.peaks[row] / heads.length;
    for (let key = 0; key < site.columns; key++) {
      weights[key] += scale * weightOfCode[maps.codes[row * site.columns + key]];
    }
  }
  return weights;
}

// Tokens that are no patches come first; without a grid all of them are laid out in one line.
function gridOfKeys(site) {
  return site.keyGrid ?? [1, site.columns];
}

function prefixOfKeys(site) {
  return site.keyGrid ? site.keyPrefix : 0;
}

function prefixOfQueries(site) {
  return site.queryGrid ? site.queryPrefix : site.rows;
}

function patchesOf(weights, site) {
  return weights.subarray(prefixOfKeys(site));
}
