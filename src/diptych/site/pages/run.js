// The view "Run".
import { chosenPicture, options, paintValues, part, pictures, pixels, plane, planes, range, remember, say, working, written } from "./common.js";
import { contents, model, models, openOnnx } from "./models.js";

let state = {}, shown = null, work = 0;
const save = () => remember("run", state);

export async function showRun(given) {
  state = { ...given, picture: await chosenPicture("run", given) };
  await attempt();
}
async function refresh() {
  const mine = ++work;
  save();
  await pictures("run", state.picture, (number) => { state.picture = number; attempt(); });
  const names = await models();
  if (!names.some(([name]) => name === state.model)) delete state.model;
  options(part("run-model"), names, state.model);
  say("Running …");
  const network = await model(part("run-model").value), picture = await pixels("run", state.picture);
  options(part("run-recipe"), network.recipes.length ? network.recipes.map(({ name }) => [name, name]) : [["", "its own"]], state.recipe);
  part("run-recipe").disabled = network.recipes.length < 2;
  const recipe = network.recipes.find(({ name }) => name === part("run-recipe").value);
  const before = performance.now(), outputs = await network.run(picture, recipe);
  if (mine !== work) return;
  const taken = performance.now() - before;
  shown = { network, outputs };
  const canvas = part("run-picture"), scale = Math.min(1, 640 / Math.max(picture.width, picture.height));
  canvas.width = Math.max(1, Math.round(picture.width * scale)); canvas.height = Math.max(1, Math.round(picture.height * scale));
  canvas.getContext("2d").drawImage(picture.canvas, 0, 0, canvas.width, canvas.height);
  bars();
  options(part("run-layer"), network.layers.filter(([name]) => name in outputs).map(([name, label]) => [name, label ? `${name} · ${label}` : name]), state.layer);
  part("run-result").hidden = false;
  await map();
  settle();
  part("run-said").textContent = `${picture.width} × ${picture.height} pixels, ${Math.round(taken)} ms.`;
  say("");
}
const attempt = () => working("run", refresh);

function bars() {
  const { network, outputs } = shown, values = outputs[network.output].data;
  const text = (value) => network.probabilities ? `${(100 * value).toFixed(1)} %` : written(value);
  const longest = network.probabilities ? 1 : Math.max(...Array.from(values, Math.abs)) || 1;
  part("run-unit").textContent = network.probabilities ? "Probability" : "Score";
  const best = [...values.keys()].sort((a, b) => values[b] - values[a]).slice(0, 5);
  part("run-bars").replaceChildren(...best.map((index) => {
    const row = document.createElement("tr"), name = document.createElement("th"), value = document.createElement("td");
    const bar = document.createElement("span"), filled = document.createElement("span");
    name.scope = "row"; name.textContent = network.classes?.[index] ?? `class ${index}`;
    bar.className = "bar"; bar.ariaHidden = "true"; bar.append(filled); name.append(bar);
    filled.style.width = `${100 * Math.min(1, Math.abs(values[index]) / longest)}%`;
    value.className = "value"; value.textContent = text(values[index]);
    row.append(name, value);
    return row;
  }));
}
// The state as it is shown: what an address says in vain is put right.
function settle() {
  for (const [name, id] of [["model", "run-model"], ["recipe", "run-recipe"], ["layer", "run-layer"], ["channel", "run-channel"]]) if (name in state) state[name] = part(id).value;
  save();
}
async function map() {
  const layer = part("run-layer").value, channel = part("run-channel"), found = planes(shown.outputs[layer]);
  channel.max = found.count - 1;
  channel.value = Math.min(Number(state.channel ?? 0), found.count - 1);
  channel.disabled = found.count < 2;
  const values = plane(found, Number(channel.value)), limits = range(values);
  paintValues(part("run-map"), values, found.width, found.height, limits, (await contents()).viridis);
  part("run-map-said").textContent = `Layer ${layer}, channel ${channel.value} of ${found.count} (from 0): ${found.height} × ${found.width}, ${limits.map(written).join(" … ")}${limits[0] === limits[1] ? "; flat in this picture" : ""}`;
}

part("run-model").addEventListener("change", () => { state.model = part("run-model").value; delete state.layer; delete state.channel; delete state.recipe; attempt(); });
part("run-recipe").addEventListener("change", () => { state.recipe = part("run-recipe").value; attempt(); });
part("run-layer").addEventListener("change", () => { state.layer = part("run-layer").value; delete state.channel; save(); map(); });
part("run-channel").addEventListener("input", () => { state.channel = part("run-channel").value; save(); map(); });
part("run-file").addEventListener("change", async (event) => {
  const file = event.target.files[0];
  event.target.value = "";
  if (!file) return;
  say(`Opening ${file.name} …`);
  try { state.model = await openOnnx(file); delete state.layer; delete state.channel; await attempt(); } catch (error) { say(error.message, true); }
});

// For scripts: the output of the model in the box, and of every layer.
window.diptych = {
  async classify(blob) { const found = await window.diptych.trace(blob), { output } = await model("scenes"); return found[output].data; },
  async trace(blob) {
    const outputs = await (await model("scenes")).run(await diptychPage.pixelsOf(blob, (await contents()).mostPixels));
    return Object.fromEntries(Object.entries(outputs).map(([name, value]) => [name, { shape: [...value.dims], data: value.data.slice() }]));
  },
};
