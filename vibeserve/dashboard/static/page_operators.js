// Decides how operators, skills and models are compared: what each gained, and at what cost.

import { candidate } from "./api.js";
import { card, count, duration, el, gain, link, number, pretty, replace, table } from "./dom.js";
import { head } from "./head.js";

export async function open(context) {
  const top = head("Operators", "What made children, how many came through, and how much hypervolume they added.");
  const body = el("div");
  context.root.append(top.node, body);
  return async () => {
    await top.update(context);
    const data = await context.view("operators");
    const shown = (rows, what) => (rows.length ? listed(rows, what, data.objectives, context.run) : el("p", { className: "quiet" }, "None yet."));
    replace(body,
      card("Operators", shown(data.operators, "Operator")),
      card("Skills", shown(data.skills, "Skill")),
      card("Models", el("p", { className: "quiet" }, data.why_no_models)));
  };
}

function listed(groups, what, objectives, run) {
  const most = Math.max(...groups.map((group) => group.gained), 0);
  const rows = groups.map((group) => {
    const fill = el("i");
    fill.style.width = `${most ? (100 * group.gained) / most : 0}%`;
    return el("tr", {},
      el("th", { scope: "row" }, group.name, el("div", { className: "meter", "aria-hidden": "true" }, fill)),
      el("td", { className: "num" }, number(group.gained), group.gained ? el("small", {}, link(candidate(run, group.best), `most by ${group.best}`)) : null),
      el("td", { className: "num" }, count(group.children), el("small", {}, `${count(group.scored)} scored, ${count(group.front)} on the front`)),
      el("td", { className: "num" }, duration(group.seconds), el("small", {}, !group.gained_per_hour ? "" : `${number(group.gained_per_hour)} gained per hour`)),
      objectives.map((name) => el("td", { className: "num" }, gain(group.over_parent[name]) || "–")));
  });
  return table("Hypervolume that its children added when they ended; × is the geometric mean of its scored children over their parents, above 1 is better.",
    [what, { text: "Hypervolume gained", num: true }, { text: "Children", num: true }, { text: "Wall time", num: true }, ...objectives.map((name) => ({ text: `${pretty(name)} (×)`, num: true }))], rows);
}
