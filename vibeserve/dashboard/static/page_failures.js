// Decides how failures are told apart: grey is the judge at work, red is the machine.

import { candidate } from "./api.js";
import { colour, draw, plain } from "./charts.js";
import { card, chip, count, duration, el, figure, link, plural, replace, table } from "./dom.js";
import { head } from "./head.js";

export async function open(context) {
  const top = head("Failures", "A rejection is the judge at work and is grey. An error is the machine's and red; it is retried and charged to nobody.");
  const picture = figure("", "low");
  const by = el("div");
  const chartCard = card("By stage", picture.node);
  context.root.append(top.node, chartCard, by);
  return async () => {
    await top.update(context);
    const data = await context.view("failures");
    chartCard.hidden = !data.groups.length;
    if (!data.groups.length) {
      replace(by, card("", el("p", {}, "None so far.")));
      return;
    }
    picture.say(`${count(data.rejected)} of ${plural(data.children, "child", "children")} rejected; ${plural(data.errors, "machine error")}.`);
    const stages = Object.entries(data.stages).sort((a, b) => a[1] - b[1]);
    picture.chart.style.height = `${110 + stages.length * 34}px`;
    await draw(picture.chart, [{
      type: "bar", orientation: "h", y: stages.map(([stage]) => plain(stage)), x: stages.map(([, n]) => n), text: stages.map(([, n]) => count(n)), textposition: "outside", cliponaxis: false, width: 0.6,
      marker: { color: stages.map(([stage]) => colour(stage === "machine" ? "bad" : "dominated")) }, hovertemplate: "%{y}: %{x}<extra></extra>",
    }], { showlegend: false, xaxis: { title: { text: "children or errors (count)", standoff: 8 }, rangemode: "tozero", tickformat: ",d", ...(Math.max(...stages.map(([, n]) => n)) < 6 && { dtick: 1 }) }, yaxis: { showgrid: false, ticks: "", type: "category" }, margin: { r: 44 } });
    const rows = data.groups.map((group) => el("tr", {},
      el("td", {}, chip(group.kind, group.kind === "error" ? "error" : ""), el("small", {}, `at ${group.stage}`)),
      el("td", { className: "long" }, group.reason),
      el("td", { className: "num" }, count(group.count)),
      el("td", { className: "num" }, group.lost_s ? duration(group.lost_s) : "–"),
      el("td", { className: "long" }, group.examples.map((key, i) => [i ? ", " : "", /^c\d{6}$/.test(key) ? link(candidate(context.run, key), key) : key]))));
    replace(by, card("By reason", table("The most frequent first. Reasons that differ only in numbers are one; the text is that of the first.", ["Kind", "Reason", { text: "Count", num: true }, { text: "Time spent", num: true }, "For example"], rows),
      data.left_out ? el("p", { className: "quiet" }, `${plural(data.left_out, "rarer reason")} left out.`) : null));
  };
}
