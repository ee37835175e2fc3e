// Shows instants in the reader's time zone. The service writes them in UTC.
"use strict";
{
  const day = { day: "numeric", month: "short", year: "numeric" };
  const minute = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  const long = new Intl.DateTimeFormat("en-GB", { ...day, ...minute });
  const clock = new Intl.DateTimeFormat("en-GB", { ...minute, second: "2-digit" });
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const offset = new Intl.DateTimeFormat("en-GB", { timeZoneName: "shortOffset" })
    .formatToParts()
    .find(({ type }) => type === "timeZoneName")?.value;
  const zoneName = !zone || zone === "UTC" ? "UTC" : `${zone} (${offset})`;
  const isToday = (at) => at.toDateString() === new Date().toDateString();

  function localise() {
    for (const time of document.querySelectorAll("time[datetime]")) {
      const at = new Date(time.dateTime);
      const form = time.dataset.form === "clock" && isToday(at) ? clock : long;
      time.textContent = form.format(at);
    }
    for (const name of document.querySelectorAll("[data-zone]")) name.textContent = zoneName;
  }
  localise();
  document.addEventListener("refreshed", localise);

  // Fields for an instant: the form sends UTC.
  const two = (number) => String(number).padStart(2, "0");
  const forField = (at) =>
    `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}T${two(at.getHours())}:${two(at.getMinutes())}`;
  for (const form of document.querySelectorAll("[data-local-range]")) {
    const fields = form.querySelectorAll("input[type=datetime-local]");
    for (const field of fields) field.value = forField(new Date(`${field.value}Z`));
    form.addEventListener("formdata", ({ formData }) => {
      for (const field of fields) {
        const at = new Date(field.value);
        if (!Number.isNaN(at.getTime())) formData.set(field.name, at.toISOString().slice(0, 16));
      }
    });
  }
}
