// Models that ONNX Runtime runs in the page: those of the site, and .onnx files that somebody opens.
import { readOnnx, withEveryOutput } from "./reading/onnx.js";

let found = null;
export function contents() {
  found ??= fetch("contents.json").then((answer) => {
    if (!answer.ok) throw new Error(`contents.json is not there (status ${answer.status})`);
    return answer.json();
  });
  return found;
}

let starting = null;
export function ready() {
  starting ??= (async () => {
    const answer = await fetch("shared/onnxruntime.wasm.gz");
    if (!answer.ok) throw new Error(`onnxruntime.wasm.gz is not there (status ${answer.status})`);
    const bytes = new Uint8Array(await answer.arrayBuffer());
    // Some servers say that the file is compressed, and the browser has unpacked it then.
    const packed = bytes[0] === 0x1f && bytes[1] === 0x8b;
    const stream = packed ? new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")) : new Blob([bytes]).stream();
    ort.env.wasm.numThreads = 1;
    ort.env.logLevel = "error";
    ort.env.wasm.wasmBinary = await new Response(stream).arrayBuffer();
  })();
  return starting;
}

const sessions = new Map();
export async function session(file) {
  await ready();
  if (!sessions.has(file)) {
    const answer = await fetch(file);
    if (!answer.ok) throw new Error(`${file} is not there (status ${answer.status}).`);
    sessions.set(file, ort.InferenceSession.create(new Uint8Array(await answer.arrayBuffer()), { logSeverityLevel: 3 }));
  }
  return sessions.get(file);
}

const opened = new Map(); // name -> model
// [name, words] of each.
export async function models() {
  const all = await contents();
  const served = (all.server?.models ?? []).map((name) => [`server:${name}`, `${name}, computed by the server`]);
  return [...all.models.map(({ name, words }) => [name, words]), ...served, ...[...opened.keys()].map((name) => [name, name])];
}

// { name, classes, probabilities, layers, recipes, run(picture, recipe) -> outputs by name, output }
export async function model(name) {
  if (opened.has(name)) return opened.get(name);
  if (name.startsWith("server:")) return served(name.slice(7));
  const all = await contents(), each = all.models.find((one) => one.name === name) ?? all.models[0];
  const network = await session(each.file);
  return {
    ...each,
    recipes: [],
    async run({ rgb, width, height }) { return network.run({ pixels: new ort.Tensor("uint8", rgb, [1, height, width, 3]) }); },
  };
}

// A model that the server computes: `diptych serve` says in contents.json which it has.
function served(name) {
  return {
    name, recipes: [], output: "output", layers: [["output", ""]], classes: null, probabilities: false,
    async run({ canvas }) {
      const found = await ask(`api/models/${encodeURIComponent(name)}/predict`, await canvas.convertToBlob({ type: "image/png" })).then((answer) => answer.json());
      const [first] = found.predictions, values = Object.entries(first.probabilities ?? first.scores ?? {});
      this.classes = values.map(([label]) => label);
      this.probabilities = "probabilities" in first;
      const data = Float32Array.from(values, ([, value]) => value);
      return { output: { dims: [1, data.length], data } };
    },
  };
}
async function ask(address, body) {
  let answer;
  try { answer = await fetch(address, { method: "POST", body }); } catch { throw new Error("The server does not answer."); }
  if (!answer.ok) { const said = await answer.json().catch(() => ({})); throw new Error(said.error ?? said.detail ?? `The server answers with status ${answer.status}.`); }
  return answer;
}
// The bytes of a model file as ONNX: its own, or what a server that takes files makes of another format.
export async function asOnnx(file) {
  if (file.name.toLowerCase().endsWith(".onnx")) return new Uint8Array(await file.arrayBuffer());
  const { server } = await contents();
  if (!server?.uploads) throw new Error(`${file.name} is no .onnx file, and only a server could convert it (diptych serve --allow-uploads); here: diptych convert ${file.name} model.onnx`);
  const answer = await ask(`api/convert?${new URLSearchParams({ name: file.name, to: "onnx" })}`, file);
  return new Uint8Array(await answer.arrayBuffer());
}

// Opens an .onnx file for `model`; returns its name.
export async function openOnnx(file) {
  await ready();
  const bytes = await asOnnx(file), graph = readOnnx(bytes);
  const inputs = graph.inputs.filter((input) => !graph.initialisers.has(input.name));
  if (inputs.length !== 1) throw new Error(`${file.name} takes ${inputs.length} inputs, and this page gives one picture; use diptych predict.`);
  const [input] = inputs, shape = input.shape ?? [];
  const takesPixels = input.type === "uint8" && shape.length === 4 && shape[3] === 3;
  const recipes = [];
  if (!takesPixels) {
    if (input.type !== "float32" || shape.length !== 4) throw new Error(`${file.name} takes ${input.type} ${shapeOf(shape)}, and this page gives pictures: float32 (N, C, H, W), or uint8 (N, H, W, 3).`);
    for (const recipe of (await contents()).recipes) {
      const [height, width] = recipe.size ?? [], fits = (have, given) => typeof have !== "number" || have === given;
      if (fits(shape[1], recipe.channels) && fits(shape[2], height) && fits(shape[3], width)) recipes.push(recipe);
    }
    if (!recipes.length) throw new Error(`${file.name} takes ${shapeOf(shape)}, for which this page has no recipe; write one with its recipe inside: diptych convert ${file.name} page.onnx --preprocessing-inside --preprocessing RECIPE`);
  }
  let network;
  try { network = await ort.InferenceSession.create(withEveryOutput(bytes, graph), { logSeverityLevel: 3 }); } catch {
    try { network = await ort.InferenceSession.create(bytes, { logSeverityLevel: 3 }); } catch (error) { throw new Error(`ONNX Runtime cannot run ${file.name} in a browser: ${String(error.message).slice(0, 300)}`); }
  }
  const label = new Map(graph.nodes.flatMap((node) => node.outputs.map((name) => [name, node.title])));
  const layers = network.outputNames.filter((name) => name).map((name) => [name, label.get(name) ?? ""]);
  layers.sort((a, b) => order(graph, a[0]) - order(graph, b[0]));
  let name = file.name;
  for (let number = 2; opened.has(name) || (await contents()).models.some((each) => each.name === name); number++) name = `${file.name} (${number})`;
  const output = graph.outputs[0].name;
  opened.set(name, {
    name, layers, recipes, output, classes: graph.classes, probabilities: endsInProbabilities(graph, output),
    async run(picture, recipe) {
      if (takesPixels) return only(await network.run({ [input.name]: new ort.Tensor("uint8", picture.rgb, [1, picture.height, picture.width, 3]) }));
      const prepare = await session(recipe.file);
      const prepared = (await prepare.run({ pixels: new ort.Tensor("uint8", picture.rgb, [1, picture.height, picture.width, 3]) }))["0"];
      try { return only(await network.run({ [input.name]: prepared })); } catch (error) { throw new Error(`${name} does not take ${prepared.dims.join(" × ")}: ${String(error.message).slice(0, 200)}`); }
    },
  });
  return name;
}
const only = (outputs) => Object.fromEntries(Object.entries(outputs).filter(([, value]) => value.type === "float32"));
const order = (graph, name) => graph.nodes.findIndex((node) => node.outputs.includes(name));
const shapeOf = (shape) => `(${shape.map((size) => size ?? "?").join(", ")})`;
function endsInProbabilities(graph, output) {
  const last = graph.nodes.find((node) => node.outputs.includes(output));
  return Boolean(last && (last.type === "Softmax" || (last.type === "Identity" && endsInProbabilities(graph, last.inputs[0]))));
}
