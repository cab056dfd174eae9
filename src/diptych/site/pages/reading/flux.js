// From Julia values to what the page shows: layers in order, their weights, and who feeds whom.

// { nodes: [{path, title, arrays, from}], arrays }: `from` are the numbers of the nodes whose values a node takes.
export function fluxLayers(entries, structs) {
  const nodes = [], arrays = [];
  const add = (path, title, from, own = []) => {
    const held = own.map(([name, array]) => ({ ...array, name: `${path}.${name}` }));
    nodes.push({ path, title, from, arrays: held });
    arrays.push(...held);
    return nodes.length - 1;
  };
  const namesOf = ({ type, fields, names }) => names ?? (structs[type] ?? []).find((names) => names.length === fields.length);
  const field = (value, name) => { const at = namesOf(value)?.indexOf(name) ?? -1; return at < 0 ? undefined : value.fields[at]; };
  const children = (value) => {
    if (value?.kind === "list") return value.values.map((each, i) => [String(i), each]);
    if (value?.kind === "named") return value.entries;
    return [];
  };
  const isArray = (value) => value?.kind === "array";

  // The number of the node that gives the value of `value`, which takes that of node `before`.
  function walk(path, value, before) {
    const from = before === null ? [] : [before];
    if (value?.kind !== "struct") {
      if (isArray(value)) return add(path, `array ${value.shape.join(" × ")}`, [], [["", value]].map(([, each]) => ["value", each]));
      const inside = children(value);
      if (!inside.length) return add(path, wordsOf(value), from);
      for (const [key, each] of inside) walk(`${path}.${key}`, each, null);
      return before;
    }
    const { type } = value;
    if (type === "Chain") {
      let last = before;
      const layers = field(value, "layers") ?? value.fields[0], inside = children(layers);
      if (!inside.length && layers?.kind === "struct") return walk(`${path}.layers`, layers, before);
      for (const [key, each] of inside) last = walk(`${path}.${key}`, each, last);
      return last;
    }
    if (type === "SkipConnection") {
      const end = walk(`${path}.layers`, field(value, "layers") ?? value.fields[0], before);
      return add(path, `SkipConnection, ${wordsOf(field(value, "connection") ?? value.fields[1])}`, [end, before].filter((each) => each !== null));
    }
    if (type === "Parallel" || type === "PairwiseFusion" || type === "Maxout") {
      const ends = children(field(value, "layers") ?? value.fields.at(-1)).map(([key, each]) => walk(`${path}.${key}`, each, before));
      return add(path, type === "Maxout" ? "Maxout" : `${type}, ${wordsOf(field(value, "connection") ?? value.fields[0])}`, ends.filter((each) => each !== null));
    }
    if (["Recur", "RNN", "LSTM", "GRU", "GRUv3", "Recurrence"].includes(type)) return walk(`${path}.cell`, field(value, "cell") ?? value.fields[0], before);
    const names = namesOf(value) ?? value.fields.map((_, i) => String(i + 1));
    const own = [], inner = [];
    value.fields.forEach((each, i) => {
      if (isArray(each)) own.push([names[i], each]);
      else if (each?.kind === "struct" && holdsArrays(each)) inner.push([names[i], each]);
      else if ((each?.kind === "list" || each?.kind === "named") && holdsArrays(each)) inner.push([names[i], each]);
    });
    const here = add(path, titleOf(value, names, field), from, own);
    for (const [name, each] of inner) walk(`${path}.${name}`, each, null); // its parts, whose order its code decides
    return here;
  }
  const others = [];
  for (const [key, value] of entries) {
    if (holdsArrays(value) || value?.kind === "struct") walk(key, value, null);
    else others.push([key, wordsOf(value)]);
  }
  return { nodes, arrays, others };
}

function holdsArrays(value, depth = 0) {
  if (value === null || typeof value !== "object" || depth > 60) return false;
  if (value.kind === "array") return true;
  const inside = value.fields ?? (Array.isArray(value.values) ? value.values : value.entries?.map(([, each]) => each)) ?? [];
  return inside.some((each) => holdsArrays(each, depth + 1));
}
function wordsOf(value) {
  if (value === null || value === undefined) return "nothing";
  if (typeof value !== "object") return String(value);
  if (value.kind === "struct") return value.type.replace(/^#/, "");
  if (value.kind === "list") return `(${value.values.slice(0, 12).map(wordsOf).join(", ")}${value.values.length > 12 ? ", …" : ""})`;
  if (value.kind === "named") return `(${value.entries.slice(0, 12).map(([name, each]) => `${name} = ${wordsOf(each)}`).join(", ")})`;
  return value.name ?? value.kind;
}
function titleOf(value, names, field) {
  const weight = field(value, "weight"), size = weight?.shape, σ = field(value, "σ") ?? field(value, "λ"), activation = σ ? wordsOf(σ) : "";
  const end = activation && activation !== "identity" ? `, ${activation}` : "";
  const pair = (each) => (each?.kind === "list" ? each.values.map(wordsOf).join(" × ") : wordsOf(each));
  switch (value.type) {
    case "Conv": case "CrossCor": case "DepthwiseConv": if (size) return `${value.type} ${size.slice(0, -2).join(" × ")}, ${size.at(-2)} ⇒ ${size.at(-1)}${end}`; break;
    case "ConvTranspose": if (size) return `ConvTranspose ${size.slice(0, -2).join(" × ")}, ${size.at(-1)} ⇒ ${size.at(-2)}${end}`; break;
    case "Dense": if (size) return `Dense ${size[1]} ⇒ ${size[0]}${end}`; break;
    case "BatchNorm": case "InstanceNorm": case "GroupNorm": { const mean = field(value, "μ"); return `${value.type}${mean?.shape ? ` ${mean.shape[0]}` : ""}${end}`; }
    case "MaxPool": case "MeanPool": return `${value.type} ${pair(field(value, "k") ?? value.fields[0])}`;
    case "Dropout": case "AlphaDropout": return `${value.type} ${wordsOf(value.fields[0])}`;
    default: break;
  }
  if (value.type.startsWith("#") && !value.fields.length) return value.type.slice(1);
  return value.type.replace(/^#/, "") || names.join(", ");
}
