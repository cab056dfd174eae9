// What the scripts of the pages share: packed data, colours, pictures, maps on a canvas.
window.diptychPage = (() => {
  const part = (id) => document.getElementById(id);
  const factsOf = (id) => JSON.parse(part(id).textContent);

  // Two characters of 91 hold 13 bits, lowest first.
  function bytesOf(id) {
    const text = part(id).textContent.trim();
    const length = Number(part(id).dataset.bytes);
    const value = new Uint8Array(128);
    let next = 0;
    for (let code = 33; code < 127; code++) if (!"<&'".includes(String.fromCharCode(code))) value[code] = next++;
    const bytes = new Uint8Array(length);
    let held = 0, bits = 0, at = 0;
    for (let i = 0; i + 1 < text.length; i += 2) {
      held |= (value[text.charCodeAt(i)] + 91 * value[text.charCodeAt(i + 1)]) << bits;
      for (bits += 13; bits >= 8 && at < length; bits -= 8) { bytes[at++] = held & 255; held >>>= 8; }
    }
    return bytes;
  }
  async function unpacked(id) {
    const stream = new Blob([bytesOf(id)]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // The model of the page, made ready when it is first asked for.
  let starting = null;
  function start() {
    starting ??= (async () => {
      ort.env.wasm.numThreads = 1;
      ort.env.wasm.wasmBinary = await unpacked("live-runtime");
      return ort.InferenceSession.create(await unpacked("live-model"));
    })();
    return starting;
  }

  const canUnpack = () => typeof DecompressionStream !== "undefined";
  // The smallest module with an instruction of the SIMD extension.
  const canRun = () => canUnpack() && typeof OffscreenCanvas !== "undefined" && WebAssembly.validate(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11]));

  // A PNG without gamma and primaries, which browsers apply and Pillow does not; other files as they are.
  async function withoutGamma(blob) {
    const head = new Uint8Array(await blob.slice(0, 8).arrayBuffer());
    if (![137, 80, 78, 71, 13, 10, 26, 10].every((byte, i) => head[i] === byte)) return blob;
    const parts = [blob.slice(0, 8)];
    for (let at = 8; at + 12 <= blob.size;) {
      const view = new DataView(await blob.slice(at, at + 8).arrayBuffer()), length = view.getUint32(0);
      const kind = String.fromCharCode(...[4, 5, 6, 7].map((i) => view.getUint8(i)));
      if (kind === "IDAT") { parts.push(blob.slice(at)); break; }
      if (kind !== "gAMA" && kind !== "cHRM") parts.push(blob.slice(at, at + 12 + length));
      at += 12 + length;
    }
    return new Blob(parts, { type: "image/png" });
  }

  const LONGEST = 32767; // what a canvas can have on a side
  // Upright, in sRGB, over white: as Diptych reads a picture.
  async function pixelsOf(blob, most) {
    let bitmap;
    try { bitmap = await createImageBitmap(await withoutGamma(blob)); } catch { throw new Error("This is not a picture that the browser can read."); }
    const { width, height } = bitmap;
    if (width * height > most) throw new Error(`The picture has ${width} × ${height} pixels, and this page takes ${most.toLocaleString("en")}; make it smaller first.`);
    if (Math.max(width, height) > LONGEST) throw new Error(`The picture has ${width} × ${height} pixels, and a page draws up to ${LONGEST.toLocaleString("en")} on a side; cut it first, or use diptych on the command line.`);
    const canvas = new OffscreenCanvas(width, height), context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    const drawn = context.getImageData(0, 0, width, height).data;
    let transparent = false;
    for (let i = 3; i < drawn.length && !transparent; i += 4) transparent = drawn[i] < 255;
    if (transparent) {
      context.fillStyle = "#fff";
      context.fillRect(0, 0, width, height);
      context.drawImage(bitmap, 0, 0);
    }
    bitmap.close();
    const rgba = transparent ? context.getImageData(0, 0, width, height).data : drawn, rgb = new Uint8Array(3 * width * height);
    for (let i = 0, j = 0; j < rgb.length; i += 4) { rgb[j++] = rgba[i]; rgb[j++] = rgba[i + 1]; rgb[j++] = rgba[i + 2]; }
    return { rgb, width, height, canvas, transparent };
  }

  // One plane of numbers from 0 to 255 as colours of a table of 256 × 3.
  function paint(canvas, plane, width, height, colours) {
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d"), image = context.createImageData(width, height);
    for (let i = 0; i < plane.length; i++) {
      for (let c = 0; c < 3; c++) image.data[4 * i + c] = colours[3 * plane[i] + c];
      image.data[4 * i + 3] = 255;
    }
    context.putImageData(image, 0, 0);
    canvas.classList.toggle("row", height === 1);
  }

  // Files that are chosen with `input`, dropped on `zone` or pasted.
  function receive(zone, input, take, refuse) {
    input.addEventListener("change", () => { if (input.files[0]) take(input.files[0]); });
    for (const kind of ["dragenter", "dragover"]) zone.addEventListener(kind, (event) => { event.preventDefault(); zone.classList.add("over"); });
    for (const kind of ["dragleave", "drop"]) zone.addEventListener(kind, () => zone.classList.remove("over"));
    zone.addEventListener("drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]); else refuse("What was dropped is not a file: drop a picture from a folder.");
    });
    document.addEventListener("paste", (event) => { if (event.clipboardData.files[0]) take(event.clipboardData.files[0]); });
  }
  // One picture of the camera, as a PNG.
  async function fromCamera() {
    let stream;
    try { stream = await navigator.mediaDevices.getUserMedia({ video: true }); } catch { throw new Error("There is no camera, or the browser does not let this page use it."); }
    try {
      const video = document.createElement("video");
      video.srcObject = stream; video.muted = true; video.playsInline = true;
      await video.play();
      const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
      canvas.getContext("2d").drawImage(video, 0, 0);
      return await canvas.convertToBlob({ type: "image/png" });
    } finally { for (const track of stream.getTracks()) track.stop(); }
  }

  return { part, factsOf, unpacked, start, canUnpack, canRun, pixelsOf, paint, receive, fromCamera };
})();
