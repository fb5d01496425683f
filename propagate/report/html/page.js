"use strict";
/* Sorts, filters and folds the tables. Without it they stand in the order of the model. */

for (const table of document.querySelectorAll("table:not(.code)")) equip(table);

function equip(table) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row, at) => {
    const cells = [...row.cells].map((cell) => cell.textContent);
    const name = row.cells[0].dataset.full || cells[0];
    const group = row.classList.contains("group");
    return {row, at, cells, name, short: cells[0], group, depth: Number(row.dataset.in), open: true};
  });
  const places = rows.filter((one) => !one.group).length;
  const heads = [...table.tHead.rows[0].cells];
  const filter = make("input", {type: "search", placeholder: "filter, such as a name or a verdict"});
  filter.setAttribute("aria-label", "Filter the rows");
  const restore = make("button", {type: "button", textContent: "original order", hidden: true});
  const count = make("span", {});
  count.setAttribute("role", "status");
  const tools = make("div", {className: "tools"});
  tools.append(filter, restore, count);
  table.parentElement.before(tools);
  let sorted = null;

  function show() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (one) => (one.name + " " + one.cells.slice(1).join(" ")).toLowerCase();
    const fits = (one) => words.every((word) => text(one).includes(word));
    let shown = 0;
    let folded = Infinity; // the depth of the closed group that a row lies in
    for (const one of rows) {
      if (one.depth <= folded) folded = Infinity;
      const inside = folded < one.depth && !sorted && !words.length;
      if (one.group) {
        one.row.hidden = inside || Boolean(sorted) || (words.length > 0 && !hasMember(one, fits));
        if (!one.open && folded === Infinity) folded = one.depth;
      } else {
        one.row.hidden = inside || !fits(one);
        shown += !one.row.hidden;
        one.row.cells[0].textContent = sorted ? one.name : one.short;
      }
    }
    count.textContent = shown === places ? places + " rows" : shown + " of " + places + " rows";
  }

  function hasMember(group, fits) {
    for (let k = group.at + 1; k < rows.length && rows[k].depth > group.depth; k++) {
      if (!rows[k].group && fits(rows[k])) return true;
    }
    return false;
  }

  function order(column, direction) {
    heads.forEach((head, k) => head.setAttribute("aria-sort", k === column ? direction : "none"));
    sorted = column === null ? null : {column, direction};
    const up = direction === "ascending" ? 1 : -1;
    const key = (one) => (column === 0 ? one.name : one.cells[column] || "");
    const by = (a, b) => compare(key(a), key(b), up) || a.at - b.at;
    const ordered = sorted ? [...rows].sort((a, b) => a.group - b.group || by(a, b)) : rows;
    body.append(...ordered.map((one) => one.row));
    restore.hidden = !sorted;
    table.classList.toggle("flat", Boolean(sorted));
    table.parentElement.scrollTop = 0;
    show();
  }

  heads.forEach((head, column) => {
    const button = make("button", {type: "button", textContent: head.textContent});
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      order(column, down ? "descending" : "ascending");
    });
    head.replaceChildren(button);
  });
  function label(group) {
    const button = group.row.cells[0].querySelector("button");
    button.textContent = (group.open ? "▾ " : "▸ ") + group.short;
    button.setAttribute("aria-expanded", group.open);
  }

  function toggle(group) {
    group.open = !group.open;
    label(group);
  }

  for (const group of rows.filter((one) => one.group)) {
    const button = make("button", {type: "button"});
    button.addEventListener("click", () => { toggle(group); show(); });
    group.row.cells[0].replaceChildren(button);
    label(group);
  }
  filter.addEventListener("input", show);
  restore.addEventListener("click", () => order(null, "none"));
  window.addEventListener("hashchange", reveal);
  show();
  reveal();

  function reveal() { /* what a link leads to is shown, whatever is filtered or folded */
    const row = location.hash && document.getElementById(location.hash.slice(1));
    if (!row || row.parentElement !== body || !row.hidden) return;
    filter.value = "";
    for (const group of rows.filter((one) => one.group && !one.open)) toggle(group);
    show();
    row.scrollIntoView();
  }
}

function make(tag, options) { return Object.assign(document.createElement(tag), options); }

/* Numbers before words, and what is missing last, whichever way the order goes. */
function compare(a, b, up) {
  const [x, y] = [a, b].map((text) => Number(text.replace("∞", "Infinity").replace("> ", "") || NaN));
  if (!isNaN(x) && !isNaN(y)) return x === y ? 0 : up * (x < y ? -1 : 1);
  const [none, other] = [a, b].map((text) => ["", "–", "NaN", "none"].includes(text));
  if (none || other) return none - other;
  if (isNaN(x) !== isNaN(y)) return isNaN(x) - isNaN(y);
  return up * a.localeCompare(b, undefined, {numeric: true});
}
