// Values of charts by mouse, touch and keyboard, time axes in the reader's time zone, and charts as PNG files. The values
// come from the table of points beside each chart.
"use strict";
{
  const LEFT = 52; // the room for labels on the left, as in the drawing
  const RIGHT = 12;
  const long = new Intl.DateTimeFormat("en-GB", {
    weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23",
  });
  const dayLabel = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
  const timeLabel = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  let shown; // the chart whose values are shown, and what hides them
  let pointed; // the chart under the pointer, and where: it stays so when the chart is replaced

  // Labels at whole hours and days of the reader's time zone.
  function relabel(chart) {
    const ticks = chart.querySelector(".ticks");
    const [from, to, step] = ["from", "to", "step"].map((name) => Number(chart.dataset[name]));
    const ahead = (at) => -new Date(at * 1000).getTimezoneOffset() * 60;
    const labels = [];
    const first = Math.ceil((from + ahead(from)) / step);
    for (let number = first; ; number++) {
      // The offset from UTC may change within the range.
      let at = number * step - ahead(from);
      at = number * step - ahead(at);
      if (at > to) break;
      const place = ((at - from) / (to - from)) * 100;
      if (place < 2 || place > 98) continue;
      const date = new Date(at * 1000);
      const isMidnight = date.getHours() === 0 && date.getMinutes() === 0;
      const text = (isMidnight ? dayLabel : timeLabel).format(date);
      labels.push(drawn("text", { class: number % 2 === 0 ? "even" : "odd", x: `${place.toFixed(2)}%`, y: 18 }, text));
    }
    ticks.replaceChildren(...labels);
  }

  function points(chart) {
    const table = document.getElementById(chart.dataset.table).querySelector("table");
    const names = [...table.tHead.rows[0].cells].slice(1).map((cell) => cell.textContent);
    const rows = [...table.tBodies[0].rows].reverse().map(({ cells }) => ({
      at: Date.parse(cells[0].querySelector("time").dateTime) / 1000,
      users: [...cells].slice(1).map((cell) => cell.textContent),
    }));
    return { names, rows };
  }

  function setUp(chart) {
    relabel(chart);
    const rule = element("div", "rule");
    const tip = element("div", "tip");
    const reader = element("input", "reader");
    const classes = chart.dataset.classes.split(" ");
    const [from, to] = [Number(chart.dataset.from), Number(chart.dataset.to)];
    // From the start of a bar to its middle.
    const half = Number(chart.dataset.bar ?? 0) / 2;
    rule.hidden = tip.hidden = true;
    reader.type = "range";
    reader.min = 0;
    reader.setAttribute("aria-label", "Values of the chart");
    chart.append(rule, tip, reader);
    let data;
    const load = () => {
      data ??= points(chart);
      reader.max = data.rows.length - 1;
    };
    const show = (index) => {
      const row = data.rows[index];
      if (!row) return;
      const width = chart.clientWidth - LEFT - RIGHT;
      const x = LEFT + ((row.at + half - from) / (to - from)) * width;
      const when = long.format(new Date(row.at * 1000));
      const lines = row.users.map((users, place) => {
        const line = element("div", `value ${classes[place]}`);
        line.append(element("b", "", users || "–"), " ", element("bdi", "", data.names[place]));
        return line;
      });
      tip.replaceChildren(element("div", "when", when), ...lines);
      rule.hidden = tip.hidden = false;
      shown = { chart, hide };
      rule.style.left = `${x}px`;
      // Beside the rule, where it hides less of the lines.
      const room = chart.clientWidth - tip.offsetWidth;
      const isLeft = x + 12 > room;
      tip.style.left = `${Math.max(0, isLeft ? x - 12 - tip.offsetWidth : x + 12)}px`;
      const values = row.users.map((users, place) => `${data.names[place]} ${users || "unknown"}`);
      reader.setAttribute("aria-valuetext", `${when}: ${values.join(", ")}`);
    };
    const hide = () => {
      rule.hidden = tip.hidden = true;
      if (pointed?.id === chart.dataset.table) pointed = undefined;
    };
    const nearest = (fraction) => {
      load();
      const at = from + fraction * (to - from) - half;
      let best = 0;
      data.rows.forEach((row, index) => {
        if (Math.abs(row.at - at) < Math.abs(data.rows[best].at - at)) best = index;
      });
      reader.value = best;
      show(best);
    };
    const point = (event) => {
      const fraction = (event.clientX - chart.getBoundingClientRect().left - LEFT) / (chart.clientWidth - LEFT - RIGHT);
      pointed = { id: chart.dataset.table, fraction };
      nearest(fraction);
    };
    chart.addEventListener("pointermove", point);
    chart.addEventListener("pointerdown", point);
    // A finger that is lifted leaves the values to be read; the next tap elsewhere hides them.
    chart.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hide());
    reader.addEventListener("focus", () => {
      load();
      if (tip.hidden) reader.value = reader.max;
      show(Number(reader.value));
    });
    reader.addEventListener("input", () => show(Number(reader.value)));
    reader.addEventListener("blur", hide);
    if (pointed?.id === chart.dataset.table) nearest(pointed.fraction);
  }
  const setUpAll = () => {
    for (const chart of document.querySelectorAll(".chart")) if (!chart.querySelector(".reader")) setUp(chart);
  };
  setUpAll();
  document.addEventListener("pointerdown", ({ target }) => {
    if (shown && !shown.chart.contains(target)) shown.hide();
  });
  document.addEventListener("refreshed", setUpAll);

  // A chart as a PNG file of twice its size, drawn as it is styled on the page.
  function paint(chart) {
    const box = chart.getBoundingClientRect();
    const canvas = element("canvas");
    const [scale, margin] = [2, 16];
    canvas.width = (box.width + 2 * margin) * scale;
    canvas.height = (chart.querySelector("svg").getBoundingClientRect().height + 2 * margin) * scale;
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    context.fillStyle = getComputedStyle(chart.closest(".card")).backgroundColor;
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.translate(margin - box.left, margin - box.top);
    for (const shape of chart.querySelectorAll("svg line, svg polygon, svg polyline")) {
      const style = getComputedStyle(shape);
      const matrix = shape.getScreenCTM();
      const corners = shape.localName === "line"
        ? [[shape.x1, shape.y1], [shape.x2, shape.y2]].map(([x, y]) => new DOMPoint(x.baseVal.value, y.baseVal.value))
        : [...shape.points].map(({ x, y }) => new DOMPoint(x, y));
      context.beginPath();
      for (const corner of corners) {
        const { x, y } = corner.matrixTransform(matrix);
        context.lineTo(x, y);
      }
      context.globalAlpha = Number(style.opacity);
      if (shape.localName === "polygon") {
        context.fillStyle = style.fill;
        context.fill();
        continue;
      }
      context.strokeStyle = style.stroke;
      context.lineWidth = parseFloat(style.strokeWidth);
      context.setLineDash(style.strokeDasharray === "none" ? [] : style.strokeDasharray.split(",").map(parseFloat));
      context.stroke();
    }
    context.globalAlpha = 1;
    for (const label of chart.querySelectorAll("svg text")) {
      const style = getComputedStyle(label);
      const place = label.getBoundingClientRect();
      if (place.width === 0) continue;
      context.font = `${style.fontSize} ${style.fontFamily}`;
      context.fillStyle = style.fill;
      context.textBaseline = "middle";
      context.fillText(label.textContent, place.left, place.top + place.height / 2);
    }
    return canvas;
  }
  for (const button of document.querySelectorAll("[data-png]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const chart = document.querySelector(`#${button.dataset.png} .chart`);
      if (!chart) return;
      paint(chart).toBlob((file) => {
        const link = element("a");
        link.href = URL.createObjectURL(file);
        link.download = `${document.querySelector("h1").textContent.trim()}.png`;
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 1000);
      });
    });
  }
}
