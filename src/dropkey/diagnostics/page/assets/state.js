// What is looked at now, and who wants to hear when it changes.

const state = {
  image: 0,
  site: 0,
  head: null, // null is the mean over the heads
  query: 0, // token, prefix tokens first
  hovered: null, // a token under the mouse, looked at in place of the query
  scale: "log",
  overlay: 0.75,
  first: 0, // model on the left
  second: null, // model beside it, if any
  measure: null,
};

const listeners = [];

function onChange(listener) {
  listeners.push(listener);
}

let isWaiting = false;

function change(changes) {
  Object.assign(state, changes);
  if (!isWaiting) {
    isWaiting = true;
    requestAnimationFrame(() => {
      isWaiting = false;
      listeners.forEach((listener) => listener());
    });
  }
}

function shownModels() {
  return state.second === null ? [state.first] : [state.first, state.second];
}

// The site of another model at the same depth.
function siteNumber(model) {
  const count = data.models[model].sites.length;
  const own = data.models[state.first].sites.length;
  return count === own ? state.site : Math.round((state.site * (count - 1)) / Math.max(1, own - 1));
}

function siteOf(model) {
  return data.models[model].sites[siteNumber(model)];
}

function headOf(site) {
  return state.head === null || site.heads === 1 ? null : Math.min(state.head, site.heads - 1);
}

// The query in a site of any shape: the same token where it has as many, otherwise the patch at the same place.
function queryOf(site) {
  const query = state.hovered ?? state.query;
  const own = siteOf(state.first);
  const prefix = prefixOfQueries(own);
  if (site.rows === own.rows && prefixOfQueries(site) === prefix) return Math.min(query, site.rows - 1);
  if (query < prefix || !site.queryGrid || !own.queryGrid) return Math.min(query, site.rows - 1);
  const [row, column] = [Math.floor((query - prefix) / own.queryGrid[1]), (query - prefix) % own.queryGrid[1]];
  const place = [row, column].map((at, axis) =>
    Math.floor(((at + 0.5) * site.queryGrid[axis]) / own.queryGrid[axis]));
  return prefixOfQueries(site) + place[0] * site.queryGrid[1] + place[1];
}

function tokenName(site, token, prefix = prefixOfQueries(site), grid = site.queryGrid) {
  if (token < prefix) return grid ? `prefix token ${token + 1} of ${prefix}` : `token ${token + 1} of ${prefix}`;
  const columns = grid[1];
  return `patch row ${Math.floor((token - prefix) / columns) + 1}, column ${((token - prefix) % columns) + 1}`;
}

function moveQuery(down, right) {
  const site = siteOf(state.first);
  const prefix = prefixOfQueries(site);
  if (!site.queryGrid) {
    change({ query: wrapped(state.query + down + right, site.rows), hovered: null });
    return;
  }
  const [rows, columns] = site.queryGrid;
  const place = Math.max(0, state.query - prefix);
  const isPrefix = state.query < prefix;
  const row = isPrefix ? 0 : clamped(Math.floor(place / columns) + down, rows);
  const column = isPrefix ? 0 : clamped((place % columns) + right, columns);
  change({ query: prefix + row * columns + column, hovered: null });
}

function nextPrefix() {
  const prefix = prefixOfQueries(siteOf(state.first));
  if (prefix) change({ query: state.query < prefix ? (state.query + 1) % prefix : 0, hovered: null });
}

function moveSite(by) {
  change({ site: clamped(state.site + by, data.models[state.first].sites.length), hovered: null });
}

function moveHead(by) {
  const { heads } = siteOf(state.first);
  const place = clamped((state.head === null ? 0 : state.head + 1) + by, heads + 1);
  change({ head: place === 0 ? null : place - 1 });
}

function clamped(place, count) {
  return Math.min(Math.max(place, 0), count - 1);
}

function wrapped(place, count) {
  return ((place % count) + count) % count;
}
