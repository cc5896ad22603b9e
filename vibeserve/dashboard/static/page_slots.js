// Decides how slots over time are drawn: one row each, and where the time went in words.

import { candidate } from "./api.js";
import { colour, draw, plain } from "./charts.js";
import { card, duration, el, figure, plural, replace, table } from "./dom.js";
import { head } from "./head.js";

const KINDS = [["child", "evaluates a child", "k1"], ["remeasure", "measures again", "k3"], ["final", "final, held-out", "k4"], ["mutate", "mutates", "k2"]];

export async function open(context) {
  const top = head("Slots", "What every slot was doing, and what an idle one waited for.");
  const picture = figure("");
  const share = el("div");
  context.root.append(top.node, card("Over time", picture.node), share);
  return async () => {
    await top.update(context);
    const data = await context.view("slots");
    if (!data.lanes.length) {
      picture.say("Nothing has run yet.", true);
      return;
    }
    picture.say(words(data));
    await gantt(picture.chart, data, context);
    const rows = [el("tr", {}, el("th", { scope: "row" }, "busy"), el("td", { className: "num" }, duration(data.busy_s))),
      ...data.idle.map((idle) => el("tr", {}, el("th", { scope: "row" }, idle.reason), el("td", { className: "num" }, duration(idle.seconds))))];
    replace(share, card("Where the time of the evaluation slots went", table("Slot-seconds, summed over all rows. Gaps below half a second are hand-over and left out.", ["", { text: "Time", num: true }], rows)));
  };
}

function words(data) {
  const lanes = data.lanes.filter((lane) => lane.pool === "evaluate");
  const gpus = data.gpus ? `, ${plural(data.gpus, "GPU")} per evaluation` : data.gpus === 0 ? ", no GPUs" : "";
  const busy = data.busy_share === null ? "nothing measured yet" : `busy ${Math.round(100 * data.busy_share)} % of the time${data.live ? " up to the last record" : ""}`;
  const nameless = lanes.some((lane) => !lane.real) ? " A numbered slot stands for work whose place is not on record: it is drawn in the first row that was free." : "";
  const joined = data.lanes.some((lane) => lane.bars.some((bar) => bar.merged > 1)) ? " What stands too close to be told apart is drawn as one." : "";
  return `${plural(lanes.length, "row")} of evaluations${gpus}: ${busy}.${nameless}${joined} Pale bars ended in a rejection. Drag to zoom, select a bar to open its candidate.`;
}

async function gantt(chart, data, context) {
  const name = (lane) => lane.name;
  const now = data.live ? Date.now() / 1000 : data.end;
  const offset = data.begin;
  const unit = data.end - data.begin > 7200 ? [3600, "h"] : data.end - data.begin > 180 ? [60, "min"] : [1, "s"];
  const traces = KINDS.map(([kind, label, role]) => {
    const bars = data.lanes.flatMap((lane) => lane.bars.filter((bar) => bar.kind === kind).map((bar) => ({ ...bar, lane: name(lane) })));
    return {
      type: "bar", orientation: "h", name: label, y: bars.map((b) => b.lane), base: bars.map((b) => (b.start - offset) / unit[0]), x: bars.map((b) => ((b.end ?? now) - b.start) / unit[0]),
      marker: { color: colour(role), opacity: bars.map((b) => (b.outcome.startsWith("rejected") ? 0.4 : 1)), line: kind === "mutate" ? { width: 2, color: colour(role) } : { width: bars.length > 400 ? 0 : 1, color: colour("card") } }, customdata: bars.map((b) => (b.merged > 1 ? null : b.key)), width: 0.7,
      text: bars.map((b) => (b.merged > 1 ? `${b.merged} pieces of work` : `<b>${plain(b.key)}</b> ${plain(b.outcome)}`) + `<br>${duration((b.end ?? now) - b.start)}`), textposition: "none", hovertemplate: "%{text}<extra></extra>",
    };
  }).filter((trace) => trace.y.length);
  const names = data.lanes.map(name);
  chart.style.height = `${Math.max(200, 130 + names.length * 30)}px`;
  await draw(chart, traces, {
    barmode: "overlay", xaxis: { title: { text: `time since the run began (${unit[1]})`, standoff: 8 }, range: [0, ((data.live ? now : data.end) - offset) / unit[0] * 1.01] },
    yaxis: { categoryorder: "array", categoryarray: [...names].reverse(), showgrid: false, ticks: "" }, margin: { t: 34 }, tools: true,
  }, (key) => /^(c\d{6}|f-c\d{6}-\d+)$/.test(key) && context.go(candidate(context.run, key.match(/c\d{6}/)[0])));
}
