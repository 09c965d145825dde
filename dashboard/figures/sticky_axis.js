// The tick labels of the x axis once more, at the lower edge of the window while the chart's own are below it.

function drawStickyAxis(host) {
  const strip = host.parentElement.querySelector(".lossguard-axis");
  const size = host._fullLayout?._size;
  if (!strip || !size || !panels(host.layout).length) return;
  const labels = [...host.querySelectorAll(".xaxislayer-above .xtick text, .xaxislayer-below .xtick text")];
  const left = host.getBoundingClientRect().left;
  const spans = labels.map((label) => {
    const box = label.getBoundingClientRect();
    const span = document.createElement("span");
    span.textContent = [...label.childNodes].map((line) => line.textContent).join(" "); // of a date: time and day
    span.style.left = `${box.left + box.width / 2 - left}px`;
    return span;
  });
  const title = document.createElement("b");
  title.textContent = host.layout.xaxis.title?.text ?? "";
  strip.replaceChildren(...spans, title);
  strip.style.height = `${STRIP_HEIGHT}px`;
  strip.style.marginTop = `${-STRIP_HEIGHT}px`;
  const end = title.offsetLeft + title.offsetWidth;
  title.hidden = spans.some((span) => span.offsetLeft - span.offsetWidth / 2 < end); // a date is wide
  followWindow(host, strip);
}

const STRIP_HEIGHT = 24;

// It is shown only while the chart's own axis is out of sight.
function followWindow(host, strip) {
  const axis = host.querySelector(".xaxislayer-above .xtick, .xaxislayer-below .xtick") ?? host;
  host.axisObserver?.disconnect();
  host.axisObserver = new IntersectionObserver(([end]) => {
    const isBelow = !end.isIntersecting && end.boundingClientRect.top > (end.rootBounds?.bottom ?? innerHeight) - 8;
    strip.classList.toggle("shown", isBelow);
  });
  host.axisObserver.observe(axis);
}
