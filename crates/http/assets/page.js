// Keeps the page current. Everything on it is rendered by the service and works without this script.
"use strict";

const POLL_MS = 3000; // the polling interval without events
const SLOW_POLL_MS = 30000; // the polling interval with events, which do not include changes and trend lines
const PATIENCE_MS = 15000; // the timeout of a request
const figures = new Intl.NumberFormat("en-US");
const byId = (id) => document.getElementById(id);

// The colour theme.
const theme = byId("theme");
const isDark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};
const nameTheme = () => {
  theme.textContent = isDark() ? "Light colours" : "Dark colours";
};
theme.hidden = false;
nameTheme();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);
theme.addEventListener("click", () => {
  const next = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem("theme", next);
  } catch {
    // Storage is blocked: the choice applies to this page only.
  }
  nameTheme();
});

// Fetches the page and replaces its parts. The focus is preserved.
let address = location.pathname + location.search;
let shownAt = performance.now();
let latest = 0;
async function refresh() {
  const turn = ++latest;
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const answer = await fetch(address, { headers: { accept: "text/html" }, cache: "no-store", signal });
  if (answer.redirected && new URL(answer.url).pathname === "/sign-in") {
    location.reload();
    return;
  }
  const text = await answer.text();
  if (turn !== latest) return; // a later request is in flight
  const fresh = new DOMParser().parseFromString(text, "text/html");
  // Every page of the service contains its state, also with a 503. An error page of a proxy does not.
  if (!fresh.querySelector("#banner [data-kind]")) throw new Error("no page");
  for (const part of document.querySelectorAll("[data-part]")) {
    const now = fresh.getElementById(part.id);
    if (now) replace(part, now);
  }
  shownAt = performance.now();
  ahead = clockAhead();
}

// How far the service's clock is ahead of the browser's: ages are relative to the service's clock.
const clockAhead = () => {
  const now = document.querySelector("#banner [data-now]")?.dataset.now;
  return now ? Number(now) - Date.now() : 0;
};
let ahead = clockAhead();

function replace(part, now) {
  const before = new Map();
  for (const row of part.querySelectorAll("[data-segment]")) {
    before.set(row.dataset.segment, row.querySelector("[data-users]").textContent);
  }
  const held = part.contains(document.activeElement) ? document.activeElement : null;
  const focused = held && { link: held.getAttribute("href"), text: held.textContent };
  part.innerHTML = now.innerHTML;
  if (focused) {
    const links = [...part.querySelectorAll("a")];
    const same = links.find((link) => link.getAttribute("href") === focused.link);
    (same ?? links.find((link) => link.textContent === focused.text))?.focus();
  }
  for (const row of part.querySelectorAll("[data-segment]")) {
    const users = row.querySelector("[data-users]");
    const old = before.get(row.dataset.segment);
    if (old !== undefined && old !== users.textContent) flash(users);
  }
}

function flash(element) {
  element.classList.remove("changed");
  void element.offsetWidth; // restarts the animation
  element.classList.add("changed");
}

// Ages advance between two requests.
function words(seconds) {
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}
setInterval(() => {
  for (const age of document.querySelectorAll("[data-age]")) {
    const since = Number(age.dataset.shown ?? shownAt);
    const text = words(Number(age.dataset.age) + Math.floor((performance.now() - since) / 1000));
    if (age.textContent !== text) age.textContent = text;
  }
}, 1000);

