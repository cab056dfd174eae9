// The page: which view is open, its state in the address, and what all views share.
import { showRun } from "./run.js";
import { showOpen } from "./open.js";
import { showCompare } from "./compare.js";
import { showFilter } from "./filter.js";
import { showGallery } from "./gallery.js";
import { contents, ready } from "./models.js";
import { part, say, working } from "./common.js";

const views = { run: showRun, open: showOpen, compare: showCompare, filter: showFilter, gallery: showGallery };

// "#run?picture=2&layer=4": the view, and its state.
function address() {
  const [name, query = ""] = location.hash.slice(1).split("?");
  return { name: Object.hasOwn(views, name) ? name : "run", state: Object.fromEntries(new URLSearchParams(query)) };
}
let current = "";
async function open() {
  if (location.hash === "#content") return; // the link that skips the navigation
  const { name, state } = address();
  for (const each of Object.keys(views)) part(`view-${each}`).hidden = each !== name;
  for (const link of document.querySelectorAll("header nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  document.title = `${part(`view-${name}`).querySelector("h1").textContent} · Diptych`;
  if (name !== current) { part("content").scrollIntoView({ block: "nearest" }); say(""); }
  current = name;
  await working(name, () => views[name](state));
}

part("skip").addEventListener("click", (event) => { event.preventDefault(); part("content").focus(); });
addEventListener("hashchange", open);
if (!diptychPage.canRun()) say("This browser is too old to run models: it has no WebAssembly with SIMD, or no OffscreenCanvas.", true);
else {
  say("Loading …");
  try {
    await contents();
    ready().catch((error) => say(`ONNX Runtime does not start: ${error.message}`, true));
    say("");
    await open();
  } catch (error) { say(`The page cannot be loaded: ${error.message}`, true); }
}
