// Both sides of a comparison on one place, with a line between them that can be moved.
(async () => {
  const { part, factsOf, unpacked, canUnpack, paint } = diptychPage;
  if (!canUnpack()) return; // the page shows the layer where the models part without this
  const facts = factsOf("slider-facts"), planes = await unpacked("slider-planes");
  const layer = part("slider-layer"), channel = part("slider-channel"), view = part("slider-view"), split = part("slider-split");

  // Where the planes of each layer begin.
  const area = ([height, width]) => height * width;
  let at = 0;
  for (const each of facts.layers) {
    each.from = at;
    each.length = area(each.a) + area(each.b) + (each.alike ? area(each.a) : 0); // of one channel: A, B, difference
    at += each.length * each.channels.length;
  }

  const written = (value) => Number(value.toPrecision(3)).toString().replace("-", "−");
  function show() {
    const each = facts.layers[layer.value];
    channel.max = each.channels.length - 1;
    if (Number(channel.value) > Number(channel.max)) channel.value = 0;
    channel.disabled = each.channels.length < 2;
    view.querySelector("[value=apart]").disabled = !each.alike;
    if (!each.alike) view.value = "sides";
    const [number, low, high, most] = each.channels[channel.value], { a, b } = each;
    let from = each.from + Number(channel.value) * each.length;
    const take = (size) => planes.subarray(from, from += area(size));
    const left = take(a), right = take(b), apart = view.value === "apart";
    paint(part("slider-a"), apart ? take(a) : left, a[1], a[0], apart ? facts.difference : facts.values);
    paint(part("slider-b"), right, b[1], b[0], facts.values);
    split.disabled = apart;
    const stage = part("slider-stage"), ratio = Math.min(Math.max(a[1] / a[0], 0.25), 4);
    stage.style.aspectRatio = each.flat ? 8 : ratio;
    stage.classList.toggle("apart-only", apart);
    const ordinal = (number) => `${number}${number % 100 > 10 && number % 100 < 14 ? "th" : ["th", "st", "nd", "rd"][number % 10] ?? "th"}`;
    const which = each.flat ? `${each.thin > 1 ? "" : "all "}${each.all} values in a row` : `channel ${number} of ${each.all} (from 0)`;
    const left_out = !each.flat && each.channels.length < each.all ? `; the ${each.channels.length} that differ most are here` : "";
    const sizes = each.alike ? `${a[0]} × ${a[1]}` : `A ${a[0]} × ${a[1]}, B ${b[0]} × ${b[1]}`;
    const range = apart ? `0 … ${written(most)}` : `${written(low)} … ${written(high)} on one colour scale`;
    const thin = each.thin > 1 ? each.flat ? `; every ${ordinal(each.thin)} value` : `; every ${ordinal(each.thin)} row and column` : "";
    part("slider-said").textContent = `${which}${left_out}: ${sizes}, ${range}${each.alike && !apart ? `; largest difference ${written(most)}` : ""}${thin}.`;
    divide();
  }
  function divide() {
    const share = view.value === "apart" ? 100 : split.value / 10;
    part("slider-a").style.clipPath = `inset(0 ${100 - share}% 0 0)`;
    part("slider-line").style.left = `${share}%`;
  }
  layer.addEventListener("change", show);
  channel.addEventListener("input", show);
  view.addEventListener("change", show);
  split.addEventListener("input", divide);
  part("slider-section").hidden = false;
  show();
})();
