// Decides how sampled stacks become a flame graph: one box per function and caller, wide as its share of the samples.

import { draw, plain, series } from "./charts.js";

// Lines of `outermost;…;innermost count`.
export function folded(text) {
  const nodes = new Map([["", { id: "", label: "all", parent: null, value: 0 }]]);
  for (const line of text.split("\n")) {
    const cut = line.lastIndexOf(" ");
    const count = Number(line.slice(cut + 1));
    if (cut <= 0 || !Number.isInteger(count) || count <= 0) continue;
    let id = "";
    nodes.get("").value += count;
    for (const frame of line.slice(0, cut).split(";")) {
      const parent = id;
      id = `${parent};${frame}`;
      const node = nodes.get(id) ?? { id, label: frame, parent, value: 0 };
      node.value += count;
      nodes.set(id, node);
    }
  }
  return { nodes: [...nodes.values()], samples: nodes.get("").value };
}

export function flame(chart, { nodes, samples }) {
  const hue = (label) => series([...label].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 997, 7));
  const share = (node) => `${((100 * node.value) / samples).toFixed(1)} %`;
  return draw(chart, [{
    type: "icicle", ids: nodes.map((n) => n.id || "all"), labels: nodes.map((n) => plain(n.label)), parents: nodes.map((n) => (n.parent === null ? "" : n.parent || "all")), values: nodes.map((n) => n.value), branchvalues: "total",
    tiling: { orientation: "v", pad: 1 }, pathbar: { visible: false }, marker: { colors: nodes.map((n) => hue(n.label)), line: { width: 0 } }, opacity: 0.85, textfont: { size: 11 }, sort: false,
    text: nodes.map((n) => share(n)), textinfo: "label", hovertemplate: "%{label}<br>%{text} of the samples<extra></extra>",
  }], { margin: { l: 0, r: 0, t: 4, b: 0 } });
}
