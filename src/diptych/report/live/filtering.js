// A filter on pictures of any size: strips of rows, each with the rows around it that it depends on.
window.diptychFilter = (() => {
  const STRIP_PIXELS = 1 << 19;

  // Half to even, as in Python.
  function level(value) {
    const whole = Math.floor(value), rest = value - whole;
    return rest > 0.5 || (rest === 0.5 && whole % 2 === 1) ? whole + 1 : whole;
  }

  // { rgb, width, height } -> { channels, data }, with rows in order; `progress(share)` may stop it by returning false.
  async function filtered(session, facts, { rgb, width, height }, progress = () => true) {
    if (height < facts.least[0] || width < facts.least[1]) throw new Error(`The filter takes pictures of at least ${facts.least[1]} × ${facts.least[0]} pixels; this one has ${width} × ${height}.`);
    const rows = facts.wraps ? height : Math.max(facts.least[0], Math.floor(STRIP_PIXELS / width), 1);
    let channels = 0, data = null;
    for (let top = 0; top < height; top += rows) {
      const bottom = Math.min(height, top + rows);
      let from = Math.max(0, top - facts.above), to = Math.min(height, bottom + facts.below);
      if (to - from < facts.least[0]) { from = Math.max(0, to - facts.least[0]); to = Math.min(height, from + facts.least[0]); }
      const pixels = new ort.Tensor("uint8", rgb.subarray(3 * from * width, 3 * to * width), [1, to - from, width, 3]);
      const output = (await session.run({ pixels }))[facts.output], plane = (to - from) * width;
      channels = output.dims[1];
      data ??= new Uint8ClampedArray(channels * width * height);
      for (let y = top; y < bottom; y++) {
        for (let x = 0; x < width; x++) for (let c = 0; c < channels; c++) data[channels * (y * width + x) + c] = level(facts.times * output.data[c * plane + (y - from) * width + x]);
      }
      output.dispose?.();
      if (progress(bottom / height) === false) return null;
      await new Promise((resolve) => { setTimeout(resolve); });
    }
    return { channels, data, width, height };
  }

  function draw(canvas, { channels, data, width, height }) {
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d"), image = context.createImageData(width, height);
    for (let i = 0; i < width * height; i++) {
      for (let c = 0; c < 3; c++) image.data[4 * i + c] = data[channels * i + (channels === 1 ? 0 : c)];
      image.data[4 * i + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }

  // The result beside what it should be, in levels of 255; `wanted.rgb` is grey where the result is.
  function judged(result, wanted) {
    if (wanted.width !== result.width || wanted.height !== result.height) throw new Error(`What it should become has ${wanted.width} × ${wanted.height} pixels, and the picture ${result.width} × ${result.height}: they must be equally large.`);
    let sum = 0, largest = 0, same = 0;
    const count = result.width * result.height, each = result.channels;
    for (let i = 0; i < count; i++) {
      let equal = true;
      for (let c = 0; c < each; c++) {
        const error = Math.abs(result.data[each * i + c] - wanted.rgb[3 * i + c]);
        sum += error * error;
        if (error) equal = false;
        if (error > largest) largest = error;
      }
      same += equal;
    }
    return { psnr: sum ? 10 * Math.log10(255 * 255 * count * each / sum) : Infinity, largest, same: same / count };
  }

  return { filtered, draw, judged };
})();
