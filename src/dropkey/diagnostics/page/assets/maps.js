// The attention maps: stored as text, one block of one image each, and unpacked when they are first looked at.

const data = JSON.parse(document.getElementById("data").textContent);

// The weight of every code, as a share of its row's anchor.
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
  const numPrefix = prefixOfKeys(site);
  const numApart = Math.min(2, site.columns - numPrefix); // patches whose weights stand as they are
  let offset = 0;
  const next = (count) => {
    const part = new Uint16Array(bytes, offset, count);
    offset += 2 * count;
    return part;
  };
  return {
    numPrefix,
    numApart,
    prefix: numbersOf(next(numRows * numPrefix)),
    apart: numbersOf(next(numRows * numApart)),
    places: next(numRows * numApart),
    anchor: numbersOf(next(numRows)),
    codes: new Uint8Array(bytes, offset),
  };
}

// bfloat16 is the upper half of a float32.
function numbersOf(halves) {
  return new Float32Array(Uint32Array.from(halves, (bits) => bits << 16).buffer);
}

// Where one query looks: a weight for each key. `head` counts from 0; null is the mean over the heads.
function weightsOf(maps, site, head, query) {
  const weights = new Float32Array(site.columns);
  const heads = head === null ? Array.from({ length: site.heads }, (_, number) => number) : [head];
  for (const each of heads) addRow(weights, maps, each * site.rows + query, 1 / heads.length);
  return weights;
}

function addRow(weights, maps, row, factor) {
  const { numPrefix, numApart } = maps;
  const numPatches = weights.length - numPrefix;
  const scale = factor * maps.anchor[row];
  for (let token = 0; token < numPrefix; token++) weights[token] += factor * maps.prefix[row * numPrefix + token];
  for (let patch = 0; patch < numPatches; patch++) {
    weights[numPrefix + patch] += scale * weightOfCode[maps.codes[row * numPatches + patch]];
  }
  for (let place = row * numApart; place < (row + 1) * numApart; place++) {
    weights[numPrefix + maps.places[place]] += factor * maps.apart[place];
  }
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
