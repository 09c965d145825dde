// The buttons of a chart in plotly's mode bar: full screen, PNG, CSV, link. Icons: Material Design (Apache-2.0).

const ICONS = {
  in: "M19 13h-6v6h-2v-6H5v-2h6V5h2v6h6v2z",
  out: "M19 13H5v-2h14v2z",
  all: "M9.5 20.5 3.5 12l6-8.5V10h5V3.5l6 8.5-6 8.5V14h-5z",
  png: "M21 19V5a2 2 0 0 0-2-2H5a2 2 0 0 0-2 2v14a2 2 0 0 0 2 2h14a2 2 0 0 0 2-2zM8.5 13.5l2.5 3 3.5-4.5 4.5 6H5z",
  full: "M7 14H5v5h5v-2H7v-3zm-2-4h2V7h3V5H5v5zm12 7h-3v2h5v-5h-2v3zM14 5v2h3v3h2V5h-5z",
  csv: "M19 9h-4V3H9v6H5l7 7 7-7zM5 18v2h14v-2H5z",
  link:
    "M3.9 12a3.1 3.1 0 0 1 3.1-3.1h4V7H7a5 5 0 0 0 0 10h4v-1.9H7A3.1 3.1 0 0 1 3.9 12zM8 13h8v-2H8v2zm9-6h-4v1.9h4" +
    "a3.1 3.1 0 0 1 0 6.2h-4V17h4a5 5 0 0 0 0-10z",
};

function buttons(host, library) {
  const icon = (name) => ({ width: 24, height: 24, path: ICONS[name] });
  const tools = [
    "zoom2d",
    "pan2d",
    { name: "in", title: "Zoom in", icon: icon("in"), click: () => moveEnds(host, library, MOVES["+"]) },
    { name: "out", title: "Zoom out", icon: icon("out"), click: () => moveEnds(host, library, MOVES["-"]) },
    { name: "reset", title: "Show all", icon: icon("all"), click: () => showAll(host, library) },
    { name: "full", title: "Full screen", icon: icon("full"), click: () => toggleFullScreen(host) },
    { name: "png", title: "Download as PNG", icon: icon("png"), click: () => savePicture(host, library) },
  ];
  if (host.shown.csv) {
    tools.push({ name: "csv", title: "Download what is in view as CSV", icon: icon("csv"), click: () => saveValues(host) });
  }
  if (host.shown.view) {
    tools.push({ name: "link", title: "Copy a link to this view", icon: icon("link"), click: () => copyLink(host) });
  }
  return [tools];
}

function toggleFullScreen(host) {
  if (document.fullscreenElement) document.exitFullscreen();
  else host.parentElement.requestFullscreen().catch(() => say(host, "This browser has no full screen here."));
}

// With the theme's background, a title, and room for the whole legend. A picture has none of the page's fonts.
async function savePicture(host, library) {
  const style = getComputedStyle(host);
  const room = 44;
  const layout = {
    ...host.layout,
    paper_bgcolor: style.getPropertyValue("--st-background-color").trim() || "#ffffff",
    title: { text: host.shown.title, x: 0, xref: "paper", y: 1, yref: "container", yanchor: "top", pad: { t: 12 } },
    font: { ...host.layout.font, family: "sans-serif" },
    margin: { ...host.layout.margin, l: host.layout.margin.l + 12, t: host.layout.margin.t + room },
    height: host._fullLayout.height + room,
    width: Math.max(host.clientWidth, 900),
    xaxis: { ...host.layout.xaxis, range: host._fullLayout.xaxis.range.slice(), autorange: false },
  };
  layout.legend = { ...layout.legend, y: 1 - room / layout.height };
  const options = { format: "png", scale: 2, width: layout.width, height: layout.height, filename: fileName(host) };
  try {
    await library.downloadImage({ data: host.data, layout, config: {} }, options);
  } catch {
    say(host, "The picture could not be made: try again.");
  }
}

const fileName = (host) => host.shown.title.replace(/<[^>]*>/g, "").match(/[\w.]+/g)?.join("-").slice(0, 80) ?? "chart";

function saveValues(host) {
  const link = document.createElement("a");
  link.href = host.shown.csv;
  link.download = "";
  document.body.append(link);
  link.click();
  link.remove();
}

// navigator.clipboard exists only over https and on this machine.
async function copyLink(host) {
  try {
    await navigator.clipboard.writeText(location.href);
    say(host, "Link copied.");
  } catch {
    window.prompt("Copy this link:", location.href);
  }
}

// A short message over the chart.
function say(host, text) {
  host.parentElement.querySelector(".lossguard-message")?.remove();
  const message = document.createElement("div");
  message.className = "lossguard-message";
  message.role = "status";
  message.textContent = text;
  host.parentElement.append(message);
  setTimeout(() => message.remove(), 2500);
}
