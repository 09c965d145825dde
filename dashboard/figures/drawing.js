// How a figure is fitted into its place: on the dashboard's pages (component.js), and in a report (report/report.js).

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

// On a phone the legend needs more lines, and the buttons a line of their own above it.
function fitted(layout, host) {
  const isNarrow = host.clientWidth < 640 && layout.showlegend !== false;
  const more = isNarrow ? 84 : 0;
  layout.height += more;
  layout.margin.t += more;
  if (document.fullscreenElement === host.parentElement) layout.height = Math.max(layout.height, window.innerHeight);
  if (isNarrow) layout.legend.y = 1 - 26 / layout.height;
  return layout;
}

// A narrow figure names incidents by their numbers alone: "#3" instead of "#3 loss spike" (marks.py). A name that would
// cover the next marker is left to the hover text.
function shortened(traces, host) {
  const short = (trace) => (name, place) => {
    const side = trace.textposition[place] === "middle left" ? -1 : 1;
    const away = trace.meta.map((other) => side * (other - trace.meta[place]) * host.clientWidth);
    const isCovered = away.some((pixels, other) => (pixels > 0 && pixels < 32) || (pixels === 0 && other > place));
    return isCovered ? "" : host.clientWidth < 900 ? name.split(" ")[0] : name;
  };
  return traces.map((trace) => (trace.name === "incident" ? { ...trace, text: trace.text.map(short(trace)) } : trace));
}
