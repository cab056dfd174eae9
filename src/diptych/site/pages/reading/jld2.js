// Files of JLD2: HDF5 with Julia's types committed under /_types. What of HDF5 these files use is read; nothing is run.
// Section numbers are those of the HDF5 File Format Specification, version 3.0.
import { half } from "./onnx.js";

const text = new TextDecoder();
const DEEPEST = 200, MOST_VALUES = 200000;

class File {
  constructor(bytes) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.objects = new Map();
    this.heaps = new Map();
    const signature = [137, 72, 68, 70, 13, 10, 26, 10];
    for (let at = 0; ; at = Math.max(512, 2 * at)) {
      if (at + 8 > bytes.length) throw new Error("The file is damaged, or no JLD2 file: it has no HDF5 signature.");
      if (signature.every((byte, i) => bytes[at + i] === byte)) { this.start = at; break; }
    }
    const version = bytes[this.start + 8];
    if (version === 2 || version === 3) this.root = this.u64(this.start + 36);
    else if (version < 2) this.root = this.u64(this.start + 8 + 16 + (version === 1 ? 4 : 0) + 40);
    else throw new Error(`An HDF5 superblock of version ${version} is not read here.`);
  }
  damaged(why, at) { return new Error(`The file is damaged: ${why} at byte ${at}.`); }
  need(at, count) { if (!(at >= 0 && at + count <= this.bytes.length)) throw this.damaged("something lies beyond the end", at); return at; }
  uint(at, width) { this.need(at, width); let value = 0; for (let i = width - 1; i >= 0; i--) value = value * 256 + this.bytes[at + i]; return value; }
  u64(at) { return this.uint(at, 8); }
  place(address) { return this.start + address; }

  // IV.A.1: the messages of an object's header.
  object(address) {
    if (this.objects.has(address)) return this.objects.get(address);
    const found = { address, attributes: {}, links: [], group: false };
    this.objects.set(address, found);
    const at = this.place(address);
    if (text.decode(this.bytes.subarray(at, at + 4)) !== "OHDR") throw this.damaged("no object header of version 2", at);
    const flags = this.bytes[at + 5], first = at + 6 + (flags & 0x20 ? 16 : 0) + (flags & 0x10 ? 4 : 0), width = 1 << (flags & 3), head = flags & 4 ? 6 : 4;
    const blocks = [[first + width, this.uint(first, width)]], seen = new Set();
    for (const [from, length] of blocks) {
      if (seen.has(from) || blocks.length > 1000) throw this.damaged("an object header continues in itself", from);
      seen.add(from);
      this.need(from, length);
      for (let here = from; here + head <= from + length;) {
        const kind = this.bytes[here], size = this.uint(here + 1, 2), own = this.bytes[here + 3], body = here + head;
        here = body + size;
        if (here > from + length) throw this.damaged("a message is longer than its header", body);
        if (kind === 0x10) { const next = this.place(this.u64(body)); blocks.push([next + 4, this.u64(body + 8) - 8]); } else this.message(found, kind, own, body, size);
      }
    }
    return found;
  }
  message(found, kind, flags, at, size) {
    if (kind === 1) found.space = this.space(at);
    else if (kind === 3) found.type = flags & 2 ? this.shared(at) : this.type({ at });
    else if (kind === 8) found.layout = this.layout(at);
    else if (kind === 11) found.filters = true;
    else if (kind === 12) { const attribute = this.attribute(at); found.attributes[attribute.name] = attribute; }
    else if (kind === 6) { found.links.push(this.link(at)); found.group = true; }
    else if (kind === 2 || kind === 10) found.group = true;
    else if (kind === 17) throw new Error("An old HDF5 group is not read here; save the model again with JLD2.");
  }
  space(at) {
    const [version, rank] = [this.bytes[at], this.bytes[at + 1]], kind = version === 2 ? this.bytes[at + 3] : rank ? 1 : 0, from = at + (version === 2 ? 4 : 8);
    if (rank > 32) throw this.damaged("an array of more than 32 axes", at);
    return { kind: ["scalar", "simple", "null"][kind], shape: Array.from({ length: rank }, (_, i) => this.u64(from + 8 * i)) };
  }
  shared(at) { return { kind: "shared", size: 0, committed: this.u64(at + (this.bytes[at] === 1 ? 8 : 2)) }; }
  // IV.A.2.d. `c` is {at}, which moves.
  type(c, depth = 0) {
    if (depth > 60) throw this.damaged("types are nested too deeply", c.at);
    const from = this.need(c.at, 8), version = this.bytes[from] >> 4, number = this.bytes[from] & 15, bits = this.uint(from + 1, 3), size = this.uint(from + 4, 4);
    c.at += 8;
    if (number === 0 || number === 4) { c.at += 4; return { kind: "number", size, name: number === 4 && size === 1 ? "bool" : `${bits & 8 ? "int" : "uint"}${8 * size}` }; }
    if (number === 1) { const exponent = this.bytes[c.at + 5]; c.at += 12; return { kind: "number", size, name: size === 2 && exponent === 8 ? "bfloat16" : `float${8 * size}` }; }
    if (number === 3) return { kind: "string", size };
    if (number === 5) { c.at += bits & 255; return { kind: "opaque", size }; }
    if (number === 7) return { kind: "reference", size };
    if (number === 9) return { kind: (bits & 15) === 1 ? "text" : "sequence", size, base: this.type(c, depth + 1) };
    if (number === 8) {
      const base = this.type(c, depth + 1);
      for (let i = 0; i < (bits & 65535); i++) { const start = c.at; this.name(c); if (version < 3) c.at += (8 - ((c.at - start) % 8)) % 8; }
      c.at += (bits & 65535) * base.size;
      return { ...base, size };
    }
    if (number === 6) {
      const width = size < 256 ? 1 : size < 65536 ? 2 : 4, members = [];
      for (let i = 0; i < (bits & 65535); i++) {
        const start = c.at, name = this.name(c);
        let offset;
        if (version < 3) { c.at += (8 - ((c.at - start) % 8)) % 8; offset = this.uint(c.at, 4); c.at += version === 1 ? 32 : 4; } else { offset = this.uint(c.at, width); c.at += width; }
        const type = this.type(c, depth + 1);
        if (offset + type.size > size) throw this.damaged(`the field ${name} lies outside its struct`, start);
        members.push({ name, offset, type });
      }
      return { kind: "compound", size, members };
    }
    if (number === 10) { const rank = this.bytes[c.at]; c.at += (version === 2 ? 4 : 1) + 4 * rank * (version === 2 ? 2 : 1); return { kind: "other", size, base: this.type(c, depth + 1) }; }
    throw new Error(`An HDF5 type of class ${number} is not read here.`);
  }
  name(c) { const end = this.bytes.indexOf(0, c.at); if (end < 0) throw this.damaged("a name does not end", c.at); const found = text.decode(this.bytes.subarray(c.at, end)); c.at = end + 1; return found; }
  link(at) {
    const flags = this.bytes[at + 1];
    let here = at + 2;
    const kind = flags & 8 ? this.bytes[here++] : 0;
    if (flags & 4) here += 8;
    if (flags & 16) here += 1;
    const width = 1 << (flags & 3), length = this.uint(here, width);
    const name = text.decode(this.bytes.subarray(here + width, this.need(here + width, length) + length));
    return [name, kind ? null : this.u64(here + width + length)];
  }
  layout(at) {
    const version = this.bytes[at], kind = this.bytes[at + 1];
    if (version !== 3 && version !== 4) throw new Error(`A data layout of version ${version} is not read here.`);
    if (kind === 0) return { at: at + 4, size: this.uint(at + 2, 2) };
    if (kind === 1) { const address = this.u64(at + 2), size = this.u64(at + 10); return { at: size ? this.place(address) : at, size }; }
    return { chunked: true };
  }
  attribute(at) {
    const version = this.bytes[at], flags = this.bytes[at + 1], sizes = [2, 4, 6].map((step) => this.uint(at + step, 2)), padding = version === 1 ? 8 : 1;
    let here = at + 8 + (version === 3 ? 1 : 0);
    const name = text.decode(this.bytes.subarray(here, here + sizes[0])).replace(/\0+$/, ""), up = (size) => Math.ceil(size / padding) * padding;
    here += up(sizes[0]);
    const type = flags & 1 ? this.shared(here) : this.type({ at: here });
    here += up(sizes[1]);
    const space = this.space(here);
    return { name, type, space, at: here + up(sizes[2]) };
  }
  // III.E
  heap(address, index) {
    if (!this.heaps.has(address)) {
      const start = this.place(address), found = new Map(), end = Math.min(this.bytes.length, start + 16 + this.u64(start + 8));
      for (let at = start + 16; at + 16 <= end;) { const number = this.uint(at, 2), size = this.u64(at + 8); if (!number) break; found.set(number, [at + 16, size]); at += 16 + Math.ceil(size / 8) * 8; }
      this.heaps.set(address, found);
    }
    const place = this.heaps.get(address).get(index);
    if (!place) throw this.damaged(`the heap has no object ${index}`, this.place(address));
    this.need(...place);
    return place;
  }
}

