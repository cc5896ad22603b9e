// Decides how one candidate is shown: verdict first, then numbers, then what it changed and said, then how to get it.

import { candidate, page } from "./api.js";
import { flame, folded } from "./flame.js";
import { card, chip, choice, copyable, duration, el, facts, figure, interval, link, number, plural, pretty, replace, table, withUnit } from "./dom.js";

export async function open(context) {
  const { id } = context.target;
  context.pictures = [];  // drawn once the page can be seen: a chart needs its width
  const data = await context.view("candidate", { id });
  const state = data.front ? "front" : data.scored ? "scored" : data.verdict === "in flight" ? "pending" : "rejected";
  const line = [...data.lineage].reverse().map((name, i) => [i ? " → " : "", name === id ? el("strong", {}, name) : link(candidate(context.run, name), name)]);
  const lead = data.summary || [data.operator, data.recipe].filter(Boolean).join(": ");
  context.root.append(
    el("p", { className: "quiet" }, link(page(context.run, "candidates"), "Candidates"), " / ", id),
    el("h1", {}, `${id}  `, chip(data.verdict, state)),
    el("p", {}, lead),
    data.reason ? el("p", { className: "notice" }, data.reason) : "",
    el("div", { className: "grid" }, origin(data, line, context.run), cost(data)));
  const brief = el("div"), diff = el("div"), files = el("div"), flame = el("div");
  context.root.append(metrics(data), verdicts(data), profile(data), flame, brief, diff, files, commands(data));
  await Promise.all([flamed(flame, data, context, id), briefed(brief, data, context, id), changed(diff, data, context, id), kept(files, data, context, id)]);
  let seen = data.revision;
  return async () => {
    for (const draw of context.pictures) await draw();
    const now = await context.view("candidate", { id });
    if (now.revision !== seen && JSON.stringify({ ...now, revision: 0 }) !== JSON.stringify({ ...data, revision: 0 })) await context.go(location.pathname);
    seen = now.revision;
  };
}

function origin(data, line, run) {
  const knobs = Object.entries(data.knobs).map(([name, value]) => `${name} = ${value}`).join(", ");
  return card("How it came to be", facts([
    ["Made by", [data.operator, data.recipe].filter(Boolean).join(": ")],
    ["Parents", data.parents.flatMap((name, i) => [i ? " + " : "", link(candidate(run, name), name)])],
    ["Line", line.flat()],
    ["Goal", data.files.some((file) => file.name === "brief.md") ? null : data.goal], ["Inspired by", data.inspirations.join(", ")],
    ["Components", Object.entries(data.components).map(([name, what]) => `${name}: ${what}`).join(", ")], ["Knobs", knobs],
    ["Children", data.children.flatMap((name, i) => [i ? ", " : "", link(candidate(run, name), name)])],
    ["Commit", data.commit ? el("span", { className: "mono" }, data.commit) : "none: it never became a commit"],
  ]));
}

function cost(data) {
  const stages = Object.entries(data.stage_s).map(([name, s]) => `${name} ${duration(s)}`).join(", ");
  const isolation = data.tier ? `tier ${data.tier}` : "its server was never started";
  return card("Cost and isolation", facts([
    ["Wall time", data.cost_s === null ? "still going on" : `${duration(data.cost_s)} for mutation and first evaluation`],
    ["Stages", stages], ["Evaluations", `${duration(data.leased_s)} in all`],
    ["GPUs", data.gpus === null ? "unknown: the target cannot be read" : data.gpus === 0 ? "none" : `${data.gpus}, ${number(data.gpu_hours)} GPU-hours`],
    ["Dollars", data.dollars === null || data.dollars === undefined ? (data.gpus ? "unknown: no price was given (--gpu-hour-dollars)" : null) : `$${data.dollars.toFixed(2)} for GPUs`],
    ["Isolation", isolation], ["It left open", data.gaps.length ? data.gaps.join("; ") : data.tier === "A" ? "nothing that is known" : data.tier ? "not recorded" : null],
    ["Flags", data.flags.join(", ")],
  ]));
}

