// The live number of an expression over segments, and where an invalid one is wrong.
"use strict";
{
  const one = (id) => document.getElementById(id);
  const POLL_MS = 5000;
  const form = one("combine");
  const field = one("expr");
  const trouble = one("expression-error");
  const mark = one("expression-mark");
  const result = one("combined");
  const curl = one("combine-curl");
  const numbers = new Intl.NumberFormat("en-US");
  const window = form.dataset.window;
  let asked = 0;
  let timer;

  function element(name, className, ...content) {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.append(...content);
    return made;
  }
  const address = (expression) => `/v1/count?expr=${encodeURIComponent(expression)}&window=${window}`;
  const ask = async (expression) => {
    const answer = await fetch(address(expression), { cache: "no-store", signal: AbortSignal.timeout(15000) });
    return { ok: answer.ok, body: await answer.json() };
  };
  // A share of everybody needs the number of everybody, which a token for some segments may not ask for.
  let everybody;
  const countEverybody = () => {
    // It takes a walk over all users, so it is reused for a while.
    everybody ??= ask("*").then(({ ok, body }) => (ok ? body.users : undefined)).catch(() => undefined);
    setTimeout(() => (everybody = undefined), 30000);
    return everybody;
  };

  function percent(part, whole) {
    const share = (part / whole) * 100;
    if (part > 0 && share < 0.1) return "<0.1%";
    if (part < whole && share > 99.9) return ">99.9%";
    return part === whole ? "100%" : `${share.toFixed(1)}%`;
  }

  function say(text) {
    trouble.textContent = text;
    if (text) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
    if (!text) mark.hidden = true;
  }

  // The part of the expression around the mistake, with a mark under it. Positions are in characters, from 1.
  function point(expression, position) {
    const characters = [...expression.replaceAll("\n", " ")];
    const at = Math.min(Math.max(position - 1, 0), characters.length);
    const begin = Math.max(0, at - 30);
    const cut = begin > 0 ? "…" : "";
    const line = cut + characters.slice(begin, at + 30).join("");
    mark.textContent = `${line}\n${" ".repeat(cut.length + at - begin)}^`;
    mark.hidden = false;
  }

  function show({ users, unknown }, all) {
    const big = element("span", "big", numbers.format(users));
    big.dataset.users = "";
    const noun = users === 1 ? "user" : "users";
    const share = all > 0 && users <= all ? `, ${percent(users, all)} of the ${numbers.format(all)} users in any segment` : "";
    const parts = [element("p", "", big, ` ${noun} in the last ${form.dataset.words}${share}`)];
    for (const name of unknown) {
      parts.push(element("p", "warn", "No user was seen in “", element("bdi", "", name), "”. Is the name spelled correctly?"));
    }
    result.replaceChildren(...parts);
  }

  async function count() {
    clearTimeout(timer);
    const turn = ++asked;
    const expression = field.value.trim();
    curl.hidden = expression === "";
    curl.dataset.curl = address(expression);
    if (expression === "") {
      say("");
      result.replaceChildren(element("p", "quiet", "Write an expression, or * for everybody in any segment."));
      return;
    }
    try {
      const [{ ok, body }, all] = await Promise.all([ask(expression), countEverybody()]);
      if (turn !== asked) return;
      if (ok && body.users === null) {
        result.replaceChildren();
        say("This number is withheld: it would tell a group of fewer users apart than this service shows.");
      } else if (ok) {
        say("");
        show(body, all);
      } else {
        result.replaceChildren();
        const detail = body.detail ?? "This can't be counted right now";
        say(`${detail[0].toUpperCase()}${detail.slice(1)}.`);
        if (body.code === "invalid_expression" && body.position) point(field.value, body.position + leading());
        else mark.hidden = true;
      }
    } catch {
      if (turn !== asked) return;
      say("The service can't be reached.");
    }
    timer = setTimeout(() => (document.hidden ? undefined : count()), POLL_MS);
  }
  // Blanks before the expression are not sent.
  const leading = () => [...field.value].length - [...field.value.trimStart()].length;
  document.addEventListener("visibilitychange", () => !document.hidden && count());

  function remember() {
    const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));
    history.replaceState(null, "", query.size ? `/combine?${query}` : "/combine");
    for (const link of document.querySelectorAll(".picker a")) {
      const target = new URL(link.href);
      target.searchParams.set("expr", field.value);
      link.href = target.pathname + target.search;
    }
  }
  let typed;
  field.addEventListener("input", () => {
    remember();
    clearTimeout(typed);
    typed = setTimeout(count, 250);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    count();
  });

  // Inserts operators and names.
  const quoted = (name) =>
    /^[\p{L}\p{N}_./:-]+$/u.test(name) && !/^(and|or|not)$/i.test(name) ? name : `"${name.replaceAll(/["\\]/g, "\\$&")}"`;
  function insert(text) {
    const { selectionStart: start, selectionEnd: end, value } = field;
    const before = start > 0 && !/[\s(]$/.test(value.slice(0, start)) ? " " : "";
    field.setRangeText(`${before}${text} `, start, end, "end");
    field.focus();
    field.dispatchEvent(new Event("input"));
  }
  document.querySelector(".insert").hidden = false;
  for (const button of document.querySelectorAll("[data-insert]")) {
    button.addEventListener("click", () => {
      insert(button.dataset.insert);
      // Between the parentheses.
      if (button.dataset.insert === "( )") field.setSelectionRange(field.selectionStart - 3, field.selectionStart - 2);
    });
  }
  const name = one("insert");
  const take = () => {
    const chosen = name.value.trim();
    // Cleared first: the change of the focus would take it once more.
    name.value = "";
    if (chosen !== "") insert(quoted(chosen));
  };
  name.addEventListener("change", take);
  name.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    take();
  });
  count();
}
