// Decides how data becomes elements: text always goes into text nodes, so nothing a candidate wrote is ever markup.

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "className") node.className = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  add(node, children);
  return node;
}

export function add(node, children) {
  for (const child of [children].flat(3)) {
    if (child !== null && child !== undefined && child !== false) node.append(child instanceof Node ? child : String(child));
  }
}

export function replace(node, ...children) {
  node.replaceChildren();
  add(node, children);
}

// The same digits as the terminal's tables: three significant ones, or all of a large whole part.
export function number(value) {
  if (value === null || value === undefined) return "∞";
  const size = Math.abs(value);
  if (size >= 100) return Math.round(value).toLocaleString("en-US");
  if (size >= 10) return value.toFixed(1);
  if (size === 0) return "0";
  return String(Number(value.toPrecision(3)));
}

export const count = (value) => value.toLocaleString("en-US");
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
export const withUnit = (value, unit) => (unit ? `${number(value)} ${unit}` : number(value));
export const gain = (ratio) => (ratio === null || ratio === undefined ? "" : `${ratio >= 10 ? number(ratio) : ratio.toFixed(2)}×`);

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "unknown";
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${String(Math.round(seconds % 60)).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

export function interval([, low, high, n]) {
  return `${number(low)} – ${number(high)}, n = ${n}`;
}

export function valueCell(point, unit = "", ratio = null) {
  if (!point) return el("td", { className: "num quiet" }, "–");
  const better = ratio === null || ratio === undefined ? null : el("span", { className: ratio >= 1.005 ? "good" : ratio < 0.995 ? "warn" : "quiet" }, `  ${gain(ratio)}`);
  return el("td", { className: "num" }, withUnit(point[0], unit), better, el("small", {}, interval(point)));
}

export const chip = (text, kind = text) => el("span", { className: `chip ${kind}` }, text);
export const link = (href, ...text) => el("a", { href }, ...text);
export const card = (title, ...children) => el("section", { className: "card" }, title ? el("h2", {}, title) : null, ...children);
export const notice = (text, kind = "") => el("p", { className: `notice ${kind}`, role: kind === "error" ? "alert" : null }, coded(text));

// Words between backticks are code.
export const coded = (text) => text.split("`").map((part, place) => (place % 2 ? el("code", {}, part) : part));

export function table(caption, heads, rows, footer = null) {
  const row = heads.map((head) => (head instanceof Node ? head : el("th", { scope: "col", className: head.num ? "num" : null }, head.text ?? head)));
  return el("div", { className: "scroll", tabindex: "0", role: "group", "aria-label": caption || "Table" },
    el("table", {}, caption ? el("caption", {}, el("span", {}, coded(caption))) : null, el("thead", {}, el("tr", {}, row)), el("tbody", {}, rows)), footer);
}

export function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "" && value?.length !== 0);
  return el("dl", { className: "facts" }, shown.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

export function tiles(pairs) {
  return el("dl", { className: "tiles" }, pairs.map(([name, value, small]) =>
    el("div", { className: "tile" }, el("dt", {}, name), el("dd", {}, value, el("small", {}, small || "\u00a0")))));
}

export function choice(label, options, value, onchange) {
  const select = el("select", { onchange: (event) => onchange(event.target.value) },
    options.map((option) => el("option", { value: option.value ?? option, selected: (option.value ?? option) === value }, option.label ?? option)));
  return el("label", {}, label, select);
}

export function copyable(what, command) {
  const button = el("button", { type: "button", "aria-label": `Copy: ${what || command}`, onclick: async () => {
    try { await navigator.clipboard.writeText(command); button.textContent = "Copied"; } catch { button.textContent = "Select it"; }
  } }, "Copy");
  return el("div", { className: "command" }, what ? el("span", {}, what) : null, el("code", { tabindex: "0" }, command), button);
}

export function figure(caption, kind = "") {
  const chart = el("div", { className: `chart ${kind}`, role: "img" });
  const text = el("figcaption", {}, caption);
  const say = (words, empty = false) => { text.textContent = words; chart.setAttribute("aria-label", words); chart.hidden = empty; };
  return { node: el("figure", {}, chart, text), chart, say };
}

// `median_ttft_ms@low` → `median TTFT · low`
export function pretty(name) {
  const [metric, load] = name.split("@");
  const words = metric.replace(/_ms$/, "").split("_").map((word) => (/^(ttft|tpot|itl|e2el|p\d+)$/.test(word) ? word.toUpperCase() : word));
  return words.join(" ").replace(/\bP(\d+)\b/g, "p$1") + (load ? ` · ${load}` : "");
}
