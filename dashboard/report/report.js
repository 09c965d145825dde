// Draws the pictures of a report: each when it comes near the window, and all of them before it is printed.

const FONT_PIXELS = 12;

function draw(host) {
  const values = host.querySelector("script");
  if (values === null) return; // drawn already
  const { data, layout } = JSON.parse(values.textContent);
  values.remove();
  host.style.height = "";
  layout.font.size = FONT_PIXELS;
  const config = { displayModeBar: false, responsive: true };
  Plotly.newPlot(host, shortened(data, host), fitted(themed(layout, host), host), config);
  host.on("plotly_afterplot", () => scalable(host));
  scalable(host);
}

// A sheet of paper has another width than the window: report.css scales to it what has a view box and a ratio.
function scalable(host) {
  const { width, height } = host._fullLayout;
  host.style.aspectRatio = `${width} / ${height}`;
  for (const part of host.querySelectorAll("svg.main-svg")) part.setAttribute("viewBox", `0 0 ${width} ${height}`);
}

const pictures = [...document.querySelectorAll(".chart")];
const near = new IntersectionObserver(
  (changes) => changes.filter((change) => change.isIntersecting).forEach((change) => draw(change.target)),
  { rootMargin: "100%" },
);
pictures.forEach((host) => near.observe(host));
addEventListener("beforeprint", () => pictures.forEach(draw));
