// Lists the incidents in data.rows; a click on a row reports its number as the trigger "chosen", or 0 for none.

function cell(content, className = "") {
  const found = document.createElement("td");
  found.className = className;
  found.append(content);
  return found;
}

function line(row, isChosen, choose) {
  const found = document.createElement("tr");
  found.className = isChosen ? "chosen" : "";
  const name = document.createElement("button");
  name.textContent = `#${row.number} ${row.kind}`;
  name.ariaExpanded = String(isChosen);
  const outcome = document.createElement("span");
  outcome.textContent = row.outcome;
  outcome.style.color = `var(--st-${row.color}-text-color, inherit)`;
  const link = document.createElement("a");
  link.href = row.url;
  link.textContent = "Open";
  link.ariaLabel = `Open incident ${row.number}`;
  found.append(cell(name), cell(row.onset, "steps"), cell(row.cost), cell(outcome), cell(link));
  found.addEventListener("click", (event) => {
    if (!event.composedPath().includes(link)) choose(isChosen ? 0 : row.number);
  });
  return found;
}

function header() {
  const found = document.createElement("tr");
  for (const [title, className] of [["Incident"], ["Onset", "steps"], ["Cost"], ["Outcome"], [""]]) {
    const th = document.createElement("th");
    th.className = className ?? "";
    th.textContent = title;
    found.append(th);
  }
  return found;
}

export default function ({ data, parentElement, setTriggerValue }) {
  const host = parentElement.querySelector(".incidents");
  const content = JSON.stringify(data);
  if (host.dataset.content === content) return; // keeps the focus while a live page is refreshed
  const focused = [...host.querySelectorAll("button")].indexOf(host.getRootNode().activeElement);
  host.dataset.content = content;
  const table = document.createElement("table");
  const choose = (number) => setTriggerValue("chosen", number);
  table.createTHead().append(header());
  table.createTBody().append(...data.rows.map((row) => line(row, row.number === data.chosen, choose)));
  host.replaceChildren(table);
  if (focused >= 0) host.querySelectorAll("button")[focused]?.focus();
}
