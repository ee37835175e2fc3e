// The users that segments share: a drawing of circles, a matrix, and the pairs that share the most.
"use strict";
{
  const POLL_MS = 10000;

  const named = (name) => element("bdi", "", name);
  const times = (lift) => `${lift >= 10 ? figures.format(Math.round(lift)) : lift.toFixed(1)}×`;
  // Lift in words.
  const likely = (lift) => (lift > 1.05 || lift < 0.95 ? `${times(lift)} as many as by chance` : "as many as by chance");

  async function ask(address) {
    const answer = await fetch(address, { cache: "no-store", signal: AbortSignal.timeout(30000) });
    const body = await answer.json();
    if (!answer.ok) throw Object.assign(new Error(body.detail), { isAnswer: true });
    return body;
  }
  function failed(place, error) {
    const detail = error.isAnswer && error.message;
    const text = detail ? `${detail[0].toUpperCase()}${detail.slice(1)}.` : "The service can't be reached.";
    place.replaceChildren(element("p", "failed", text));
  }
  // Asks again while the page is visible.
  function keep(load) {
    const again = async () => {
      if (!document.hidden) await load();
      setTimeout(again, POLL_MS);
    };
    again();
  }

  // The area that two circles share at a distance.
  function lens(r, s, distance) {
    if (distance >= r + s) return 0;
    if (distance <= Math.abs(r - s)) return Math.PI * Math.min(r, s) ** 2;
    const angle = (own, other) =>
      2 * Math.acos(Math.min(1, Math.max(-1, (distance ** 2 + own ** 2 - other ** 2) / (2 * distance * own))));
    const [a, b] = [angle(r, s), angle(s, r)];
    return (r ** 2 * (a - Math.sin(a)) + s ** 2 * (b - Math.sin(b))) / 2;
  }
  // The distance at which two circles share an area.
  function distanceFor(r, s, area) {
    let [near, far] = [Math.abs(r - s), r + s];
    for (let round = 0; round < 50; round++) {
      const middle = (near + far) / 2;
      if (lens(r, s, middle) > area) near = middle;
      else far = middle;
    }
    return (near + far) / 2;
  }
  // Circles whose areas, and whose shared areas two by two, are in proportion to users; and whether that was possible.
  function circles(own, both) {
    const radii = own.map((users) => Math.sqrt(users / Math.PI));
    const apart = (i, j) => distanceFor(radii[i], radii[j], both[i][j]);
    const [first] = radii;
    if (own.length === 2) {
      return { exact: true, placed: [{ x: 0, y: 0, r: first }, { x: apart(0, 1), y: 0, r: radii[1] }] };
    }
    const [ab, ac, bc] = [apart(0, 1), apart(0, 2), apart(1, 2)];
    // The third circle where its distances to the others meet, or as near as they come.
    const x = ab === 0 ? 0 : (ab ** 2 + ac ** 2 - bc ** 2) / (2 * ab);
    const square = ac ** 2 - x ** 2;
    const y = Math.sqrt(Math.max(0, square));
    const placed = [{ x: 0, y: 0, r: first }, { x: ab, y: 0, r: radii[1] }, { x: Math.max(-ac, Math.min(ac, x)), y, r: radii[2] }];
    return { exact: false, placed };
  }

  function drawing(names, own, both) {
    const { exact, placed } = circles(own, both);
    const left = Math.min(...placed.map(({ x, r }) => x - r));
    const right = Math.max(...placed.map(({ x, r }) => x + r));
    const top = Math.min(...placed.map(({ y, r }) => y - r));
    const bottom = Math.max(...placed.map(({ y, r }) => y + r));
    const scale = Math.min(300 / (right - left), 220 / (bottom - top));
    const svg = drawn("svg", { class: "circles", width: "100%", height: 240, viewBox: "0 0 320 240", role: "img" });
    svg.setAttribute("aria-label", `Circles for ${names.join(", ")}. The tables have the numbers.`);
    const [middleX, middleY] = [(left + right) / 2, (top + bottom) / 2];
    placed.forEach(({ x, y, r }, place) => {
      const circle = { class: `s${place}`, cx: 160 + (x - middleX) * scale, cy: 120 + (y - middleY) * scale, r: r * scale };
      svg.append(drawn("circle", circle));
    });
    const note = exact
      ? "Areas are in proportion to users."
      : "Circles, and what they share two by two, are in proportion to users as far as circles allow. The area that all three share is an approximation; the table has exact numbers.";
    const legend = element("ul", "legend");
    names.forEach((name, place) => legend.append(element("li", `s${place}`, named(name), " ", element("strong", "", figures.format(own[place])))));
    return element("figure", "venn", svg, legend, element("figcaption", "notes", note));
  }

  const quoted = (name) => `"${name.replaceAll(/["\\]/g, "\\$&")}"`;
  // The users of each part of the drawing. Of three segments that takes the number of users in all of them.
  async function parts(names, own, both, window) {
    if (names.length === 2) {
      const shared = both[0][1];
      return [["both", shared], [`only ${names[0]}`, own[0] - shared], [`only ${names[1]}`, own[1] - shared]];
    }
    const expression = names.map(quoted).join(" AND ");
    const { users } = await ask(`/v1/count?expr=${encodeURIComponent(expression)}&window=${window}`);
    if (users === null) return undefined;
    // A user may have come between the two questions.
    const all = Math.min(users, both[0][1], both[0][2], both[1][2]);
    const pair = (i, j) => [`${names[i]} and ${names[j]} only`, both[i][j] - all];
    const single = (i, j, k) => [`only ${names[i]}`, Math.max(0, own[i] - both[i][j] - both[i][k] + all)];
    return [["all three", all], pair(0, 1), pair(0, 2), pair(1, 2), single(0, 1, 2), single(1, 0, 2), single(2, 0, 1)];
  }

  // A table under its title. It may be wider than a phone. With class `stack`, each row is a block of its own there, which
  // takes the roles from the elements.
  const ROLES = { table: "table", thead: "rowgroup", tbody: "rowgroup", tr: "row", td: "cell" };
  function table(caption, columns, rows, className = "parts") {
    const body = element("tbody", "", ...rows.map((cells) => tableRow(...cells)));
    const made = element("table", className, header(columns), body);
    made.setAttribute("aria-label", caption);
    for (const row of body.rows) [...row.cells].forEach((cell, place) => (cell.dataset.column = columns[place][0]));
    for (const part of [made, ...made.querySelectorAll("*")]) {
      const role = part.localName === "th" ? `${part.scope === "col" ? "column" : "row"}header` : ROLES[part.localName];
      if (role) part.setAttribute("role", role);
    }
    return element("div", "", element("p", "caption", caption), scrolling("wide", caption, made));
  }

  function partsTable(rows) {
    const all = rows.reduce((sum, [, users]) => sum + users, 0);
    const lines = rows.map(([name, users]) => [name, figure(figures.format(users)), figure(percent(users, all))]);
    return table(`${users(all)} in at least one of them`, [["Users in", false], ["Users", true], ["Share", true]], lines);
  }

  function matrix(names, own, both) {
    const rows = names.map((name, row) => [
      named(name),
      ...names.map((_, column) => {
        const cell = figure(both[row][column] === null ? "–" : figures.format(both[row][column]));
        if (both[row][column] === null || own[row] === null) return cell;
        if (row !== column) {
          cell.append(element("small", "", percent(both[row][column], own[row])));
          const tint = own[row] === 0 ? 0 : Math.round((both[row][column] / own[row]) * 55);
          cell.style.setProperty("--tint", `${tint}%`);
          cell.classList.add("tinted");
        } else cell.classList.add("own");
        return cell;
      }),
    ]);
    const heads = [["Segment", false], ...names.map((name) => [named(name), true])];
    return table("Users in both, and their share of the segment of the row", heads, rows, "parts matrix");
  }

  function pairs(names, own, both, everybody) {
    const rows = [];
    for (let i = 0; i < names.length; i++) {
      for (let j = i + 1; j < names.length; j++) {
        const shared = both[i][j];
        if ([shared, own[i], own[j]].includes(null)) continue;
        const lift = everybody > 0 && own[i] > 0 && own[j] > 0 ? (shared * everybody) / (own[i] * own[j]) : undefined;
        rows.push([
          element("span", "", named(names[i]), " and ", named(names[j])),
          figure(figures.format(shared)),
          figure(figures.format(own[i] - shared)),
          figure(figures.format(own[j] - shared)),
          figure(percent(shared, own[i] + own[j] - shared)),
          figure(lift === undefined ? "–" : likely(lift)),
        ]);
      }
    }
    const heads = [["Pair", false], ["In both", true], ["Only the first", true], ["Only the second", true], ["Similarity", true], ["Lift", true]];
    return table("Each pair. Similarity (Jaccard) is the share of the users of either who are in both.", heads, rows, "parts stack");
  }

  const overlap = document.getElementById("overlap");
  if (overlap) {
    const place = document.getElementById("overlap-result");
    const window = new URLSearchParams(overlap.dataset.api.split("?")[1]).get("window");
    keep(async () => {
      try {
        const { segments: names, both, everybody } = await ask(overlap.dataset.api);
        const own = names.map((_, index) => both[index][index]);
        const blocks = [];
        const isKnown = both.flat().every((users) => users !== null);
        if (!isKnown) {
          const text = "Numbers that would reveal a smaller group of users than this service shows are withheld.";
          blocks.push(element("p", "quiet", text));
        }
        const drawable = isKnown && names.length <= 3 && own.every((users) => users > 0);
        if (drawable) {
          const rows = await parts(names, own, both, window);
          blocks.push(element("div", "drawing", drawing(names, own, both), rows ? partsTable(rows) : ""));
        }
        if (names.length > 2) blocks.push(matrix(names, own, both));
        const each = pairs(names, own, both, everybody);
        if (names.length <= 3) blocks.push(each);
        else {
          const details = element("details", "points", element("summary", "", "Each pair"), each);
          details.id = "pairs";
          details.open = opened.has(details.id);
          blocks.push(details);
        }
        place.replaceChildren(...blocks);
      } catch (error) {
        failed(place, error);
      }
    });
  }

  const top = document.getElementById("top");
  if (top) {
    const place = document.getElementById("top-result");
    const kept = top.dataset.kept.replace("?", "&");
    keep(async () => {
      try {
        const { pairs: found } = await ask(top.dataset.api);
        if (found.length === 0) {
          place.replaceChildren(element("p", "quiet", "No two segments share a user in this window."));
          return;
        }
        const rows = found.map(({ a, b, both, jaccard, lift }) => {
          const link = element("a", "", named(a), " and ", named(b));
          link.href = `/compare?segment=${encodeURIComponent(a)}&segment=${encodeURIComponent(b)}${kept}`;
          return [link, figure(figures.format(both)), figure(percent(jaccard, 1)), figure(lift == null ? "–" : times(lift))];
        });
        const focused = document.activeElement?.getAttribute("href");
        const heads = [["Pair", false], ["In both", true], ["Similarity", true], ["Lift", true]];
        place.replaceChildren(table("The pairs that share the most", heads, rows));
        if (focused) [...place.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
      } catch (error) {
        failed(place, error);
      }
    });
  }
}
