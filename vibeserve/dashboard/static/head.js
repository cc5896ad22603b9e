// Decides what stands above every page of a run: title, state, and the figures one asks for first.

import { chip, count, duration, el, notice, number, replace, tiles } from "./dom.js";

export function head(title, lead) {
  const state = el("span");
  const strip = el("div");
  const node = el("div", {}, el("h1", {}, title), el("p", { className: "quiet" }, state, " ", lead), strip);
  return { node, async update(context) {
    const seen = await context.view("overview");
    const budget = seen.budget ?? {};
    const of = (limit, show) => (limit ? `of ${show(limit)}` : "");
    replace(state, chip(seen.state), seen.stopped_because ? ` ${seen.stopped_because}. ` : " ");
    const tilesShown = [
      ["Children", count(seen.children), of(budget.children, count)],
      ["Scored", count(seen.scored), `${count(seen.rejected)} rejected`],
      ["On the front", count(seen.front), "candidates"],
      ["Hypervolume", seen.hypervolume === null ? "none yet" : number(seen.hypervolume), seen.hypervolume === null ? "" : "log volume"],
      ["Wall time", duration(seen.elapsed_s), budget.wall_time_s ? `${duration(budget.wall_time_s)} for the search` : ""],
      ["Machine errors", count(seen.errors), "retried"],
    ];
    if (seen.gpu_hours !== null) tilesShown.push(["GPU time", `${number(seen.gpu_hours)} h`, of(budget.gpu_hours, (hours) => `${number(hours)} h`)]);
    replace(strip, seen.problem ? notice(`The ledger cannot be read on: ${seen.problem}`, "error") : null, tiles(tilesShown),
      seen.in_flight.length ? el("p", { className: "quiet" }, `In flight: ${seen.in_flight.map((item) => [item.key, item.operator, item.label, `(${item.stage})`].filter(Boolean).join(" ")).join(", ")}`) : null);
    return seen;
  } };
}
