// The page: which object is shown, how it is drawn, and from where. Texts are only ever set as textContent.

const page = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);
const canvas = find("canvas");
const FOV = (40 * Math.PI) / 180; // vertical, or of the narrower side
const HOME = { azimuth: 30, elevation: 20, distance: 3, target: [0, 0, 0] }; // degrees, world units

const view = structuredClone(HOME);
const state = { asset: 0, mode: "splats", turning: !matchMedia("(prefers-reduced-motion: reduce)").matches, dirty: true };

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// --- What is drawn ---------------------------------------------------------------------------------------------------------

const TYPES = { u8: Uint8Array, u16: Uint16Array, u32: Uint32Array };

function bytes(base64) {
  const text = atob(base64), found = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) found[i] = text.charCodeAt(i);
  return found;
}

// A table of quantised numbers: each is low + step * integer, by its column.
const unpack = (table) => table && { ...table, data: new TYPES[table.type](bytes(table.data).buffer) };

const painter = makePainter(canvas);
const drawings = new Map(); // functions of a camera, by asset and what they draw

async function drawing(asset, what) {
  const key = `${asset} ${what}`;
  if (!drawings.has(key)) {
    const { splats, mesh } = page.assets[asset];
    if (what === "splats") {
      drawings.set(key, painter.splats({ count: splats.count, shapes: unpack(splats.shapes), colours: unpack(splats.colours) }));
    } else {
      const image = mesh.image ? make("img", { src: mesh.image }) : null;
      await image?.decode();
      const [positions, uv, colours] = [mesh.positions, mesh.uv, mesh.colours].map(unpack);
      drawings.set(key, painter.mesh({ positions, uv, colours, image, faces: unpack(mesh.faces).data }));
    }
    state.dirty = true;
  }
  return drawings.get(key);
}

function camera(width, height) {
  const [a, e] = [view.azimuth, view.elevation].map((x) => (x * Math.PI) / 180);
  const right = [-Math.sin(a), Math.cos(a), 0];
  const down = [Math.sin(e) * Math.cos(a), Math.sin(e) * Math.sin(a), -Math.cos(e)];
  const along = [-Math.cos(e) * Math.cos(a), -Math.cos(e) * Math.sin(a), -Math.sin(e)];
  const eye = view.target.map((t, i) => t - view.distance * along[i]);
  const rows = [right, down, along].map((r) => [...r, -(r[0] * eye[0] + r[1] * eye[1] + r[2] * eye[2])]);
  const columns = [0, 1, 2, 3].flatMap((i) => [...rows.map((r) => r[i]), i === 3 ? 1 : 0]);
  return { view: columns, eye, along, right, down, focal: Math.min(width, height) / 2 / Math.tan(FOV / 2), width, height };
}

let shown = null; // the drawing that is on the canvas
function frame(now) {
  if (state.turning) {
    view.azimuth += Math.min(now - (frame.last ?? now), 100) * 0.018;
    state.dirty = true;
  }
  frame.last = now;
  const ratio = Math.min(devicePixelRatio || 1, 2);
  const [width, height] = [canvas.clientWidth * ratio, canvas.clientHeight * ratio].map((x) => Math.max(1, Math.round(x)));
  if (canvas.width !== width || canvas.height !== height) {
    Object.assign(canvas, { width, height });
    state.dirty = true;
  }
  if (state.dirty && shown) {
    state.dirty = false;
    painter.clear();
    shown(camera(width, height));
    canvas.dataset.shown = `${state.asset} ${state.mode}`;
  }
  requestAnimationFrame(frame);
}

async function show(asset, mode) {
  const { splats, mesh } = page.assets[asset];
  const modes = [...(splats ? ["splats"] : []), ...(mesh ? ["mesh", "shape"] : [])];
  Object.assign(state, { asset, mode: modes.includes(mode) ? mode : modes[0] });
  describe(asset, modes);
  const draw = await drawing(asset, state.mode === "splats" ? "splats" : "mesh");
  if (state.asset !== asset) return; // another was chosen meanwhile
  const clay = state.mode === "shape";
  shown = (camera) => draw(camera, clay);
  state.dirty = true;
}

// --- What is said ----------------------------------------------------------------------------------------------------------

const LABELS = { splats: "Splats", mesh: "Mesh", shape: "Shape" };

function describe(asset, modes) {
  const { title, facts } = page.assets[asset];
  find("prompt").textContent = title;
  canvas.setAttribute("aria-label", `3D view of ${title}. Arrow keys turn it, plus and minus zoom.`);
  find("facts").replaceChildren(...facts.flatMap(([what, value]) => [
    make("dt", { textContent: what }), make("dd", { textContent: value }),
  ]));
  find("modes").replaceChildren(...modes.map((mode) => {
    const button = make("button", { type: "button", textContent: LABELS[mode], onclick: () => show(state.asset, mode) });
    button.dataset.mode = mode;
    button.ariaPressed = String(mode === state.mode);
    return button;
  }));
  [...find("gallery").children].forEach((button, i) => (button.ariaPressed = String(i === asset)));
  find("scores").replaceChildren(...scoreTable(page.assets[asset]));
  find("comparison").replaceChildren(...comparison(asset));
}

