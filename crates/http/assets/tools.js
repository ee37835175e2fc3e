// What makes the page quicker to use: favorites, shortcuts, selection for comparisons, commands to copy, names to choose
// from, and the slider over windows.
"use strict";
{
  const all = (selector) => document.querySelectorAll(selector);
  const kept = document.querySelector(".brand").search;

  function stored(name, otherwise) {
    try {
      return JSON.parse(localStorage.getItem(name)) ?? otherwise;
    } catch {
      return otherwise;
    }
  }
  function store(name, value) {
    try {
      localStorage.setItem(name, JSON.stringify(value));
    } catch {
      // Storage is blocked: the choice applies to this page only.
    }
  }

  // Favorites.
  let favorites = stored("favorites", []);
  if (!Array.isArray(favorites)) favorites = [];
  function star(button, name) {
    const is = favorites.includes(name);
    button.textContent = is ? "★" : "☆";
    button.setAttribute("aria-pressed", String(is));
    button.setAttribute("aria-label", `Favorite ${name}`);
    button.title = is ? "Remove from favorites" : "Add to favorites";
  }
  function showFavorites() {
    for (const button of all("[data-star]")) {
      button.hidden = false;
      star(button, button.dataset.star);
    }
    const link = document.querySelector("[data-favourites]");
    if (!link) return;
    const query = new URLSearchParams(kept);
    for (const name of favorites.slice(0, 100)) query.append("segment", name);
    link.href = `/?${query}`;
    link.hidden = favorites.length === 0;
    if (new URLSearchParams(location.search).has("segment")) link.setAttribute("aria-current", "true");
  }
  showFavorites();
  document.addEventListener("refreshed", showFavorites);
  document.addEventListener("click", ({ target }) => {
    const name = target.dataset?.star;
    if (name === undefined) return;
    favorites = favorites.includes(name) ? favorites.filter((other) => other !== name) : [...favorites, name];
    store("favorites", favorites);
    showFavorites();
  });

  // Segments that are selected for a comparison. They stay selected on other pages of a search.
  const compare = byId("compare");
  if (compare) {
    const button = byId("compare-button");
    const selected = new Set();
    const boxes = () => [...compare.querySelectorAll("input[type=checkbox]")];
    const showSelected = () => {
      for (const box of boxes()) box.checked = selected.has(box.value);
      button.disabled = selected.size < 2 || selected.size > 8;
      button.textContent = selected.size > 8 ? "At most 8 segments" : `Compare selected (${selected.size})`;
    };
    compare.addEventListener("change", ({ target }) => {
      if (target.type !== "checkbox") return;
      selected[target.checked ? "add" : "delete"](target.value);
      showSelected();
    });
    compare.addEventListener("formdata", ({ formData }) => {
      formData.delete("segment");
      for (const name of selected) formData.append("segment", name);
    });
    // After the browser has restored the boxes of a page that it goes back to.
    addEventListener("pageshow", () => {
      for (const box of boxes()) if (box.checked) selected.add(box.value);
      showSelected();
    });
    document.addEventListener("refreshed", showSelected);
  }

  // Commands to copy.
  async function copy(text) {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    // Without TLS there is no clipboard but this.
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  function showCommands() {
    for (const button of all("[data-curl]")) button.hidden = false;
  }
  showCommands();
  document.addEventListener("refreshed", showCommands);
  document.addEventListener("click", async ({ target }) => {
    const path = target.dataset?.curl;
    if (!path) return;
    const token = "signedIn" in document.documentElement.dataset ? '-H "Authorization: Bearer $HEADCOUNT_TOKEN" ' : "";
    const label = (target.dataset.label ??= target.textContent);
    try {
      await copy(`curl ${token}'${location.origin}${path.replaceAll("'", "%27")}'`);
      target.textContent = "Copied";
    } catch {
      target.textContent = "Can't copy here";
    }
    setTimeout(() => (target.textContent = label), 2000);
  });

  // Names to choose from.
  let names;
  document.addEventListener("focusin", async ({ target }) => {
    const list = target.dataset?.names && byId(target.dataset.names);
    if (!list) return;
    names ??= fetch("/v1/segments?sort=users&limit=1000")
      .then((answer) => answer.json())
      .then(({ segments }) => segments.map(({ segment }) => segment))
      .catch(() => []);
    const options = (await names).map((name) => Object.assign(document.createElement("option"), { value: name }));
    list.replaceChildren(...options);
  });

  // Shortcuts.
  const dialog = byId("shortcuts");
  const single = byId("single-keys");
  const search = byId("q");
  single.checked = stored("single-keys", true) !== false;
  single.addEventListener("change", () => store("single-keys", single.checked));
  byId("help").hidden = false;
  byId("help").addEventListener("click", () => dialog.showModal());
  if (location.hash === "#q") search?.focus();
  const actions = {
    "/": () => (search ? (search.focus(), search.select()) : location.assign(`/${kept}#q`)),
    "?": () => dialog.showModal(),
    n: () => document.querySelector("a[rel=next]")?.click(),
    p: () => document.querySelector("a[rel=prev]")?.click(),
  };
  document.addEventListener("keydown", (event) => {
    const { key, target } = event;
    const types = target.matches("input:not([type=checkbox]), textarea, select");
    if (types || event.ctrlKey || event.metaKey || event.altKey || dialog.open || !single.checked) return;
    if (!Object.hasOwn(actions, key)) return;
    event.preventDefault();
    actions[key]();
  });

  // The count of a segment over the window of the slider. The field beside it accepts any other window.
  const slider = byId("slider");
  if (slider) {
    const form = byId("window-form");
    const field = byId("window");
    const result = byId("counted");
    const stops = slider.dataset.stops.split(" ").map(Number);
    const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
    const unit = (seconds) => units.find(([, length]) => seconds % length === 0);
    const spelled = (seconds) => {
      if (seconds === 86400) return "24 hours";
      const [name, length] = unit(seconds);
      const number = seconds / length;
      return `${number} ${name}${number === 1 ? "" : "s"}`;
    };
    const short = (seconds) => `${seconds / unit(seconds)[1]}${unit(seconds)[0][0]}`;
    const say = (text, bad) => {
      result.textContent = text;
      result.classList.toggle("down", bad);
    };
    let moved;
    let asked = 0;
    const count = async (seconds) => {
      const turn = ++asked;
      try {
        const joint = form.dataset.api.includes("?") ? "&" : "?";
        const address = `${form.dataset.api}${joint}window=${seconds}`;
        const answer = await fetch(address, { cache: "no-store", signal: AbortSignal.timeout(15000) });
        const body = await answer.json();
        if (turn !== asked) return;
        const stale = body.stale ? ": the last known count, because no source responds" : "";
        if (answer.ok) say(`${users(body.users)} in the last ${spelled(seconds)}${stale}`, body.stale);
        else say(body.detail, true);
      } catch {
        if (turn === asked) say("The service can't be reached.", true);
      }
    };
    const show = () => {
      const seconds = stops[Number(slider.value)];
      byId("length").textContent = spelled(seconds);
      slider.setAttribute("aria-valuetext", spelled(seconds));
      return seconds;
    };
    slider.parentElement.hidden = false;
    show();
    slider.addEventListener("input", () => {
      const seconds = show();
      field.value = short(seconds);
      clearTimeout(moved);
      moved = setTimeout(() => count(seconds), 120);
    });
  }
}
