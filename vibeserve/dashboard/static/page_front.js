// Decides how the front is drawn: members with intervals, the dominated greyed, stars to compare with, limits shaded.

import { candidate } from "./api.js";
import { ACROSS, UPWARDS, colour, draw, errors, hover, plain, scaled, titled } from "./charts.js";
import { card, choice, count, el, figure, link, plural, pretty, replace, table, valueCell, withUnit } from "./dom.js";
import { head } from "./head.js";

const NONE = "";

export async function open(context) {
  const top = head("Front", "No member is worse than another in everything, given the noise of the measurements.");
  const controls = el("div", { className: "controls" });
  const message = el("p", { className: "bad", role: "alert" });
  const { node, chart, say } = figure("");
  const list = el("div");
  context.root.append(top.node, card("", controls, message, node), list);
  const asked = new URLSearchParams(location.search);
  const state = { axes: (asked.get("axes") ?? "").split(",").filter(Boolean), slo: asked.get("slo") ?? context.level, scale: asked.get("scale") ?? "auto", flat: asked.get("look") !== "3d" };

  function remember() {
    const kept = new URLSearchParams({ axes: state.axes.join(","), ...(state.slo && { slo: state.slo }), ...(state.scale !== "auto" && { scale: state.scale }), ...(!state.flat && { look: "3d" }) });
    history.replaceState(null, "", `${location.pathname}?${kept}`);
  }

  async function change(changes) {
    Object.assign(state, changes);
    remember();
    await fill();
  }

  function options(data) {
    const [x, y, z] = data.chosen.map((axis) => axis.name);
    const names = data.axes.map((axis) => ({ value: axis.name, label: pretty(axis.name) + (axis.unit ? ` (${axis.unit})` : "") }));
    const set = (place) => (value) => {
      const axes = [x, y, z];
      axes[place] = value;
      return change({ axes: axes.filter(Boolean) });
    };
    const level = el("input", { type: "text", value: state.slo, placeholder: "p99_ttft_ms<200, median_tpot_ms<10", spellcheck: "false", autocomplete: "off", onchange: (event) => change({ slo: event.target.value }) });
    const spatial = el("input", { type: "checkbox", onchange: (event) => change({ flat: !event.target.checked }) });
    spatial.checked = !state.flat;
    replace(controls,
      choice("Across", names, x, set(0)), choice("Upwards", names, y, set(1)),
      choice("Third", [{ value: NONE, label: "none" }, ...names], z ?? NONE, set(2)),
      choice("Scale", [{ value: "auto", label: "as fits" }, { value: "linear", label: "linear" }, { value: "log", label: "logarithmic" }], state.scale, (scale) => change({ scale })),
      z ? el("label", { className: "row" }, spatial, "in space") : null,
      el("label", { className: "wide" }, "Service level (breaking it is shaded)", level));
  }

  async function fill() {
    let data;
    try {
      data = await context.view("front", { axes: state.axes.join(","), slo: state.slo });
      message.textContent = "";
    } catch (error) {
      message.textContent = error.message;
      return;
    }
    if (!data.chosen.length) {
      replace(controls);
      replace(list);
      say("No candidate has been scored yet: the picture appears with the first one.", true);
      return;
    }
    if (!controls.contains(document.activeElement)) options(data);
    const axes = data.chosen.map((axis) => ({ ...axis, label: pretty(axis.name) }));
    say(words(data, axes, axes.length === 3 && !state.flat));
    await (axes.length === 3 && !state.flat ? spatially(chart, data, axes, state.scale, context) : flat(chart, data, axes, state.scale, context));
    replace(list, card(plural(data.front.length, "member of the front", "members of the front"), members(data, context.run)));
  }
  return async () => {
    await top.update(context);
    await fill();
  };
}

function words(data, axes, spatial) {
  const drawn = data.dominated.ids.length;
  const parts = [`${axes[1].label} against ${axes[0].label}: ${plural(data.front.length, "member of the front", "members of the front")}, ${plural(data.dominated.total, "dominated candidate")}`
    + (drawn < data.dominated.total ? ` of which ${count(drawn)} are drawn.` : ".")];
  const goals = data.axes.filter((axis) => axis.objective).length;
  if (goals > axes.length) parts.push(`${goals} objectives decide who is on the front: a member may be worse than another in those drawn here.`);
  parts.push(spatial ? `Upright is ${axes[2].label}; drag to turn.` : "Bars are 95 % intervals.", "Select a point to open its page; the table below holds the same numbers.");
  if (data.level?.limits.length || data.level?.unseen.length) {
    const kept = data.front.filter((member) => !data.level.broken.includes(member.id)).length;
    parts.push(`Service level ${data.level.text}: kept by ${kept} of ${data.front.length} members; open marks break it${data.level.text.split(",").every((part) => part.includes("@")) ? "" : " (without a load it must hold at each of the loads)"}.`);
    if (data.level.unseen.length) parts.push(`On no axis here: ${data.level.unseen.join(", ")}.`);
  }
  if (Object.keys(data.baselines).length) parts.push("Baselines were measured at the end, on the held-out trace.");
  return parts.join(" ");
}

