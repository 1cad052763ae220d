// The page of a server: its worlds and, of one, its lift, rewards, held contexts and versions.

const $ = (id) => document.getElementById(id);
const SECONDS = 5; // between two looks at the server
const TASKS = 1000; // newest tasks whose rewards are drawn
const VERSIONS = 200; // newest versions that are listed
const MEAN = 20; // tasks in a running mean
let shown = ""; // what the page was drawn from

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(name, value);
  node.append(...children.flat().filter((child) => child !== null));
  return node;
}

function svg(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function button(text, label, act) {
  const node = el("button", { type: "button", id: label.replace(/\W+/g, "-"), "aria-label": label }, text);
  node.addEventListener("click", async () => {
    node.disabled = true;
    await act().then(say, (error) => say(error.message, true));
    node.disabled = false;
    await look();
  });
  return node;
}

function say(text, failed = false) {
  $("news").replaceChildren(failed ? el("mark", {}, text) : text);
}

async function ask(path, body) {
  const headers = sessionStorage.key ? { authorization: `Bearer ${sessionStorage.key}` } : {};
  const options = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  if (body !== undefined) headers["content-type"] = "application/json";
  const answer = await fetch(path, { headers, cache: "no-store", ...options });
  if (answer.status === 401) $("door").hidden = false;
  const values = await answer.json();
  if (!answer.ok) throw new Error(values.error ? values.error.message : answer.statusText);
  return values;
}

const at = (world, rest = "") => `/v1/worlds/${encodeURIComponent(world)}${rest}`;
const chosen = () => decodeURIComponent(location.hash.slice(1));
const fixed = (value, digits = 2) => value.toFixed(digits).replace("-", "\u2212");

// Look at the server, and draw again what has changed.
async function look() {
  let worlds;
  try {
    ({ worlds } = await ask("/v1/worlds"));
  } catch (error) {
    say(error.message, true);
    return;
  }
  $("door").hidden = true;
  const name = worlds.some((world) => world.name === chosen()) ? chosen() : worlds[0] && worlds[0].name;
  const [heads, held] = await Promise.all([all(worlds, ""), all(worlds, "/quarantine")]);
  const now = JSON.stringify([name, heads, held]);
  if (now === shown) return;
  const whole = name ? await details(name) : null;
  shown = now;
  const focus = document.activeElement && document.activeElement.id;
  $("worlds").replaceChildren(list(heads, held, name));
  $("world").replaceChildren(...(whole ? draw(name, whole) : [el("p", {}, "No world yet: one is made by its first task.")]));
  if (focus && $(focus)) $(focus).focus();
}

const all = (worlds, rest) => Promise.all(worlds.map((world) => ask(at(world.name, rest))));

async function details(name) {
  const parts = [`/versions?limit=${VERSIONS}`, `/tasks?limit=${TASKS}`, "/lift", "/quarantine"];
  const [{ versions }, { tasks }, lift, { held }] = await Promise.all(parts.map((part) => ask(at(name, part))));
  return { versions, tasks: tasks.reverse(), lift, held };
}

function list(heads, held, name) {
  const names = ["world", "held back", "version", "characters", "tasks", "finished"];
  const rows = heads.map((world, i) => {
    const link = el("a", { href: `#${encodeURIComponent(world.name)}`, id: `to-${world.name}` }, world.name);
    if (world.name === name) link.setAttribute("aria-current", "true");
    const waits = held[i].held.length;
    const counts = [world.head.number, world.head.context.length, world.tasks, world.finished].map((n) => n.toLocaleString("en"));
    const cells = [waits ? el("mark", {}, String(waits)) : "0", ...counts].map((text) => el("td", {}, text));
    return el("tr", { class: world.name === name ? "main" : null }, el("th", { scope: "row" }, link), cells);
  });
  const head = el("thead", {}, el("tr", {}, names.map((text) => el("th", { scope: "col" }, text))));
  const table = el("table", {}, head, el("tbody", {}, rows));
  return el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Worlds" }, table);
}

function draw(name, { versions, tasks, lift, held }) {
  const parts = [el("h2", {}, name), el("p", { id: "lift" }, lift.sentence)];
  const figures = [rewards(tasks), lengths(versions)].filter(Boolean);
  parts.push(el("div", { class: "figures" }, figures));
  if (held.length) parts.push(el("h3", {}, "Held back"), ...held.map((one) => quarantined(name, one, versions)));
  parts.push(el("h3", {}, "Versions, newest first"), el("ol", { id: "versions", reversed: "" }, history(name, versions)));
  return parts;
}

// Invisible characters, except line breaks and tabs, as their codes: a person decides on what a model reads.
const visible = (text) => text.replace(/[^\P{C}\n\t]/gu, (one) => `<U+${one.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}>`);

function marked(before, after) {
  const tags = { same: "span", gone: "del", new: "ins" };
  const pieces = changes(visible(before), visible(after)).map(([kind, text]) => el(tags[kind], {}, text));
  return el("pre", { class: "context", tabindex: "0" }, pieces.length ? pieces : "empty");
}

function quarantined(name, one, versions) {
  const kept = versions.find((version) => version.number === one.number);
  const stays = versions.length && versions[versions.length - 1].context !== (kept ? kept.context : "");
  const path = at(name, `/quarantine/${one.number}`);
  const adopt = (replace) => () => ask(`${path}/adopt`, { replace }).then((made) => `Adopted as version ${made.number}.`);
  const drop = () => ask(`${path}/drop`, {}).then(() => `The context of ${one.source} was dropped.`);
  const what = stays ? "Adopt in place of the newest" : "Adopt";
  return el(
    "article",
    { class: "task", "aria-label": `Held back after ${one.source}` },
    el("p", {}, el("mark", {}, one.reason), ` After ${one.source}, ${one.created}.`),
    one.passage ? el("p", { class: "soft" }, "It is about: ", el("q", {}, visible(one.passage))) : null,
    marked(kept ? kept.context : "", one.context),
    el("p", {}, button(what, `${what}: ${one.source}`, adopt(Boolean(stays))), " ", button("Drop", `Drop: ${one.source}`, drop)),
  );
}

function history(name, versions) {
  const newest = versions[versions.length - 1];
  return versions.map((version, i) => {
    const before = i ? versions[i - 1].context : version.number ? null : "";
    const said = [version.cause, version.source, version.created, version.model].filter(Boolean).join(" \u00b7 ");
    const back = () => ask(at(name, "/rollback"), { version: version.number }).then((made) => `Version ${made.number} has the context of version ${version.number}.`);
    return el(
      "li",
      { value: version.number, class: "task" },
      el("header", {}, el("span", { class: "numbers" }, `${version.number}: ${said}`), version === newest ? el("mark", {}, "in use") : button("Go back to it", `Go back to version ${version.number}`, back)),
      version.failure ? el("p", { class: "soft" }, version.failure) : null,
      marked(before === null ? version.context : before, version.context),
    );
  }).reverse();
}

// A figure of points over x, with lines; y goes from `low` to `high`.
function figure(title, note, [low, high], [from, to], lines) {
  const [wide, tall, left, base] = [560, 200, 52, 168];
  const x = (value) => left + ((value - from) / Math.max(1, to - from)) * (wide - left - 12);
  const y = (value) => base - ((value - low) / (high - low || 1)) * (base - 14);
  const image = svg("svg", { viewBox: `0 0 ${wide} ${tall}`, role: "img", "aria-label": `${title}. ${note}` });
  for (const value of [low, (low + high) / 2, high]) {
    const label = svg("text", { x: left - 6, y: y(value) + 4, class: "tick", "text-anchor": "end" });
    label.textContent = Math.abs(high - low) > 5 ? Math.round(value).toLocaleString("en") : fixed(value);
    image.append(svg("line", { x1: left, x2: wide - 12, y1: y(value), y2: y(value), class: "grid" }), label);
  }
  for (const [value, anchor] of [[from, "start"], [to, "end"]].slice(from === to ? 1 : 0)) {
    const label = svg("text", { x: x(value), y: base + 20, class: "tick", "text-anchor": anchor });
    label.textContent = value.toLocaleString("en");
    image.append(label);
  }
  for (const { kind, points } of lines) {
    if (!points.length) continue;
    const path = points.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");
    image.append(svg("path", { d: path, class: `line ${kind}` }));
    const [a, b] = points[points.length - 1];
    image.append(svg("circle", { cx: x(a), cy: y(b), r: 3.5, class: `dot ${kind}` }));
  }
  return el("figure", {}, image, el("figcaption", {}, el("b", {}, title), ` ${note}`));
}

function rewards(tasks) {
  const ended = tasks.filter((task) => task.finish && task.finish.reward !== null);
  if (!ended.length) return null;
  const lines = ["own", "null"].map((arm) => ({ kind: arm, points: means(ended.filter((task) => task.arm === arm)) }));
  const values = lines.flatMap((line) => line.points.map((point) => point[1]));
  const range = [Math.min(0, ...values), Math.max(1, ...values)];
  const last = lines.filter((line) => line.points.length).map(({ kind, points }) => `${kind === "own" ? "with" : "without"} context ${fixed(points[points.length - 1][1])}`);
  const note = `Mean of up to ${MEAN} tasks, by task. Newest: ${last.join(", ")}.${lines[1].points.length ? " Dashed: without context." : ""}`;
  return figure("Reward", note, range, [ended[0].number, ended[ended.length - 1].number], lines);
}

function means(tasks) {
  return tasks.map((task, i) => {
    const part = tasks.slice(Math.max(0, i - MEAN + 1), i + 1);
    return [task.number, part.reduce((sum, one) => sum + one.finish.reward, 0) / part.length];
  });
}

function lengths(versions) {
  const points = versions.map((version) => [version.number, version.context.length]);
  const most = Math.max(10, ...points.map((point) => point[1]));
  const note = `Characters, by version. Newest: ${points[points.length - 1][1].toLocaleString("en")}.`;
  return figure("Length of the context", note, [0, most], [points[0][0], points[points.length - 1][0]], [{ kind: "own", points }]);
}

$("door").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.key = $("key").value.trim();
  $("key").value = "";
  say("");
  look();
});
addEventListener("hashchange", () => look().then(() => $("world").focus()));
setInterval(() => document.hidden || look(), SECONDS * 1000);
look().then(() => document.documentElement.setAttribute("data-ready", ""));
