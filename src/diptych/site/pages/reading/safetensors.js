// safetensors files: a JSON header of names, types and places, then the values. https://huggingface.co/docs/safetensors
import { half } from "./onnx.js";

const KINDS = { F64: Float64Array, F32: Float32Array, I32: Int32Array, I16: Int16Array, I8: Int8Array, U8: Uint8Array, BOOL: Uint8Array, U16: Uint16Array, U32: Uint32Array };
const NAMES = { F64: "float64", F32: "float32", F16: "float16", BF16: "bfloat16", I64: "int64", I32: "int32", I16: "int16", I8: "int8", U8: "uint8", BOOL: "bool" };

// { arrays: [{name, shape, type, values()}], metadata }
export function readSafetensors(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), length = bytes.length < 8 ? Infinity : Number(view.getBigUint64(0, true));
  if (!(length <= bytes.length - 8)) throw new Error("The file is damaged, or no safetensors file: its header is longer than the file.");
  let header;
  try { header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length))); } catch { throw new Error("The file is damaged, or no safetensors file: its header is no JSON."); }
  if (header === null || typeof header !== "object" || Array.isArray(header)) throw new Error("The file is damaged, or no safetensors file: its header is no JSON object.");
  const { __metadata__: metadata = {}, ...listed } = header;
  const arrays = Object.entries(listed).map(([name, entry]) => {
    const { dtype, shape, data_offsets: [from, to] = [] } = entry ?? {};
    if (!Array.isArray(shape) || !shape.every((size) => Number.isSafeInteger(size) && size >= 0)) throw new Error(`The file is damaged: the array ${name} has no shape of whole numbers.`);
    const wide = { F64: 8, I64: 8, U64: 8, F32: 4, I32: 4, U32: 4, F16: 2, BF16: 2, I16: 2, U16: 2, I8: 1, U8: 1, BOOL: 1 }[dtype];
    if (wide && shape.reduce((a, b) => a * b, 1) * wide !== to - from) throw new Error(`The file is damaged: the array ${name} of ${shape.join(" × ")} does not fill its ${to - from} bytes.`);
    if (!(from >= 0 && from <= to && 8 + length + to <= bytes.length)) throw new Error(`The file is damaged: the array ${name} lies beyond its end.`);
    return {
      name, shape, type: NAMES[dtype] ?? dtype,
      values() {
        const raw = bytes.slice(8 + length + from, 8 + length + to);
        if (dtype === "F16") return Float32Array.from(new Uint16Array(raw.buffer), half);
        if (dtype === "BF16") { const wide = new Uint32Array(raw.length / 2); new Uint16Array(raw.buffer).forEach((bits, i) => { wide[i] = bits << 16; }); return new Float32Array(wide.buffer); }
        if (dtype === "I64") return Float64Array.from(new BigInt64Array(raw.buffer), Number);
        return KINDS[dtype] ? new KINDS[dtype](raw.buffer) : new Float32Array();
      },
    };
  });
  return { arrays, metadata };
}
