// Back returns to a page as it was left. When a link opens another page, Streamlit's client adds two entries to the
// history: first the query of the new page on the path of the old one, which nobody has seen. It is left out here. And a
// page that Back returns to is scrolled to where it was.

const LINK = 'a[data-testid="stPageLink-NavLink"]';
const APP = '[data-testid="stApp"]';
const MAIN = '[data-testid="stMain"]';
const MAX_WAIT_MS = 10_000; // for a page that is drawn

const places = () => JSON.parse(sessionStorage.getItem("lossguard-places") ?? "{}");
let opening; // path of the page that a link opens
let scrolling; // back to where the page was

function push(state, title, url) {
  const path = new URL(url, location).pathname;
  if (opening !== undefined && path !== opening && path === location.pathname) return;
  opening = undefined;
  clearInterval(scrolling);
  History.prototype.pushState.call(history, state, title, url);
}

function scrollBack() {
  const place = places()[location.href];
  const since = Date.now();
  clearInterval(scrolling);
  if (!place) return;
  scrolling = setInterval(() => {
    const main = document.querySelector(MAIN);
    if (main) main.scrollTop = place;
    if (main?.scrollTop >= place - 1 || Date.now() - since > MAX_WAIT_MS) clearInterval(scrolling);
  }, 100);
}

history.pushState = push;
addEventListener("popstate", scrollBack);
addEventListener("wheel", () => clearInterval(scrolling), { passive: true });
addEventListener("click", (event) => {
  const link = event.target.closest?.(LINK);
  const main = document.querySelector(MAIN);
  if (!link || !main) return;
  const path = new URL(link.href).pathname;
  if (document.querySelector(APP)?.dataset.testConnectionState !== "CONNECTED") return; // it opens nothing
  opening = path === location.pathname ? undefined : path;
  sessionStorage.setItem("lossguard-places", JSON.stringify({ ...places(), [location.href]: main.scrollTop }));
}, true);