function metrics(data) {
  if (!data.loads.length) return card("Measurements", el("p", { className: "quiet" }, "It was never measured."));
  const goals = Object.entries(data.metrics);
  const rows = goals.map(([name, m]) => el("tr", {}, el("th", { scope: "row" }, pretty(name)), el("td", { className: "num" }, withUnit(m.value, m.unit), el("small", {}, interval([m.value, m.low, m.high, m.n]))), el("td", {}, m.direction === "max" ? "higher is better" : "lower is better")));
  const loads = [...new Set(data.loads.flatMap((row) => Object.keys(row.values)))].filter((load) => load !== "all loads");
  const levels = loads.length ? loads : ["all loads"];
  const cell = (row, load) => { const p = row.values[load]; return el("td", { className: "num" }, p ? [withUnit(p[0], row.unit), el("small", {}, interval(p))] : "–"); };
  const byLoad = (chosen) => table("Value, 95 % interval and number of repeats.", ["Metric", ...levels.map((text) => ({ text: `load ${text}`, num: true }))], chosen.map((row) => el("tr", {}, el("th", { scope: "row" }, pretty(row.metric)), levels.map((load) => cell(row, load)))));
  const measured = data.loads.filter((row) => levels.some((load) => row.values[load]));
  const order = ["output_throughput", "request_throughput", "ttft", "tpot", "itl", "e2el"];
  const rank = (row) => { const at = order.findIndex((word) => row.metric.includes(word)); return at < 0 ? order.length : at; };
  measured.sort((a, b) => rank(a) - rank(b) || a.metric.localeCompare(b.metric));
  const main = /^(output_throughput|request_throughput|(median|p99)_(ttft|tpot|itl|e2el)_ms)$/;
  const [first, rest] = [measured.filter((row) => main.test(row.metric)), measured.filter((row) => !main.test(row.metric))];
  return card("Measurements", goals.length ? table("Objectives, pooled over all repeats.", ["Objective", { text: "Value", num: true }, ""], rows) : null,
    first.length ? [el("h2", {}, "By load"), byLoad(first)] : null,
    rest.length ? el("details", { open: first.length ? null : true }, el("summary", {}, `${rest.length} more metrics`), byLoad(rest)) : null);
}

function verdicts(data) {
  if (!data.evaluations.length) return card("Verdicts", el("p", { className: "quiet" }, "None yet."));
  return card("Verdicts", data.evaluations.map((one) => el("div", { className: "verdict" },
    el("h3", {}, chip(one.verdict, one.verdict === "scored" ? "scored" : ""), ` ${one.what}, ${duration(one.elapsed_s)}${one.tier ? `, tier ${one.tier}` : ""}${one.place ? `, on ${one.place}` : ""}`),
    one.reason ? el("p", {}, one.reason) : null,
    one.flags?.length ? el("p", { className: "warn" }, `Flags: ${one.flags.join(", ")}`) : null,
    one.audit && Object.keys(one.audit).length ? el("p", { className: "quiet" }, `Audit of the served tokens: ${Object.entries(one.audit).map(([name, value]) => `${name.replaceAll("_", " ")} ${number(value)}`).join(", ")}${one.measured_by === "target" ? " (measured by the target's own benchmark)" : ""}`) : null,
    one.evidence ? el("details", { open: true }, el("summary", {}, "Evidence"), el("pre", { className: "wrap", tabindex: "0", "aria-label": "Evidence" }, one.evidence)) : null)));
}

