// Decides how several runs are laid over each other: the verdict in words, their fronts in one picture, then the tables.

import { candidate, get, page } from "./api.js";
import { ACROSS, UPWARDS, colour, draw, errors, hover, plain, scaled, series, titled } from "./charts.js";
import { card, choice, coded, copyable, el, figure, link, notice, pretty, replace, table } from "./dom.js";

const SYMBOLS = ["circle", "square", "triangle-up", "diamond-tall", "pentagon", "hexagram"];

export async function open(context) {
  const asked = new URLSearchParams(location.search);
  const named = asked.get("runs")?.split(",");
  const state = { chosen: named ?? context.runs.filter((run) => run.front).slice(0, SYMBOLS.length).map((run) => run.run).reverse(), held: asked.get("held_out") ?? "", x: null, y: null };
  const boxes = el("div", { className: "controls", role: "group", "aria-label": "Runs to compare" });
  const controls = el("div", { className: "controls" });
  const picture = figure("");
  const [verdict, message, tables] = [el("div"), el("div"), el("div")];
  const result = el("div", {}, card("", controls, picture.node), tables);
  context.root.append(el("h1", {}, "Comparison"), el("p", { className: "quiet" }, "What ", el("code", {}, "vibeserve compare"), " says of these runs. Attainment surfaces are in its page: ", el("code", {}, "--format html"), "."), boxes, message, verdict, result);

  function ticked(label, checked, disabled, onchange) {
    const box = el("input", { type: "checkbox", disabled, onchange: () => onchange(box.checked) });
    box.checked = checked;
    return el("label", { className: "row" }, box, label);
  }

  function change(changes) {
    Object.assign(state, changes);
    history.replaceState(null, "", `/compare?${new URLSearchParams({ runs: state.chosen.join(","), ...(state.held && { held_out: state.held }) })}`);
    return fill();
  }

  // The first is what the others are compared with: the oldest, unless the address says otherwise.
  const toggled = (name, on) => (on ? [...state.chosen, name] : state.chosen.filter((run) => run !== name));
  replace(boxes, context.runs.map((run) => ticked(run.run + (run.front ? "" : " (no front yet)"), state.chosen.includes(run.run), !run.front, (on) => change({ chosen: toggled(run.run, on) }))),
    ticked("measured on the held-out trace", state.held === "1", false, (on) => change({ held: on ? "1" : "" })));

  async function fill() {
    let data;
    try {
      data = await get("/api/compare", { runs: state.chosen.join(",") || "none", held_out: state.held });
    } catch (error) {
      result.hidden = true;
      replace(verdict);
      replace(message, notice(error.message, "error"));
      return;
    }
    result.hidden = false;
    replace(message, data.forced.length ? listed("NOT A FAIR COMPARISON: these runs were not measured alike, so their numbers do not mean the same.", data.forced, "error") : null,
      data.caveats.length ? listed("To bear in mind:", data.caveats, "") : null);
    replace(verdict, card("", data.headlines.map((text) => el("p", { className: "headline" }, text))));
    const names = data.objectives.map((o) => o.name);
    state.x = names.includes(state.x) ? state.x : names[0];
    state.y = names.includes(state.y) ? state.y : names[1] ?? names[0];
    const options = data.objectives.map((o) => ({ value: o.name, label: pretty(o.name) + (o.unit ? ` (${o.unit})` : "") }));
    if (!controls.contains(document.activeElement)) replace(controls, choice("Across", options, state.x, (x) => { state.x = x; return fill(); }), choice("Upwards", options, state.y, (y) => { state.y = y; return fill(); }));
    await overlay(picture, data, [state.x, state.y], context);
    replace(tables, data.tables.map((sheet) => sheetCard(sheet, data)), card("The scale", el("ul", {}, data.scale.map((line) => el("li", {}, line)))),
      data.steps.length ? card("Go on from here", data.steps.map((step) => copyable("", step))) : null);
  }
  return fill;
}

function listed(head, lines, kind) {
  const node = el("div", { className: `notice ${kind}`, role: kind === "error" ? "alert" : null }, el("strong", {}, head));
  node.append(el("ul", {}, lines.map((line) => el("li", {}, coded(line)))));
  return node;
}

