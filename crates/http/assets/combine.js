// The number of an expression while it is typed. The service counts it, and says what is wrong with it.
"use strict";
{
  const form = byId("combine");
  const field = byId("expr");
  const result = byId("combined");

  function mark() {
    result.classList.remove("waiting");
    if (byId("expression-error").textContent) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
  }
  mark();
  document.addEventListener("refreshed", mark);

  function count() {
    const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));
    show(query.size ? `/combine?${query}` : "/combine");
  }
  let typed;
  field.addEventListener("input", () => {
    for (const link of document.querySelectorAll(".picker a")) {
      const target = new URL(link.href);
      target.searchParams.set("expr", field.value);
      link.href = target.pathname + target.search;
    }
    // The number is that of another expression until the response.
    result.classList.add("waiting");
    clearTimeout(typed);
    typed = setTimeout(count, 250);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(typed);
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
  const name = byId("insert");
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
}
