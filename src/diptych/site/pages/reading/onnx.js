// ONNX files: the graph, its weights and how its values are named. https://onnx.ai/onnx/repo-docs/IR.html
const TYPES = ["", "float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "string", "bool", "float16", "float64", "uint32", "uint64"];
const text = new TextDecoder();

// Protocol buffers: [field, wire type, value] for each entry, where a value of bytes is a view.
function* entries(bytes) {
  let at = 0;
  const damaged = () => new Error("The file is damaged, or no ONNX file.");
  const varint = () => {
    let value = 0, scale = 1;
    for (;;) {
      if (at >= bytes.length || scale > 2 ** 63) throw damaged();
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
      scale *= 128;
    }
  };
  while (at < bytes.length) {
    const tag = varint(), field = Math.floor(tag / 8), wire = tag % 8;
    if (!field) throw damaged();
    let value;
    if (wire === 0) value = varint();
    else if (wire === 2) { const length = varint(); if (at + length > bytes.length) throw damaged(); value = bytes.subarray(at, at += length); }
    else if (wire === 5 || wire === 1) { const length = wire === 5 ? 4 : 8; if (at + length > bytes.length) throw damaged(); value = bytes.subarray(at, at += length); }
    else throw damaged();
    yield [field, wire, value];
  }
}
// The entries as lists by field.
function fields(bytes) {
  const found = {};
  for (const [field, , value] of entries(bytes)) (found[field] ??= []).push(value);
  return found;
}
const words = (found, field) => (found[field] ?? []).map((value) => text.decode(value));
const signed = (value) => (value >= 2 ** 63 ? value - 2 ** 64 : value);
function numbers(values = []) { // int64, packed or not
  return values.flatMap((value) => {
    if (typeof value === "number") return [signed(value)];
    const found = [];
    let number = 0, scale = 1;
    for (const byte of value) { number += (byte & 127) * scale; if (byte < 128) { found.push(signed(number)); number = 0; scale = 1; } else scale *= 128; }
    return found;
  });
}

function valueInfo(bytes) {
  const found = fields(bytes), [name] = words(found, 1), result = { name, type: "", shape: null };
  const tensor = found[2] && fields(found[2][0])[1];
  if (!tensor) return result;
  const inner = fields(tensor[0]);
  result.type = TYPES[inner[1]?.[0]] ?? "";
  if (inner[2]) result.shape = (fields(inner[2][0])[1] ?? []).map((dimension) => { const each = fields(dimension); return each[1] ? each[1][0] : each[2] ? text.decode(each[2][0]) : null; });
  return result;
}
function attribute(bytes) {
  const found = fields(bytes), [name] = words(found, 1), view = (value) => new DataView(value.buffer, value.byteOffset, value.byteLength);
  if (found[8]) return [name, numbers(found[8]).join(", ")];
  if (found[7]) return [name, "floats"];
  if (found[3]) return [name, String(signed(found[3][0]))];
  if (found[2]) return [name, String(Number(view(found[2][0]).getFloat32(0, true).toPrecision(6)))];
  if (found[4]) return [name, words(found, 4)[0].slice(0, 60)];
  return [name, "…"];
}
function tensor(bytes) {
  const found = fields(bytes), [name = ""] = words(found, 8), shape = numbers(found[1]), type = TYPES[found[2]?.[0]] ?? "unknown";
  const wide = { float32: 4, float64: 8, int64: 8, uint64: 8, int32: 4, uint32: 4, float16: 2, int16: 2, uint16: 2, int8: 1, uint8: 1, bool: 1 }[type];
  const count = shape.reduce((a, b) => a * b, 1), held = found[9]?.[0].length;
  if (shape.some((size) => !(size >= 0))) throw new Error(`The file is damaged: the array ${name} has a negative size.`);
  if (wide && held !== undefined && count * wide !== held) throw new Error(`The file is damaged: the array ${name} of ${shape.join(" × ")} does not fill its ${held} bytes.`);
  if (wide && held === undefined && !found[4] && !found[5] && !found[7] && !found[10] && found[14]?.[0] !== 1 && count) throw new Error(`The file is damaged: the array ${name} of ${shape.join(" × ")} has no values.`);
  const kinds = { float32: Float32Array, float64: Float64Array, int32: Int32Array, int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array, uint32: Uint32Array, bool: Uint8Array };
  return {
    name, shape, type,
    external: found[14]?.[0] === 1,
    values() {
      if (found[9]) {
        const raw = found[9][0].slice();
        if (type === "int64") return Float64Array.from(new BigInt64Array(raw.buffer), Number);
        if (type === "float16") return Float32Array.from(new Uint16Array(raw.buffer), half);
        return kinds[type] ? new kinds[type](raw.buffer) : new Float32Array();
      }
      if (found[4]) { const parts = found[4].map((part) => part.slice()); return Float32Array.from(parts.flatMap((part) => [...new Float32Array(part.buffer)])); }
      return Float32Array.from(numbers(found[7] ?? found[5]));
    },
  };
}
export function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

// { nodes, initialisers, inputs, outputs, classes, producer }
export function readOnnx(bytes) {
  const model = fields(bytes);
  if (!model[7] || typeof model[7][0] === "number") throw new Error("The file is no ONNX file: it holds no graph.");
  const graph = fields(model[7][0]), entry = Object.fromEntries((model[14] ?? []).map((each) => { const pair = fields(each); return [words(pair, 1)[0], words(pair, 2)[0]]; }));
  const nodes = (graph[1] ?? []).map((each) => {
    const found = fields(each), [type = "?"] = words(found, 4), attributes = (found[5] ?? []).map(attribute);
    const [kernel] = attributes.filter(([name]) => name === "kernel_shape").map(([, value]) => value.replaceAll(", ", " × "));
    return { inputs: words(found, 1), outputs: words(found, 2), name: words(found, 3)[0] ?? "", type, attributes, title: kernel ? `${type} ${kernel}` : type };
  });
  const initialisers = new Map((graph[5] ?? []).map((each) => tensor(each)).map((each) => [each.name, each]));
  let classes = null;
  for (const value of Object.values(entry)) {
    try { const found = JSON.parse(value); const list = found?.classes ?? null; if (Array.isArray(list) && list.every((each) => typeof each === "string")) classes = list; } catch { /* not ours */ }
  }
  return { nodes, initialisers, classes, inputs: (graph[11] ?? []).map(valueInfo), outputs: (graph[12] ?? []).map(valueInfo), producer: [words(model, 2)[0], words(model, 3)[0]].filter(Boolean).join(" ") };
}

// The same model, in which the value of every node is an output.
export function withEveryOutput(bytes, graph) {
  const there = new Set(graph.outputs.map(({ name }) => name));
  const names = graph.nodes.filter(({ type }) => type !== "Constant").flatMap(({ outputs }) => outputs).filter((name) => name && !there.has(name));
  const added = names.flatMap((name) => { const own = new TextEncoder().encode(name), inner = [10, ...length(own.length), ...own]; return [98, ...length(inner.length), ...inner]; });
  const parts = [];
  for (const [field, wire, value] of entries(bytes)) {
    if (field === 7) parts.push([58, ...length(value.length + added.length)], value, added);
    else if (wire === 0) parts.push([...length(field * 8), ...length(value)]);
    else parts.push([...length(field * 8 + wire), ...(wire === 2 ? length(value.length) : [])], value);
  }
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) { whole.set(part, at); at += part.length; }
  return whole;
}
function length(value) {
  const bytes = [];
  for (; value >= 128; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  return [...bytes, value];
}
