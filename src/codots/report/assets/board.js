// DOM elements and boards. Text is always inserted as text, never as markup.

function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

// Draw rows of single letters as a grid of squares; show any other drawing as text.
function board(text) {
  const rows = grid(text);
  if (!rows) return el("pre", {}, text);
  const drawn = el("div", { class: "board", role: "img", "aria-label": text });
  drawn.style.gridTemplateColumns = `repeat(${rows[0].length}, 1fr)`;
  for (const mark of rows.flat()) {
    const empty = mark === "_" || mark === ".";
    drawn.append(el("i", { "data-mark": empty ? null : mark }, empty ? "" : mark));
  }
  return drawn;
}

// Return rows of letters without column and row names, or null for any other drawing.
function grid(text) {
  let rows = text.split("\n").map((line) => line.trim().split(/\s+/));
  const wide = rows[0].length;
  if (rows.length > 1 && rows.slice(1).every((row, i) => row.length === wide + 1 && row[0] === String(i + 1))) {
    rows = rows.slice(1).map((row) => row.slice(1));
  }
  const even = rows.every((row) => row.length === rows[0].length && row.every((mark) => mark.length === 1));
  return even && rows.length > 1 && rows[0].length > 1 ? rows : null;
}
