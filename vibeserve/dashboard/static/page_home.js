// Decides how the list of runs looks.

import { get, page } from "./api.js";
import { card, chip, count, duration, el, link, number, replace, table } from "./dom.js";

export async function open({ root }) {
  const body = el("div");
  root.append(el("h1", {}, "Runs"), el("p", { className: "quiet" }, "Newest first. Pick one to watch it, or lay several side by side."), body);
  return async () => {
    const { runs } = await get("/api/runs");
    const rows = runs.map((run) => el("tr", {},
      el("th", { scope: "row", className: "wide" }, link(page(run.run, "front"), run.run)),
      el("td", {}, chip(run.state), run.problem ? el("small", { className: "bad" }, run.problem) : null),
      el("td", { className: "num" }, count(run.children)),
      el("td", { className: "num" }, count(run.scored)),
      el("td", { className: "num" }, count(run.front)),
      el("td", { className: "num" }, run.hypervolume === null ? "–" : number(run.hypervolume)),
      el("td", { className: "num" }, duration(run.elapsed_s))));
    const heads = ["Run", "State", ...["Children", "Scored", "Front", "Hypervolume (log volume)", "Wall time"].map((text) => ({ text, num: true }))];
    replace(body, card("", table("", heads, rows)), runs.length > 1 ? el("p", {}, link("/compare", "Compare these runs")) : null);
  };
}
