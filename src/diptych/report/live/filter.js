// The filter of this page, on pictures that never leave it.
(async () => {
  const { part, factsOf, start, canRun, pixelsOf, receive, fromCamera } = diptychPage;
  const { filtered, draw, judged } = diptychFilter;
  const facts = factsOf("live-facts"), said = part("live-said");
  const say = (text, bad) => { said.textContent = text; said.classList.toggle("bad", Boolean(bad)); };

  window.diptych = {
    ready: start,
    async apply(blob) { return filtered(await start(), facts, await pixelsOf(blob, facts.mostPixels)); },
  };

  let chosen = 0, result = null; // what was begun for an earlier picture is dropped
  async function show(blob) {
    const mine = ++chosen;
    result = null;
    part("live-result").hidden = true;
    part("live-judged").textContent = "";
    say("Reading the picture …");
    try {
      const picture = await pixelsOf(blob, facts.mostPixels);
      const session = await start(), before = performance.now();
      const found = await filtered(session, facts, picture, (share) => {
        if (share < 1 && mine === chosen) say(`Filtering: ${Math.round(100 * share)} % …`);
        return mine === chosen;
      });
      if (!found || mine !== chosen) return;
      const seconds = (performance.now() - before) / 1000;
      result = found;
      const left = part("live-before");
      left.width = picture.width; left.height = picture.height;
      left.getContext("2d").drawImage(picture.canvas, 0, 0);
      draw(part("live-after"), found);
      part("live-result").hidden = false;
      fit();
      say(`${picture.width} × ${picture.height} pixels in ${seconds.toPrecision(2)} s.${picture.transparent ? " Transparent parts were put over white; diptych filter apply keeps them." : ""}`);
    } catch (error) { if (mine === chosen) say(error.message, true); }
  }

  // ---- The picture to the left of the line, the result to the right --------------------------------------
  const split = part("live-split"), size = part("live-size"), stage = part("live-stage");
  function divide() {
    const share = split.value / 10;
    part("live-before").style.clipPath = `inset(0 ${100 - share}% 0 0)`;
    part("live-line").style.left = `${share}%`;
  }
  function fit() {
    const { width, height } = part("live-after"), actual = size.value === "actual";
    stage.style.width = actual ? `${width / devicePixelRatio}px` : "";
    stage.style.maxHeight = actual ? "none" : "";
    stage.style.aspectRatio = `${width} / ${height}`;
    divide();
  }
  split.addEventListener("input", divide);
  size.addEventListener("change", fit);

  part("live-target").addEventListener("change", async (event) => {
    const file = event.target.files[0], mine = chosen;
    event.target.value = "";
    if (!file || !result) return;
    part("live-judged").textContent = "";
    part("live-judged").classList.remove("bad");
    try {
      const wanted = await pixelsOf(file, facts.mostPixels);
      if (mine !== chosen) return;
      const { psnr, largest, same } = judged(result, wanted);
      part("live-judged").textContent = `Beside ${file.name}: PSNR ${Number.isFinite(psnr) ? `${psnr.toFixed(2)} dB` : "infinite"}, largest error ${largest} of 255 levels, ${same === 1 ? "every pixel" : `${(Math.floor(10000 * same) / 100).toFixed(2)} % of pixels`} identical.`;
    } catch (error) { part("live-judged").textContent = error.message; part("live-judged").classList.add("bad"); }
  });
  part("live-save").addEventListener("click", () => {
    part("live-after").toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = "filtered.png";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
  });
  receive(part("live-zone"), part("live-file"), show, (text) => say(text, true));
  part("live-camera").addEventListener("click", async (event) => {
    event.target.disabled = true;
    try { await show(await fromCamera()); } catch (error) { say(error.message, true); }
    event.target.disabled = false;
  });

  if (!canRun()) {
    say("This browser is too old to run the filter in the page; everything else here works.", true);
    for (const control of part("live-section").querySelectorAll("button, input, select")) control.disabled = true;
    return;
  }
  say("The filter is being made ready …");
  try { await start(); say("Ready. The picture stays on this computer: the page sends nothing."); } catch (error) { say(`The filter cannot run here: ${error.message}`, true); }
})();
