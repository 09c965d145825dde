// Says in our words that the dashboard does not answer, in place of Streamlit's dialog, which speaks of its own server.

const NOTICE_MS = 1000; // a shorter interruption is not worth a notice
const CONNECTED = "CONNECTED";

function notice() {
  const found = document.createElement("div");
  found.className = "lossguard-connection";
  found.setAttribute("role", "alert");
  return found;
}

// Streamlit shows its dialog once per outage unless it was closed: its state remembers that.
function closeDialog() {
  for (const dialog of document.querySelectorAll('[role="dialog"]:not([data-testid="stDialog"])')) {
    if (/^Connection error/.test(dialog.textContent)) dialog.querySelector('button[aria-label="Close"]')?.click();
  }
}

function watch(app) {
  const shown = notice();
  let timer;
  let dialogs;
  let lastConnected;

  function tell() {
    const since = lastConnected === undefined ? "" : ` since ${lastConnected.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false })}`;
    shown.textContent = `The dashboard has not answered${since}. What you see may be out of date. This page connects again by itself.`;
    document.body.append(shown);
    document.body.classList.add("lossguard-disconnected");
  }

  function changed() {
    const isConnected = app.dataset.testConnectionState === CONNECTED;
    if (isConnected) {
      clearTimeout(timer);
      clearInterval(dialogs);
      timer = dialogs = undefined;
      shown.remove();
      document.body.classList.remove("lossguard-disconnected");
    } else if (timer === undefined) {
      if (app.dataset.lossguardSeen) lastConnected = new Date();
      timer = setTimeout(tell, NOTICE_MS);
      dialogs = setInterval(closeDialog, 100);
    }
    if (isConnected) app.dataset.lossguardSeen = "yes";
  }

  new MutationObserver(changed).observe(app, { attributes: true, attributeFilter: ["data-test-connection-state"] });
  changed();
}

const FIELD = ".stForm input, .stForm textarea";

// The field of a dialog has the focus once the dialog is open: first the one that confirms it. A person who already
// types into another field of its form keeps it. The dialog itself takes the focus, too, and may do so later than its
// field is there: the field has it for good when it still has it at the next look.
let isLooking = false;

function focusDialog() {
  const dialog = document.querySelector('[data-testid="stDialog"]');
  const field = dialog?.querySelector(".st-key-confirm-word input") ?? dialog?.querySelector(FIELD);
  if (!field || dialog.dataset.focused || isLooking) return;
  if (document.activeElement?.matches(FIELD)) {
    dialog.dataset.focused = "yes";
    return;
  }
  field.focus();
  isLooking = true;
  setTimeout(() => {
    isLooking = false;
    focusDialog();
  }, 100);
}

function start() {
  const app = document.querySelector('[data-testid="stApp"]');
  if (app === null) setTimeout(start, 200);
  else watch(app);
  if (app !== null) new MutationObserver(focusDialog).observe(document.body, { childList: true, subtree: true });
}

start();
