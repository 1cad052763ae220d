// Word diff of two texts, in reading order: [["same" | "gone" | "new", text], ...].

const LARGEST = 4e6; // maximum number of table cells; longer texts are compared line by line

function changes(before, after) {
  const split = (by) => [before.match(by) || [], after.match(by) || []];
  let [old, now] = split(/\s+|\S+/g);
  if (old.length * now.length > LARGEST) [old, now] = split(/.*\n|.+$/g);
  if (old.length * now.length > LARGEST) return glue([["gone", before], ["new", after]]);
  return glue(walk(old, now, common(old, now)));
}

// Length of the longest common subsequence of the rest of both texts, for each pair of positions.
function common(old, now) {
  const wide = now.length + 1;
  const table = new Uint32Array((old.length + 1) * wide);
  for (let i = old.length - 1; i >= 0; i--) {
    for (let j = now.length - 1; j >= 0; j--) {
      const at = i * wide + j;
      table[at] = old[i] === now[j] ? table[at + wide + 1] + 1 : Math.max(table[at + wide], table[at + 1]);
    }
  }
  return table;
}

function walk(old, now, table) {
  const wide = now.length + 1;
  const pieces = [];
  let i = 0;
  let j = 0;
  while (i < old.length || j < now.length) {
    const at = i * wide + j;
    if (i < old.length && j < now.length && old[i] === now[j]) pieces.push(["same", (i++, now[j++])]);
    else if (i < old.length && (j === now.length || table[at + wide] >= table[at + 1])) pieces.push(["gone", old[i++]]);
    else pieces.push(["new", now[j++]]);
  }
  return pieces;
}

// Merge adjacent changes into one deletion and one insertion, including blanks between changes.
function glue(pieces) {
  const glued = [];
  let gone = "";
  let added = "";
  const flush = () => {
    if (gone) glued.push(["gone", gone]);
    if (added) glued.push(["new", added]);
    gone = added = "";
  };
  pieces.forEach(([kind, text], i) => {
    const between = kind === "same" && !text.trim() && gone && added && pieces[i + 1] && pieces[i + 1][0] !== "same";
    if (kind === "gone" || between) gone += text;
    if (kind === "new" || between) added += text;
    if (kind !== "same" || between) return;
    flush();
    const last = glued[glued.length - 1];
    if (last && last[0] === "same") last[1] += text;
    else glued.push(["same", text]);
  });
  flush();
  return glued;
}
