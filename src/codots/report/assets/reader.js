// Draw one life, optionally next to another life of the same pack.

async function drawLife(lives, i, beside) {
  const shown = [{ i, story: await lives.story(i) }];
  if (beside !== null) shown.push({ i: beside, story: await lives.story(beside) });
  const [first] = shown;
  const name = lives.label(i);
  const head = el(
    "header",
    { class: "life-head" },
    el("h3", {}, `${lives.pack[lives.lives[i][PACK]]}`),
    rewardCells(lives.lives[i].slice(REWARDS)),
    el("p", { class: "soft" }, [name.where, name.arm, name.life].filter(Boolean).join(", ")),
  );
  if (first.story.hidden) head.append(el("p", { class: "soft" }, "Hidden in this world and never shown to the model:"), el("pre", {}, first.story.hidden));
  if (first.story.rules) head.append(el("details", {}, el("summary", {}, "Rules shown to the model"), el("pre", {}, first.story.rules)));
  const grid = el("div", { class: shown.length > 1 ? "story pair" : "story" });
  if (shown.length > 1) grid.append(...shown.map((one) => el("h4", {}, columnName(lives, one.i))));
  const tasks = Math.max(...shown.map((one) => one.story.tasks.length));
  for (let j = 0; j < tasks; j++) {
    grid.append(...shown.map((one) => drawTask(lives, one, j, shown.length > 1)));
    if (shown.some((one) => one.story.tasks[j + 1])) grid.append(...shown.map((one) => drawContext(lives, one, j)));
  }
  if (first.story.gone) grid.append(el("p", {}, "This life is missing: ", el("span", { class: "mono" }, first.story.gone)));
  return [head, grid];
}

function columnName(lives, i) {
  const name = lives.label(i);
  return [name.arm, name.where, name.life].filter(Boolean).join(", ");
}

function drawTask(lives, { i, story }, j, paired) {
  const task = story.tasks[j];
  if (!task) return el("section", { class: "task empty" });
  const name = lives.label(i);
  const numbers = [task.stop, task.note, `${task.tokens} tokens`].filter(Boolean);
  if (task.advantage !== null) numbers.push(`advantage ${signed(task.advantage)}`);
  const head = el(
    "header",
    {},
    el("h5", {}, `Task ${j + 1} of ${story.tasks.length}`, paired ? el("small", { class: "arm" }, name.arm) : ""),
    el("span", { class: "numbers" }, rewardCell(task.reward), el("span", {}, numbers.join(" \u00b7 ")), ...tags(lives, i, j, task)),
  );
  const strip = el("ol", { class: "strip" });
  task.moves.forEach((move, number) => strip.append(drawTurn(move, number, story.style)));
  if (task.last) strip.append(el("li", {}, board(task.last), el("span", { class: "end" }, task.stop)));
  return el("section", { class: "task" }, head, strip);
}

function drawTurn(turn, number, style) {
  const [thought, action, rest] = parts(turn.said, style);
  const said = el("p", { class: "said" }, el("span", { class: "turn" }, `${number + 1}`));
  if (thought) said.append(el("span", { class: "thought", title: "thought" }, thought));
  if (action) said.append(el("b", { class: "action", title: "action" }, action));
  if (rest) said.append(el("span", { class: "thought" }, rest));
  if (!turn.said) said.append(el("i", {}, "empty reply"));
  return el(
    "li",
    {},
    turn.board ? board(turn.board) : el("pre", { class: "seen" }, turn.seen),
    said,
    turn.answer ? el("p", { class: "answer", title: "answer of the environment" }, turn.answer) : "",
  );
}

// Split a reply into thought, action, and the text after the action. In compact style the action is the last word.
function parts(said, style) {
  const tagged = said.match(/^([^]*?)<action>([^]*?)<\/action>([^]*)$/);
  if (tagged) return tagged.slice(1).map((part) => part.trim());
  const last = style === "compact" && said.match(/^([^]*?)(\S+)\s*$/);
  return last ? [last[1].trim(), last[2], ""] : [said, "", ""];
}

function tags(lives, i, j, task) {
  const found = [];
  if (task.reward <= 0) found.push("failed");
  if (task.stop === "malformed") found.push("malformed");
  const null_ = emptyLife(lives, i);
  if (null_ !== null) {
    const other = lives.lives[null_][REWARDS + j];
    if (task.reward < other - 1e-9) found.push(`context hurt: null got ${short(other)}`);
  }
  return found.map((text) => el("mark", {}, text));
}

// Return the life of the same pack with empty contexts from the same file, or null.
function emptyLife(lives, i) {
  const [where, arm, pack] = lives.lives[i];
  if (lives.arm[arm] === "null") return null;
  const found = lives.byPack.get(pack).find((k) => lives.lives[k][WHERE] === where && lives.arm[lives.lives[k][ARM]] === "null");
  return found === undefined ? null : found;
}

function drawContext(lives, { i, story }, j) {
  const [now, next] = [story.tasks[j], story.tasks[j + 1]];
  if (!next) return el("div", { class: "note empty" });
  const notes = [`Context after task ${j + 1}`];
  if (next.facts) notes.push(`${next.facts[0]} of ${next.facts[2]} facts right, ${next.facts[1]} wrong`);
  const { rewrite } = now;
  if (rewrite && rewrite.advantage !== null) notes.push(`advantage ${signed(rewrite.advantage)}`);
  if (rewrite) notes.push(`${rewrite.tokens} tokens`);
  else notes.push(`given by the arm ${lives.label(i).arm}`);
  const pre = el("pre", { class: "context" });
  for (const [kind, text] of changes(now.context, next.context)) {
    pre.append(kind === "same" ? text : el(kind === "new" ? "ins" : "del", {}, text));
  }
  if (!pre.childNodes.length) pre.append(el("span", { class: "soft" }, "empty"));
  const note = el("div", { class: "note" }, el("p", { class: "soft" }, notes.join(" \u00b7 ")));
  if (rewrite && rewrite.stop === "malformed") note.append(el("p", {}, el("mark", {}, "malformed"), ` The rewrite could not be parsed: ${rewrite.why}`));
  note.append(pre);
  if (rewrite) note.append(el("details", {}, el("summary", {}, "Full reply"), el("pre", {}, rewrite.said || "empty reply")));
  return note;
}

function signed(value) {
  return (value >= 0 ? "+" : "\u2212") + Math.abs(value).toFixed(2);
}
