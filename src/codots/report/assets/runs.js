// Reload the list of runs every few seconds, keeping the selected runs.

setInterval(async () => {
  const ticked = new Set([...document.querySelectorAll("input:checked")].map((box) => box.value));
  const answer = await fetch("/", { cache: "no-store" }).catch(() => null);
  if (!answer || !answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const box of page.querySelectorAll("input")) box.checked = ticked.has(box.value);
  document.getElementById("runs").replaceWith(document.adoptNode(page.getElementById("runs")));
}, 3000);
