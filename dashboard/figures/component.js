// Draws the figure at the URL data.figure into one element that lives as long as its key; see component.py.

// The page's head loads the library (page_head.py); it is loaded here where that failed.
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

// A drawing takes the hover text away: it comes back, with the new values, while the pointer stays.
function hoverAgain(host, library, { clientX, clientY, target }) {
  const { subplot } = target.dataset;
  const plot = host.querySelector(`.nsewdrag[data-subplot="${subplot}"]`);
  if (plot) library.Fx.hover(host, { clientX, clientY, target: plot }, subplot);
}

const LOWER_PANELS_MS = 200;

async function draw(host) {
  const shown = host.shown;
  const [library, figure] = await Promise.all([plotly(shown.script), fetched(shown.figure, host), untilVisibleOrIdle(host)]);
  while (host._dragging) await pause(50); // a drawing in the middle of a drag would end it
  if (figure === undefined || host.requested !== shown.figure || !isAnswered(host, shown.view)) return;
  const { layout, data } = figure;
  let traces = data;
  const later = host.leave ? [] : belowWindow(layout, host);
  if (host.view) {
    withCurrentRange(layout, host);
    withZoomedPanels(layout, host);
    traces = withHiddenEntries(collapse(layout, data, host.view.collapsed, later), host.view.hidden);
  }
  fitted(themed(layout, host), host);
  const always = matchMedia("(hover: none)").matches; // on a phone nothing shows the buttons
  const config = {
    displaylogo: false,
    displayModeBar: always || "hover",
    doubleClick: false, // it would show all of y, not what the figure frames
    modeBarButtons: buttons(host, library),
  };
  if (!later.length) host.style.minHeight = `${layout.height}px`;
  const { pointed } = host;
  await library.react(host, shortened(traces, host), layout, config);
  if (pointed) hoverAgain(host, library, pointed);
  host.leave ??= bind(host, library);
  showPresets(host, library);
  host.dataset.drawn = shown.figure;
  if (later.length) setTimeout(() => host.isConnected && draw(host), LOWER_PANELS_MS);
  else requestIdleCallback(() => drawStickyAxis(host), { timeout: 500 });
}

export default async function ({ data, parentElement, setStateValue }) {
  const host = parentElement.querySelector(".lossguard-figure");
  const ink = getComputedStyle(host).getPropertyValue("--st-text-color");
  host.tabIndex = 0;
  host.role = "application";
  host.ariaLabel =
    `${data.label}: arrow keys move along x, plus and minus zoom, 0 shows all of it, ` +
    "1 to 9 collapse a panel or open it";
  host.style.minHeight ||= `${data.height}px`; // reserves the space before the first drawing
  host.send = (view) => setStateValue("view", view);
  host.shown ??= data;
  if (isAnswered(host, data.view)) {
    host.shown = data;
    if (adopt(host, data.view) || host.requested !== data.figure || host.ink !== ink) {
      host.requested = data.figure;
      host.ink = ink;
      await draw(host);
    }
  }
  // Also called when a newer call replaces this one: the element is still on the page then.
  return () => {
    if (host.isConnected) return;
    host.requested = undefined;
    host.leave?.();
  };
}

const MOVES = {
  ArrowLeft: [-0.2, -0.2],
  ArrowRight: [0.2, 0.2],
  "+": [0.25, -0.25],
  "=": [0.25, -0.25],
  "-": [-0.5, 0.5],
};

// Moves both ends of the x axis, by shares of its width.
function moveEnds(host, library, [left, right]) {
  const axis = host._fullLayout.xaxis;
  const [first, last] = axis.range.map((bound) => axis.r2l(bound));
  const width = last - first;
  library.relayout(host, { "xaxis.range": [first + left * width, last + right * width].map((bound) => axis.l2r(bound)) });
}

// For the keyboard: arrows move along x, + and - zoom, 0 shows all of it, 1 to 9 collapse a panel and open it again.
function pressed(event, host, library) {
  const isDigit = /^[0-9]$/.test(event.key);
  if (event.ctrlKey || event.metaKey || event.altKey || !(isDigit || event.key in MOVES)) return;
  event.preventDefault();
  if (event.key === "0") showAll(host, library);
  else if (isDigit) togglePanel(host, panels(host.layout)[event.key - 1]?.[0]);
  else moveEnds(host, library, MOVES[event.key]);
}

// Once per element: reports what a viewer does, handles keys, follows its size. Returns a function that undoes this.
function bind(host, library) {
  const onKey = (event) => pressed(event, host, library);
  const onClick = (event) => openIncident(event, host);
  host.addEventListener("click", onClick);
  const onFullScreen = () => draw(host);
  host.addEventListener("keydown", onKey);
  host.parentElement.addEventListener("fullscreenchange", onFullScreen);
  host.on("plotly_relayout", (change) => {
    reportZoom(host, change);
    showPresets(host, library);
  });
  host.on("plotly_hover", ({ event }) => (host.pointed = event));
  host.on("plotly_unhover", () => (host.pointed = undefined));
  host.on("plotly_restyle", () => reportHidden(host));
  host.on("plotly_doubleclick", () => showAll(host, library));
  host.on("plotly_clickannotation", ({ annotation }) => togglePanel(host, annotation.name));
  host.on("plotly_relayouting", () => drawStickyAxis(host));
  host.on("plotly_afterplot", () => drawStickyAxis(host));
  const observer = new ResizeObserver(() => library.Plots.resize(host));
  observer.observe(host);
  return () => {
    host.removeEventListener("keydown", onKey);
    host.removeEventListener("click", onClick);
    host.parentElement?.removeEventListener("fullscreenchange", onFullScreen);
    observer.disconnect();
    host.axisObserver?.disconnect();
    clearTimeout(host.askAgain);
    library.purge(host);
    host.leave = undefined;
  };
}
