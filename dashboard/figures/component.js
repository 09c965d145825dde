// Draws the figure at the URL data.figure into one element that lives as long as its key; see component.py.

// The page's head loads the library (server.py); it is loaded here where that failed.
function plotly(script) {
  if (window.Plotly) return window.Plotly;
  window.lossguardPlotly ??= new Promise((resolve, reject) => {
    const tag = document.createElement("script");
    tag.src = script;
    tag.onload = () => resolve(window.Plotly);
    tag.onerror = () => {
      window.lossguardPlotly = undefined; // so that the next report tries again
      reject(new Error(`cannot load ${script}`));
    };
    document.head.appendChild(tag);
  });
  return window.lossguardPlotly;
}

// Text, grid and background follow the page, so that one figure serves the light and the dark theme.
function themed(layout, host) {
  const style = getComputedStyle(host);
  const color = (name) => style.getPropertyValue(`--st-${name}`).trim();
  const ink = color("text-color");
  for (const [name, axis] of Object.entries(layout)) {
    if (!/^[xy]axis\d*$/.test(name)) continue;
    axis.gridcolor = axis.linecolor = axis.tickcolor = axis.zerolinecolor = color("border-color-light") || color("border-color");
  }
  // Lines through all panels do not strike through their titles.
  for (const title of layout.annotations ?? []) title.bgcolor = color("background-color");
  layout.font = { ...layout.font, color: ink, family: color("font") || undefined };
  layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
  layout.legend = { ...layout.legend, bgcolor: "rgba(0,0,0,0)" };
  layout.hoverlabel = {
    ...layout.hoverlabel,
    bgcolor: color("secondary-background-color"),
    bordercolor: color("border-color"),
    font: { color: ink },
  };
  return layout;
}

// On a phone the legend needs more lines.
function fitted(layout, host) {
  const more = host.clientWidth < 640 && layout.showlegend !== false ? 60 : 0;
  layout.height += more;
  layout.margin.t += more;
  host.style.minHeight = `${layout.height}px`;
  return layout;
}

// A narrow figure names incidents by their numbers alone: "#3" instead of "#3 loss spike" (marks.py). A number that would
// cover the next marker is left to the hover text.
function shortened(traces, host) {
  if (host.clientWidth >= 900) return traces;
  const short = (trace) => (name, place) => {
    const side = trace.textposition[place] === "middle left" ? -1 : 1;
    const away = trace.meta.map((other) => side * (other - trace.meta[place]) * host.clientWidth);
    return away.some((pixels) => pixels > 0 && pixels < 32) ? "" : name.split(" ")[0];
  };
  return traces.map((trace) => (trace.name === "incident" ? { ...trace, text: trace.text.map(short(trace)) } : trace));
}

// Opens the page of the incident whose marker, or name beside it, was clicked: plotly keeps the address as its id (marks.py).
function openIncident(event, host) {
  const inside = ({ left, right, top, bottom }) =>
    left <= event.clientX && event.clientX <= right && top <= event.clientY && event.clientY <= bottom;
  const isClicked = (mark) => mark.__data__?.id?.startsWith("/incident?") && inside(mark.getBoundingClientRect());
  const mark = [...host.querySelectorAll("path.point, g.textpoint")].find(isClicked);
  if (mark === undefined) return;
  if (event.ctrlKey || event.metaKey) window.open(mark.__data__.id);
  else window.location.assign(mark.__data__.id);
}

// The range of the x axis after a zoom: [first, last], [] for all of it, undefined when x did not change.
function bounds(change) {
  if (change["xaxis.autorange"]) return [];
  const range = change["xaxis.range"] ?? [change["xaxis.range[0]"], change["xaxis.range[1]"]];
  return range[0] === undefined ? undefined : range.map(number);
}

// Plotly writes a date as "2026-11-25 03:12:00.5", in the time zone for which the figure was made.
function number(value) {
  return typeof value === "string" ? Date.parse(`${value.replace(" ", "T")}Z`) : value;
}