const say = (x) => (typeof x === "number" ? x.toFixed(3) : "–");
const row = (name, cells, kind = "td") => make("tr", {}, name, ...cells.map((text) => make(kind, { textContent: text })));
const label = (text, scope) => make("th", { scope, textContent: text });

function scoreTable({ scores }) {
  const rows = Object.entries(scores).map(([name, x]) => row(label(name, "row"), [say(x)]));
  return rows.length ? [make("table", {}, make("caption", { textContent: "Scores" }), make("tbody", {}, ...rows))] : [];
}

// Of several objects: a row for each, a column for each score.
function comparison(asset) {
  const names = [...new Set(page.assets.flatMap((a) => Object.keys(a.scores)))];
  if (page.assets.length < 2 || !names.length) return [];
  const rows = page.assets.map((a, i) => {
    const choose = make("button", { type: "button", textContent: a.title, onclick: () => show(i, state.mode) });
    const made = row(make("th", { scope: "row" }, choose), names.map((name) => say(a.scores[name])));
    made.className = i === asset ? "now" : "";
    return made;
  });
  const head = make("thead", {}, row(make("td"), names, "th"));
  return [make("table", {}, make("caption", { textContent: "All scores" }), head, make("tbody", {}, ...rows))];
}

function buildGallery() {
  if (page.assets.length < 2) return;
  find("gallery").hidden = false;
  find("gallery").append(...page.assets.map((asset, i) => make(
    "button", { type: "button", title: asset.title, onclick: () => show(i, state.mode) },
    make("img", { src: asset.thumbnail, alt: "" }), make("span", { textContent: asset.title }),
  )));
}

// --- From where ------------------------------------------------------------------------------------------------------------

const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

function setTurning(turning) {
  state.turning = turning;
  find("turn").ariaPressed = String(turning);
}

function orbit(azimuth, elevation) {
  setTurning(false);
  view.azimuth += azimuth;
  view.elevation = clamp(view.elevation + elevation, -89.9, 89.9);
  state.dirty = true;
}

function zoom(factor) {
  setTurning(false);
  view.distance = clamp(view.distance * factor, 0.4, 20);
  state.dirty = true;
}

function pan(x, y) {
  setTurning(false);
  const { right, down, focal } = camera(canvas.clientWidth, canvas.clientHeight), scale = view.distance / focal;
  view.target = view.target.map((t, i) => t - scale * (x * right[i] + y * down[i]));
  state.dirty = true;
}

function reset() {
  Object.assign(view, structuredClone(HOME));
  state.dirty = true;
}

function listen() {
  const fingers = new Map(); // pointers that are down, and where
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!fingers.has(event.pointerId)) return;
    const before = [...fingers.values()].map((p) => [...p]), old = fingers.get(event.pointerId);
    const [x, y] = [event.clientX - old[0], event.clientY - old[1]];
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (fingers.size === 2) {
      const apart = ([p, q]) => Math.max(Math.hypot(p[0] - q[0], p[1] - q[1]), 1);
      zoom(apart(before) / apart([...fingers.values()]));
      pan(x / 2, y / 2);
    } else if (event.shiftKey || event.buttons & 6) {
      pan(x, y);
    } else {
      orbit(-0.4 * x, 0.4 * y);
    }
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => fingers.delete(event.pointerId));
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(clamp(event.deltaY * (event.deltaMode ? 16 : 1), -300, 300) * 0.0012));
  }, { passive: false });
  canvas.addEventListener("dblclick", reset);
  const keys = {
    ArrowLeft: () => orbit(-6, 0), ArrowRight: () => orbit(6, 0), ArrowUp: () => orbit(0, 6), ArrowDown: () => orbit(0, -6),
    "+": () => zoom(0.9), "=": () => zoom(0.9), "-": () => zoom(1 / 0.9), Home: reset, 0: reset,
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  });
  canvas.addEventListener("webglcontextlost", () => setTimeout(() => location.reload(), 500));
  find("turn").onclick = () => setTurning(!state.turning);
  find("reset").onclick = reset;
  find("theme").onclick = () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  find("theme").ariaPressed = String(theme === "dark");
}

setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
if (painter) {
  buildGallery();
  setTurning(state.turning);
  listen();
  show(0, "splats");
  requestAnimationFrame(frame);
} else {
  find("trouble").textContent = "This browser cannot draw with WebGL 2, which the objects on this page need.";
  find("trouble").hidden = false;
}
globalThis.rl3d = { page, state, view, show, setTurning }; // for the console, and for tests
