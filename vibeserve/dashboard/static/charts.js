// Decides how charts look: plotly from this server, colours from the style sheet, text escaped.

import { interval, withUnit } from "./dom.js";

let loading = null;

function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "/static/plotly.min.js";
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => reject(new Error("plotly.min.js could not be loaded from the dashboard's process"));
    document.head.append(script);
  });
  return loading;
}

export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
export const series = (index) => colour(`k${(index % 6) + 1}`);

// Plotly reads a little HTML in its texts; what a candidate wrote must stay text there, too.
export const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function themed(node, layout) {
  const narrow = node.clientWidth < 520;
  const axis = { gridcolor: colour("line"), zeroline: false, linecolor: colour("line"), automargin: true, ticks: "outside", tickcolor: colour("line"), ticklen: 4 };
  const base = {
    font: { family: getComputedStyle(document.body).fontFamily, size: narrow ? 11 : 12.5, color: colour("ink") },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 8, r: narrow ? 8 : 16, t: 8, b: 8 },
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("ink") }, align: "left" },
    legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", font: { color: colour("quiet") } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("quiet"), activecolor: colour("accent"), orientation: "h" },
    hovermode: "closest", dragmode: narrow ? false : "zoom",
  };
  const merged = { ...base, ...layout, legend: { ...base.legend, ...layout.legend }, margin: { ...base.margin, ...layout.margin } };
  for (const key of Object.keys(layout).filter((name) => /^[xy]axis/.test(name))) merged[key] = { ...axis, ...layout[key] };
  return merged;
}

export async function draw(node, traces, layout, onclick = null) {
  const Plotly = await plotly();
  if (!node.isConnected) return;
  const { tools, ...rest } = layout;
  // Named one by one: a button that sends data elsewhere must not come in by a later version's default.
  const config = { responsive: true, displaylogo: false, displayModeBar: tools && node.clientWidth >= 520 ? "hover" : false, modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]] };
  await Plotly.react(node, traces, themed(node, { uirevision: "keep", ...rest }), config);
  node.removeAllListeners?.("plotly_click");
  if (onclick) node.on("plotly_click", (event) => { const key = event.points[0]?.customdata; if (key) onclick(key); });
}

// Ticks of a logarithmic axis at 1, 2 and 5, with all digits: plotly's own are bare digits between powers of ten.
function decades([low, high]) {
  const span = high - low;
  const steps = span > 5 ? [1] : span > 3 ? [1, 3] : [1, 2, 5];
  const values = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power += 1) for (const step of steps) values.push(Number(`${step}e${power}`));
  const tickvals = values.filter((value) => Math.log10(value) >= low && Math.log10(value) <= high);
  return tickvals.length < 2 ? {} : { tickvals, ticktext: tickvals.map((value) => value.toLocaleString("en-US", { maximumSignificantDigits: 3 })) };
}

// An axis that holds these values: logarithmic where they spread by more than a factor of eight, unless one is wanted.
export function scaled(values, wanted = "auto") {
  const finite = values.filter((value) => value !== null && Number.isFinite(value));
  const positive = finite.filter((value) => value > 0);
  const type = wanted !== "auto" ? wanted : positive.length && positive.length === finite.length && Math.max(...positive) > 8 * Math.min(...positive) ? "log" : "linear";
  const known = type === "log" ? positive.map(Math.log10) : finite;
  if (!known.length) return { type };
  const low = Math.min(...known), high = Math.max(...known);
  const pad = (high - low || Math.abs(high) || 1) * 0.07;
  const range = [type === "linear" && low >= 0 ? Math.max(0, low - pad) : low - pad, high + pad];
  return { type, range, ...(type === "log" && decades(range)) };
}

// Of points `[[value, low, high, n], …]` per axis; an end that is not finite has no bar.
export const errors = (points, place) => ({ type: "data", symmetric: false, array: points.map((p) => (p[place][2] ?? p[place][0]) - p[place][0]), arrayminus: points.map((p) => p[place][0] - (p[place][1] ?? p[place][0])), thickness: 1.2, width: 3 });

export function hover(name, detail, point, axes) {
  const lines = axes.map((axis, place) => `${plain(axis.label)}: ${withUnit(point[place][0], axis.unit)} (${interval(point[place])})`);
  return [`<b>${plain(name)}</b>`, detail ? plain(detail.slice(0, 90)) : null, ...lines].filter(Boolean).join("<br>");
}

export function titled(axis, arrow) {
  const better = axis.higher === null ? "" : axis.higher === arrow.up ? `  ${arrow.more} better` : `  ${arrow.less} better`;
  return { text: plain(`${axis.label}${axis.unit ? ` (${axis.unit})` : ""}${better}`), standoff: 10 };
}
export const ACROSS = { up: true, more: "→", less: "←" };
export const UPWARDS = { up: true, more: "↑", less: "↓" };
