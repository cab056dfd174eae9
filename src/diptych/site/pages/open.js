// The view "Open a model": the layers as a graph and a table, the weights as pictures and histograms.
import { options, paintValues, part, range, remember, say, working, written } from "./common.js";
import { asOnnx, contents } from "./models.js";
import { readBson } from "./reading/bson.js";
import { fluxLayers } from "./reading/flux.js";
import { readJld2 } from "./reading/jld2.js";
import { readOnnx } from "./reading/onnx.js";
import { readSafetensors } from "./reading/safetensors.js";

const MOST_BYTES = 1.5e9;
let shown = null;

export async function showOpen(state) { if (shown && state.array) { part("open-array").value = state.array; weights(); } }

async function open(file) {
  const words = part("open-said"), refuse = (text) => { words.textContent = text; words.classList.add("bad"); part("open-result").hidden = true; };
  words.classList.remove("bad");
  words.textContent = `Reading ${file.name} …`;
  say("");
  if (file.size > MOST_BYTES) { refuse(`${file.name} has ${(file.size / 1e9).toFixed(1)} GB, and this page reads up to 1.5 GB; use diptych inspect.`); return; }
  try {
    const bytes = new Uint8Array(await file.arrayBuffer());
    shown = await read(file.name, bytes);
    words.textContent = `${file.name}, ${size(file.size)}.`;
    show();
  } catch (error) { refuse(error instanceof RangeError ? `${file.name} is damaged: a length in it does not fit.` : error.message); }
}
async function read(name, bytes) {
  const ending = name.toLowerCase().split(".").at(-1), { structs, parameters } = await contents();
  if (ending === "onnx") return ofOnnx(readOnnx(bytes));
  if (ending === "safetensors") return ofSafetensors(readSafetensors(bytes));
  if (ending === "bson") return { format: "BSON of Julia", ...fluxLayers(readBson(bytes), structs) };
  if (ending === "jld2") return { format: "JLD2", ...fluxLayers(readJld2(bytes, structs, parameters), structs) };
  const found = ofOnnx(readOnnx(await asOnnx(new File([bytes], name))));
  return { ...found, format: `${ending}, converted by the server` };
}
function ofOnnx({ nodes, initialisers, inputs, producer }) {
  const maker = new Map(), listed = [];
  for (const input of inputs) if (!initialisers.has(input.name)) { maker.set(input.name, listed.length); listed.push({ path: input.name, title: `input ${input.type} ${input.shape ? input.shape.map((each) => each ?? "?").join(" × ") : ""}`, from: [], arrays: [] }); }
  for (const node of nodes) {
    const arrays = node.inputs.filter((name) => initialisers.has(name)).map((name) => initialisers.get(name));
    const from = [...new Set(node.inputs.filter((name) => maker.has(name)).map((name) => maker.get(name)))];
    for (const output of node.outputs) maker.set(output, listed.length);
    listed.push({ path: node.name || node.outputs[0] || "", title: node.title, from, arrays });
  }
  return { format: producer ? `ONNX by ${producer}` : "ONNX", nodes: listed, arrays: [...initialisers.values()] };
}
function ofSafetensors({ arrays, metadata }) {
  const groups = new Map();
  for (const array of arrays) { const path = array.name.includes(".") ? array.name.slice(0, array.name.lastIndexOf(".")) : array.name; groups.set(path, [...(groups.get(path) ?? []), array]); }
  const labels = new Map();
  for (const value of Object.values(metadata)) { try { describe(JSON.parse(value).layers, "", labels); } catch { /* not a model of Diptych */ } }
  if (labels.size) return { format: "safetensors by Diptych", arrays, nodes: [...labels].map(([path, title], i) => ({ path, title, from: i ? [i - 1] : [], arrays: groups.get(path) ?? [] })) };
  return { format: "safetensors", arrays, nodes: [...groups].map(([path, held]) => ({ path, title: held.map(({ shape }) => shape.join(" × ")).join("; "), from: [], arrays: held })) };
}
// The layers in the document of Diptych that lies in its files.
function describe(layer, path, labels) {
  if (Array.isArray(layer?.layers)) { layer.layers.forEach((each, i) => describe(each, path ? `${path}.${layer.names?.[i] ?? i}` : String(layer.names?.[i] ?? i), labels)); return; }
  labels.set(path, [layer.layer === "Activation" ? layer.name : layer.layer, layer.kernel?.join?.(" × "), layer.activation?.name].filter(Boolean).join(" "));
}

