// Sorting and filtering of a board's tables. The page is complete without it.
"use strict";
(() => {
  const AT_FIRST = 50;  // rows of a table that are shown until all are asked for: more take long to lay out
  const missing = (cell) => cell.dataset.v === undefined || cell.dataset.v === "";

  function prepare(table) {
    const body = table.querySelector("tbody.methods");
    const rows = Array.from(body.rows, (row) => ({
      row, name: row.dataset.name, needs: row.dataset.needs.split(" "), verified: row.dataset.checked === "verified", shows: true,
      cells: Array.from(row.cells, (cell) => (missing(cell) ? null : cell.dataset.v)), numbers: [],
    }));
    for (const entry of rows) entry.numbers = entry.cells.map((text) => (text === null ? null : Number(text)));
    const held = { table, body, rows, all: false, more: document.createElement("button") };
    held.more.type = "button";
    held.more.className = "more";
    held.more.addEventListener("click", () => { held.all = true; show(held); held.table.parentElement.focus(); });
    table.parentElement.after(held.more);
    return held;
  }

  function show(held) {
    const wanted = held.rows.filter((entry) => entry.shows);
    const shown = held.all ? wanted : wanted.slice(0, AT_FIRST);
    held.body.replaceChildren(...shown.map((entry) => entry.row));
    held.more.hidden = shown.length === wanted.length;
    held.more.textContent = `Show all ${wanted.length} rows`;
  }

  function sort(held, header) {
    const column = header.cellIndex;
    const isNumber = header.dataset.kind === "num";
    const before = header.getAttribute("aria-sort");
    // A first click on a quality shows the best, on a rank, cost or text the smallest.
    const falls = before ? before === "ascending" : "falls" in header.dataset;
    const sign = falls ? -1 : 1;
    const of = (entry) => (isNumber ? entry.numbers[column] : entry.cells[column]);
    const collator = new Intl.Collator("en", { numeric: true });
    held.rows.sort((a, b) => {
      const x = of(a), y = of(b);
      if (x === null || y === null) return (x === null) - (y === null);  // what has no value is last either way
      return sign * (isNumber ? x - y : collator.compare(x, y));
    });
    for (const other of held.table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", falls ? "descending" : "ascending");
    show(held);
  }

  function filter(all, form, status) {
    const text = form.elements.text.value.trim().toLowerCase();
    const allowed = new Set(Array.from(form.querySelectorAll("[name=need]:checked"), (box) => box.value));
    const verified = form.elements.verified.checked;
    const told = new Set(), known = new Set();
    for (const held of all) {
      for (const entry of held.rows) {
        entry.shows = entry.name.includes(text) && entry.needs.every((need) => allowed.has(need)) && (entry.verified || !verified);
        known.add(entry.name);
        if (entry.shows) told.add(entry.name);
      }
      show(held);
    }
    status.textContent = `${told.size} of ${known.size} methods`;
  }

  const all = Array.from(document.querySelectorAll("table.board"), prepare);
  for (const held of all) {
    for (const header of held.table.tHead.rows[0].cells) {
      const button = header.querySelector("button");
      if (button) button.addEventListener("click", () => sort(held, header));
    }
  }
  const form = document.querySelector("form.filter");
  const status = form.querySelector("[role=status]");
  form.hidden = false;
  form.addEventListener("input", () => filter(all, form, status));
  form.addEventListener("submit", (event) => event.preventDefault());
  filter(all, form, status);
})();
