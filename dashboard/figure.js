// Draws data.figure into one element that lives as long as its key; see figure.py.

function plotly(script) {
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

// On a phone the legend takes more lines.
function fitted(layout, host) {
  const more = host.clientWidth < 640 ? 60 : 0;
  layout.height += more;
  layout.margin.t += more;
  host.style.minHeight = `${layout.height}px`; // holds the place before the first drawing
  return layout;
}

// The steps that a zoom shows: [first, last], [] for all of them, undefined when it was no zoom along the steps.
function steps(change) {
  if (change["xaxis.autorange"]) return [];
  const range = change["xaxis.range"] ?? [change["xaxis.range[0]"], change["xaxis.range[1]"]];
  return range[0] === undefined ? undefined : [Math.floor(range[0]), Math.ceil(range[1])];
}

export default async function ({ data, parentElement, setStateValue }) {
  const host = parentElement.querySelector(".lossguard-figure");
  const layout = fitted(themed(data.figure.layout, host), host);
  const library = await plotly(data.script);
  // A double click shows the whole run, also when the page was opened with a window.
  const buttons = ["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "autoScale2d", "toImage"];
  const config = { displaylogo: false, doubleClick: "autosize", modeBarButtons: [buttons] };
  await library.react(host, data.figure.data, layout, config);
  host.tellWindow = setStateValue;
  host.leave ??= bind(host, library);
  return host.leave;
}

// Once per element: tell zooms, follow its size. Returns what undoes that.
function bind(host, library) {
  host.on("plotly_relayout", (change) => {
    const window = steps(change);
    if (window !== undefined) host.tellWindow("window", window);
  });
  const observer = new ResizeObserver(() => library.Plots.resize(host));
  observer.observe(host);
  return () => {
    observer.disconnect();
    library.purge(host);
    host.leave = undefined;
  };
}
