"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const LIGHT = ["#0072b2", "#d55e00", "#009e73", "#b8578c", "#b87a00", "#2f8fcf", "#7a5cc7", "#7a7d00"];
  const DARK = ["#58abe8", "#f08a4b", "#35c79f", "#e39bc4", "#f2b84b", "#9ad6f7", "#ab95f2", "#c6c848"];
  const darkness = matchMedia("(prefers-color-scheme: dark)");
  let HUES = LIGHT;
  const MARKS = ["circle", "square", "diamond", "triangle-up", "cross", "pentagon", "hexagon", "triangle-down"];
  const STARS = ["star-open", "hexagram-open", "star-diamond-open", "star-square-open"];
  const byId = (id) => document.getElementById(id);
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  // Entries of a setting share its hue; the others have one each, after those of the settings.
  const alone = data.entries.filter((entry) => entry.group === null);
  const slotOf = (entry) => entry.group === null ? data.settings.length + alone.indexOf(entry) : entry.group;
  const hueOf = (entry) => HUES[slotOf(entry) % HUES.length];
  const faint = (hue, alpha) => hue + Math.round(alpha * 255).toString(16).padStart(2, "0");
  const escaped = (text) => String(text).replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);
  const figure = (v) => v === null ? "∞" : Math.abs(v) >= 100 ? Math.round(v).toLocaleString("en") : v.toPrecision(3);

  function layout(extra) {
    const axis = { gridcolor: css("--grid"), linecolor: css("--line"), zeroline: false, automargin: true };
    return Object.assign({
      paper_bgcolor: css("--ground"), plot_bgcolor: css("--ground"), font: { color: css("--ink"), size: 13 },
      margin: { l: 64, r: 24, t: 36, b: 56 }, hovermode: "closest", hoverlabel: { align: "left" },
      legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0, itemwidth: 30 },
    }, extra, { xaxis: { ...axis, ...extra.xaxis }, yaxis: { ...axis, ...extra.yaxis } });
  }

  const config = { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "resetScale2d"]] };
  const still = { responsive: true, displayModeBar: false };

  // Plotly's own ticks of a logarithmic axis say "2" and "5" without their power of ten.
  function logTicks(m) {
    const ends = [data.reference[m], data.ideal[m]].sort((a, b) => a - b);
    const decades = Math.log10(ends[1] / ends[0]);
    const steps = decades < 0.5 ? [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9] : decades < 1.2 ? [1, 1.5, 2, 3, 5, 7] : decades < 3 ? [1, 2, 5] : [1];
    const found = [];
    for (let power = Math.floor(Math.log10(ends[0])) - 1; power <= Math.ceil(Math.log10(ends[1])); power += 1) {
      found.push(...steps.map((step) => Number((step * 10 ** power).toPrecision(3))));
    }
    return { tickmode: "array", tickvals: found, ticktext: found.map((v) => v.toLocaleString("en", { maximumSignificantDigits: 3 })) };
  }

  function axisOf(m, log) {
    return { title: { text: data.objectives[m].title }, ...(log ? { type: "log", ...logTicks(m) } : {}) };
  }

  const better = (m, a, b) => data.objectives[m].max ? a > b : a < b;

  function staircase(members, x, y) {
    const sound = members.filter((m) => m.values[x] !== null && m.values[y] !== null);
    const sorted = [...sound].sort((a, b) => (better(x, a.values[x], b.values[x]) ? -1 : 1));
    const kept = [];
    for (const member of sorted) {
      if (!kept.length || better(y, member.values[y], kept[kept.length - 1].values[y])) kept.push(member);
    }
    return kept;
  }

  function hover(name, member) {
    const lines = data.objectives.map((o, m) =>
      `${escaped(o.name)} <b>${figure(member.values[m])}</b> ${escaped(o.unit)} [${figure(member.lows[m])}, ${figure(member.highs[m])}] n=${member.n[m]}`);
    return `<b>${escaped(name)}</b> ${escaped(member.id)}<br>${escaped(member.made_by)}<br>${lines.join("<br>")}`;
  }

  function bars(members, m) {
    return {
      type: "data", symmetric: false, thickness: 1, width: 3,
      array: members.map((p) => p.highs[m] - p.values[m]), arrayminus: members.map((p) => p.values[m] - p.lows[m]),
    };
  }

  function scatter(name, members, x, y, hue, marker) {
    return {
      type: "scatter", mode: "markers", name, legendgroup: name, showlegend: true,
      x: members.map((p) => p.values[x]), y: members.map((p) => p.values[y]),
      error_x: { ...bars(members, x), color: faint(hue, 0.45) }, error_y: { ...bars(members, y), color: faint(hue, 0.45) },
      text: members.map((p) => hover(name, p)), hovertemplate: "%{text}<extra></extra>",
      marker: { color: hue, ...marker },
    };
  }

  function drawFront() {
    const x = Number(byId("x").value), y = Number(byId("y").value), log = byId("log").checked;
    const traces = [];
    const named = new Set();
    data.entries.forEach((entry) => {
      const hue = hueOf(entry), kept = staircase(entry.members, x, y);
      const legend = entry.group === null ? entry.name : data.settings[entry.group].label;
      traces.push({
        type: "scatter", mode: "lines", legendgroup: legend, showlegend: false, hoverinfo: "skip",
        x: kept.map((p) => p.values[x]), y: kept.map((p) => p.values[y]),
        line: { shape: "hv", color: faint(hue, 0.7), width: 1.5, dash: entry.baseline ? "dot" : "solid" },
      });
      const symbol = entry.baseline ? "star" : MARKS[slotOf(entry) % MARKS.length];
      const trace = scatter(entry.name, entry.members, x, y, hue, { symbol, size: entry.baseline ? 13 : entry.group === null ? 9 : 7 });
      traces.push({ ...trace, name: legend, legendgroup: legend, showlegend: !named.has(legend) });
      named.add(legend);
    });
    data.points.forEach((point, place) => {
      const marker = { symbol: STARS[place % STARS.length], size: 12, line: { width: 1.5 } };
      traces.push(scatter(point.name, [point], x, y, "#808a97", marker));
    });
    const corner = { xref: "paper", yref: "paper", showarrow: false, text: arrow(x, y) + " better", font: { color: css("--quiet"), size: 12 } };
    corner.x = data.objectives[x].max ? 1 : 0; corner.xanchor = data.objectives[x].max ? "right" : "left";
    corner.y = data.objectives[y].max ? 1 : 0; corner.yanchor = data.objectives[y].max ? "top" : "bottom";
    Plotly.react("front", traces, layout({ xaxis: axisOf(x, log), yaxis: axisOf(y, log), annotations: [corner] }), config);
  }

  function arrow(x, y) {
    return data.objectives[x].max ? (data.objectives[y].max ? "↗" : "↘") : (data.objectives[y].max ? "↖" : "↙");
  }

  function drawVolumes() {
    const entries = [...data.entries].reverse();
    const traces = [{
      type: "scatter", mode: "markers", showlegend: false,
      x: entries.map((e) => e.volume[0]), y: entries.map((e) => e.name),
      error_x: {
        type: "data", symmetric: false, thickness: 1.5, width: 5, color: css("--quiet"),
        array: entries.map((e) => e.volume[2] - e.volume[0]), arrayminus: entries.map((e) => e.volume[0] - e.volume[1]),
      },
      cliponaxis: false, marker: { size: 10, color: entries.map((e) => hueOf(e)) },
      hovertemplate: "%{y}: %{x:.3f}<extra></extra>",
    }];
    const height = 110 + 28 * entries.length;
    byId("volumes").style.height = `${height + 2}px`;
    Plotly.react("volumes", traces, layout({
      height, margin: { l: 24, r: 24, t: 32, b: 56 }, xaxis: { title: { text: "hypervolume (more is better)", standoff: 8 }, rangemode: "tozero", fixedrange: true },
      yaxis: { type: "category", showgrid: false, fixedrange: true },
    }), still);
  }

  function attainment() {
    const x = Number(byId("x").value), y = Number(byId("y").value);
    const found = data.attainment.find((a) => a.axes.includes(x) && a.axes.includes(y));
    return found ? { ...found, flipped: found.axes[0] !== x, x, y } : null;
  }

  function drawAttainment() {
    const found = attainment(), pair = found && found.differences[Number(byId("pair").value)];
    byId("attainment-section").hidden = !pair && !(found && Object.keys(found.surfaces).length);
    if (byId("attainment-section").hidden) return;
    const log = byId("log").checked, shown = pair ? [pair.first, pair.second] : Object.keys(found.surfaces);
    const at = (corner, axis) => corner[found.flipped ? 1 - axis : axis];
    const shape = found.flipped ? "vh" : "hv";
    const traces = [];
    shown.forEach((label, place) => {
      const hue = HUES[data.settings.findIndex((s) => s.label === label) % HUES.length];
      for (const [name, dash, width] of [["any", "dot", 1], ["half", "solid", 2.5], ["all", "dash", 1]]) {
        const corners = found.surfaces[label][name] || [];
        const words = { any: "any run", half: "half of the runs", all: "all runs" }[name];
        traces.push({
          type: "scatter", mode: "lines", name: label, legendgroup: label, showlegend: name === "half",
          x: corners.map((c) => at(c, 0)), y: corners.map((c) => at(c, 1)),
          line: { shape, color: hue, dash, width }, hovertemplate: `${escaped(label)}: ${words}<extra></extra>`,
        });
      }
    });
    const axes = { xaxis: axisOf(found.x, log), yaxis: axisOf(found.y, log) };
    Plotly.react("surfaces", traces, layout(axes), config);
    drawDifference(found, pair, at, axes);
  }

  function drawDifference(found, pair, at, axes) {
    byId("difference").parentElement.hidden = !pair;
    if (!pair) return;
    const levels = new Map();
    for (const area of pair.areas) {
      if (!levels.has(area[4])) levels.set(area[4], []);
      levels.get(area[4]).push(area);
    }
    const place = (label) => data.settings.findIndex((s) => s.label === label) % HUES.length;
    const winnerOf = (level) => level > 0 ? pair.first : pair.second;
    const strongest = new Map();
    for (const level of levels.keys()) {
      strongest.set(winnerOf(level), Math.max(Math.abs(level), strongest.get(winnerOf(level)) || 0));
    }
    const traces = [...levels.entries()].sort((a, b) => b[0] - a[0]).map(([level, areas]) => {
      const winner = winnerOf(level), xs = [], ys = [];
      for (const area of areas) {
        const a = [at(area, 0), at(area, 1)], b = [at(area.slice(2), 0), at(area.slice(2), 1)];
        xs.push(a[0], b[0], b[0], a[0], a[0], null);
        ys.push(a[1], a[1], b[1], b[1], a[1], null);
      }
      return {
        type: "scatter", mode: "lines", fill: "toself", x: xs, y: ys, line: { width: 0 }, hoveron: "fills",
        fillcolor: faint(HUES[place(winner)], 0.15 + 0.75 * Math.abs(level)), name: winner, legendgroup: winner,
        showlegend: Math.abs(level) === strongest.get(winner), hoverinfo: "text",
        text: `${escaped(winner)}: ${Math.round(100 * Math.abs(level))} % more of the runs attain this`,
      };
    });
    const empty = { xref: "paper", yref: "paper", x: 0.5, y: 0.5, showarrow: false, text: "no difference anywhere" };
    Plotly.react("difference", traces, layout({ ...axes, annotations: traces.length ? [] : [empty] }), config);
  }

  function options(select, texts, chosen) {
    texts.forEach((text, place) => select.add(new Option(text, place, false, place === chosen)));
  }

  function draw() { HUES = darkness.matches ? DARK : LIGHT; drawFront(); drawVolumes(); drawAttainment(); }

  const names = data.objectives.map((o) => o.title);
  options(byId("x"), names, 0);
  options(byId("y"), names, Math.min(1, names.length - 1));
  const pairs = (data.attainment[0] || { differences: [] }).differences;
  options(byId("pair"), pairs.map((p) => `${p.first} against ${p.second}`), 0);
  byId("pair").parentElement.hidden = pairs.length < 2;
  // The same objective on both axes shows nothing: the other axis takes what this one had.
  const chosen = { x: byId("x").value, y: byId("y").value };
  for (const [id, other] of [["x", "y"], ["y", "x"]]) {
    byId(id).addEventListener("change", () => {
      if (byId(id).value === byId(other).value) byId(other).value = chosen[id];
      chosen.x = byId("x").value;
      chosen.y = byId("y").value;
    });
  }
  for (const id of ["x", "y", "log", "pair"]) byId(id).addEventListener("change", draw);
  darkness.addEventListener("change", draw);
  draw();

  // A table that is wider than the window can be scrolled by keyboard; the others are no stop on the way.
  const reachable = () => document.querySelectorAll(".scroll").forEach((box) => {
    box.tabIndex = box.scrollWidth > box.clientWidth ? 0 : -1;
  });
  addEventListener("resize", reachable);
  reachable();
  document.documentElement.dataset.page = "ready";
})();
