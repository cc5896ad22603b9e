// Decides how the family tree is drawn, and how the line to the best candidate reads as a table.

import { candidate } from "./api.js";
import { colour, draw, plain } from "./charts.js";
import { card, choice, count, el, figure, gain, link, plural, pretty, replace, table, valueCell } from "./dom.js";
import { head } from "./head.js";

// Of a line that is longer, the table shows so many steps at either end.
const FIRST = 5, LAST = 25;

export async function open(context) {
  const top = head("Lineage", "Who came from whom. The thick line leads to the best candidate.");
  const controls = el("div", { className: "controls" });
  const picture = figure("");
  const list = el("div");
  let best = "";
  context.root.append(top.node, card("", controls, picture.node), list);

  async function fill() {
    const data = await context.view("lineage", { best });
    if (!data.nodes.length) {
      picture.say("No candidate has been scored yet.", true);
      return;
    }
    if (!controls.contains(document.activeElement)) {
      replace(controls, choice("Best in", [{ value: "", label: "everything together" }, ...data.objectives.map((o) => ({ value: o.name, label: pretty(o.name) }))], best, (value) => { best = value; return fill(); }));
    }
    const drawn = data.nodes.length;
    picture.say(`${drawn < data.total ? `${count(drawn)} of ${plural(data.total, "scored candidate")}: the best line, ${data.without_line ? `then what fits; ${plural(data.without_line, "member of the front is", "members of the front are")} left out` : "the lines of the whole front, then those of the best of the rest"}.` : `${plural(drawn, "candidate")}.`} Generations run from left to right; a dotted line is a merge's second parent. Select a point to open its page.`);
    await tree(picture.chart, data, context);
    replace(list, card(`The line to ${data.path.at(-1)}`, path(data, context.run)));
  }
  return async () => {
    await top.update(context);
    await fill();
  };
}

async function tree(chart, data, context) {
  const at = new Map(data.nodes.map((node) => [node.id, node]));
  const line = new Set(data.path);
  const pathEdges = new Set(data.path.slice(1).map((id, i) => `${data.path[i]} ${id}`));
  const edges = (chosen) => {
    const xs = [], ys = [];
    for (const [from, to, order] of data.edges) {
      if (!chosen(from, to, order)) continue;
      const a = at.get(from), b = at.get(to);
      xs.push(a.x, b.x, null);
      ys.push(a.y, b.y, null);
    }
    return { x: xs, y: ys };
  };
  const onPath = (from, to) => pathEdges.has(`${from} ${to}`);
  const strokes = [
    { ...edges((f, t, o) => o === 0 && !onPath(f, t)), line: { color: colour("dominated"), width: 1 } },
    { ...edges((f, t, o) => o > 0), line: { color: colour("dominated"), width: 1, dash: "dot" } },
    { ...edges((f, t, o) => o === 0 && onPath(f, t)), line: { color: colour("k2"), width: 3.5 } },
  ].map((trace) => ({ type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false, ...trace }));
  const deepest = Math.max(...data.nodes.map((n) => n.x));
  const dense = deepest > 80 ? 0.55 : 1;
  const parents = new Set(data.edges.filter(([, , order]) => order === 0).map(([from]) => from));
  const few = data.nodes.length <= 40 && chart.clientWidth > 700;
  const dots = (name, chosen, marker, labelled) => {
    const nodes = data.nodes.filter(chosen);
    return {
      type: "scatter", mode: labelled ? "markers+text" : "markers", name, x: nodes.map((n) => n.x), y: nodes.map((n) => n.y), marker, customdata: nodes.map((n) => n.id),
      text: nodes.map((n) => n.id.replace(/^c0*(?=\d)/, "")), textposition: nodes.map((n) => (parents.has(n.id) ? "top center" : "middle right")), textfont: { color: colour("quiet"), size: 11 }, cliponaxis: false,
      hovertext: nodes.map((n) => `<b>${n.id}</b><br>${plain(n.operator)} ${plain(n.label)}${n.gains ? `<br>${Object.entries(n.gains).map(([k, v]) => `${plain(pretty(k))} ${gain(v)}`).join("<br>")}<br>over the seed` : ""}`), hovertemplate: "%{hovertext}<extra></extra>",
    };
  };
  const traces = [...strokes,
    dots("dominated", (n) => !n.front && !line.has(n.id), { size: 8 * dense, color: colour("dominated") }, few),
    dots("front", (n) => n.front, { size: 12, color: colour("front"), line: { width: 1.5, color: colour("card") } }, few),
    dots("on the line", (n) => line.has(n.id) && !n.front, { size: 11 * dense, color: colour("k2"), line: { width: deepest > 80 ? 0 : 1.5, color: colour("card") } }, few)];
  const rows = Math.max(...data.nodes.map((n) => n.y)) + 1;
  chart.style.height = `${Math.min(900, Math.max(300, 120 + rows * (rows > 60 ? 9 : 30)))}px`;
  await draw(chart, traces, {
    xaxis: { title: { text: "generation (steps from the seed)", standoff: 8 }, dtick: [1, 2, 5, 10, 20, 50, 100].find((step) => deepest / step <= 14) ?? 200, zeroline: false, range: [-0.4 - deepest * 0.01, deepest + 0.6 + deepest * 0.01] }, yaxis: { visible: false, range: [rows - 0.4, -0.9] }, margin: { t: 34 }, tools: true,
  }, (key) => context.go(candidate(context.run, key)));
}

function path(data, run) {
  const long = data.steps.length > FIRST + LAST + 5;
  const row = (step) => el("tr", {},
    el("th", { scope: "row" }, link(candidate(run, step.id), step.id)),
    el("td", { className: "long" }, step.operator, step.label ? el("small", {}, step.label) : null, step.parents.length > 1 ? el("small", {}, `merged with ${step.parents[1]}`) : null),
    data.objectives.map((goal, place) => valueCell(step.values?.[place], goal.unit, step.gains?.[goal.name])));
  const between = long ? el("tr", {}, el("td", { colspan: 2 + data.objectives.length, className: "quiet" }, `${count(data.steps.length - FIRST - LAST)} steps between are left out; the picture has them.`)) : null;
  const rows = long ? [...data.steps.slice(0, FIRST).map(row), between, ...data.steps.slice(-LAST).map(row)] : data.steps.map(row);
  return table("From the seed on. × is the gain of that step over the one before; above 1 is better.", ["Candidate", "Made by", ...data.objectives.map((o) => ({ text: pretty(o.name), num: true }))], rows);
}
