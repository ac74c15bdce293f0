"use strict";

// Figures: drawn when they come into view, so that the page is there at once. Before that, and in print, a figure is
// shown by its still, an image. Figures without a still are drawn soon after loading, because a page that is printed or
// captured may never be scrolled.

let library = null;

function loadPlotly() {
  library ??= (async () => {
    const packed = Uint8Array.from(atob(document.getElementById("plotly-js").textContent.trim()), (c) => c.charCodeAt(0));
    const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const source = await new Response(unpacked, { headers: { "Content-Type": "text/javascript" } }).blob();
    const script = document.createElement("script");
    script.src = URL.createObjectURL(source);
    await new Promise((resolve, reject) => {
      script.onload = resolve;
      script.onerror = () => reject(new Error("plotly.js could not be unpacked"));
      document.head.append(script);
    });
    URL.revokeObjectURL(script.src);
  })();
  return library;
}

async function draw(place) {
  await loadPlotly();
  await drawNow(place);
}

// Synchronous where plotly.js is loaded: the figure is in the page when this returns, and its promise may be ignored.
function drawNow(place) {
  if (place.dataset.drawn) return undefined;
  place.dataset.drawn = "begun";
  const name = place.id.replace("plot-", "");
  const figure = JSON.parse(document.getElementById(`data-${name}`).textContent);
  return window.Plotly.newPlot(place, figure.data, figure.layout, {
    responsive: true,
    displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    toImageButtonOptions: { format: "svg", filename: name },
  }).then(() => { place.dataset.drawn = "done"; });
}

const places = [...document.querySelectorAll(".plot")];
const bare = places.filter((place) => !place.parentElement.classList.contains("with-still"));
const watcher = new IntersectionObserver(
  (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
    watcher.unobserve(entry.target);
    draw(entry.target);
  }),
  { rootMargin: "300px" },
);
places.forEach((place) => watcher.observe(place));

async function drawRest() {
  for (const place of bare) {
    await new Promise((resolve) => setTimeout(resolve));
    await draw(place);
  }
}
window.addEventListener("load", drawRest);

const PRINTED_WIDTH = 680; // CSS pixels within the margins of A4 and of US letter

function beforePrint() {
  if (window.Plotly === undefined) return;
  for (const place of bare) {
    drawNow(place);
    window.Plotly.relayout(place, { width: Math.min(PRINTED_WIDTH, place.clientWidth), autosize: false });
  }
}

function afterPrint() {
  for (const place of bare) if (place.dataset.drawn) window.Plotly.relayout(place, { width: null, autosize: true });
}

window.addEventListener("beforeprint", beforePrint);
window.addEventListener("afterprint", afterPrint);
window.matchMedia("print").addEventListener("change", (change) => (change.matches ? beforePrint() : afterPrint()));

// The table: sorting and hiding.

function valueOf(row, column, isText) {
  const text = row.cells[column].dataset.value;
  return text === undefined || isText ? text : Number(text);
}

function sortBy(table, column) {
  const head = table.tHead.rows[0].cells[column];
  const isText = head.classList.contains("text");
  const turn = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const rows = [...table.tBodies[0].rows];
  const values = new Map(rows.map((row) => [row, valueOf(row, column, isText)]));
  rows.sort((one, other) => {
    const [a, b] = [values.get(one), values.get(other)];
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined); // what is not known comes last
    return turn * (isText ? a.localeCompare(b) : a - b);
  });
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", turn > 0 ? "ascending" : "descending");
  table.tBodies[0].append(...rows);
  cut(table);
}

// Of the lines that are not hidden, the first ones are shown until all are asked for.
function cut(table) {
  const first = Number(table.closest("section").querySelector(".more")?.dataset.first ?? Infinity);
  let shown = 0;
  for (const row of table.tBodies[0].rows) {
    row.classList.toggle("rest", !row.classList.contains("off") && shown++ >= first);
  }
}

for (const board of document.querySelectorAll("table.board")) {
  const section = board.closest("section");
  [...board.tHead.rows[0].cells].forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => sortBy(board, column));
  });
  section.querySelector(".statuses").addEventListener("change", (event) => {
    for (const row of board.tBodies[0].rows) {
      if (row.dataset.status === event.target.value) row.classList.toggle("off", !event.target.checked);
    }
    cut(board);
  });
  section.querySelector(".columns").addEventListener("change", (event) => {
    for (const row of board.rows) row.cells[Number(event.target.value)].hidden = !event.target.checked;
  });
  section.querySelector(".more")?.addEventListener("click", (event) => {
    const all = board.classList.toggle("all");
    event.target.textContent = all ? `Show the first ${event.target.dataset.first}` : `Show all ${board.tBodies[0].rows.length.toLocaleString("en")}`;
  });
}