function frontLine(data, axes) {
  const [x, y] = axes;
  if (x.higher === null || y.higher === null) return null;
  const better = (a, b, axis, place) => (axis.higher ? a.point[place][0] >= b.point[place][0] : a.point[place][0] <= b.point[place][0]);
  const kept = data.front.filter((one) => !data.front.some((other) => other !== one && better(other, one, x, 0) && better(other, one, y, 1)
    && (other.point[0][0] !== one.point[0][0] || other.point[1][0] !== one.point[1][0])));
  kept.sort((a, b) => a.point[0][0] - b.point[0][0]);
  return { type: "scatter", mode: "lines", x: kept.map((m) => m.point[0][0]), y: kept.map((m) => m.point[1][0]), line: { shape: x.higher ? "vh" : "hv", color: colour("front"), width: 1.2, dash: "dot" }, hoverinfo: "skip", showlegend: false };
}

async function flat(chart, data, axes, wanted, context) {
  const broken = new Set(data.level?.broken ?? []);
  const points = data.front.map((member) => member.point);
  const everyone = (place) => [...points.flatMap((p) => p[place].slice(0, 3)), ...data.dominated.points.map((p) => p[place]), ...(data.seed ? data.seed[place].slice(0, 3) : []), ...Object.values(data.baselines).flatMap((p) => p[place].slice(0, 3)), ...(data.level?.limits ?? []).filter((l) => l.axis === place).map((l) => l.limit)].filter((v) => v !== null);
  const shade = axes.length === 3;
  const thirds = points.map((p) => p[2]?.[0]);
  const members = {
    type: "scatter", mode: "markers", name: "front", x: points.map((p) => p[0][0]), y: points.map((p) => p[1][0]), error_x: { ...errors(points, 0), color: colour("front") }, error_y: { ...errors(points, 1), color: colour("front") },
    marker: { size: 11, symbol: data.front.map((m) => (broken.has(m.id) ? "circle-open" : "circle")), color: shade ? thirds : colour("front"), line: { width: broken.size ? 1.6 : 1, color: shade ? colour("ink") : colour("front") },
      ...(shade && { colorscale: "Viridis", showscale: true, colorbar: { title: { text: plain(`${axes[2].label}${axes[2].unit ? ` (${axes[2].unit})` : ""}`), side: chart.clientWidth < 520 ? "top" : "right" }, thickness: 12, outlinewidth: 0, ...(chart.clientWidth < 520 && { orientation: "h", y: -0.28, yanchor: "top", len: 1 }) } }) },
    customdata: data.front.map((m) => m.id), text: data.front.map((m) => hover(m.id, [m.operator, m.label].filter(Boolean).join(": "), m.point, axes)), hovertemplate: "%{text}<extra></extra>",
  };
  const greyed = {
    type: "scatter", mode: "markers", name: data.dominated.ids.length < data.dominated.total ? `dominated (${count(data.dominated.ids.length)} of ${count(data.dominated.total)})` : "dominated",
    x: data.dominated.points.map((p) => p[0]), y: data.dominated.points.map((p) => p[1]), marker: { size: 6, color: colour("dominated"), opacity: data.dominated.total > 300 ? 0.45 : 0.75, symbol: data.dominated.ids.map((id) => (broken.has(id) ? "circle-open" : "circle")) },
    customdata: data.dominated.ids, text: data.dominated.ids.map((id, i) => `<b>${id}</b><br>${axes.map((a, k) => `${plain(a.label)}: ${withUnit(data.dominated.points[i][k], a.unit)}`).join("<br>")}`), hovertemplate: "%{text}<extra></extra>",
  };
  const traces = [greyed, frontLine(data, axes), members, ...stars(data, axes)].filter(Boolean);
  const [across, upwards] = [0, 1].map((place) => scaled(everyone(place), wanted));
  await draw(chart, traces, {
    uirevision: `${axes.map((a) => a.name)}${across.type}${upwards.type}`,
    xaxis: { title: titled(axes[0], ACROSS), ...across }, yaxis: { title: titled(axes[1], UPWARDS), ...upwards },
    shapes: limits(data), annotations: captions(data, [across.type, upwards.type]), margin: { t: 34 }, tools: true,
  }, (key) => context.go(candidate(context.run, key)));
}

function stars(data, axes) {
  const star = (name, point, symbol, role) => ({
    type: "scatter", mode: "markers", name, x: [point[0][0]], y: [point[1][0]], error_x: { ...errors([point], 0), color: colour(role) }, error_y: { ...errors([point], 1), color: colour(role) },
    marker: { size: 15, symbol, color: colour(role), line: { width: 1, color: colour("card") } }, text: [hover(name, "", point, axes)], hovertemplate: "%{text}<extra></extra>", customdata: [name === "seed" ? "c000000" : null],
  });
  return [...(data.seed ? [star("seed", data.seed, "diamond", "seed")] : []), ...Object.entries(data.baselines).map(([name, point]) => star(`baseline ${name}`, point, "star", "baseline"))];
}