// Polling and events.
const live = byId("live");
const tell = (text, kind) => {
  if (live.textContent !== text) live.textContent = text;
  live.dataset.kind = kind;
};
let pushed = false;
let reachable = true;
let reachedAt = new Date();
let timer;
const isLive = document.querySelector("[data-part]") !== null;
const offline = byId("offline");
const kind = () => document.querySelector("#banner [data-kind]")?.dataset.kind;
// Green only while the page has current counts. Neither events nor a response of the service imply that.
function mark() {
  if (!reachable) tell("Not connected; retrying", "bad");
  else if (kind() === "failed") tell("Counts not available; retrying", "bad");
  else if (kind() !== "good") tell("May be out of date", "old");
  else tell(pushed ? "Live" : "Updated every few seconds", "good");
  offline.hidden = reachable;
  const text = reachable ? "" : `The service can't be reached. These are the numbers of ${reachedAt.toLocaleTimeString()}.`;
  if (offline.textContent !== text) offline.textContent = text;
}
function again() {
  clearTimeout(timer);
  timer = setTimeout(look, pushed && reachable && kind() === "good" ? SLOW_POLL_MS : POLL_MS);
}
async function look() {
  clearTimeout(timer);
  if (!document.hidden) {
    try {
      await refresh();
      reachable = true;
      reachedAt = new Date();
    } catch {
      reachable = false;
    }
    mark();
  }
  again();
}
document.addEventListener("visibilitychange", () => {
  if (isLive && !document.hidden) look();
});

function counted({ segment, users, as_of }) {
  for (const row of document.querySelectorAll("[data-segment]")) {
    if (row.dataset.segment !== segment) continue;
    const cell = row.querySelector("[data-users]");
    const text = figures.format(users);
    if (cell.textContent !== text) {
      cell.textContent = text;
      flash(cell);
    }
    const age = row.querySelector("[data-age]");
    if (age) {
      const seconds = (Date.now() + ahead - Date.parse(as_of)) / 1000;
      age.dataset.age = String(Math.max(0, Math.floor(seconds)));
      age.dataset.shown = String(performance.now());
    }
    return true;
  }
  return false;
}

function listen() {
  const events = new EventSource(document.documentElement.dataset.events);
  let soon;
  events.addEventListener("open", () => {
    pushed = true;
    mark();
    again();
  });
  events.addEventListener("count", (event) => {
    // A segment that is not on the page may have to appear there now.
    if (!counted(JSON.parse(event.data))) soon ??= setTimeout(() => ((soon = undefined), look()), POLL_MS);
  });
  events.addEventListener("reset", look);
  events.addEventListener("error", () => {
    if (!pushed && events.readyState !== EventSource.CLOSED) return;
    pushed = false;
    mark();
    again();
  });
}

// Search while typing.
const search = byId("q");
if (search) {
  let typed;
  search.addEventListener("input", () => {
    clearTimeout(typed);
    typed = setTimeout(() => {
      const query = new URLSearchParams(new FormData(search.form));
      address = `/?${query}`;
      history.replaceState(null, "", address);
      look();
    }, 200);
  });
}

if (isLive) {
  mark();
  again();
  if (document.documentElement.dataset.events) listen();
}

// The count of a segment over the window of the slider. The field beside it accepts any other window.
const slider = byId("slider");
if (slider) {
  const form = byId("window-form");
  const field = byId("window");
  const result = byId("counted");
  const spelled = (seconds) => {
    const units = [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]];
    const parts = [];
    for (const [name, unit] of units) {
      const whole = Math.floor(seconds / unit);
      if (whole > 0) parts.push(`${whole}${name}`);
      seconds -= whole * unit;
    }
    return parts.join(" ");
  };
  let moved;
  let asked = 0;
  const say = (text, bad) => {
    result.textContent = text;
    result.classList.toggle("down", bad);
  };
  const count = async () => {
    const turn = ++asked;
    const window = field.value;
    try {
      const joint = form.dataset.api.includes("?") ? "&" : "?";
      const answer = await fetch(`${form.dataset.api}${joint}window=${encodeURIComponent(window)}`, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
      const body = await answer.json();
      if (turn !== asked) return;
      const stale = body.stale ? ": the last known count, because no source responds" : "";
      if (answer.ok) say(`${figures.format(body.users)} users in the last ${window}${stale}`, body.stale);
      else say(body.detail, true);
    } catch {
      if (turn === asked) say("The service can't be reached.", true);
    }
  };
  slider.parentElement.hidden = false;
  slider.addEventListener("input", () => {
    const text = spelled(Number(slider.value));
    byId("length").textContent = text;
    slider.setAttribute("aria-valuetext", text);
    field.value = text;
    clearTimeout(moved);
    moved = setTimeout(count, 120);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    count();
  });
}
