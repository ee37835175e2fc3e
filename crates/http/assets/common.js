// What the scripts of the pages share.
"use strict";

const byId = (id) => document.getElementById(id);
const figures = new Intl.NumberFormat("en-US");

// A number with its noun: "1 user".
const users = (number) => `${figures.format(number)} ${number === 1 ? "user" : "users"}`;

// A share as the service writes it. Only all of them are 100%.
function percent(part, whole) {
  if (whole === 0) return "–";
  const share = (part / whole) * 100;
  if (part > 0 && share < 0.1) return "<0.1%";
  if (part < whole && share > 99.9) return ">99.9%";
  return part === whole ? "100%" : `${share.toFixed(1)}%`;
}

function element(name, className, ...content) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...content);
  return made;
}

// An element of a drawing.
function drawn(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// The cells of a table's header: each a text or an element, and whether its column has figures.
function header(columns) {
  const row = element("tr");
  for (const [content, isFigure] of columns) {
    const cell = element("th", isFigure ? "figure" : "", content);
    cell.scope = "col";
    row.append(cell);
  }
  return element("thead", "", row);
}

// A row of a table. Its first cell is its title.
function tableRow(title, ...cells) {
  const head = element("th", "", title);
  head.scope = "row";
  return element("tr", "", head, ...cells);
}
const figure = (...content) => element("td", "figure", ...content);

// A part of the page that may be larger than its place: it scrolls, also with the keyboard.
function scrolling(className, name, content) {
  const made = element("div", className, content);
  made.tabIndex = 0;
  made.setAttribute("role", "region");
  made.setAttribute("aria-label", name);
  return made;
}
