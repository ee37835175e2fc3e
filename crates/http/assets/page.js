// Keeps the page current. Everything on it is rendered by the service and works without this script.
"use strict";

// The polling interval without events. A page whose numbers take a walk over all users has a longer one.
const POLL_MS = Number(document.documentElement.dataset.poll ?? 3) * 1000;
const SLOW_POLL_MS = 30000; // the polling interval with events, which do not include changes and trend lines
const PATIENCE_MS = 15000; // the timeout of a request

// The colour theme.
const theme = byId("theme");
const isDark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};
const nameTheme = () => {
  theme.textContent = isDark() ? "☀" : "☾";
  theme.title = isDark() ? "Light colors" : "Dark colors";
  theme.setAttribute("aria-label", theme.title);
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
let latest = 0;
const opened = new Set();
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
  const held = document.activeElement;
  const place = held?.closest("[data-part]");
  for (const part of document.querySelectorAll("[data-part]")) {
    const now = fresh.getElementById(part.id);
    if (now) replace(part, now);
  }
  document.dispatchEvent(new Event("refreshed"));
  // Afterwards, because other scripts show what needs them.
  if (place && !held.isConnected) refocus(place, held);
}

// Tables that the reader has opened stay open.
document.addEventListener("toggle", ({ target }) => target.id && opened[target.open ? "add" : "delete"](target.id), true);

const received = new Map(); // the last content of each part
function replace(part, now) {
  // What is being typed or read stays.
  if (part.contains(document.activeElement) && document.activeElement.matches("input:not([type=checkbox])")) return;
  // A live region that is replaced by the same is announced again.
  if (received.get(part.id) === now.innerHTML) return;
  received.set(part.id, now.innerHTML);
  const before = new Map();
  for (const row of part.querySelectorAll("[data-segment]")) {
    before.set(row.dataset.segment, row.querySelector("[data-users]")?.textContent);
  }
  part.innerHTML = now.innerHTML;
  for (const details of part.querySelectorAll("details[id]")) details.open = opened.has(details.id);
  for (const row of part.querySelectorAll("[data-segment]")) {
    const users = row.querySelector("[data-users]");
    const old = before.get(row.dataset.segment);
    if (users && old !== undefined && old !== users.textContent) flash(users);
  }
}

// Focuses the element that has taken the place of `held`.
function refocus(part, held) {
  const same = (attribute) => (other) => other.getAttribute(attribute) === held.getAttribute(attribute);
  const others = [...part.querySelectorAll(held.localName)].filter(same("name"));
  const names = ["id", "href", "value", "data-star", "data-curl"].filter((name) => held.hasAttribute(name));
  const found = names.length > 0 && others.find((other) => names.every((name) => same(name)(other)));
  (found || others.find((other) => other.textContent === held.textContent))?.focus();
}

function flash(element) {
  element.classList.remove("changed");
  void element.offsetWidth; // restarts the animation
  element.classList.add("changed");
}

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
  else tell(pushed ? "Live" : "Up to date", "good");
  offline.hidden = reachable;
  const text = reachable ? "" : `The service can't be reached. These are the numbers of ${reachedAt.toLocaleTimeString()}.`;
  if (offline.textContent !== text) offline.textContent = text;
}
function again() {
  clearTimeout(timer);
  timer = setTimeout(look, pushed && reachable && kind() === "good" ? SLOW_POLL_MS : POLL_MS);
}
// Shows another address of the same page.
function show(other) {
  address = other;
  history.replaceState(null, "", address);
  return look();
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

function counted({ segment, users }) {
  for (const row of document.querySelectorAll("[data-segment]")) {
    if (row.dataset.segment !== segment) continue;
    // The event has the count over the segment's own window: the page is fetched instead.
    if ("otherWindow" in row.dataset) return false;
    const cell = row.querySelector("[data-users]");
    // The service words what is withheld.
    if (users === null || !cell) return users === null && !cell;
    const text = figures.format(users);
    if (cell.textContent !== text) {
      cell.textContent = text;
      flash(cell);
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
      const query = new URLSearchParams([...new FormData(search.form)].filter(([, value]) => value !== ""));
      show(`/?${query}`);
    }, 200);
  });
}

if (isLive) {
  mark();
  again();
  if (document.documentElement.dataset.events) listen();
}