function profile(data) {
  const shares = Object.entries(data.hints).filter(([, value]) => typeof value === "number").sort((a, b) => b[1] - a[1]);
  const texts = Object.entries(data.hints).filter(([, value]) => typeof value !== "number");
  if (!shares.length && !texts.length) return "";
  const top = shares[0]?.[1] ?? 1;
  const bar = (share) => { const fill = el("i"); fill.style.width = `${(100 * share) / top}%`; return el("dd", { className: "track", "aria-hidden": "true" }, fill); };
  return card("Profile", el("p", { className: "quiet" }, "Share of the server's busy time in which each function itself ran, under load: a hint, never a verdict."),
    shares.length ? el("dl", { className: "bars" }, shares.map(([name, share]) => [el("dt", { className: "mono" }, name), bar(share), el("dd", { className: "num" }, `${(100 * share).toFixed(1)} %`)])) : null,
    texts.map(([name, text]) => el("p", {}, `${name}: ${text}`)));
}

async function flamed(place, data, context, id) {
  const file = data.files.find((f) => f.name === "stacks.txt");
  if (!file) return;
  const frames = folded((await context.view("file", { id, key: file.key, file: file.name })).text);
  if (!frames.samples) return;
  const picture = figure("");
  replace(place, card("Flame graph", picture.node));
  picture.say(`${plural(frames.samples, "sample")} of the most frequent stacks, threads that wait left out; outermost function on top, width is the share of samples. Select a frame to zoom in, the top one to zoom out.`);
  context.pictures.push(() => flame(picture.chart, frames));
}

async function briefed(place, data, context, id) {
  const file = data.files.find((f) => f.name === "brief.md");
  if (!file) return;
  const text = (await context.view("file", { id, key: file.key, file: file.name })).text;
  if (!text.trim()) return replace(place, card("Brief", el("p", { className: "quiet" }, "None: recipes, knobs and merges need no words.")));
  return replace(place, card("Brief", el("pre", { className: "wrap", tabindex: "0", "aria-label": "Brief" }, text)));
}

async function changed(place, data, context, id) {
  if (!data.against.length) return;
  const body = el("div");
  const show = async (against) => {
    try {
      const found = await context.view("diff", { id, against });
      replace(body, found.diff ? coloured(found.diff) : el("p", { className: "quiet" }, "No difference."), found.cut ? el("p", { className: "quiet" }, "The rest is left out here: `vibeserve diff` shows all.") : null);
    } catch (error) {
      replace(body, el("p", { className: "bad" }, error.message));
    }
  };
  replace(place, card("What it changed", el("div", { className: "controls" }, choice("Against", data.against, data.against[0].value, show)), body));
  await show(data.against[0].value);
}

function coloured(text) {
  const kind = (row) => (row.startsWith("diff --git") ? "file" : /^(\+\+\+|---|index |new file|deleted file|similarity|rename)/.test(row) ? "hunk" : row.startsWith("@@") ? "hunk" : row[0] === "+" ? "add" : row[0] === "-" ? "del" : "");
  const rows = text.replace(/\n$/, "").split("\n");
  return el("pre", { className: "diff", tabindex: "0", "aria-label": "Difference" }, rows.map((row) => el("span", { className: kind(row) || null }, row)));
}

async function kept(place, data, context, id) {
  if (!data.files.length) return;
  const value = (file) => `${file.key}/${file.name}`;
  const size = (bytes) => (bytes < 1024 ? plural(bytes, "byte") : `${number(bytes / 1024)} KiB`);
  const first = data.files.find((file) => file.name === "server.log" && file.bytes) ?? data.files.find((file) => file.bytes) ?? data.files[0];
  const body = el("pre", { tabindex: "0", "aria-label": "Kept file" });
  const show = async (chosen) => {
    const [key, ...rest] = chosen.split("/");
    const found = await context.view("file", { id, key, file: rest.join("/") });
    body.textContent = found.text || "(empty)";
    body.className = found.text.split("\n").some((line) => line.length > 300) ? "wrap" : "";
    body.scrollTop = body.scrollHeight;
  };
  replace(place, card("Server log and other files", el("div", { className: "controls" }, choice("File", data.files.map((file) => ({ value: value(file), label: `${file.name} (${file.key === id ? "search" : file.key}, ${size(file.bytes)})` })), value(first), show)), body));
  await show(value(first));
}

function commands(data) {
  return card("Take it", data.commands.map(({ what, command }) => copyable(what, command)));
}