function limits(data) {
  return shown(data).flatMap(({ axis, upper, limit }) => {
    const along = axis === 0 ? "x" : "y", across = axis === 0 ? "y" : "x";
    const far = upper ? limit * 1e4 : limit / 1e4;
    const ends = { [`${across}0`]: 0, [`${across}1`]: 1, [`${along}ref`]: along, [`${across}ref`]: "paper" };
    return [{ type: "rect", [`${along}0`]: limit, [`${along}1`]: far, ...ends, fillcolor: colour("shade"), line: { width: 0 }, layer: "below" },
      { type: "line", [`${along}0`]: limit, [`${along}1`]: limit, ...ends, line: { color: colour("bad"), width: 1, dash: "dash" } }];
  });
}

const shown = (data) => (data.level?.limits ?? []).filter((limit) => limit.axis < 2);

// Words inside the shade, where they stand in nobody's way. An annotation of a logarithmic axis wants the logarithm.
function captions(data, types) {
  return shown(data).map(({ axis, upper, limit, text }, place) => {
    const at = types[axis] === "log" ? Math.log10(limit) : limit;
    const look = { text: plain(text), showarrow: false, font: { color: colour("bad"), size: 11 } };
    return axis === 0 ? { ...look, x: at, xref: "x", xanchor: upper ? "left" : "right", y: 1, yref: "paper", yanchor: "top", yshift: -14 * place }
      : { ...look, x: 1, xref: "paper", xanchor: "right", y: at, yref: "y", yanchor: upper ? "bottom" : "top" };
  });
}

async function spatially(chart, data, axes, wanted, context) {
  const cloud = (name, points, ids, marker) => ({ type: "scatter3d", mode: "markers", name, x: points.map((p) => p[0]), y: points.map((p) => p[1]), z: points.map((p) => p[2]), marker, customdata: ids, text: ids.map(plain), hovertemplate: "<b>%{text}</b><br>%{x}<br>%{y}<br>%{z}<extra></extra>" });
  const centre = (point) => point.map((p) => p[0]);
  const everyone = (place) => [...data.front.map((m) => m.point[place][0]), ...data.dominated.points.map((p) => p[place]), ...(data.seed ? [data.seed[place][0]] : []), ...Object.values(data.baselines).map((p) => p[place][0])].filter((v) => v !== null);
  const side = (axis, place) => ({ ...scaled(everyone(place), wanted), title: { text: plain(`${axis.label}${axis.unit ? ` (${axis.unit})` : ""}`) }, gridcolor: colour("line"), color: colour("quiet"), backgroundcolor: "rgba(0,0,0,0)" });
  const traces = [
    cloud("dominated", data.dominated.points, data.dominated.ids, { size: 2.5, color: colour("dominated"), opacity: 0.6 }),
    cloud("front", data.front.map((m) => centre(m.point)), data.front.map((m) => m.id), { size: 6, color: colour("front") }),
    ...(data.seed ? [cloud("seed", [centre(data.seed)], ["c000000"], { size: 6, symbol: "diamond", color: colour("seed") })] : []),
    ...Object.entries(data.baselines).map(([name, point]) => cloud(`baseline ${name}`, [centre(point)], [""], { size: 7, symbol: "cross", color: colour("baseline") })),
  ];
  await draw(chart, traces, { uirevision: `3d${axes.map((a) => a.name)}${wanted}`, scene: { xaxis: side(axes[0], 0), yaxis: side(axes[1], 1), zaxis: side(axes[2], 2), aspectmode: "cube", camera: { eye: { x: 1.5, y: 1.5, z: 0.9 }, center: { x: 0, y: 0, z: -0.12 } } }, margin: { t: 34 } }, (key) => context.go(candidate(context.run, key)));
}

function members(data, run) {
  const goals = data.axes.filter((axis) => axis.objective);
  const broken = new Set(data.level?.broken ?? []);
  const rows = data.front.map((member) => el("tr", {},
    el("th", { scope: "row" }, link(candidate(run, member.id), member.id), broken.has(member.id) ? el("small", { className: "bad" }, "breaks the service level") : null),
    el("td", { className: "long" }, member.operator, member.label ? el("small", {}, member.label) : null),
    goals.map((goal, place) => valueCell(member.values[place], goal.unit, member.gains[goal.name])),
    el("td", { className: "quiet" }, data.held_out?.[member.id] ? "measured" : "not yet")));
  const heads = ["Candidate", "Made by", ...goals.map((goal) => ({ text: `${pretty(goal.name)} ${goal.higher ? "↑" : "↓"}`, num: true })), "Held-out"];
  return table("Value, × over the seed (above 1 is better), 95 % interval and number of repeats. A selection, not a claim: the command vibeserve verify makes claims. Held-out: measured once more on a trace that the search never saw.", heads, rows);
}