// Keeps the viewer's range of x, also when the figure was made before the last zoom; another x axis starts over.
function withCurrentRange(layout, host) {
  const now = host._fullLayout;
  if (now === undefined || now.uirevision !== layout.uirevision) return layout;
  layout.xaxis = { ...layout.xaxis, autorange: now.xaxis.autorange };
  layout.xaxis.range = now.xaxis.autorange ? undefined : now.xaxis.range.slice();
  return layout;
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// The figure, once the server has it; undefined when another one is requested by then.
async function fetched(url, host) {
  for (let wait = 250; host.requested === url; wait = Math.min(2 * wait, 4000)) {
    try {
      const answer = await fetch(url);
      if (answer.ok) return await answer.json();
    } catch {
      // the server is unavailable: try again
    }
    await pause(wait);
  }
  return undefined;
}

// A figure outside the viewport waits until the browser is idle.
async function untilVisibleOrIdle(host) {
  if (host.leave || host.getBoundingClientRect().top < window.innerHeight) return;
  await new Promise((resolve) => requestIdleCallback(resolve, { timeout: 1000 }));
}

async function draw(host, data) {
  const [library, figure] = await Promise.all([plotly(data.script), fetched(data.figure, host), untilVisibleOrIdle(host)]);
  while (host._dragging) await pause(50); // a drawing in the middle of a drag would end it
  if (figure === undefined || host.requested !== data.figure) return;
  const layout = withCurrentRange(fitted(themed(figure.layout, host), host), host);
  // A double click shows the whole run, also when the page was opened with a window.
  const buttons = ["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "autoScale2d", "toImage"];
  const config = { displaylogo: false, doubleClick: "autosize", modeBarButtons: [buttons] };
  await library.react(host, shortened(figure.data, host), layout, config);
  host.leave ??= bind(host, library);
  host.dataset.drawn = data.figure;
}

export default async function ({ data, parentElement, setStateValue }) {
  const host = parentElement.querySelector(".lossguard-figure");
  const ink = getComputedStyle(host).getPropertyValue("--st-text-color");
  host.reportWindow = setStateValue;
  host.tabIndex = 0;
  host.role = "application";
  host.ariaLabel = `${data.label}: arrow keys move along x, plus and minus zoom, 0 shows all of it`;
  host.style.minHeight ||= `${data.height}px`; // reserves the space before the first drawing
  if (host.requested !== data.figure || host.ink !== ink) {
    host.requested = data.figure;
    host.ink = ink;
    await draw(host, data);
  }
  // Also called when a newer call replaces this one: the element is still on the page then.
  return () => {
    if (host.isConnected) return;
    host.requested = undefined;
    host.leave?.();
  };
}

// For the keyboard: arrows move along x, + and - zoom, 0 shows all of it.
function pressed(event, host, library) {
  const axis = host._fullLayout.xaxis;
  const [first, last] = axis.range.map((bound) => axis.r2l(bound));
  const width = last - first;
  const moves = {
    ArrowLeft: [-0.2, -0.2],
    ArrowRight: [0.2, 0.2],
    "+": [0.25, -0.25],
    "=": [0.25, -0.25],
    "-": [-0.5, 0.5],
  };
  if (event.ctrlKey || event.metaKey || event.altKey || !(event.key === "0" || event.key in moves)) return;
  event.preventDefault();
  const [left, right] = moves[event.key] ?? [];
  const range = [first + left * width, last + right * width].map((bound) => axis.l2r(bound));
  library.relayout(host, event.key === "0" ? { "xaxis.autorange": true } : { "xaxis.range": range });
}

// Once per element: reports zooms, handles keys, follows its size. Returns a function that undoes this.
function bind(host, library) {
  const onKey = (event) => pressed(event, host, library);
  const onClick = (event) => openIncident(event, host);
  host.addEventListener("click", onClick);
  host.addEventListener("keydown", onKey);
  host.on("plotly_relayout", (change) => {
    const window = bounds(change);
    if (window !== undefined) host.reportWindow("window", window);
  });
  const observer = new ResizeObserver(() => library.Plots.resize(host));
  observer.observe(host);
  return () => {
    host.removeEventListener("keydown", onKey);
    host.removeEventListener("click", onClick);
    observer.disconnect();
    library.purge(host);
    host.leave = undefined;
  };
}
