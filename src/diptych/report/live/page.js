// The model of this page, run by ONNX Runtime on pictures that never leave it.
(async () => {
  const { part, factsOf, start, canRun, paint, receive, fromCamera } = diptychPage;
  const facts = factsOf("live-facts");
  const said = part("live-said");
  const say = (text, bad) => { said.textContent = text; said.classList.toggle("bad", Boolean(bad)); };


  const pixelsOf = (blob) => diptychPage.pixelsOf(blob, facts.mostPixels);
  async function run({ rgb, width, height }) {
    return (await start()).run({ pixels: new ort.Tensor("uint8", rgb, [1, height, width, 3]) });
  }

  let shown = null; // the picture and what the model made of it
  let chosen = 0; // how many pictures were chosen: what was begun for an earlier one is dropped

  async function classify(blob) {
    const picture = await pixelsOf(blob);
    const outputs = await run(picture);
    return { picture, outputs };
  }
  window.diptych = {
    ready: start,
    async classify(blob) { return (await classify(blob)).outputs[facts.output].data.slice(); },
    async trace(blob) {
      const { outputs } = await classify(blob);
      return Object.fromEntries(Object.entries(outputs).map(([name, value]) => [name, { shape: [...value.dims], data: value.data.slice() }]));
    },
  };

  async function show(blob) {
    const mine = ++chosen;
    shown = null;
    part("live-result").hidden = true;
    say("Reading the picture …");
    try {
      const before = performance.now();
      const { picture, outputs } = await classify(blob);
      if (mine !== chosen) return;
      shown = { picture, outputs };
      const canvas = part("live-picture"), scale = Math.min(1, 640 / Math.max(picture.width, picture.height));
      canvas.width = Math.max(1, Math.round(picture.width * scale));
      canvas.height = Math.max(1, Math.round(picture.height * scale));
      canvas.getContext("2d").drawImage(picture.canvas, 0, 0, canvas.width, canvas.height);
      part("live-result").hidden = false;
      part("live-counting").hidden = true;
      bars(outputs[facts.output].data);
      map();
      say(`${best(outputs[facts.output].data)}; ${picture.width} × ${picture.height} pixels, ${Math.round(performance.now() - before)} ms.`);
    } catch (error) { if (mine === chosen) say(error.message, true); }
  }

  const written = (value) => facts.probabilities ? `${(100 * value).toFixed(1)} %` : value.toPrecision(4);
  const order = (values) => [...values.keys()].sort((a, b) => values[b] - values[a]);
  const best = (values) => `${facts.classes[order(values)[0]]}, ${written(values[order(values)[0]])}`;
  function bars(values) {
    const body = part("live-bars"), longest = facts.probabilities ? 1 : Math.max(...values.map(Math.abs)) || 1;
    body.replaceChildren(...order(values).slice(0, 5).map((index) => {
      const row = document.createElement("tr"), name = document.createElement("th"), value = document.createElement("td");
      name.scope = "row"; name.textContent = facts.classes[index];
      const bar = document.createElement("span"), filled = document.createElement("span");
      bar.className = "bar"; bar.ariaHidden = "true"; bar.append(filled); name.append(bar);
      filled.style.width = `${100 * Math.min(1, Math.abs(values[index]) / longest)}%`;
      value.className = "value"; value.textContent = written(values[index]);
      row.append(name, value);
      return row;
    }));
  }

  // ---- One channel of one layer ---------------------------------------------------------------------
  const layer = part("live-layer"), channel = part("live-channel");
  function planes() {
    const value = shown.outputs[layer.value], [, channels, height = 1, width = 1] = value.dims;
    const flat = value.dims.length < 4; // values in a row
    return flat ? { count: 1, height: 1, width: value.data.length, data: value.data } : { count: channels, height, width, data: value.data };
  }
  function map() {
    if (!shown) return;
    const { count, height, width, data } = planes();
    channel.max = count - 1;
    if (Number(channel.value) >= count) channel.value = 0;
    const from = Number(channel.value) * height * width, values = data.subarray(from, from + height * width);
    let low = Infinity, high = -Infinity;
    for (const value of values) { if (value < low) low = value; if (value > high) high = value; }
    const share = high > low ? 255 / (high - low) : 0;
    paint(part("live-map"), Uint8Array.from(values, (value) => Math.round((value - low) * share)), width, height, facts.colours);
    part("live-map-said").textContent = `Layer ${layer.value}, channel ${channel.value} of ${count} (from 0): ${height} × ${width}, ${low.toPrecision(3)} … ${high.toPrecision(3)}` + (high > low ? "" : "; flat in this picture");
  }
  layer.addEventListener("change", map);
  channel.addEventListener("input", map);
  part("live-map").addEventListener("pointermove", (event) => {
    if (!shown) return;
    const box = event.target.getBoundingClientRect(), { count, height, width, data } = planes();
    const x = Math.min(width - 1, Math.floor((event.clientX - box.left) / box.width * width));
    const y = Math.min(height - 1, Math.floor((event.clientY - box.top) / box.height * height));
    part("live-value").textContent = `row ${y}, column ${x}: ${data[(Number(channel.value) % count) * height * width + y * width + x].toPrecision(5)}`;
  });

  // ---- What the answer stands on ----------------------------------------------------------------------
  async function parts() {
    const mine = chosen, { picture } = shown, scale = Math.min(1, 192 / Math.max(picture.width, picture.height));
    const width = Math.max(8, Math.round(picture.width * scale)), height = Math.max(8, Math.round(picture.height * scale));
    const small = new OffscreenCanvas(width, height), context = small.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingQuality = "high";
    context.drawImage(picture.canvas, 0, 0, width, height);
    const rgba = context.getImageData(0, 0, width, height).data, count = width * height, whole = new Uint8Array(3 * count);
    const mean = [0, 0, 0];
    for (let i = 0; i < count; i++) for (let c = 0; c < 3; c++) { whole[3 * i + c] = rgba[4 * i + c]; mean[c] += rgba[4 * i + c] / count; }
    const target = order((await run({ rgb: whole, width, height }))[facts.output].data)[0];
    const at = async (rgb) => (await run({ rgb, width, height }))[facts.output].data[target];
    const base = await at(whole), side = Math.max(2, Math.floor(Math.min(width, height) / 8)), step = Math.max(1, side >> 1);
    const starts = (length) => { const all = []; for (let s = 0; s + side <= length; s += step) all.push(s); if (all.at(-1) !== length - side) all.push(length - side); return all; };
    const falls = new Float32Array(count), covers = new Float32Array(count), rows = starts(height), columns = starts(width);
    let done = 0;
    for (const y of rows) {
      for (const x of columns) {
        const covered = whole.slice();
        for (let j = y; j < y + side; j++) for (let i = x; i < x + side; i++) covered.set(mean, 3 * (j * width + i));
        const fall = base - await at(covered);
        for (let j = y; j < y + side; j++) for (let i = x; i < x + side; i++) { falls[j * width + i] += fall; covers[j * width + i]++; }
        done++;
        if (mine !== chosen) return;
      }
      say(`Covering one part after the other: ${done} of ${rows.length * columns.length} …`);
      await new Promise((resolve) => { setTimeout(resolve); });
    }
    falls.forEach((value, i) => { falls[i] = value / covers[i]; });
    const largest = Math.max(1e-12, ...falls.map(Math.abs)), canvas = part("live-parts-map");
    canvas.width = width; canvas.height = height;
    const image = context.getImageData(0, 0, width, height);
    falls.forEach((value, i) => { // red where covering lowers the answer, blue where it raises it
      const share = 0.8 * Math.abs(value) / largest, [r, g, b] = value > 0 ? [178, 24, 43] : [33, 102, 172];
      [r, g, b].forEach((light, c) => { image.data[4 * i + c] = image.data[4 * i + c] * (1 - share) + light * share; });
    });
    canvas.getContext("2d").putImageData(image, 0, 0);
    part("live-counting").hidden = false;
    say("Done.");
    part("live-parts-said").textContent = (`Red: covering this part lowers ${facts.classes[target]}, by up to ${largest.toPrecision(2)}; blue: it raises it. Squares of ${side} pixels on a copy of ${width} × ${height}.`);
  }
  part("live-parts").addEventListener("click", async (event) => {
    event.target.disabled = true;
    try { await parts(); } catch (error) { say(error.message, true); }
    event.target.disabled = false;
  });

  // ---- Pictures: chosen, dropped, pasted, or from the camera ---------------------------------------------
  receive(part("live-zone"), part("live-file"), show, (text) => say(text, true));
  part("live-camera").addEventListener("click", async (event) => {
    event.target.disabled = true;
    try { await show(await fromCamera()); } catch (error) { say(error.message, true); }
    event.target.disabled = false;
  });

  if (!canRun()) {
    say("This browser is too old to run the model in the page; everything else here works.", true);
    for (const control of part("live").parentElement.querySelectorAll("button, input, select")) control.disabled = true;
    return;
  }
  say("The model is being made ready …");
  try { await start(); say("Ready. The picture stays on this computer: the page sends nothing."); } catch (error) { say(`The model cannot run here: ${error.message}`, true); }
})();