const size = (bytes) => (bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);
const count = ({ shape }) => shape.reduce((a, b) => a * b, 1);

function show() {
  const total = shown.arrays.reduce((sum, array) => sum + count(array), 0);
  part("open-facts").replaceChildren(...[["Format", shown.format], ["Layers", shown.nodes.length.toLocaleString("en")], ["Arrays", shown.arrays.length.toLocaleString("en")], ["Parameters", total.toLocaleString("en")], ...(shown.others ?? []).map(([name, value]) => [name, value.length > 120 ? `${value.slice(0, 120)} …` : value])].map(([name, value]) => {
    const pair = document.createElement("div"), term = document.createElement("dt"), words = document.createElement("dd");
    term.textContent = name; words.textContent = value;
    pair.append(term, words);
    return pair;
  }));
  options(part("open-array"), shown.arrays.map((array, i) => [i, `${array.name} (${array.shape.join(" × ")})`]), 0);
  part("open-array").disabled = !shown.arrays.length;
  part("open-result").hidden = false;
  graph();
  table();
  weights();
}
function table() {
  part("open-table").replaceChildren(...shown.nodes.map((node) => {
    const row = document.createElement("tr");
    for (const [kind, text, name] of [["td", node.path, "path"], ["th", node.title, ""], ["td", node.arrays.map(({ name: each, shape }) => `${each.split(".").at(-1)} ${shape.join(" × ")}`).join(", "), ""], ["td", node.arrays.reduce((sum, array) => sum + count(array), 0).toLocaleString("en"), "value"]]) {
      const cell = document.createElement(kind);
      cell.textContent = text; cell.className = name;
      if (kind === "th") cell.scope = "row";
      row.append(cell);
    }
    return row;
  }));
}

// ---- The graph: one column, in order; a value that skips layers goes round them on the left -----------------------
const ROW = 54, BOX = 36, LEFT = 96, MOST_NODES = 1500;
function graph() {
  const nodes = shown.nodes.slice(0, MOST_NODES), make = (kind, attributes) => { const made = document.createElementNS("http://www.w3.org/2000/svg", kind); for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value); return made; };
  const width = Math.max(300, ...nodes.map(({ title }) => LEFT + 30 + 8 * Math.min(title.length, 60)));
  const svg = make("svg", { width, height: nodes.length * ROW + 10, viewBox: `0 0 ${width} ${nodes.length * ROW + 10}`, role: "img", "aria-label": `${nodes.length} layers and how they are connected` });
  nodes.forEach((node, to) => {
    const y = to * ROW + 4;
    for (const from of node.from) {
      if (from >= to) continue;
      const top = from * ROW + 4 + BOX, middle = LEFT + 24;
      if (from === to - 1) svg.append(make("path", { d: `M${middle} ${top}V${y}` }));
      else { const out = Math.max(8, LEFT - 14 - 9 * Math.log2(to - from)); svg.append(make("path", { d: `M${LEFT} ${top - BOX / 2}C${out} ${top - BOX / 2} ${out} ${y + BOX / 2} ${LEFT} ${y + BOX / 2}` })); }
    }
    if (node.from.includes(to - 1)) svg.append(make("path", { class: "head", d: `M${LEFT + 24} ${y}l-4 -7h8z` }));
    svg.append(make("rect", { x: LEFT, y, width: width - LEFT - 4, height: BOX, rx: 3 }));
    const title = make("text", { x: LEFT + 10, y: y + 15 }), path = make("text", { x: LEFT + 10, y: y + 30, class: "path" });
    title.textContent = node.title.slice(0, 60); path.textContent = node.path.slice(-60);
    svg.append(title, path);
  });
  const rest = document.createElement("p");
  rest.className = "quiet";
  rest.textContent = shown.nodes.length > MOST_NODES ? `The first ${MOST_NODES} of ${shown.nodes.length}; all are in the table.` : "";
  part("open-graph").replaceChildren(svg, rest);
}

