"use strict";
// Every table can be sorted by a click on a heading; a table of several rows can be filtered.
const number = (text) => {
  const found = /^[-−+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?/.exec(text);
  return found ? Number(found[0].replaceAll(",", "").replace("−", "-")) : NaN;
};
const compare = (a, b) => {
  const [x, y] = [number(a), number(b)];
  if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
  return Number.isNaN(x) || x === y ? a.localeCompare(b) : x - y;
};
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const names = heads.map((head) => head.textContent);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = names[column];
    button.title = "sort";
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const text = (row) => row.cells[column].textContent.trim();
      body.append(...[...body.rows].sort((a, b) => sign * compare(text(a), text(b))));
    });
  });
  if (body.rows.length < 4) continue;
  const bar = document.createElement("label");
  const input = document.createElement("input");
  const count = document.createElement("span");
  bar.className = "filter";
  input.type = "search";
  input.placeholder = `filter: words, or ${names[0]}=…`;
  input.setAttribute("aria-label", "filter rows");
  bar.append(input, count);
  table.parentElement.before(bar);
  const meets = (row, word) => {
    const [name, value] = word.split("=");
    const column = names.findIndex((known) => known.toLowerCase() === name);
    if (value === undefined || column < 0) return row.textContent.toLowerCase().includes(word);
    return row.cells[column].textContent.trim().toLowerCase().startsWith(value);
  };
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of body.rows) {
      row.hidden = !words.every((word) => meets(row, word));
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = words.length ? `${shown} of ${body.rows.length} rows` : "";
  });
}
