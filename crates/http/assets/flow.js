// The users who entered and left a segment over time, where the store knows them.
"use strict";
{
  const SVG = "http://www.w3.org/2000/svg";
  const POLL_MS = 30000;
  const [WIDTH, HEIGHT, TOP, BOTTOM] = [1000, 200, 10, 26]; // as in charts that the service draws
  const numbers = new Intl.NumberFormat("en-US");
  const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
  const short = { format: (number) => compact.format(number).replace("K", "k") };
  const TICKS = [60, 300, 600, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 345600, 604800, 1209600, 2592000];
  const MAX_TICKS = 8;
  const MAX_LARGER = 10;
  const section = document.getElementById("flow");

  function element(name, className, ...content) {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.append(...content);
    return made;
  }
  function drawn(name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }
  // The next number that is easy to read, and can be halved.
  function nice(number) {
    const power = 10 ** Math.floor(Math.log10(Math.max(number, 2)));
    return Math.max(2, [1, 2, 4, 6, 8, 10].map((digit) => digit * power).find((candidate) => candidate >= number));
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
    const label = `${numbers.format(sum(({ entered }) => entered))} entered, ${numbers.format(sum(({ left }) => left))} left`;
    picture.setAttribute("aria-label", `${label}. The table has the numbers of each time.`);
    const made = element("div", "chart", picture);
    Object.assign(made.dataset, { from, to, bar: seconds, step, table: "flow-points", classes: "entered left" });
    const cut = isCut ? ` The largest bar is cut off: ${numbers.format(largest)} users.` : "";
    return [element("p", "notes", `${label} over this range.${cut}`), made];
  }

  function table(points) {
    const head = element("tr");
    for (const [text, className] of [["Time", ""], ["Entered", "figure"], ["Left", "figure"]]) {
      const cell = element("th", className, text);
      cell.scope = "col";
      head.append(cell);
    }
    const body = element("tbody");
    for (const { at, entered, left } of points.toReversed()) {
      const time = element("time");
      time.dateTime = new Date(at * 1000).toISOString();
      const cell = element("th", "", time);
      cell.scope = "row";
      body.append(element("tr", "", cell, element("td", "figure", numbers.format(entered)), element("td", "figure", numbers.format(left))));
    }
    const scroll = element("div", "scroll", element("table", "", element("thead", "", head), body));
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", "Table of users who entered and left");
    const details = element("details", "points", element("summary", "", "Table of points"), scroll);
    details.id = "flow-points";
    return details;
  }

  async function load() {
    const place = document.getElementById("flow-chart");
    // What is being read stays.
    if (place.contains(document.activeElement) || document.hidden) return;
    const answer = await fetch(section.dataset.api, { cache: "no-store", signal: AbortSignal.timeout(15000) });
    if (!answer.ok) return;
    const { steps, step_seconds: seconds } = await answer.json();
    const known = steps
      .filter(({ entered, left }) => entered != null && left != null)
      .map(({ at, entered, left }) => ({ at: Date.parse(at) / 1000, entered, left }));
    if (known.length === 0) return;
    const wasOpen = document.getElementById("flow-points")?.open;
    place.replaceChildren(...chart(known, seconds), table(known));
    document.getElementById("flow-points").open = Boolean(wasOpen);
    section.hidden = false;
    document.dispatchEvent(new Event("refreshed"));
  }
  if (section) again();
  function again() {
    load().catch(() => undefined).finally(() => setTimeout(again, POLL_MS));
  }
}
