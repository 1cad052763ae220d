// Page state and events: the open run and life, filters, keys, and live updates during training.

const $ = (id) => document.getElementById(id);
const NARROW = matchMedia("(max-width: 900px)");
const state = { run: 0, life: null, beside: null, flags: 0 };
let runs = [];
let drawing = 0;

const current = () => runs[state.run];

function load() {
  const data = JSON.parse($("index").textContent);
  runs = data.runs.map((run, number) => new Lives(run, number));
  return data;
}

function fillFilters() {
  for (const name of ["where", "arm"]) {
    const kept = $(name).value;
    const all = name === "where" ? "recorded any time" : "any arm";
    $(name).replaceChildren(el("option", { value: "" }, all), ...current()[name].map((value) => el("option", { value }, value)));
    $(name).value = current()[name].includes(kept) ? kept : "";
  }
}

async function refilter() {
  const lives = current();
  const text = $("find").value;
  if (text && !lives.words) $("count").textContent = "loading all lives\u2026";
  await lives.filter({ where: $("where").value, arm: $("arm").value, flags: state.flags, text });
  if (lives !== current() || text !== $("find").value) return;
  for (const chip of document.querySelectorAll(".chip")) {
    const flag = Number(chip.dataset.flag);
    const hits = lives.base.filter((i) => lives.lives[i][FLAGS] & flag).length;
    chip.lastElementChild.textContent = hits.toLocaleString("en");
    chip.setAttribute("aria-pressed", String(Boolean(state.flags & flag)));
    chip.hidden = flag === 8 && !hits && !(state.flags & flag);
  }
  const part = lives.every > 1 ? `; only every ${lives.every}th pack is shown, as the run is too large for one page` : "";
  $("count").textContent = lives.lives.length
    ? `${lives.found.length.toLocaleString("en")} of ${lives.lives.length.toLocaleString("en")} lives${part}`
    : "No lives are recorded yet.";
  $("list").scrollTop = 0;
  reveal();
  drawList($("list"), lives, state.life);
}

async function choose(i, { focus = false } = {}) {
  const lives = current();
  const mine = ++drawing;
  state.life = i;
  remember();
  reveal();
  drawList($("list"), lives, i);
  const others = i === null ? [] : lives.byPack.get(lives.lives[i][PACK]).filter((k) => k !== i);
  const beside = pick(lives, i, others);
  const drawn = i === null ? [] : await drawLife(lives, i, beside);
  if (mine !== drawing) return; // another life was opened meanwhile
  $("life").replaceChildren(...(i === null ? [] : [controls(lives, i, others, beside), ...drawn]));
  $("life").scrollTop = 0;
  for (const why of document.querySelectorAll(".why")) why.hidden = true;
  const why = document.querySelector(`#run-${state.run} .why`);
  if (why && i === lives.first) $("life").insertBefore(el("p", { class: "soft" }, why.textContent), $("life").children[2]);
  if (focus) $("life").focus();
}

// Choose the second life: the last choice of the reader, else the same pack with empty contexts if the page is wide.
function pick(lives, i, others) {
  if (i === null || state.beside === "") return null;
  if (state.beside !== null) {
    const same = others.find((k) => columnName(lives, k) === state.beside);
    return same === undefined ? null : same;
  }
  return NARROW.matches ? null : emptyLife(lives, i);
}

function controls(lives, i, others, beside) {
  const select = el("select", { id: "beside", "aria-label": "Compare with" }, el("option", { value: "" }, "no comparison"));
  for (const k of others) select.append(el("option", { value: k }, `compare with ${columnName(lives, k)}`));
  select.value = beside === null ? "" : String(beside);
  select.addEventListener("change", () => {
    state.beside = select.value === "" ? "" : columnName(lives, Number(select.value));
    choose(i).then(() => $("beside").focus());
  });
  const step = (by, text, label) => {
    const button = el("button", { type: "button", "aria-label": label }, text);
    button.addEventListener("click", () => move(by));
    return button;
  };
  const back = el("button", { type: "button", class: "back" }, "List");
  back.addEventListener("click", () => $("lives").scrollIntoView());
  return el("div", { class: "controls" }, step(-1, "\u2191", "Previous life"), step(1, "\u2193", "Next life"), back, select);
}

function move(by) {
  const { found } = current();
  if (!found.length) return;
  const at = found.indexOf(state.life);
  choose(found[at < 0 ? 0 : Math.min(found.length - 1, Math.max(0, at + by))]);
}

// Scroll the list, and nothing else, until the chosen life is visible.
function reveal() {
  const list = $("list");
  const top = current().found.indexOf(state.life) * ROW;
  if (top < 0) return;
  list.firstElementChild.style.height = `${current().found.length * ROW}px`;
  if (top < list.scrollTop) list.scrollTop = top;
  if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
}

