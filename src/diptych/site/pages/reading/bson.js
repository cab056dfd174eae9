// Files of BSON.jl: BSON documents whose tags say which Julia values they mean (BSON.jl 0.3, src/read.jl). Nothing is run.
import { half } from "./onnx.js";

const text = new TextDecoder();
const DEEPEST = 500;

class Reader {
  constructor(bytes) { this.bytes = bytes; this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength); this.at = 0; this.depth = 0; }
  damaged(why) { return new Error(`The file is damaged, or no BSON file: ${why} at byte ${this.at}.`); }
  need(count) { if (this.at + count > this.bytes.length) throw this.damaged("it ends too early"); const from = this.at; this.at += count; return from; }
  key() { const end = this.bytes.indexOf(0, this.at); if (end < 0) throw this.damaged("a name does not end"); const found = text.decode(this.bytes.subarray(this.at, end)); this.at = end + 1; return found; }
  document(list = false) {
    if (++this.depth > DEEPEST) throw this.damaged("its values are nested too deeply");
    const start = this.at, size = this.view.getInt32(this.need(4), true), end = start + size, found = list ? [] : {};
    if (size < 5 || end > this.bytes.length) throw this.damaged("a length does not fit");
    while (this.at < end - 1) {
      const kind = this.bytes[this.need(1)], key = this.key(), value = this.value(kind);
      if (list) found.push(value); else Object.defineProperty(found, key, { value, enumerable: true, configurable: true, writable: true });
    }
    this.at = end;
    this.depth--;
    return found;
  }
  value(kind) {
    switch (kind) {
      case 1: return this.view.getFloat64(this.need(8), true);
      case 2: { const length = this.view.getInt32(this.need(4), true); if (length < 1) throw this.damaged("a text has no length"); const from = this.need(length); return text.decode(this.bytes.subarray(from, from + length - 1)); }
      case 3: return this.document();
      case 4: return this.document(true);
      case 5: { const length = this.view.getInt32(this.need(4), true); this.need(1); if (length < 0) throw this.damaged("a length is negative"); const from = this.need(length); return this.bytes.subarray(from, from + length); }
      case 8: return this.bytes[this.need(1)] === 1;
      case 10: return null;
      case 16: return this.view.getInt32(this.need(4), true);
      case 18: return Number(this.view.getBigInt64(this.need(8), true));
      default: throw this.damaged(`a value of the unknown kind ${kind}`);
    }
  }
}

const ELEMENTS = {
  Float32: [4, (raw) => new Float32Array(raw)], Float64: [8, (raw) => new Float64Array(raw)], Int64: [8, (raw) => Float64Array.from(new BigInt64Array(raw), Number)],
  Int32: [4, (raw) => new Int32Array(raw)], Int16: [2, (raw) => new Int16Array(raw)], Int8: [1, (raw) => new Int8Array(raw)], UInt8: [1, (raw) => new Uint8Array(raw)],
  Bool: [1, (raw) => new Uint8Array(raw)], UInt16: [2, (raw) => new Uint16Array(raw)], UInt32: [4, (raw) => new Uint32Array(raw)], UInt64: [8, (raw) => Float64Array.from(new BigUint64Array(raw), Number)],
  Float16: [2, (raw) => Float32Array.from(new Uint16Array(raw), half)],
};

// The values under the top keys: {kind: "struct", type, fields}, {kind: "array", shape, type, values()}, {kind: "list"},
// {kind: "named", entries}, {kind: "symbol", name}, {kind: "type", name}, or a plain value.
export function readBson(bytes) {
  const document = new Reader(bytes).document(), shared = document._backrefs ?? [], known = new Map();
  const back = (number) => {
    if (!known.has(number)) { known.set(number, { kind: "symbol", name: "(a value that contains itself)" }); known.set(number, made(shared[number - 1])); }
    return known.get(number);
  };
  const typeName = (type) => {
    if (!type || typeof type !== "object") return "?";
    if (type.tag === "backref") return typeName(shared[type.ref - 1]);
    if (type.tag === "datatype") return (type.name ?? []).at(-1) ?? "?";
    if (type.tag === "unionall") return typeName(type.body);
    return type.name?.at?.(-1) ?? "?";
  };
  function array(value) {
    const type = typeName(value.type), shape = value.size ?? [];
    if (value.data instanceof Uint8Array) {
      const [size, view] = ELEMENTS[type] ?? [0, null], count = shape.reduce((a, b) => a * b, 1);
      if (!view || size * count !== value.data.length) return { kind: "symbol", name: `an array of ${type}` };
      return { kind: "array", shape, type: type.toLowerCase(), julia: true, values: () => view(value.data.slice().buffer) };
    }
    return { kind: "list", values: (value.data ?? []).map(made) };
  }
  function struct(value) {
    const type = typeName(value.type);
    if (value.data instanceof Uint8Array) return { kind: "symbol", name: ELEMENTS[type] ? String(ELEMENTS[type][1](value.data.slice().buffer)[0]) : type };
    if (type === "Dict" || type === "IdDict") {
      const [keys, values] = (Array.isArray(value.data) ? value.data : []).map((each) => listed(made(each)));
      return { kind: "named", entries: (keys ?? []).map((key, i) => [shown(key), values?.[i]]) };
    }
    return { kind: "struct", type, fields: Array.isArray(value.data) ? value.data.map(made) : [] };
  }
  function made(value) {
    if (Array.isArray(value)) return { kind: "list", values: value.map(made) };
    if (value === null || typeof value !== "object" || value instanceof Uint8Array) return value instanceof Uint8Array ? { kind: "symbol", name: `${value.length} bytes` } : value;
    switch (value.tag) {
      case "backref": return back(value.ref);
      case "array": return array(value);
      case "struct": return named(value) ?? struct(value);
      case "tuple": case "svec": return { kind: "list", values: (value.data ?? []).map(made) };
      case "symbol": return { kind: "symbol", name: value.name };
      case "datatype": case "unionall": return { kind: "type", name: typeName(value) };
      case "ref": return { kind: "symbol", name: (value.path ?? []).join(".") };
      case "jl_anonymous": case "anonymous": return { kind: "symbol", name: "an anonymous function" };
      default: return value.tag ? { kind: "symbol", name: value.tag } : { kind: "named", entries: Object.entries(value).map(([key, each]) => [key, made(each)]) };
    }
  }
  // A NamedTuple has its names in its type.
  function named(value) {
    const type = value.type?.tag === "backref" ? shared[value.type.ref - 1] : value.type;
    if (typeName(type) !== "NamedTuple") return null;
    const [names] = type.params ?? [], keys = (names?.data ?? []).map((each) => each?.name ?? "?");
    const values = value.data?.length === keys.length ? value.data : value.data?.[0]?.data ?? [];
    return { kind: "named", entries: keys.map((key, i) => [key, made(values[i])]) };
  }
  return Object.entries(document).filter(([key]) => key !== "_backrefs").map(([key, value]) => [key, made(value)]);
}
const listed = (value) => (value?.kind === "list" ? value.values : value?.kind === "array" ? [...value.values()] : []);
const shown = (value) => (value && typeof value === "object" ? value.name ?? value.kind : String(value));
