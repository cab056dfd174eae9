// The view "Filter": learned filters on a picture or the camera, and a filter taught from one pair of pictures.
import { chosenPicture, divide, options, part, pictures, pixels, remember, say, working } from "./common.js";
import { contents, session } from "./models.js";
import { taught } from "./teaching.js";

let state = {}, work = 0, own = null, camera = null;
const save = () => remember("filter", state);
const OWN = "(the one you taught)";

export async function showFilter(given) {
  state = { ...given, picture: await chosenPicture("filter", given) };
  await attempt();
}
async function refresh() {
  const mine = ++work;
  save();
  await pictures("filter", state.picture, (number) => { stop(); state.picture = number; attempt(); });
  const { filters } = await contents(), names = filters.map(({ name, words }) => [name, `${name}: ${words}`]);
  if (own) names.push([OWN, `the one you taught: ${own.words}`]);
  options(part("filter-name"), names, state.filter);
  if ("filter" in state) { state.filter = part("filter-name").value; save(); }
  if (camera) return;
  say("Filtering …");
  const picture = await pixels("filter", state.picture), before = performance.now();
  const result = await applied(picture, (share) => {
    if (mine === work && share < 1) say(`Filtering: ${Math.round(100 * share)} % …`);
    return mine === work;
  });
  if (!result || mine !== work) return;
  draw(picture, result);
  say("");
  part("filter-said").textContent = `${picture.width} × ${picture.height} pixels in ${Math.round(performance.now() - before)} ms.`;
}
const attempt = () => working("filter", refresh);

async function applied(picture, progress) {
  const name = part("filter-name").value;
  if (name === OWN) return own.apply(picture);
  const { filters } = await contents(), { file, facts } = filters.find((each) => each.name === name);
  return diptychFilter.filtered(await session(file), facts, picture, progress);
}
function draw(picture, result) {
  const left = part("filter-left");
  left.width = picture.width; left.height = picture.height;
  left.getContext("2d").drawImage(picture.canvas, 0, 0);
  diptychFilter.draw(part("filter-right"), result);
  part("filter-stage").style.aspectRatio = `${picture.width} / ${picture.height}`;
  part("filter-result").hidden = false;
}

// ---- The camera ---------------------------------------------------------------------------------------------------
function stop() {
  if (!camera) return;
  for (const track of camera.srcObject.getTracks()) track.stop();
  camera = null;
  part("filter-live").setAttribute("aria-pressed", "false");
  part("filter-live").textContent = "Live from the camera";
}
async function live() {
  let stream;
  try { stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640 } }); } catch { say("There is no camera, or the browser does not let this page use it.", true); return; }
  camera = document.createElement("video");
  camera.srcObject = stream; camera.muted = true; camera.playsInline = true;
  await camera.play();
  part("filter-live").setAttribute("aria-pressed", "true");
  part("filter-live").textContent = "Stop the camera";
  say("");
  try {
    while (camera && !part("view-filter").hidden) {
      const bitmap = await createImageBitmap(camera), canvas = new OffscreenCanvas(bitmap.width, bitmap.height), before = performance.now();
      canvas.getContext("2d").drawImage(bitmap, 0, 0);
      const picture = await diptychPage.pixelsOf(await canvas.convertToBlob({ type: "image/png" }), 4e6);
      const result = await applied(picture);
      if (!camera) break;
      draw(picture, result);
      part("filter-said").textContent = `${picture.width} × ${picture.height} pixels, ${Math.round(1000 / (performance.now() - before))} pictures a second.`;
    }
  } catch (error) { say(error.message, true); }
  stop();
}
part("filter-live").addEventListener("click", () => { if (camera) { stop(); attempt(); } else live(); });
part("filter-name").addEventListener("change", () => { state.filter = part("filter-name").value; attempt(); });
part("filter-save").addEventListener("click", () => {
  if (part("filter-result").hidden) return;
  part("filter-right").toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob); link.download = "filtered.png"; link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
});
divide(part("filter-split"), part("filter-left"), part("filter-line"));

// ---- Teaching -------------------------------------------------------------------------------------------------------
const pair = {};
for (const side of ["before", "after"]) {
  part(`teach-${side}`).addEventListener("change", async (event) => {
    const file = event.target.files[0];
    event.target.value = "";
    if (!file) return;
    try {
      pair[side] = await diptychPage.pixelsOf(file, 16e6);
      part(`teach-${side}-name`).textContent = file.name;
      part("teach-said").textContent = "";
      part("teach-said").classList.remove("bad");
    } catch (error) { delete pair[side]; part("teach-said").textContent = error.message; part("teach-said").classList.add("bad"); }
    part("teach").disabled = !(pair.before && pair.after);
  });
}
part("teach").addEventListener("click", async (event) => {
  event.target.disabled = true;
  part("teach-said").classList.remove("bad");
  part("teach-said").textContent = "Teaching …";
  await new Promise((resolve) => { setTimeout(resolve, 30); });
  try {
    own = taught(pair.before, pair.after);
    part("teach-said").textContent = `${own.words}: PSNR ${own.psnr === Infinity ? "infinite" : `${own.psnr.toFixed(1)} dB`} on this pair, measured on rows it was not taught with. ${own.verdict}${own.verdict.startsWith("Not") ? "" : " It is in the list of filters now."}`;
    if (own.verdict.startsWith("Not")) own = null; else state.filter = OWN;
    await attempt();
  } catch (error) { part("teach-said").textContent = error.message; part("teach-said").classList.add("bad"); }
  event.target.disabled = false;
});
