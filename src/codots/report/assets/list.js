// The list of lives: filters, search, and drawing of the visible rows only.

const ROW = 40; // height of a row in pixels, the same as in page.css
const WHERE = 0, ARM = 1, PACK = 2, LIFE = 3, FLAGS = 4, REWARDS = 5; // columns of the index
const FLAG_NAMES = { 1: "failed", 2: "context hurt", 4: "malformed", 8: "missing" };
const MANY = 6; // rewards above this count are drawn without numbers

class Lives {
  constructor(run, number) {
    Object.assign(this, run, { number, found: [], at: 0, stories: new Map(), words: null });
    this.shared = sharedStart(this.pack);
    this.byPack = new Map();
    this.lives.forEach((life, i) => this.byPack.set(life[PACK], [...(this.byPack.get(life[PACK]) || []), i]));
  }

  // Return the story of a life; unpacks its whole piece on first use.
  async story(i) {
    const piece = Math.floor(i / this.together);
    if (!this.stories.has(piece)) this.stories.set(piece, unpack(`piece-${this.number}-${piece}`));
    return (await this.stories.get(piece))[i % this.together];
  }

  label(i) {
    const [where, arm, pack, life] = this.lives[i];
    const several = this.byPack.get(pack).some((k) => k !== i && this.lives[k][WHERE] === where && this.lives[k][ARM] === arm);
    return { where: this.where[where], arm: this.arm[arm], pack: this.pack[pack].slice(this.shared), life: several ? `life ${life}` : "" };
  }

  // A key that stays the same when the page is rebuilt.
  key(i) {
    const [where, arm, pack, life] = this.lives[i];
    return [this.where[where], this.arm[arm], this.pack[pack], life].join("\n");
  }

  async filter({ where, arm, flags, text }) {
    const wanted = text.trim().toLowerCase().split(/\s+/).filter(Boolean);
    if (wanted.length && !this.words) this.words = await this.read();
    this.base = this.lives.map((_, i) => i).filter((i) => {
      const life = this.lives[i];
      if (where && this.where[life[WHERE]] !== where) return false;
      if (arm && this.arm[life[ARM]] !== arm) return false;
      return wanted.every((word) => this.words[i].includes(word));
    });
    this.found = this.base.filter((i) => (this.lives[i][FLAGS] & flags) === flags);
  }

  // Return the searchable text of every life; called on the first search.
  async read() {
    const words = [];
    for (let i = 0; i < this.lives.length; i++) {
      const name = this.label(i);
      words.push(`${Object.values(name).join(" ")} ${storyText(await this.story(i))}`.toLowerCase());
    }
    return words;
  }
}

function storyText(story) {
  const texts = [story.hidden, story.gone];
  for (const task of story.tasks) {
    texts.push(task.context, task.stop, ...task.moves.flatMap((move) => [move.seen, move.said, move.answer]));
    if (task.rewrite) texts.push(task.rewrite.said, task.rewrite.why);
  }
  return texts.join("\n");
}

// Length of the prefix of domain and preset that all names share, which the list hides.
function sharedStart(names) {
  const starts = new Set(names.map((name) => name.split(" ").slice(0, -2).join(" ")));
  return starts.size === 1 && [...starts][0] ? [...starts][0].length + 1 : 0;
}

async function unpack(id) {
  const packed = atob(document.getElementById(id).textContent);
  const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

// Draw the visible rows and a few around them.
function drawList(list, lives, chosen) {
  const spacer = list.firstElementChild;
  spacer.style.height = `${lives.found.length * ROW}px`;
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
  const last = Math.min(lives.found.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 4);
  const rows = [];
  for (let place = first; place < last; place++) rows.push(listRow(lives, place, chosen));
  spacer.replaceChildren(...rows);
  if (chosen === null || !rows.some((row) => row.id === `at-${chosen}`)) list.removeAttribute("aria-activedescendant");
  else list.setAttribute("aria-activedescendant", `at-${chosen}`);
}

function listRow(lives, place, chosen) {
  const i = lives.found[place];
  const name = lives.label(i);
  const row = el(
    "div",
    { class: "row", role: "option", id: `at-${i}`, "data-life": i, "aria-selected": i === chosen ? "true" : "false",
      "aria-setsize": lives.found.length, "aria-posinset": place + 1 },
    el("span", { class: "name" }, el("b", {}, name.pack), " ", el("small", {}, [name.where, name.arm, name.life].filter(Boolean).join(", "))),
    rewardCells(lives.lives[i].slice(REWARDS)),
  );
  row.style.top = `${place * ROW}px`;
  return row;
}

function rewardCells(rewards) {
  const few = rewards.length <= MANY;
  const numbers = rewards.map((reward) => reward.toFixed(2)).join(", ");
  const cells = el("span", { class: few ? "cells" : "cells many", role: "img", "aria-label": `rewards ${numbers}` });
  for (const reward of rewards) cells.append(rewardCell(reward, few));
  return cells;
}

function rewardCell(reward, withNumber = true) {
  const share = Math.min(1, Math.max(0, reward));
  const cell = el("i", { class: share > 0.45 ? "cell high" : "cell" }, withNumber ? short(reward) : "");
  cell.style.setProperty("--share", `${Math.round(share * 100)}%`);
  return cell;
}

function short(value) {
  return value.toFixed(2).replace(/^(-?)0\./, "$1.").replace("-", "\u2212");
}
