// Decides how the list of all children is searched and paged; the server sorts and cuts.

import { candidate } from "./api.js";
import { card, chip, choice, count, duration, el, link, plural, pretty, replace, table, valueCell } from "./dom.js";
import { head } from "./head.js";

export async function open(context) {
  const top = head("Candidates", "Every child of the search, whatever became of it.");
  const controls = el("div", { className: "controls" });
  const body = el("div");
  const asked = new URLSearchParams(location.search);
  const state = { state: "", operator: "", stage: "", text: "", sort: "number", order: "down", page: "0", ...Object.fromEntries(asked) };
  context.root.append(top.node, card("", controls, body));

  async function change(changes) {
    Object.assign(state, { page: "0" }, changes);
    history.replaceState(null, "", `${location.pathname}?${new URLSearchParams(Object.entries(state).filter(([, value]) => value))}`);
    await fill();
  }

  function options(data) {
    const all = (label) => ({ value: "", label });
    const search = el("input", { type: "search", value: state.text, placeholder: "id, recipe, knob or reason", oninput: (event) => change({ text: event.target.value }) });
    replace(controls,
      choice("State", [all("all"), "front", "scored", "rejected", "pending"], state.state, (value) => change({ state: value })),
      choice("Operator", [all("all"), ...data.operators], state.operator, (value) => change({ operator: value })),
      choice("Rejected at", [all("any stage"), ...data.stages], state.stage, (value) => change({ stage: value })),
      el("label", { className: "wide" }, "Search", search));
  }

  function column(text, key) {
    const current = state.sort === key;
    const flip = () => change({ sort: key, order: current && state.order === "down" ? "up" : "down" });
    const arrow = current ? (state.order === "down" ? " ▾" : " ▴") : "";
    return el("th", { scope: "col", className: "num", "aria-sort": current ? (state.order === "down" ? "descending" : "ascending") : null }, el("button", { type: "button", onclick: flip }, text + arrow));
  }

  async function fill() {
    const data = await context.view("candidates", state);
    if (!controls.contains(document.activeElement)) options(data);
    const rows = data.rows.map((row) => el("tr", {},
      el("th", { scope: "row" }, link(candidate(context.run, row.id), row.id)),
      el("td", {}, chip(row.state), row.stage ? el("small", {}, `at ${row.stage}`) : null),
      el("td", { className: "long" }, row.operator, el("small", {}, row.label || (row.parents.length ? `of ${row.parents.join(" + ")}` : "")), row.reason ? el("small", { className: "quiet" }, row.reason.slice(0, 160)) : null),
      data.objectives.map((goal, place) => valueCell(row.values?.[place], goal.unit)),
      el("td", { className: "num" }, row.cost_s === null ? "–" : duration(row.cost_s))));
    const first = Number(state.page) * 50;
    const step = (by, label, off) => el("button", { type: "button", disabled: off, onclick: () => change({ page: String(Number(state.page) + by) }) }, label);
    replace(body,
      table(`${plural(data.total, "child", "children")}${data.total ? `, ${count(first + 1)} to ${count(first + data.rows.length)} shown` : ""}. Best first where a measure sorts.`,
        [column("Child", "number"), "State", "Made by", ...data.objectives.map((goal) => column(`${pretty(goal.name)} ${goal.higher ? "↑" : "↓"}`, goal.name)), column("Cost", "cost_s")], rows),
      data.pages > 1 ? el("p", { className: "controls" }, step(-1, "Previous", data.page === 0), el("span", { className: "quiet" }, `Page ${count(data.page + 1)} of ${count(data.pages)}`), step(1, "Next", data.page + 1 >= data.pages)) : null);
    body.querySelector("thead th")?.classList.remove("num");
  }
  return async () => {
    await top.update(context);
    await fill();
  };
}