const VIEWS = { float32: Float32Array, float64: Float64Array, int32: Int32Array, int16: Int16Array, int8: Int8Array, uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, bool: Uint8Array };

// The values by name, as `readBson` gives them; structs have `names` too. What takes no bytes (a function, `nothing`) is
// not among the fields of a struct in the file: the parameters of its type tell it. `structs` and `parameters` are the
// fields of Flux's structs, and the fields whose types their parameters are.
export function readJld2(bytes, structs, parameters) {
  const file = new File(bytes), known = new Map(), types = new Map();
  let budget = MOST_VALUES;

  function committed(address) {
    if (types.has(address)) return types.get(address);
    const object = file.object(address), found = { type: object.type, name: "?", parameters: () => [] };
    types.set(address, found);
    const julia = object.attributes.julia_type;
    if (julia) Object.assign(found, describedAt(julia.at, julia.type.kind === "shared" ? file.object(julia.type.committed).type : julia.type));
    return found;
  }
  // A type as Julia describes it: its name, and its parameters, which are read when they are asked for.
  function describedAt(at, layout) {
    const name = layout?.members?.find((each) => each.name === "name"), list = layout?.members?.find((each) => each.name === "parameters");
    if (!name) return { name: "?", parameters: () => [] };
    return {
      name: textAt(at + name.offset, name.type).split(/\.(?!#)|\.(?=#)/).at(-1),
      parameters() {
        if (!list) return [];
        const place = at + list.offset, count = file.uint(place, 4);
        if (!count || count > 1000) return [];
        const [from] = file.heap(file.u64(place + 4), file.uint(place + 12, 4));
        return Array.from({ length: count }, (_, i) => file.u64(from + 8 * i));
      },
    };
  }
  // The type that a parameter is, or null where it is a number or a tuple of names.
  function typeAt(address) {
    if (!address || address >= 2 ** 63) return null;
    const object = file.object(address);
    if (!object.space) return object.type ? committed(address) : null;
    const layout = object.type?.kind === "shared" ? file.object(object.type.committed).type : object.type;
    return object.space.kind === "scalar" && layout?.members?.some(({ name }) => name === "parameters") ? describedAt(object.layout.at, layout) : null;
  }
  // What takes no bytes.
  function single(type, depth) {
    if (!type || type.name === "Nothing") return null;
    if (type.name === "Tuple" && depth < DEEPEST) return { kind: "list", values: type.parameters().map((each) => single(typeAt(each), depth + 1)) };
    return { kind: "struct", type: type.name, fields: [], names: [] };
  }
  function textAt(at, type) {
    if (type.kind === "string") return text.decode(bytes.subarray(at, at + type.size)).replace(/\0+$/, "");
    const length = file.uint(at, 4), [from] = length ? file.heap(file.u64(at + 4), file.uint(at + 12, 4)) : [at];
    return text.decode(bytes.subarray(from, from + length));
  }
  function number(type, at) {
    const raw = bytes.slice(file.need(at, type.size), at + type.size).buffer;
    if (type.name === "bool") return new Uint8Array(raw)[0] !== 0;
    if (VIEWS[type.name]) return new VIEWS[type.name](raw)[0];
    return type.size === 8 ? Number(new BigInt64Array(raw)[0]) : { kind: "symbol", name: type.name };
  }
  function element(type, at, julia, depth) {
    if (depth > DEEPEST || --budget < 0) throw file.damaged("more values than can be shown", at);
    switch (type.kind) {
      case "number": return number(type, at);
      case "string": case "text": { const found = textAt(at, type); return julia?.name === "Symbol" ? { kind: "symbol", name: found } : found; }
      case "reference": { const address = file.u64(at); return address && address < 2 ** 63 ? value(address, depth + 1) : { kind: "symbol", name: "undefined" }; }
      case "compound": {
        const members = new Map(type.members.map((member) => [member.name, member])), given = julia?.parameters() ?? [];
        const read = (name, inner) => { const member = members.get(name); return member ? element(member.type, at + member.offset, inner, depth + 1) : single(inner, depth); };
        if (julia?.name === "Tuple" && given.length) return { kind: "list", values: given.map((each, i) => read(String(i + 1), typeAt(each))) };
        if (julia?.name === "NamedTuple" && given.length === 2) {
          const keys = value(given[0], depth + 1), inner = typeAt(given[1])?.parameters() ?? [];
          if (keys?.kind === "list" && keys.values.length === inner.length) return { kind: "named", entries: keys.values.map((key, i) => [key?.name ?? String(key), read(key?.name ?? String(key), typeAt(inner[i]))]) };
        }
        const told = (parameters[julia?.name] ?? []).find((each) => each.length === given.length) ?? [], kinds = new Map(told.map((name, i) => [name, typeAt(given[i])]));
        const own = (structs[julia?.name] ?? []).find((each) => [...members.keys()].every((name) => each.includes(name)));
        const names = own && told.length ? own.filter((name) => members.has(name) || kinds.get(name)) : [...members.keys()];
        const fields = names.map((name) => read(name, kinds.get(name) ?? null));
        if (julia?.name === "Tuple") return { kind: "list", values: fields };
        if (julia?.name === "NamedTuple") return { kind: "named", entries: names.map((name, i) => [name, fields[i]]) };
        if (!julia && names.every((name, i) => name === String(i + 1))) return { kind: "list", values: fields };
        return { kind: "struct", type: julia?.name ?? "NamedTuple", fields, names };
      }
      default: return { kind: "symbol", name: julia?.name ?? type.kind };
    }
  }
  function value(address, depth) {
    if (known.has(address)) return known.get(address);
    known.set(address, { kind: "symbol", name: "(a value that contains itself)" });
    const found = made(address, depth);
    known.set(address, found);
    return found;
  }
  function made(address, depth) {
    if (depth > DEEPEST || --budget < 0) throw file.damaged("more values than can be shown", file.place(address));
    const object = file.object(address);
    if (object.group) return { kind: "named", entries: object.links.filter(([name, to]) => to !== null && !(name === "_types" && address === file.root)).map(([name, to]) => [name, value(to, depth + 1)]) };
    if (!object.type) throw file.damaged("an object that is neither a group nor a value", file.place(address));
    const julia = object.type.kind === "shared" ? committed(object.type.committed) : null, type = julia?.type ?? object.type;
    if (!object.space) return { kind: "type", name: committed(address).name };
    if (object.space.kind === "null") return julia ? single(julia, depth) : { kind: "list", values: [] };
    if (object.filters || object.layout?.chunked) return { kind: "symbol", name: `an array ${[...object.space.shape].reverse().join(" × ")} that is compressed, which this page does not unpack` };
    if (object.space.kind === "scalar") return element(type, object.layout.at, julia, depth + 1);
    const shape = [...object.space.shape].reverse(), count = shape.reduce((a, b) => a * b, 1), { at } = object.layout;
    if (type.kind === "number" || (julia?.name === "BFloat16" && type.size === 2)) {
      file.need(at, count * type.size);
      return {
        kind: "array", shape, type: type.name ?? "bfloat16", julia: true,
        values() {
          const raw = bytes.slice(at, at + count * type.size).buffer;
          if (type.kind !== "number") { const wide = new Uint32Array(count); new Uint16Array(raw).forEach((bits, i) => { wide[i] = bits << 16; }); return new Float32Array(wide.buffer); }
          if (type.name === "float16") return Float32Array.from(new Uint16Array(raw), half);
          if (type.name === "int64") return Float64Array.from(new BigInt64Array(raw), Number);
          return VIEWS[type.name] ? new VIEWS[type.name](raw) : new Float32Array();
        },
      };
    }
    file.need(at, count * type.size);
    if (count > 10000) return { kind: "symbol", name: `${count} values` };
    return { kind: "list", values: Array.from({ length: count }, (_, i) => element(type, at + i * type.size, julia, depth + 1)) };
  }
  return value(file.root, 0).entries;
}
