// Decides how progress is drawn: hypervolume against what it cost, in four currencies.

import { candidate } from "./api.js";
import { colour, draw } from "./charts.js";
import { card, count, el, figure, number, plural, replace } from "./dom.js";
import { head } from "./head.js";

const COSTS = [
  { key: "children", title: "By children", axis: "children that have ended", scale: 1 },
  { key: "elapsed_s", title: "By wall time", axis: "search time", time: true },
  { key: "gpu_hours", title: "By GPU-hours", axis: "GPU-hours leased to evaluations", why: "why_no_gpu_hours" },
  { key: "dollars", title: "By dollars", axis: "US dollars for GPU-hours", why: "why_no_dollars" },
];

// The curve takes every measured value as it is; the front leaves out what is not better beyond the noise.
function told(front, last) {
  const differs = front !== null && Math.abs(front - last) > 0.005 * last;
  return differs ? ` That counts every measured value as it is; the front alone, which leaves out what noise may have made, has ${number(front)}.` : "";
}

export async function open(context) {
  const top = head("Progress", "Hypervolume is the log volume between the front and the seed: it grows when any trade-off improves.");
  const places = COSTS.map((cost) => ({ cost, body: el("div"), picture: figure("", "low") }));
  const summary = el("p");
  context.root.append(top.node, summary, el("div", { className: "grid" }, places.map(({ cost, body }) => card(cost.title, body))));
  return async () => {
    const seen = await top.update(context);
    const data = await context.view("progress");
    const last = data.hypervolume.at(-1) ?? 0;
    const half = data.hypervolume.findIndex((value) => value >= last / 2);
    summary.textContent = !data.reference ? "The seed has not been scored, so there is nothing to measure progress against yet."
      : last === 0 ? "Nothing beats the seed in every objective at once yet, so the hypervolume is 0."
      : `Hypervolume ${number(last)} after ${plural(data.children.at(-1), "child", "children")}; half of it was there after ${plural(data.children[half], "child", "children")}.${told(seen.hypervolume, last)}`;
    for (const { cost, body, picture } of places) {
      const along = data[cost.key];
      if (!along?.length || !data.reference) {
        replace(body, el("p", { className: "quiet" }, cost.why && data[cost.why] ? `${data[cost.why]}.` : "Nothing to draw yet."));
        continue;
      }
      if (!body.contains(picture.node)) replace(body, picture.node);
      const unit = cost.time ? (along.at(-1) > 7200 ? [3600, "h"] : along.at(-1) > 180 ? [60, "min"] : [1, "s"]) : [1, ""];
      picture.say(`Hypervolume ${number(last)} at ${cost.key === "children" ? count(along.at(-1)) : number(along.at(-1) / unit[0])} ${unit[1] || cost.axis}.`);
      const ids = data.ids;
      await draw(picture.chart, [{
        type: "scatter", mode: "lines", line: { shape: "hv", color: colour("front"), width: 2 }, fill: "tozeroy", fillcolor: "rgba(90,140,220,.10)",
        x: along.map((value) => value / unit[0]), y: data.hypervolume, customdata: ids, hovertemplate: "<b>%{customdata}</b><br>%{x:.4~g}<br>hypervolume %{y:.4~g}<extra></extra>",
      }], { showlegend: false, xaxis: { title: { text: cost.axis + (unit[1] ? ` (${unit[1]})` : ""), standoff: 8 }, rangemode: "tozero" }, yaxis: { title: { text: "hypervolume (log volume)", standoff: 8 }, rangemode: "tozero" } },
      (key) => context.go(candidate(context.run, key)));
    }
  };
}
