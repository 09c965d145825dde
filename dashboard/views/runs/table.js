// Draws data.columns as a table. A click on a header sorts the rows; where they are some of all runs (data.ids), the server
// does: the click reports the next of the column's orders as the trigger "order", "" after the last one. Runs can be selected: what the viewer changed is reported as the trigger "changes": pairs of id and whether selected, and
// the version of the selection (data.version) that they change.

const NUMBERS = new Map([["NaN", NaN], ["Infinity", Infinity], ["-Infinity", -Infinity]]); // JSON has none of them
const NONE = "-";
const FORMULA = /^[=+\-@\t\r]/;
const byWords = new Intl.Collator(undefined, { numeric: true }).compare;

function element(tag, className = "", ...content) {
  const found = document.createElement(tag);
  found.className = className;
  found.append(...content);
  return found;
}

// What a column is sorted by; null and NaN come last.
function keysOf(column) {
  if (column.values.length) return column.values.map((value) => (NUMBERS.has(value) ? NUMBERS.get(value) : value));
  return column.cells.map((cell) => (Array.isArray(cell) ? cell.join(" ") || null : cell));
}

// Numbers before texts.
function compare(a, b) {
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return typeof a === "number" ? Number(a > b) - Number(a < b) : byWords(a, b);
}

// The places of the rows in the order to show them.
function order(columns, sort) {
  const rows = columns[0].cells.map((_, row) => row);
  if (!sort || columns[sort.place]?.label !== sort.label) return rows;
  const keys = keysOf(columns[sort.place]);
  const isLast = (row) => keys[row] === null || Number.isNaN(keys[row]);
  const known = rows.filter((row) => !isLast(row));
  known.sort((a, b) => (sort.descending ? -1 : 1) * compare(keys[a], keys[b]));
  return [...known, ...rows.filter(isLast)];
}

// The order after a click on a header: ascending, descending, as it came.
function nextSort(sort, place, label) {
  if (sort?.place !== place || sort.label !== label) return { place, label, descending: false };
  return sort.descending ? undefined : { place, label, descending: true };
}

function line(points) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 150 48");
  svg.setAttribute("preserveAspectRatio", "none");
  const drawn = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  drawn.setAttribute("points", points);
  drawn.setAttribute("vector-effect", "non-scaling-stroke");
  svg.append(drawn);
  return svg;
}

function cell(column, row, isFirst, link) {
  const content = column.cells[row];
  const found = element(isFirst ? "th" : "td", `${column.kind} ${isFirst ? "first" : ""}`);
  if (isFirst) found.scope = "row";
  if (content === null) {
    found.append(element("span", "none", NONE));
  } else if (column.kind === "line") {
    found.append(line(content));
  } else if (column.kind === "tags") {
    found.append(...content.map((tag) => element("span", "tag", tag)));
  } else if (link) {
    const opens = element("a", "", content);
    Object.assign(opens, { href: link, target: "_blank", rel: "noopener" });
    opens.dataset.focus = `open ${link}`;
    found.append(opens);
    found.title = `${content} (opens in a new tab)`;
  } else {
    found.append(content);
    found.title = content;
  }
  return found;
}

function tick(label, focus, clicked) {
  const box = element("input");
  box.type = "checkbox";
  box.ariaLabel = label;
  box.dataset.focus = focus;
  box.addEventListener("click", clicked);
  return box;
}

