// The view "Compare".
import { chosenPicture, divide, options, paintValues, part, pictures, pixels, plane, planes, range, remember, say, working, written } from "./common.js";
import { contents, model, models, openOnnx } from "./models.js";

let state = {}, rows = [], work = 0;
const save = () => remember("compare", state);

export async function showCompare(given) {
  state = { ...given, picture: await chosenPicture("compare", given) };
  await attempt();
}
async function refresh() {
  const mine = ++work;
  save();
  await pictures("compare", state.picture, (number) => { state.picture = number; attempt(); });
  const names = await models();
  for (const [place, side] of ["a", "b"].entries()) options(part(`compare-${side}`), names, state[side] ?? names[place][0]);
  say("Running both …");
  const picture = await pixels("compare", state.picture), sides = [];
  for (const side of ["a", "b"]) {
    const network = await model(part(`compare-${side}`).value);
    sides.push({ network, outputs: await network.run(picture, network.recipes[0]) });
  }
  if (mine !== work) return;
  rows = paired(...sides);
  if (!rows.length) throw new Error("The two models have no layers to compare.");
  options(part("compare-layer"), rows.map((row, number) => [number, row.title]), state.layer);
  table();
  part("compare-result").hidden = false;
  await show();
  for (const name of ["a", "b", "layer", "channel"]) if (name in state) state[name] = part(`compare-${name}`).value;
  save();
  const chosen = sides.flatMap(({ network }) => network.recipes.length > 1 ? [`${network.name} with the recipe ${network.recipes[0].name}`] : []);
  say(chosen.length ? `Ran ${chosen.join(" and ")}.` : "");
}
const attempt = () => working("compare", refresh);

// Layers of one name and shape, else of the same place in order.
function paired(a, b) {
  const list = ({ network, outputs }) => network.layers.filter(([name]) => name in outputs).map(([name, label]) => ({ name, label, ...planes(outputs[name]), dims: outputs[name].dims }));
  const left = list(a), right = list(b), sameNames = left.some((x) => right.some((y) => y.name === x.name));
  return left.flatMap((x, place) => {
    const y = sameNames ? right.find((each) => each.name === x.name) : right[place];
    if (!y) return [];
    const alike = x.data.length === y.data.length && x.height === y.height;
    let absolute = 0, largest = 0;
    if (alike) for (let i = 0; i < x.data.length; i++) { absolute = Math.max(absolute, Math.abs(x.data[i] - y.data[i])); largest = Math.max(largest, Math.abs(x.data[i]), Math.abs(y.data[i])); }
    return [{ a: x, b: y, alike, absolute, relative: largest ? absolute / largest : 0, title: x.label ? `${x.name} · ${x.label}` : x.name }];
  });
}
function table() {
  part("compare-table").replaceChildren(...rows.map((row) => {
    const line = document.createElement("tr"), cell = (text, kind = "td", name = "") => { const made = document.createElement(kind); made.textContent = text; made.className = name; line.append(made); return made; };
    cell(row.title, "th").scope = "row";
    cell(row.a.dims.join(" × "), "td", "size");
    cell(row.b.dims.join(" × "), "td", "size");
    cell(row.alike ? written(row.absolute) : "–", "td", "value");
    cell(row.alike ? written(row.relative) : "–", "td", "value");
    return line;
  }));
}
async function show() {
  const row = rows[part("compare-layer").value], channel = part("compare-channel"), count = Math.min(row.a.count, row.b.count);
  channel.max = count - 1;
  channel.value = Math.min(Number(state.channel ?? 0), count - 1);
  channel.disabled = count < 2;
  const sides = [row.a, row.b].map((side) => plane(side, Number(channel.value))), limits = range([...range(sides[0]), ...range(sides[1])]);
  const { viridis } = await contents();
  for (const [place, id] of ["compare-left", "compare-right"].entries()) {
    const { width, height } = [row.a, row.b][place];
    paintValues(part(id), sides[place], width, height, limits, viridis);
  }
  part("compare-stage").style.aspectRatio = Math.min(Math.max(row.a.width / row.a.height, 0.25), 8);
  part("compare-said").textContent = `Channel ${channel.value} of ${count} (from 0), ${limits.map(written).join(" … ")} on one colour scale` + (row.alike ? `; the layer's largest difference is ${written(row.absolute)}.` : "; the shapes differ.");
}

for (const side of ["a", "b"]) part(`compare-${side}`).addEventListener("change", () => { state[side] = part(`compare-${side}`).value; delete state.layer; delete state.channel; attempt(); });
part("compare-layer").addEventListener("change", () => { state.layer = part("compare-layer").value; delete state.channel; save(); show(); });
part("compare-channel").addEventListener("input", () => { state.channel = part("compare-channel").value; save(); show(); });
part("compare-file").addEventListener("change", async (event) => {
  const file = event.target.files[0];
  event.target.value = "";
  if (!file) return;
  say(`Opening ${file.name} …`);
  try { state.b = await openOnnx(file); delete state.layer; delete state.channel; await attempt(); } catch (error) { say(error.message, true); }
});
divide(part("compare-split"), part("compare-left"), part("compare-line"));
