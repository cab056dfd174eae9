// What the views share: the status line, state in the address, pictures, lists, a line between two canvases.
import { contents } from "./models.js";

export const part = (id) => document.getElementById(id);
export function say(text, bad = false) {
  part("status").textContent = text;
  part("status").classList.toggle("bad", bad);
}

// Does the work of a view, which is marked as busy until then; what goes wrong is said.
const jobs = {};
export async function working(view, job) {
  const place = part(`view-${view}`);
  jobs[view] = (jobs[view] ?? 0) + 1;
  place.setAttribute("aria-busy", "true");
  try { await job(); } catch (error) {
    const result = part(`${view}-result`);
    if (result) result.hidden = true;
    say(error.message, true);
  }
  if (--jobs[view] === 0) place.setAttribute("aria-busy", "false");
}

// Replaces the state in the address, without a step in the history.
export function remember(view, state) {
  const query = new URLSearchParams(Object.entries(state).filter(([, value]) => value !== "" && value != null));
  history.replaceState(null, "", `#${view}${query.size ? `?${query}` : ""}`);
}

export function options(select, pairs, chosen) {
  select.replaceChildren(...pairs.map(([value, text]) => new Option(text, value, false, String(value) === String(chosen))));
  if (select.selectedIndex < 0) select.selectedIndex = 0;
}

// ---- Pictures ------------------------------------------------------------------------------------------------
const own = new Map(); // view -> a File that somebody chose
// The row of pictures of a view: those of the gallery, a file, the camera. `take(number)` gets "own" for a file.
export async function pictures(view, chosen, take) {
  const place = document.querySelector(`[data-pictures="${view}"]`);
  if (!place.firstChild) {
    place.className = "pictures";
    for (const [number, { file, words }] of (await contents()).pictures.entries()) {
      const button = document.createElement("button"), image = new Image();
      button.type = "button"; button.className = "thumb"; button.dataset.number = number;
      image.src = file; image.alt = words; image.width = image.height = 67;
      button.append(image);
      button.addEventListener("click", () => take(String(number)));
      place.append(button);
    }
    const label = document.createElement("label"), input = document.createElement("input"), camera = document.createElement("button");
    label.className = "button"; label.textContent = "Choose a picture";
    input.type = "file"; input.accept = "image/*"; input.id = `${view}-picture-file`;
    label.append(input);
    camera.type = "button"; camera.textContent = "Use the camera";
    const receive = (file) => { own.set(view, file); take("own"); };
    camera.addEventListener("click", async () => { try { receive(await diptychPage.fromCamera()); } catch (error) { say(error.message, true); } });
    place.append(label, camera);
    diptychPage.receive(place, input, (file) => { if (!part(`view-${view}`).hidden) receive(file); }, (text) => say(text, true));
  }
  for (const button of place.querySelectorAll(".thumb")) button.setAttribute("aria-pressed", String(button.dataset.number === chosen));
}
// The pixels of picture `chosen` of a view: a number of the gallery, or "own".
export async function pixels(view, chosen) {
  const all = await contents();
  if (chosen === "own") return diptychPage.pixelsOf(own.get(view), all.mostPixels);
  const answer = await fetch(all.pictures[chosen].file);
  if (!answer.ok) throw new Error(`The picture ${all.pictures[chosen].file} is not there (status ${answer.status}).`);
  return diptychPage.pixelsOf(await answer.blob(), all.mostPixels);
}
// Which picture a state means: a file that is not here any more becomes the first.
export async function chosenPicture(view, state) {
  if (state.picture === "own" && own.has(view)) return "own";
  return Number(state.picture) in (await contents()).pictures ? String(Number(state.picture)) : "0";
}

// ---- Values on a canvas -----------------------------------------------------------------------------------------
// The planes of an output of ONNX Runtime for one sample: channels of rows and columns; values in a row are one plane.
export function planes({ dims, data }) {
  if (dims.length === 4) return { count: dims[1], height: dims[2], width: dims[3], data };
  if (dims.length === 3) return { count: 1, height: dims[1], width: dims[2], data };
  return { count: 1, height: 1, width: data.length, data };
}
export function plane({ height, width, data }, channel) {
  return data.subarray(channel * height * width, (channel + 1) * height * width);
}
export function range(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) { if (value < low) low = value; if (value > high) high = value; }
  return low <= high ? [low, high] : [0, 0];
}
export function paintValues(canvas, values, width, height, [low, high], colours) {
  const share = high > low ? 255 / (high - low) : 0;
  diptychPage.paint(canvas, Uint8Array.from(values, (value) => Math.round((value - low) * share)), width, height, colours);
}
export const written = (value) => Number(Number(value).toPrecision(4)).toString().replace("-", "−");

// A line between two canvases that a range input moves.
export function divide(split, left, line) {
  const move = () => {
    const share = split.value / 10;
    left.style.clipPath = `inset(0 ${100 - share}% 0 0)`;
    line.style.left = `${share}%`;
  };
  split.addEventListener("input", move);
  move();
}
