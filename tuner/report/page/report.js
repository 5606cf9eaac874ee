// Draws the plots of a report, in the colours of the page, and sorts its table. Nothing here asks for anything.
"use strict";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** What the colour scheme changes in a plot. */
function scheme(layout) {
  const soft = colour("--soft"), rule = colour("--rule"), text = colour("--text"), card = colour("--card");
  const changed = { "font.color": text, "hoverlabel.bgcolor": card, "hoverlabel.font.color": text };
  changed["hoverlabel.bordercolor"] = rule;
  for (const axis of Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key))) {
    Object.assign(changed, { [`${axis}.gridcolor`]: rule, [`${axis}.zerolinecolor`]: rule, [`${axis}.linecolor`]: soft });
  }
  (layout.annotations || []).forEach((_, at) => { changed[`annotations[${at}].font.color`] = soft; });
  return changed;
}

/** Sets dotted keys in a layout. */
function set(layout, changed) {
  for (const [dotted, value] of Object.entries(changed)) {
    const keys = dotted.match(/[^.[\]]+/g), last = keys.pop();
    keys.reduce((at, key) => (at[key] ??= {}), layout)[last] = value;
  }
  return layout;
}

/** Runs the library, which is in the page as compressed text. */
async function library() {
  const packed = Uint8Array.from(atob(document.getElementById("library").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

async function plots() {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const trials = JSON.parse(document.getElementById("trials").textContent);
  const places = Object.keys(figures);
  if (!places.length) return;
  try {
    await library();
  } catch (error) {
    document.querySelectorAll(".plot").forEach((place) => { place.textContent = "This browser is too old for the plots."; });
    return;
  }
  const options = { displayModeBar: false, responsive: true };
  for (const place of places) {
    const { data, layout } = figures[place];
    for (const trace of data.filter((one) => one.meta === "trials")) trace.text = trace.text.map((n) => trials[n] ?? "");
    await Plotly.newPlot(place, data, set(layout, scheme(layout)), options);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const place of places) Plotly.relayout(place, scheme(figures[place].layout));
  });
  document.documentElement.dataset.drawn = String(places.length);
}

/** Sorts the rows of a table by a column; a second click turns the order around. */
function sortable(table) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const number = (text) => (text === "" ? NaN : Number(text));
    const rows = [...body.rows];
    const numbers = rows.every((row) => value(row) === "" || !Number.isNaN(number(value(row))));
    rows.sort((one, other) => {
      const a = value(one), b = value(other);
      if ((a === "") !== (b === "")) return a === "" ? 1 : -1; // what is missing stays at the end
      return (numbers ? number(a) - number(b) : a.localeCompare(b)) * (down ? -1 : 1);
    });
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...rows);
  }));
}

document.querySelectorAll("table.sortable").forEach(sortable);
plots();
