// The view "Gallery": links to states of the other views.
import { part } from "./common.js";
import { contents } from "./models.js";

const SHOWN = [
  ["run", { picture: 0 }, "What is in the picture", "The classifier in the box and its five best answers."],
  ["run", { picture: 3, layer: "0", channel: 7 }, "The first layer", "Edges and colours: sixteen kernels of 3 × 3 pixels."],
  ["run", { picture: 2, layer: "4", channel: 20 }, "Deep inside", "The third convolution sees 8 × 8 places."],
  ["filter", { picture: 1, filter: "sobel" }, "Sobel, learned", "A gradient magnitude from a few dozen weights."],
  ["filter", { picture: 5, filter: "median" }, "A median without sorting", "Exact, as a network of minima and maxima."],
  ["filter", { picture: 4, filter: "sepia" }, "Sepia", "Nine weights."],
  ["compare", { picture: 0, layer: 1, channel: 3 }, "Kernels not flipped", "The same weights, and another network: the commonest fault between two frameworks."],
];

export async function showGallery() {
  if (part("gallery").firstChild) return;
  const { pictures } = await contents();
  part("gallery").append(...SHOWN.map(([view, state, title, words]) => {
    const item = document.createElement("li"), link = document.createElement("a"), image = new Image(), heading = document.createElement("b");
    link.href = `#${view}?${new URLSearchParams(state)}`;
    image.src = pictures[state.picture].file; image.alt = ""; image.loading = "lazy";
    heading.textContent = title;
    link.append(image, heading, words);
    item.append(link);
    return item;
  }));
}
