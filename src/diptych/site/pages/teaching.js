// Filters in closed form from one pair of pictures: a curve of the levels, or a linear kernel, by least squares.
const RADIUS = 2, SIDE = 2 * RADIUS + 1, TERMS = 3 * SIDE * SIDE + 1;
const MOST_ROWS = 60000; // pixels that the kernel is fitted to

// { words, verdict, psnr, apply(picture) }; every fourth row is held out, and decides between the two.
export function taught(before, after) {
  if (before.width !== after.width || before.height !== after.height) throw new Error(`Before has ${before.width} × ${before.height} pixels and after ${after.width} × ${after.height}: both must be equally large.`);
  if (before.width < 16 || before.height < 16) throw new Error("The pictures are too small: at least 16 × 16 pixels are needed.");
  const made = [curve(before, after), kernel(before, after)];
  for (const each of made) each.psnr = judged(each.apply(before), after);
  const best = made[0].psnr >= made[1].psnr ? made[0] : made[1], idle = judged({ data: before.rgb }, after);
  best.verdict = best.psnr >= 50 ? "Close: no visible difference." : best.psnr >= 30 ? "Approximate." : "Not learned: this filter is neither a curve nor a linear kernel of 5 × 5 pixels; diptych filter learn can do more.";
  if (best.psnr < 50 && best.psnr <= idle + 1) best.verdict = "Not learned: leaving the picture as it is comes as close.";
  return best;
}

const heldOut = (row) => row % 4 === 3;
function judged({ data }, { rgb, width, height }) {
  let sum = 0, count = 0;
  for (let y = 0; y < height; y++) if (heldOut(y)) for (let i = 3 * y * width; i < 3 * (y + 1) * width; i++) { sum += (data[i] - rgb[i]) ** 2; count++; }
  return sum ? 10 * Math.log10(255 * 255 * count / sum) : Infinity;
}

// A table of 256 levels for each channel: the mean of what a level becomes; missing levels lie on a line between.
function curve(before, after) {
  const table = [0, 1, 2].map((channel) => {
    const sums = new Float64Array(256), counts = new Float64Array(256);
    for (let y = 0; y < before.height; y++) {
      if (heldOut(y)) continue;
      for (let x = 0; x < before.width; x++) { const i = 3 * (y * before.width + x) + channel; sums[before.rgb[i]] += after.rgb[i]; counts[before.rgb[i]]++; }
    }
    const known = [...counts.keys()].filter((level) => counts[level]), mean = (level) => sums[level] / counts[level];
    return Uint8ClampedArray.from({ length: 256 }, (_, level) => {
      const low = known.findLast((each) => each <= level), high = known.find((each) => each >= level);
      if (low === undefined || high === undefined) return Math.round(mean(low ?? high));
      return Math.round(low === high ? mean(low) : mean(low) + (mean(high) - mean(low)) * (level - low) / (high - low));
    });
  });
  return {
    words: "a curve of the levels of each channel",
    apply({ rgb, width, height }) {
      const data = new Uint8ClampedArray(rgb.length);
      for (let i = 0; i < rgb.length; i++) data[i] = table[i % 3][rgb[i]];
      return { data, channels: 3, width, height };
    },
  };
}

// The values under the kernel at (x, y), the edge repeated, and 1 for the bias.
function gather({ rgb, width, height }, x, y, into) {
  let at = 0;
  for (let dy = -RADIUS; dy <= RADIUS; dy++) {
    const row = Math.min(Math.max(y + dy, 0), height - 1) * width;
    for (let dx = -RADIUS; dx <= RADIUS; dx++) {
      const i = 3 * (row + Math.min(Math.max(x + dx, 0), width - 1));
      into[at++] = rgb[i]; into[at++] = rgb[i + 1]; into[at++] = rgb[i + 2];
    }
  }
  into[at] = 255;
}
function kernel(before, after) {
  const normal = new Float64Array(TERMS * TERMS), right = [0, 1, 2].map(() => new Float64Array(TERMS)), values = new Float64Array(TERMS);
  const step = Math.max(1, Math.floor(before.width * before.height / MOST_ROWS));
  for (let place = 0; place < before.width * before.height; place += step) {
    const x = place % before.width, y = Math.floor(place / before.width);
    if (heldOut(y)) continue;
    gather(before, x, y, values);
    for (let i = 0; i < TERMS; i++) {
      for (let j = 0; j <= i; j++) normal[i * TERMS + j] += values[i] * values[j];
      for (let c = 0; c < 3; c++) right[c][i] += values[i] * after.rgb[3 * place + c];
    }
  }
  let trace = 0;
  for (let i = 0; i < TERMS; i++) trace += normal[i * TERMS + i];
  for (let i = 0; i < TERMS; i++) normal[i * TERMS + i] += 1e-9 * trace / TERMS; // flat pictures leave weights free
  const weights = solved(normal, right);
  return {
    words: "a linear kernel of 5 × 5 pixels over all channels",
    apply(picture) {
      const { width, height } = picture, data = new Uint8ClampedArray(3 * width * height);
      for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
        gather(picture, x, y, values);
        for (let c = 0; c < 3; c++) {
          let sum = 0;
          for (let i = 0; i < TERMS; i++) sum += weights[c][i] * values[i];
          data[3 * (y * width + x) + c] = Math.round(sum);
        }
      }
      return { data, channels: 3, width, height };
    },
  };
}

// A x = b for a symmetric positive definite A (its lower half) by Cholesky's decomposition, in place.
function solved(a, sides) {
  const n = TERMS;
  for (let j = 0; j < n; j++) {
    for (let k = 0; k < j; k++) for (let i = j; i < n; i++) a[i * n + j] -= a[i * n + k] * a[j * n + k];
    const pivot = Math.sqrt(Math.max(a[j * n + j], 1e-30));
    for (let i = j; i < n; i++) a[i * n + j] /= pivot;
  }
  return sides.map((b) => {
    const x = b.slice();
    for (let i = 0; i < n; i++) { for (let k = 0; k < i; k++) x[i] -= a[i * n + k] * x[k]; x[i] /= a[i * n + i]; }
    for (let i = n - 1; i >= 0; i--) { for (let k = i + 1; k < n; k++) x[i] -= a[k * n + i] * x[k]; x[i] /= a[i * n + i]; }
    return x;
  });
}
