// What a viewer did to a chart, host.view: hidden legend entries, collapsed panels, the ranges that were zoomed to, and
// `last`: the newest part of the run that stays in view, such as "10%" or "1000" steps.
// The page keeps it in the URL (views/chart.py). Each report has the next number, `turn`; the page says which one
// its figure answers, and one that answers an earlier report is not drawn: it was made for another view.

const ASK_AGAIN_MS = 1500;

function report(host, change) {
  Object.assign(host.view, change);
  if (!host.shown.view) return;
  host.link = undefined;
  host.turn += 1;
  if ("x" in change) {
    host.needed = host.turn;
    clearTimeout(host.askAgain);
    askAgain(host, ASK_AGAIN_MS);
  }
  host.send({ ...host.view, turn: host.turn, axis: host.layout?.meta?.x_axis });
}

// Until a figure for the present window is here.
function askAgain(host, wait) {
  host.askAgain = setTimeout(() => {
    if (!host.isConnected || isAnswered(host, host.shown.view)) return;
    askAgain(host, Math.min(2 * wait, 30_000));
    report(host, {});
  }, wait);
}

// Whether a figure was made for the viewer's present window.
function isAnswered(host, shown) {
  return !shown || shown.answers >= (host.needed ?? 0);
}

// Takes over the view of the URL: at first, and when the viewer follows a link or goes back. Returns whether it did.
function adopt(host, shown) {
  host.turn ??= 0;
  const isLate = shown && shown.answers < host.turn;
  if (host.view && (!shown || isLate || shown.link === null || shown.link === host.link)) return false;
  host.turn = Math.max(host.turn, shown?.answers ?? 0);
  host.startsOver = host.view !== undefined;
  host.link = shown?.link;
  const { y = {}, hidden = [], collapsed = [], last = null } = shown ?? {};
  host.view = { x: null, y, hidden, collapsed, last };
  return true;
}

// Keeps the viewer's range of x, also when the figure was made before the last zoom; another x axis starts over, and a
// view of the newest steps moves with them.
function withCurrentRange(layout, host) {
  const now = host._fullLayout;
  host.drawings = (host.drawings ?? 0) + 1;
  layout.xaxis.uirevision = host.drawings; // plotly is to keep no range by itself
  const startsOver = host.startsOver || host.view.last || now === undefined || now.uirevision !== layout.uirevision;
  host.startsOver = false;
  if (startsOver) {
    host.view.x = null; // it was in the units of the other axis
    return;
  }
  layout.xaxis = { ...layout.xaxis, autorange: now.xaxis.autorange };
  layout.xaxis.range = now.xaxis.autorange ? undefined : now.xaxis.range.slice();
}

// The ranges of y that the viewer zoomed to, else those of the figure.
function withZoomedPanels(layout, host) {
  host.framed = {};
  for (const [metric, name] of panels(layout)) {
    const axis = layout[name];
    host.framed[name] = axis.range?.slice();
    axis.uirevision = host.drawings;
    const zoomed = host.view.y[metric];
    if (zoomed === undefined) continue;
    axis.range = axis.type === "log" ? zoomed.map((bound) => Math.log10(Math.max(bound, Number.MIN_VALUE))) : zoomed;
    axis.autorange = false;
  }
  layout.legend = { ...layout.legend, uirevision: host.drawings };
}

// [metric, name of its y axis in the layout] of each panel from the top down.
function panels(layout) {
  return (layout.meta?.panels ?? []).map(([metric, axis]) => [metric, axis.replace("y", "yaxis")]);
}

const entry = (trace) => trace.legendgroup || trace.name;

function withHiddenEntries(traces, hidden) {
  return traces.map((trace) => (hidden.includes(entry(trace)) ? { ...trace, visible: "legendonly" } : trace));
}

// The panels that begin below the window. The first drawing leaves them out: the browser is idle after it.
function belowWindow(layout, host) {
  const { top } = host.getBoundingClientRect();
  const inside = layout.height - layout.margin.t - layout.margin.b;
  const upper = ([, name]) => top + layout.margin.t + (1 - layout[name].domain[1]) * inside;
  const [first, ...others] = panels(layout);
  if (first === undefined || upper(first) > window.innerHeight) return [];
  return others.filter((panel) => upper(panel) > window.innerHeight).map(([metric]) => metric);
}

