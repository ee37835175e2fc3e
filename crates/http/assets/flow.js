// The users who entered and left a segment over time, where the store knows them.
"use strict";
{
  const RELOAD_MS = 10000; // the least time between two requests
  const [WIDTH, HEIGHT, TOP, BOTTOM] = [1000, 200, 10, 26]; // as in charts that the service draws
  const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
  const short = { format: (number) => compact.format(number).replace("K", "k") };
  const TICKS = [60, 300, 600, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 345600, 604800, 1209600, 2592000];
  const MAX_TICKS = 8;
  const MAX_LARGER = 10;
  const section = byId("flow");

  // The next number that is easy to read, and can be halved.
  function nice(number) {
    const power = 10 ** Math.floor(Math.log10(Math.max(number, 2)));
    const candidates = [1, 1.2, 1.6, 2, 3, 4, 6, 8, 10].map((digit) => Math.round(digit * power));
    return candidates.find((candidate) => candidate >= number && candidate % 2 === 0);
  }

  // Entered above the line in the middle, left below it. A bar is for the `seconds` after its time.
  function chart(points, seconds) {
    const [from, to] = [points[0].at, points.at(-1).at + seconds];
    const [largest, next] = points.flatMap(({ entered, left }) => [entered, left]).toSorted((a, b) => b - a);
    // History that was loaded entered in one step, which would hide all others.
    const isCut = largest > MAX_LARGER * next && next > 0;
    const most = nice(isCut ? 2 * next : largest);
    const axes = drawn("svg", { class: "axes", width: "100%", height: TOP + HEIGHT + BOTTOM, overflow: "visible" });
    const area = drawn("svg", { class: "area", y: TOP, width: "100%", height: HEIGHT, viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none" });
    for (const row of [0, 1, 2, 3, 4]) {
      const y = (row * HEIGHT) / 4;
      axes.append(drawn("text", { class: "y", x: -8, y: TOP + y + 4 }, short.format(Math.abs((most * (2 - row)) / 2))));
      area.append(drawn("line", { x1: 0, x2: WIDTH, y1: y, y2: y }));
    }
    const step = TICKS.find((tick) => (to - from) / tick <= MAX_TICKS) ?? TICKS.at(-1);
    const bar = (WIDTH * seconds) / (to - from);
    for (const { at, entered, left } of points) {
      const x = ((at - from) / (to - from)) * WIDTH + bar * 0.1;
      const tall = (users) => ((Math.min(users, most) / most) * HEIGHT) / 2;
      area.append(drawn("rect", { class: "entered", x, width: bar * 0.8, y: HEIGHT / 2 - tall(entered), height: tall(entered) }));
      area.append(drawn("rect", { class: "left", x, width: bar * 0.8, y: HEIGHT / 2, height: tall(left) }));
    }
    axes.append(area, drawn("svg", { class: "ticks", y: TOP + HEIGHT, height: BOTTOM, overflow: "visible" }));
    const picture = element("div", "drawn", axes);
    picture.setAttribute("role", "img");
    const sum = (of) => points.reduce((all, point) => all + of(point), 0);
    const [entered, left] = [sum(({ entered }) => entered), sum(({ left }) => left)].map((number) => figures.format(number));
    picture.setAttribute("aria-label", `${entered} entered, ${left} left. The table has the numbers of each time.`);
    const legend = element("ul", "legend");
    legend.append(element("li", "entered", "Entered ", element("strong", "", entered)), element("li", "left", "Left ", element("strong", "", left)));
    const made = element("div", "chart", picture);
    Object.assign(made.dataset, { from, to, bar: seconds, step, table: "flow-points", classes: "entered left" });
    const cut = isCut ? [element("p", "notes", `The largest bar is cut off: ${users(largest)}.`)] : [];
    return [legend, ...cut, made];
  }

  function table(points) {
    const body = element("tbody");
    for (const { at, entered, left } of points.toReversed()) {
      const time = element("time");
      time.dateTime = new Date(at * 1000).toISOString();
      body.append(tableRow(time, figure(figures.format(entered)), figure(figures.format(left))));
    }
    const content = element("table", "", header([["Time", false], ["Entered", true], ["Left", true]]), body);
    const details = element("details", "points", element("summary", "", "Table of points"));
    details.append(scrolling("scroll", "Table of users who entered and left", content));
    details.id = "flow-points";
    return details;
  }

  let loadedAt = 0;
  async function load() {
    const place = byId("flow-chart");
    // What is being read stays.
    if (place.contains(document.activeElement) || document.hidden || Date.now() < loadedAt + RELOAD_MS) return;
    loadedAt = Date.now();
    // The page is refreshed with the range of now.
    const { api } = byId("flow-request").firstElementChild.dataset;
    const answer = await fetch(api, { cache: "no-store", signal: AbortSignal.timeout(15000) });
    if (!answer.ok) return;
    const { steps, step_seconds: seconds } = await answer.json();
    const known = steps
      .filter(({ entered, left }) => entered != null && left != null)
      .map(({ at, entered, left }) => ({ at: Date.parse(at) / 1000, entered, left }));
    if (known.length === 0) return;
    if (known.every(({ entered, left }) => entered + left === 0)) {
      place.replaceChildren(element("p", "quiet", "No user entered or left in this range."));
      section.hidden = false;
      return;
    }
    const wasOpen = byId("flow-points")?.open;
    place.replaceChildren(...chart(known, seconds), table(known));
    byId("flow-points").open = Boolean(wasOpen);
    section.hidden = false;
    document.dispatchEvent(new Event("refreshed"));
  }
  if (section) {
    const reload = () => load().catch(() => undefined);
    document.addEventListener("refreshed", reload);
    reload();
  }
}
