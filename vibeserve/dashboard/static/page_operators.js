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
      data.models.length ? card("Models", models(data.models, context.run)) : null,
      card("What models were asked", data.roles.length ? roles(data.roles) : el("p", { className: "quiet" }, data.why_no_models)));
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

function models(groups, run) {
  const rows = groups.map((group) => el("tr", {},
    el("th", { scope: "row" }, group.name),
    el("td", { className: "num" }, number(group.gained), group.gained ? el("small", {}, link(candidate(run, group.best), `most by ${group.best}`)) : null),
    el("td", { className: "num" }, count(group.children), el("small", {}, `${count(group.scored)} scored, ${count(group.front)} on the front`)),
    el("td", { className: "num" }, count(group.input_tokens + group.output_tokens), el("small", {}, `${count(group.cached_tokens)} of it cached`)),
    el("td", { className: "num" }, group.cost, el("small", {}, group.gained_per_dollar === null ? group.dollars_unknown.join("; ") : `${number(group.gained_per_dollar)} gained per dollar`)),
    el("td", { className: "num" }, duration(group.mutate_s), el("small", {}, "of writing")),
    el("td", { className: "num" }, group.gpu_hours === null ? "unknown" : number(group.gpu_hours))));
  return table("Children by the model that wrote them, with everything that was spent on them.",
    ["Model", ...["Hypervolume gained", "Children", "Tokens", "Dollars", "Wall time", "GPU-hours"].map((text) => ({ text, num: true }))], rows);
}

function roles(asked) {
  const rows = asked.map((one) => el("tr", {},
    el("th", { scope: "row" }, one.role, el("small", {}, one.model)),
    [one.requests, one.input_tokens, one.cached_tokens, one.cache_write_tokens, one.output_tokens].map((value) => el("td", { className: "num" }, count(value))),
    el("td", { className: "num" }, duration(one.seconds)),
    el("td", { className: "num" }, one.cost, el("small", {}, one.why_unknown.join("; ")))));
  return table("Tokens by role and model. Cached input and cache writes are part of the input; a sum with an unknown part says so.",
    ["Role", ...["Requests", "Input", "Of it cached", "Cache writes", "Output", "Time", "Dollars"].map((text) => ({ text, num: true }))], rows);
}