// Leaves out the values of collapsed panels, and all of the panels that are drawn `later`; the titles of collapsed ones
// move together. Paper coordinates run from 0 at the bottom.
function collapse(layout, traces, collapsed, later) {
  layout.annotations = layout.annotations?.filter((note) => !later.includes(note.name));
  const closed = panels(layout).filter(([metric]) => collapsed.includes(metric) || later.includes(metric));
  const domains = closed.map(([, name]) => layout[name].domain);
  const removed = domains.reduce((sum, [bottom, top]) => sum + top - bottom, 0);
  const squeeze = (y) => {
    const below = domains.reduce((sum, [bottom, top]) => sum + Math.max(0, Math.min(y, top) - bottom), 0);
    return Math.min(1, Math.max(0, (y - below) / (1 - removed)));
  };
  for (const note of layout.annotations ?? []) {
    if (panels(layout).some(([metric]) => metric === note.name)) {
      note.text = `${collapsed.includes(note.name) ? "\u25b8" : "\u25be"} ${note.text}`;
    }
  }
  if (!closed.length) return traces;
  const inside = layout.height - layout.margin.t - layout.margin.b;
  layout.height -= removed * inside;
  const gone = new Set();
  for (const [name, axis] of Object.entries(layout)) {
    if (!/^yaxis\d*$/.test(name) || !axis.domain) continue;
    const [bottom, top] = axis.domain;
    if (domains.some(([low, high]) => low <= bottom && top <= high)) gone.add(name.replace("yaxis", "y"));
    axis.domain = [squeeze(bottom), squeeze(top)];
  }
  for (const axis of gone) delete layout[axis.replace("y", "yaxis")];
  for (const note of layout.annotations ?? []) if (note.yref === "paper") note.y = squeeze(note.y);
  layout.shapes = (layout.shapes ?? []).filter((shape) => !gone.has(shape.yref?.split(" ")[0]));
  for (const shape of layout.shapes) {
    if (shape.yref === "paper") [shape.y0, shape.y1] = [squeeze(shape.y0), squeeze(shape.y1)];
  }
  if (gone.has(layout.xaxis.anchor)) Object.assign(layout.xaxis, { anchor: "free", position: 0 });
  return withLegend(traces, (trace) => !gone.has(trace.yaxis ?? "y"));
}

// The traces that are kept; one takes the place in the legend of the trace of its group that is not.
function withLegend(traces, isKept) {
  const lost = new Set(traces.filter((trace) => trace.showlegend && !isKept(trace)).map(entry));
  return traces.filter(isKept).map((trace) => {
    if (trace.mode === undefined || trace.hoverinfo === "skip" || !lost.delete(entry(trace))) return trace;
    return { ...trace, showlegend: true };
  });
}

// Plotly writes a date as "2026-11-25 03:12:00.5", in the time zone for which the figure was made.
function number(value) {
  return typeof value === "string" ? Date.parse(`${value.replace(" ", "T")}Z`) : value;
}

// What a relayout changed of an axis: its range, [] for all of it, undefined when it did not change.
function rangeOf(change, name) {
  if (change[`${name}.autorange`]) return [];
  const range = change[`${name}.range`] ?? [change[`${name}.range[0]`], change[`${name}.range[1]`]];
  return range?.[0] === undefined ? undefined : range;
}

// Called after every zoom.
function reportZoom(host, change) {
  const x = rangeOf(change, "xaxis")?.map(number);
  const y = { ...host.view.y };
  let isNew = x !== undefined;
  for (const [metric, name] of panels(host.layout)) {
    const range = rangeOf(change, name);
    if (range === undefined) continue;
    isNew = true;
    const isFramed = !range.length || host.framed[name]?.every((bound, end) => bound === range[end]);
    if (isFramed) delete y[metric];
    else y[metric] = host.layout[name].type === "log" ? range.map((bound) => 10 ** bound) : range;
  }
  if (isNew) report(host, x === undefined ? { y } : { x, y, last: null });
}

// The whole run, and every panel as the figure frames it.
function showAll(host, library) {
  const change = { "xaxis.autorange": true };
  for (const [name, range] of Object.entries(host.framed)) {
    if (!host._fullLayout[name]) continue; // its panel is collapsed
    if (range) change[`${name}.range`] = range.slice();
    else change[`${name}.autorange`] = true;
  }
  library.relayout(host, change);
}

// The buttons above a run's chart (component.py): which of them describes what is in view, and what they do.
function showPresets(host, library) {
  const row = host.parentElement.querySelector(".lossguard-presets");
  row.hidden = host.shown.view?.last === undefined;
  if (row.hidden) return;
  const { last } = host.view;
  const isWhole = !last && host._fullLayout.xaxis.autorange;
  for (const button of row.children) {
    const isFollow = button.value === "follow";
    button.ariaPressed = isFollow ? Boolean(last) : button.value === (last || (isWhole ? "all" : ""));
    button.disabled = isFollow && isWhole;
    button.onclick = () => {
      if (button.value === "all") showAll(host, library);
      else if (isFollow && last) report(host, { x: host._fullLayout.xaxis.range.map(number), last: null });
      else report(host, { x: null, last: button.value });
    };
  }
}

function reportHidden(host) {
  const hidden = [...new Set(host._fullData.filter((trace) => trace.visible === "legendonly").map(entry))];
  if (hidden.join("\n") !== host.view.hidden.join("\n")) report(host, { hidden });
}

function togglePanel(host, metric) {
  if (!panels(host.layout).some(([name]) => name === metric)) return;
  const without = host.view.collapsed.filter((name) => name !== metric);
  const isOpen = without.length === host.view.collapsed.length;
  report(host, { collapsed: isOpen ? [...without, metric] : without });
  draw(host);
}
