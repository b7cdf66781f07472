/** Elements that show a file of a modality: pictures, players, and the 3D viewer. */

import { suffixOf, typed } from "./files.js";
import { label, say, words } from "./words.js";

const SMALL = 128; // pixels: pictures up to this width are enlarged, each pixel a square

/** An element with a class and children. */
export function create(tag, className = "", ...children) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...children);
  return element;
}

/** An icon of icons.svg. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `page/icons.svg#${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** An element that shows a file; its name and size stand in where the browser cannot. */
export function show(modality, file) {
  if (modality === "shape3d") return showSolid(file);
  if (modality === "depth") return nameOf(modality, file); // of its 16 bits a browser shows 8
  const moving = suffixOf(file.name) === ".gif";
  const tag = modality === "image" || moving ? "img" : modality;
  const element = create(tag, `shown ${modality}`);
  element.addEventListener("error", () => element.replaceWith(notShown(modality, file)));
  if (tag === "img") {
    element.alt = file.name;
    element.addEventListener("load", () =>
      element.classList.toggle("small", element.naturalWidth <= SMALL),
    );
  } else {
    element.controls = true;
    element.setAttribute("aria-label", file.name);
  }
  if (tag === "video") {
    element.loop = element.muted = element.playsInline = true;
    element.autoplay = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    element.addEventListener("loadedmetadata", () =>
      element.classList.toggle("small", element.videoWidth <= SMALL),
    );
  }
  element.src = URL.createObjectURL(typed(file));
  return element;
}

/** A link that saves a file. */
export function download(file) {
  const link = create("a", "download", icon("download"));
  link.href = URL.createObjectURL(file);
  link.download = file.name;
  return label(link, "download");
}

function nameOf(modality, file) {
  const size = file.size < 1e5 ? `${(file.size / 1e3).toFixed(1)} KB` : `${(file.size / 1e6).toFixed(1)} MB`;
  return create("span", "name", icon(modality), create("span", "", `${file.name}, ${size}`));
}

function notShown(modality, file) {
  return create("div", "", nameOf(modality, file), say(create("small"), "not_shown"));
}

/** GLB files turn in a viewer, which stands only while it is in sight: browsers allow few of them. */
function showSolid(file) {
  if (suffixOf(file.name) !== ".glb") return nameOf("shape3d", file);
  const place = create("div", "shown shape3d");
  const sight = new IntersectionObserver(
    ([{ isIntersecting }]) => place.replaceChildren(...(isIntersecting ? [viewer(file, place)] : [])),
    { rootMargin: "200px" },
  );
  sight.observe(place);
  return place;
}

function viewer(file, place) {
  const frame = create("iframe");
  frame.src = "page/viewer.html";
  frame.sandbox = "allow-scripts";
  label(frame, "turn");
  frame.addEventListener("load", async () => {
    const glb = await file.arrayBuffer();
    addEventListener("message", function answered({ source, data }) {
      if (!frame.isConnected) removeEventListener("message", answered);
      if (source !== frame.contentWindow) return;
      removeEventListener("message", answered);
      if (data.shown) frame.dataset.shown = "";
      else place.replaceWith(notShown("shape3d", file));
    });
    frame.contentWindow?.postMessage({ glb, label: words("turn") }, "*");
  });
  return frame;
}
