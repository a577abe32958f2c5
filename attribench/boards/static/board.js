// Sorting and filtering of a board's tables. The page is complete without it.
"use strict";
(() => {
  const missing = (cell) => cell.dataset.v === undefined || cell.dataset.v === "";

  function prepare(table) {
    const body = table.querySelector("tbody.methods");
    const rows = Array.from(body.rows, (row) => ({
      row, name: row.dataset.name, needs: row.dataset.needs.split(" "), verified: row.dataset.checked === "verified",
      cells: Array.from(row.cells, (cell) => (missing(cell) ? null : cell.dataset.v)), numbers: [],
    }));
    for (const entry of rows) entry.numbers = entry.cells.map((text) => (text === null ? null : Number(text)));
    return { table, body, rows };
  }

  function sort(held, header) {
    const column = header.cellIndex;
    const isNumber = header.dataset.kind === "num";
    const before = header.getAttribute("aria-sort");
    // A first click on a quality shows the best, on a rank, cost or text the smallest.
    const falls = before ? before === "ascending" : header.firstElementChild.title.includes("higher is better");
    const sign = falls ? -1 : 1;
    const of = (entry) => (isNumber ? entry.numbers[column] : entry.cells[column]);
    held.rows.sort((a, b) => {
      const x = of(a), y = of(b);
      if (x === null || y === null) return (x === null) - (y === null);  // what has no value is last either way
      return sign * (isNumber ? x - y : x.localeCompare(y, "en", { numeric: true }));
    });
    for (const other of held.table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", falls ? "descending" : "ascending");
    held.body.append(...held.rows.map((entry) => entry.row));
  }

  function filter(all, form, status) {
    const text = form.elements.text.value.trim().toLowerCase();
    const allowed = new Set(Array.from(form.querySelectorAll("[name=need]:checked"), (box) => box.value));
    const verified = form.elements.verified.checked;
    const told = new Set(), known = new Set();
    for (const held of all) {
      for (const entry of held.rows) {
        const shows = entry.name.includes(text) && entry.needs.every((need) => allowed.has(need)) && (entry.verified || !verified);
        entry.row.hidden = !shows;
        known.add(entry.name);
        if (shows) told.add(entry.name);
      }
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
  if (form) {
    const status = form.querySelector("[role=status]");
    form.hidden = false;
    form.addEventListener("input", () => filter(all, form, status));
    form.addEventListener("submit", (event) => event.preventDefault());
    filter(all, form, status);
  }
})();