function save(columns, rows) {
  const shown = columns.filter((column) => column.kind !== "line");
  const written = (value) => {
    const text = Array.isArray(value) ? value.join(" ") : String(value ?? "");
    const safe = FORMULA.test(text) && Number.isNaN(Number(text)) && !NUMBERS.has(text) ? `'${text}` : text;
    return `"${safe.replaceAll('"', '""')}"`;
  };
  const valuesOf = (column) => (column.kind === "number" ? column.values : column.cells);
  const head = shown.map((column) => column.label);
  const lines = rows.map((row) => shown.map((column) => valuesOf(column)[row]));
  const text = [head, ...lines].map((each) => each.map(written).join(",")).join("\r\n");
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = "runs.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

class Table {
  constructor(host) {
    this.host = host;
    this.scroll = element("div", "scroll");
    this.scroll.tabIndex = 0; // arrows scroll it
    this.changes = new Map(); // what the session does not know yet: whether a run is selected, by its id
    const csv = element("button", "csv", "CSV");
    csv.title = "Save the rows that are shown";
    csv.addEventListener("click", () => save(this.data.columns, order(this.data.columns, this.sort)));
    host.replaceChildren(this.scroll, csv);
  }

  update(data, report, reportOrder) {
    [this.report, this.reportOrder] = [report, reportOrder];
    this.selected = new Set(data.selected);
    if (data.version !== this.version) this.changes.clear(); // the whole selection was replaced, such as cleared
    this.version = data.version;
    const shown = new Set(data.ids);
    for (const [id, isSelected] of this.changes) {
      if (!shown.has(id) || this.selected.has(id) === isSelected) this.changes.delete(id);
    }
    const { selected, version, ...content } = data;
    const drawn = JSON.stringify(content);
    if (drawn === this.drawn) return this.mark();
    [this.drawn, this.data] = [drawn, data];
    this.draw();
  }

  isSelected(id) {
    return this.changes.get(id) ?? this.selected.has(id);
  }

  select(ids, isSelected) {
    for (const id of ids) this.changes.set(id, isSelected);
    this.mark();
    this.reportChanges();
  }

  reportChanges() {
    this.report({ version: this.version, runs: [...this.changes] });
  }

  // With shift, all from the row clicked last to this one.
  clicked(id, ids, event) {
    const last = ids.indexOf(this.lastClicked);
    const [from, to] = [last, ids.indexOf(id)].sort((a, b) => a - b);
    this.lastClicked = id;
    this.select(event.shiftKey && last >= 0 ? ids.slice(from, to + 1) : [id], event.target.checked);
  }

  // Shows which rows are selected.
  mark() {
    let count = 0;
    for (const [id, box] of this.boxes) {
      box.checked = this.isSelected(id);
      box.closest("tr").className = box.checked ? "selected" : "";
      count += Number(box.checked);
    }
    if (!this.all) return;
    this.all.checked = count === this.boxes.size;
    this.all.indeterminate = count > 0 && count < this.boxes.size;
  }

  draw() {
    const { columns, label } = this.data;
    const rows = order(columns, this.sort);
    [this.all, this.boxes] = [undefined, new Map()];
    const ids = this.data.ids && rows.map((row) => this.data.ids[row]);
    const focused = this.host.getRootNode().activeElement?.dataset.focus;
    const table = element("table");
    table.ariaLabel = label;
    table.createTHead().append(this.header(columns, ids));
    table.createTBody().append(...rows.map((row) => this.row(columns, row, ids)));
    this.mark();
    this.scroll.replaceChildren(table);
    const again = focused && [...table.querySelectorAll("[data-focus]")].find((each) => each.dataset.focus === focused);
    if (again) again.focus({ preventScroll: true });
  }

  header(columns, ids) {
    const found = element("tr");
    if (ids) {
      this.all = tick("Select all rows", "all", () => this.select(ids, this.all.checked));
      found.append(element("th", "tick", this.all));
    }
    columns.forEach((column, place) => found.append(this.title(column, place)));
    return found;
  }

  title(column, place) {
    const found = element("th", `${column.kind} ${place === 0 ? "first" : ""}`);
    found.scope = "col";
    found.title = column.help;
    const orders = this.data.ids ? column.orders.map(([order]) => order) : undefined;
    if (column.kind === "line" || orders?.length === 0) {
      found.append(element("span", "", column.label));
      return found;
    }
    const button = element("button", "", column.label);
    button.dataset.focus = `sort ${place}`;
    button.addEventListener("click", () => {
      if (orders) {
        this.reportOrder(orders[orders.indexOf(this.data.order) + 1] ?? "");
        if (this.changes.size) this.reportChanges(); // with the order: of two messages that wait, only the newer counts
        return;
      }
      this.sort = nextSort(this.sort, place, column.label);
      this.draw();
    });
    const chosen = orders?.indexOf(this.data.order) ?? -1;
    if (chosen >= 0) found.ariaSort = column.orders[chosen][1];
    if (this.sort?.place === place && this.sort.label === column.label) {
      found.ariaSort = this.sort.descending ? "descending" : "ascending";
    }
    found.append(button);
    return found;
  }

  row(columns, row, ids) {
    const found = element("tr");
    if (ids) {
      const id = this.data.ids[row];
      const box = tick(`Select ${columns[0].cells[row]}`, `select ${id}`, (event) => this.clicked(id, ids, event));
      this.boxes.set(id, box);
      found.append(element("td", "tick", box));
    }
    const link = this.data.links?.[row];
    found.append(...columns.map((column, place) => cell(column, row, place === 0, place === 0 && link)));
    return found;
  }
}

const tables = new WeakMap();

export default function ({ data, parentElement, setTriggerValue }) {
  const host = parentElement.querySelector(".runs");
  if (!tables.has(host)) tables.set(host, new Table(host));
  const report = (name) => (value) => setTriggerValue(name, value);
  tables.get(host).update(data, report("changes"), report("order"));
}