// ---- One array ---------------------------------------------------------------------------------------------------------
const MOST_TILES = 64;
async function weights() {
  const array = shown.arrays[part("open-array").value];
  for (const id of ["open-weights", "open-histogram"]) part(id).hidden = !array;
  part("open-histogram-said").textContent = "";
  if (!array) { part("open-array-said").textContent = "The file holds no weights that this page can read."; return; }
  remember("open", { array: part("open-array").value });
  const values = array.values(), { viridis } = await contents();
  if (!values.length) {
    for (const id of ["open-weights", "open-histogram"]) part(id).hidden = true;
    part("open-array-said").textContent = array.external ? "Its values lie in another file beside this one." : count(array) ? `Values of the type ${array.type} are not shown here.` : "It is empty.";
    return;
  }
  const { plane, width, height, words } = pictureOf(array, values), limits = range(values.filter(Number.isFinite));
  paintValues(part("open-weights"), plane, width, height, limits, viridis);
  const finite = values.filter(Number.isFinite), mean = finite.reduce((a, b) => a + b, 0) / (finite.length || 1);
  const spread = Math.sqrt(finite.reduce((a, b) => a + (b - mean) ** 2, 0) / (finite.length || 1));
  const broken = values.length - finite.length;
  part("open-array-said").textContent = `${array.type}, ${array.shape.join(" × ") || "one value"}${array.julia ? " (Julia's order of axes)" : ""}: ${limits.map(written).join(" … ")}, mean ${written(mean)}, standard deviation ${written(spread)}${broken ? `; ${broken} values are NaN or infinite` : ""}. ${words}`;
  histogram(finite, limits);
}
// A matrix as it is; kernels as tiles; a vector as a row. Julia's first axis is the fastest, as a row of pixels is.
function pictureOf({ shape, julia }, values) {
  const size = shape.filter((each) => each !== 1), [fast, slow] = julia ? [size[0], size[1]] : [size.at(-1), size.at(-2)];
  if (size.length < 2) { const width = Math.min(values.length, 64), height = Math.ceil(values.length / width), plane = new Float32Array(width * height); plane.set(values.subarray ? values.subarray(0, width * height) : values); return { plane, width, height, words: values.length > 64 ? "In rows of 64." : "" }; }
  const tile = fast * slow, tiles = values.length / tile;
  if (tiles === 1) return { plane: values, width: fast, height: slow, words: "" };
  const drawn = Math.min(tiles, MOST_TILES), columns = Math.ceil(Math.sqrt(drawn)), rows = Math.ceil(drawn / columns);
  const width = columns * (fast + 1) - 1, height = rows * (slow + 1) - 1, low = range(values)[0], plane = new Float32Array(width * height).fill(low);
  for (let each = 0; each < drawn; each++) {
    const top = Math.floor(each / columns) * (slow + 1), left = (each % columns) * (fast + 1);
    for (let y = 0; y < slow; y++) for (let x = 0; x < fast; x++) plane[(top + y) * width + left + x] = values[each * tile + y * fast + x];
  }
  return { plane, width, height, words: drawn < tiles ? `The first ${drawn} of ${tiles} tiles.` : `${tiles} tiles of ${slow} × ${fast}.` };
}
function histogram(values, [low, high]) {
  const bins = new Float64Array(48), canvas = part("open-histogram"), style = getComputedStyle(document.documentElement);
  for (const value of values) bins[high > low ? Math.min(47, Math.floor((value - low) / (high - low) * 48)) : 0]++;
  canvas.width = 48 * 12; canvas.height = 180;
  const context = canvas.getContext("2d"), most = Math.max(...bins);
  context.fillStyle = style.getPropertyValue("--accent");
  bins.forEach((each, i) => { const tall = each ? Math.max(1, each / most * 174) : 0; context.fillRect(12 * i + 1, 180 - tall, 10, tall); });
  part("open-histogram-said").textContent = `How often: ${written(low)} to ${written(high)} in 48 steps, at most ${most.toLocaleString("en")} in one.`;
}

// For scripts: the layers and the arrays of a file.
window.diptychOpen = async (file) => {
  const { format, nodes, arrays } = await read(file.name, new Uint8Array(await file.arrayBuffer()));
  return { format, nodes: nodes.map(({ path, title, from }) => ({ path, title, from })), arrays: arrays.map((array) => ({ name: array.name, shape: [...array.shape], type: array.type, values: Array.from(array.values()) })) };
};
part("open-array").addEventListener("change", () => weights().catch((error) => say(error.message, true)));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (shown) weights(); });
const zone = part("open-zone");
part("open-file").addEventListener("change", (event) => { const file = event.target.files[0]; event.target.value = ""; if (file) working("open", () => open(file)); });
for (const kind of ["dragenter", "dragover"]) zone.addEventListener(kind, (event) => { event.preventDefault(); zone.classList.add("over"); });
for (const kind of ["dragleave", "drop"]) zone.addEventListener(kind, () => zone.classList.remove("over"));
zone.addEventListener("drop", (event) => { event.preventDefault(); if (event.dataTransfer.files[0]) working("open", () => open(event.dataTransfer.files[0])); });
