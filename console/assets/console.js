// Refreshes the page while it is visible, and shows times in the zone of the viewer.
"use strict";

const REFRESH_MILLISECONDS = 3000;

function showLocalTimes() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (!time.title && !Number.isNaN(at.getTime())) {
      time.title = time.dateTime;
      time.textContent = at.toLocaleString();
    }
  }
}

function showStale(isStale) {
  document.getElementById("stale").hidden = !isStale;
}

function refresh() {
  const live = document.querySelector("[data-live]");
  if (!live || document.visibilityState !== "visible") {
    return;
  }
  // The focus of the keyboard, a text that is typed and one that is selected would be lost.
  const isInUse =
    live.contains(document.activeElement) || !document.getSelection().isCollapsed;
  if (!isInUse) {
    htmx.trigger(live, "refresh");
  }
}

document.addEventListener("htmx:afterSettle", () => {
  showStale(false);
  showLocalTimes();
});
document.addEventListener("htmx:sendError", () => showStale(true));
document.addEventListener("htmx:responseError", () => showStale(true));
document.addEventListener("visibilitychange", refresh);
setInterval(refresh, REFRESH_MILLISECONDS);
showLocalTimes();