async function openRun(number, life) {
  state.run = number;
  document.querySelectorAll(".run").forEach((run, i) => (run.hidden = i !== number));
  document.querySelectorAll("[role=tab]").forEach((tab, i) => {
    tab.setAttribute("aria-selected", String(i === number));
    tab.tabIndex = i === number ? 0 : -1;
  });
  fillFilters();
  await refilter();
  const exists = life !== undefined && life !== null && life < current().lives.length;
  await choose(exists ? life : current().first < 0 ? null : current().first);
}

function remember() {
  history.replaceState(null, "", `#run=${state.run}&life=${state.life ?? ""}`);
}

function recall() {
  const saved = new URLSearchParams(location.hash.slice(1));
  const run = Number(saved.get("run") || 0);
  const life = /^\d+$/.test(saved.get("life") || "") ? Number(saved.get("life")) : null;
  return openRun(run in runs ? run : 0, life);
}

const STEPS = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };

function listKey(event) {
  if (event.key in STEPS) move(Math.max(-1e9, Math.min(1e9, STEPS[event.key])));
  else if (event.key === "Enter") openLife();
  else return;
  event.preventDefault();
}

function openLife() {
  $("life").focus({ preventScroll: true });
  if (NARROW.matches) $("life").scrollIntoView();
}

function pageKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select")) {
    if (event.key === "Escape" && event.target.id === "find") $("list").focus();
    return;
  }
  const act = {
    "/": () => $("find").focus(),
    j: () => move(1),
    k: () => move(-1),
    b: toggleBeside,
    Escape: () => $("list").focus(),
  }[event.key];
  if (!act) return;
  act();
  event.preventDefault();
}

function toggleBeside() {
  const select = $("beside");
  if (!select || select.options.length < 2) return;
  const empty = emptyLife(current(), state.life);
  const other = empty === null ? select.options[1].value : empty;
  state.beside = select.value === "" ? columnName(current(), Number(other)) : "";
  choose(state.life);
}

function tabKey(event) {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!by || !event.target.matches("[role=tab]")) return;
  openRun((state.run + by + runs.length) % runs.length);
  document.querySelector("[role=tab][aria-selected=true]").focus();
}

// Poll a live run, and update the page without changing the open life or the scroll position.
async function watch(live) {
  let stamp = null;
  for (;;) {
    try {
      const answer = await fetch(live, { cache: "no-store" });
      const now = answer.ok ? await answer.text() : stamp;
      if (stamp !== null && now !== stamp) await renew();
      stamp = now;
      $("live").textContent = `live, checked at ${new Date().toLocaleTimeString()}`;
    } catch {
      $("live").textContent = "the server does not respond; this page may be out of date";
    }
    await new Promise((done) => setTimeout(done, 2000));
  }
}

async function renew() {
  const page = new DOMParser().parseFromString(await (await fetch(location.pathname + location.search, { cache: "no-store" })).text(), "text/html");
  if (!page.getElementById("index")) return;
  const open = [...document.querySelectorAll("#report details")].map((details) => details.open);
  const key = state.life === null ? null : current().key(state.life);
  const scrolled = [$("list").scrollTop, $("life").scrollTop];
  for (const id of ["report", "data"]) $(id).replaceWith(document.adoptNode(page.getElementById(id)));
  document.querySelectorAll("#report details").forEach((details, i) => (details.open = open[i] ?? details.open));
  load();
  const again = key === null ? -1 : current().lives.findIndex((_, i) => current().key(i) === key);
  await openRun(state.run, again < 0 ? null : again);
  [$("list").scrollTop, $("life").scrollTop] = scrolled;
}

function listen() {
  let waiting;
  $("find").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(refilter, 150);
  });
  for (const name of ["where", "arm"]) $(name).addEventListener("change", refilter);
  for (const chip of document.querySelectorAll(".chip")) {
    chip.addEventListener("click", () => {
      state.flags ^= Number(chip.dataset.flag);
      refilter();
    });
  }
  let waits = false;
  $("list").addEventListener("scroll", () => {
    if (waits) return;
    waits = true;
    requestAnimationFrame(() => {
      waits = false;
      drawList($("list"), current(), state.life);
    });
  });
  $("list").addEventListener("click", async (event) => {
    const row = event.target.closest(".row");
    if (!row) return;
    await choose(Number(row.dataset.life));
    if (NARROW.matches) $("life").scrollIntoView();
  });
  $("list").addEventListener("keydown", listKey);
  document.addEventListener("keydown", pageKey);
  document.addEventListener("keydown", tabKey);
  document.addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (tab) openRun(Number(tab.id.slice(4)));
  });
  addEventListener("resize", () => drawList($("list"), current(), state.life));
}

const { live } = load();
listen();
await recall();
document.documentElement.dataset.ready = "true";
if (live) watch(live);
