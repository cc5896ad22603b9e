// Decides which page an address shows, and when a page looks again: on every word from the ledger's stream.

import { get, page as pageAt, view } from "./api.js";
import { el, notice, replace } from "./dom.js";

const PAGES = [["front", "Front"], ["progress", "Progress"], ["lineage", "Lineage"], ["candidates", "Candidates"], ["slots", "Slots"], ["failures", "Failures"], ["operators", "Operators"]];
const LEAST_PAUSE_MS = 1500;
const main = document.getElementById("main");
const tabs = document.getElementById("tabs");
const where = document.getElementById("where");
const live = document.getElementById("live");

// `seen`: run → the revision that the page shows at least; asked for before the page's data.
const here = { run: null, refresh: null, runs: [], level: "", turn: 0, seen: {} };
let refreshing = false;
let due = null;

function parsed() {
  const parts = location.pathname.split("/").filter(Boolean).map(decodeURIComponent);
  if (parts[0] === "compare") return { name: "compare", run: null };
  if (parts[0] === "run" && parts[2] === "candidate") return { name: "candidate", run: parts[1], id: parts[3] };
  if (parts[0] === "run") return { name: parts[2], run: parts[1] };
  return { name: "home", run: null };
}

function settled(state) {
  document.documentElement.dataset.page = state;
}

async function show(focus) {
  const turn = ++here.turn;
  settled("loading");
  const target = parsed();
  try {
    const listed = await get("/api/runs");
    if (turn !== here.turn) return;
    here.runs = listed.runs;
    here.seen = Object.fromEntries(listed.runs.map((run) => [run.run, run.revision]));
    here.level = listed.service_level;
    if (target.name === "home" && here.runs.length === 1) {
      history.replaceState(null, "", pageAt(here.runs[0].run, "front"));
      return await show(focus);
    }
    here.run = target.run;
    frame(target);
    const module = await import(`./page_${target.name}.js`);
    const root = el("div");
    const refresh = await module.open({ root, target, run: target.run, runs: here.runs, level: here.level, go, view: (name, query) => view(target.run, name, query) });
    if (turn !== here.turn) return;
    here.refresh = refresh;
    replace(main, root);
    document.title = `${root.querySelector("h1")?.textContent ?? "VibeServe"} · VibeServe`;
    if (focus) { main.focus({ preventScroll: true }); scrollTo(0, 0); }
    await refresh();
    if (turn === here.turn) settled("ready");
  } catch (error) {
    if (turn !== here.turn) return;
    here.refresh = null;
    replace(main, el("h1", {}, "This cannot be shown"), notice(error.message, "error"));
    settled("failed");
  }
}

function frame(target) {
  const several = here.runs.length > 1;
  const select = el("select", { "aria-label": "Run", onchange: (event) => go(pageAt(event.target.value, PAGES.some(([name]) => name === target.name) ? target.name : "front")) },
    target.run ? null : el("option", { value: "", selected: true }, target.name === "compare" ? "Comparison" : "All runs"),
    here.runs.map((run) => el("option", { value: run.run, selected: run.run === target.run }, run.run)));
  replace(where, several ? select : el("span", { className: "quiet" }, here.runs[0]?.run ?? ""));
  tabs.hidden = !target.run;
  const links = PAGES.map(([name, label]) => {
    const current = name === target.name || (name === "candidates" && target.name === "candidate");
    return el("a", { href: target.run ? pageAt(target.run, name) : "/", "aria-current": current ? "page" : null }, label);
  });
  replace(tabs, links, several ? el("a", { href: "/compare" }, "Compare") : null);
  tabs.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
}

function go(path) {
  history.pushState(null, "", path);
  return show(true);
}

async function again() {
  due = null;
  if (refreshing) { due = setTimeout(again, LEAST_PAUSE_MS); return; }
  if (!here.refresh) return;
  refreshing = true;
  try { await here.refresh(); } catch (error) { console.warn(error.message); }
  refreshing = false;
}

// A browser opens six connections to one server at most, and a page that was left may live on in its cache: let go.
let source = null;
addEventListener("pagehide", () => source?.close());
addEventListener("pageshow", (event) => { if (event.persisted) { listen(); again(); } });

function listen() {
  source = new EventSource("/api/stream");
  source.onopen = () => { live.className = "live on"; live.textContent = "live"; };
  source.onerror = () => { live.className = "live off"; live.textContent = "no connection"; };
  source.addEventListener("revision", (event) => {
    const told = JSON.parse(event.data);
    const changed = Object.keys(told).filter((run) => told[run] !== here.seen[run]);
    Object.assign(here.seen, told);
    if (due || !changed.length || (here.run && !changed.includes(here.run))) return;
    due = setTimeout(again, LEAST_PAUSE_MS);
  });
}

document.addEventListener("click", (event) => {
  const anchor = event.target.closest?.("a[href^='/']");
  if (!anchor || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(anchor.getAttribute("href"));
});
addEventListener("popstate", () => show(true));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => again());

show(false).then(listen);