async function overlay(picture, data, names, context) {
  const axes = names.map((name) => data.objectives.find((o) => o.name === name)).map((o) => ({ ...o, label: pretty(o.name), unit: o.unit ?? "", higher: o.direction === "max" }));
  const fronts = Object.entries(data.fronts);
  picture.say(`${axes[1].label} against ${axes[0].label}: ${fronts.map(([key, front]) => `${key} is ${front.name}`).join(", ")}. Bars are 95 % intervals; the diamond is the seed, stars are baselines. Select a point to open its page.`);
  const points = (metrics) => names.map((name) => { const m = metrics[name]; return [m.value, m.low, m.high, m.n]; });
  const cloud = (name, members, look, texts, keys) => ({
    type: "scatter", mode: "markers", name: plain(name), x: members.map((p) => p[0][0]), y: members.map((p) => p[1][0]), marker: look,
    error_x: { ...errors(members, 0), color: look.color }, error_y: { ...errors(members, 1), color: look.color }, text: texts, hovertemplate: "%{text}<extra></extra>", customdata: keys,
  });
  const traces = fronts.map(([key, front], index) => {
    const members = front.members.map((m) => points(m.metrics));
    return cloud(`${key} ${front.setting || front.name}`, members, { color: series(index), symbol: SYMBOLS[index % SYMBOLS.length], size: 10 },
      front.members.map((m, i) => hover(`${key} ${m.id}`, m.made_by, members[i], axes)), front.members.map((m) => `${front.name}\n${m.id}`));
  });
  const stars = Object.entries(data.points).map(([name, metrics]) => {
    const point = points(metrics), seed = name === "seed";
    return cloud(seed ? "seed" : `baseline ${name}`, [point], { color: colour(seed ? "seed" : "baseline"), symbol: seed ? "diamond" : "star", size: 14 }, [hover(name, "", point, axes)], [null]);
  });
  const everyone = [...fronts.flatMap(([, front]) => front.members.map((m) => points(m.metrics))), ...Object.values(data.points).map(points)];
  const along = (place) => scaled(everyone.flatMap((point) => point[place].slice(0, 3)));
  await draw(picture.chart, [...traces, ...stars], { uirevision: names.join(" "), xaxis: { title: titled(axes[0], ACROSS), ...along(0) }, yaxis: { title: titled(axes[1], UPWARDS), ...along(1) }, margin: { t: 34 }, tools: true },
    (key) => { const [run, id] = key.split("\n"); return context.go(candidate(run, id)); });
}

function sheetCard(sheet, data) {
  const keys = Object.keys(data.fronts);
  const head = sheet.header.map((text, place) => ({ text, num: place >= sheet.words }));
  const cells = (row) => row.map((text, place) => (!place ? first(text, keys, data) : place < sheet.words ? words(text, data) : value(text, data.fronts[row[0].split(" ")[0]])));
  return card(sheet.title, table(sheet.note, head, sheet.rows.map((row) => el("tr", {}, cells(row)))));
}

// `A` or `A c000012`: the front's colour, and the way to the candidate.
function first(text, keys, data) {
  const key = text.split(" ")[0], index = keys.indexOf(key);
  const swatch = index < 0 ? null : el("span", { className: "swatch" });
  if (swatch) swatch.style.background = series(index);
  return el("th", { scope: "row", className: text.length > 14 ? "wide" : "short" }, swatch, linked(text, data.fronts[key]));
}

function words(text, data) {
  const front = Object.values(data.fronts).find((one) => one.name === text && one.kind === "run");
  return front ? el("td", {}, link(page(front.name, "front"), text)) : el("td", { className: "long" }, text);
}

// `0.81 [0.78, 0.84]; more`: the interval goes below its value.
function value(text, front) {
  const parts = text.split("; ").map((part) => {
    const [, centre, low, high, rest] = /^(.*?) \[(.+?), (.+?)\](.*)$/.exec(part) ?? [null, part];
    return el("div", {}, linked(centre, front), low ? el("small", {}, `${low} ${/^[+-]/.test(low) ? "to" : "–"} ${high}${rest}`) : null);
  });
  return el("td", { className: "num" }, parts);
}

// Text with the first candidate in it as a link, where it is a run's.
function linked(text, front) {
  const id = front?.kind === "run" ? /\bc\d{6}\b/.exec(text)?.[0] : null;
  if (!id) return text;
  const [before, after] = text.split(id);
  return [before, link(candidate(front.name, id), id), after];
}
