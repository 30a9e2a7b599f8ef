// The ticks: what they come to, whether they can be one disc, and the series of a study where somebody wants to see them.
"use strict";

const form = () => document.getElementById("choice");
const studies = () => [...form().querySelectorAll("input[name=study_uids]")];
const seriesOf = (study) => [...form().querySelectorAll(`[data-series-of="${CSS.escape(study.value)}"] input`)];
const worded = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
const numbered = (count, one, many) => (count === 1 ? one : worded(many, { count: new Intl.NumberFormat(document.documentElement.lang).format(count) }));

function sized(count) {
  const [unit, size] = count >= 1e9 ? ["gigabyte", 1e9] : ["megabyte", 1e6];
  const digits = { style: "unit", unit, maximumSignificantDigits: 2 };
  return new Intl.NumberFormat(document.documentElement.lang, digits).format(Math.max(count / size, 1));
}

// What counts of a study: itself, or the ticked ones of its series where some are not.
function counted(study) {
  const series = seriesOf(study);
  const ticked = series.filter((one) => one.checked);
  return ticked.length === series.length ? [study] : ticked;
}

// NaN where it is not known of one of them.
const known = (text) => (text === "" ? NaN : Number(text));
const imagesOf = (one) => known(one.dataset.images);
const bytesOf = (one) => imagesOf(one) * known(one.dataset.each);
const sum = (ticked, count) => ticked.reduce((all, one) => all + count(one), 0);

// A patient is one by the ID, and of one ID by each issuer, where the archive tells any.
function patients(ticked) {
  const issuers = new Map();
  for (const [identity, issuer] of ticked.flatMap((study) => JSON.parse(study.dataset.people))) {
    const known = issuers.get(identity) || new Set();
    issuers.set(identity, issuer ? known.add(issuer) : known);
  }
  return [...issuers.values()].reduce((all, one) => all + Math.max(one.size, 1), 0);
}

function mediumOf(bytes) {
  const media = Object.entries(JSON.parse(form().dataset.media)).sort(([, one], [, other]) => one - other);
  const found = media.find(([, capacity]) => bytes <= capacity);
  return found && found[0];
}

function total(ticked) {
  const { one, many, oneStudy, manyStudies, about, fits } = form().dataset;
  const parts = ticked.flatMap(counted);
  const [images, bytes] = [sum(parts, imagesOf), sum(parts, bytesOf)];
  const said = [numbered(ticked.length, oneStudy, manyStudies)];
  if (!Number.isNaN(images)) {
    said.push(numbered(images, one, many));
  }
  if (!Number.isNaN(bytes) && ticked.length) {
    said.push(worded(about, { size: sized(bytes) }));
    const medium = isBurnt() && mediumOf(bytes);
    if (medium) {
      said.push(worded(fits, { medium }));
    }
  }
  return { text: said.join(", "), bytes };
}

const isBurnt = () => form().elements.format.value === "iso";

function reasonNot(ticked) {
  const { none, mixed, tooMany, mostStudies, mostSeries } = form().dataset;
  if (!ticked.length) {
    return none;
  }
  if (!("mixing" in form().dataset) && patients(ticked) > 1) {
    return mixed;
  }
  const parts = ticked.flatMap(counted).filter((one) => one.name === "series_uids");
  return ticked.length > Number(mostStudies) || parts.length > Number(mostSeries) ? tooMany : "";
}

function warning(bytes) {
  const { tooLarge, limited, most } = form().dataset;
  if (!isBurnt() || Number.isNaN(bytes)) {
    return "";
  }
  if (most && bytes > Number(most)) {
    return limited;
  }
  return mediumOf(bytes) ? "" : tooLarge;
}

function tell() {
  if (!form() || !studies().length) {
    return;
  }
  const ticked = studies().filter((study) => study.checked);
  const { text, bytes } = total(ticked);
  const reason = reasonNot(ticked);
  put("total", ticked.length ? text : "");
  put("reason", reason || warning(bytes));
  for (const button of form().querySelectorAll("[data-makes]")) {
    button.disabled = reason !== "";
  }
}

function put(id, text) {
  const place = document.getElementById(id);
  place.hidden = text === "";
  if (place.textContent !== text) {
    place.textContent = text;
  }
}

function follow(tick) {
  if (tick.name === "study_uids") {
    tick.indeterminate = false;
    for (const one of seriesOf(tick)) {
      one.checked = tick.checked;
    }
  } else {
    const study = studies().find((one) => seriesOf(one).includes(tick));
    const series = seriesOf(study);
    study.checked = series.some((one) => one.checked);
    study.indeterminate = study.checked && !series.every((one) => one.checked);
  }
}

// Only a ZIP can have a password.
function protect(changed) {
  const { format, protect: asked } = form().elements;
  if (changed === asked && asked.checked) {
    format.value = "zip";
  } else if (format.value !== "zip") {
    asked.checked = false;
  }
}

function tickAll(isTicked) {
  for (const study of studies()) {
    study.checked = isTicked;
    follow(study);
  }
  tell();
}

async function fragment(url) {
  const told = await fetch(url, { headers: { Accept: "text/html" } }).catch(() => null);
  return told && told.ok ? new DOMParser().parseFromString(await told.text(), "text/html") : null;
}

async function openSeries(link) {
  const row = link.closest("tr");
  const shown = row.nextElementSibling;
  if (shown && shown.matches(".of-study")) {
    shown.hidden = !shown.hidden;
    link.setAttribute("aria-expanded", String(!shown.hidden));
    return;
  }
  if (link.ariaBusy === "true") {
    return;
  }
  link.ariaBusy = "true";
  const page = await fragment(link.dataset.url);
  link.ariaBusy = null;
  if (row.isConnected) {
    putSeries(row, link, page);
  }
}

function putSeries(row, link, page) {
  const cell = document.createElement("td");
  cell.colSpan = 9;
  const below = document.createElement("tr");
  below.append(cell);
  if (page) {
    below.className = "of-study";
    cell.append(...[...page.body.childNodes].map((node) => document.importNode(node, true)));
    link.setAttribute("aria-expanded", "true");
  } else {
    below.className = "bad";
    cell.textContent = form().dataset.failed;
  }
  if (row.nextElementSibling && row.nextElementSibling.matches(".bad")) {
    row.nextElementSibling.remove();
  }
  row.after(below);
  countSeries(row);
  follow(row.querySelector("input[name=study_uids]"));
  tell();
}

// As the look-up has listed them, where the archive does not count by series.
function countSeries(row) {
  const { one, many } = form().dataset;
  const study = row.querySelector("input[name=study_uids]");
  const counts = JSON.parse(study.dataset.series);
  for (const series of seriesOf(study).filter((input) => input.dataset.images === "" && counts[input.value])) {
    series.dataset.images = counts[series.value];
    series.closest("label").querySelector("small").textContent = numbered(counts[series.value], one, many);
  }
}

function divider(text) {
  const row = document.createElement("tr");
  const cell = row.appendChild(document.createElement("th"));
  Object.assign(cell, { colSpan: 9, scope: "rowgroup", textContent: text });
  return row;
}

// What the patient has beside what was looked up, below that and not ticked.
async function addOthers(link) {
  const place = link.parentElement;
  const page = await fragment(link.href);
  if (!place.isConnected) {
    return;
  }
  const shown = new Set(studies().map((study) => study.value));
  const rows = page ? [...page.querySelectorAll("tr.study")].filter((row) => !shown.has(row.dataset.study)) : [];
  form().querySelector("tbody").append(...(rows.length ? [divider(link.textContent)] : []), ...rows.map((row) => document.importNode(row, true)));
  place.querySelector("[role=status]").textContent = page ? (rows.length ? "" : form().dataset.others) : form().dataset.failed;
  link.hidden = page !== null;
  tell();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a.opens, a#others");
  if (link && form() && !(event.ctrlKey || event.metaKey || event.shiftKey)) {
    event.preventDefault();
    link.id === "others" ? addOthers(link) : openSeries(link);
  }
  const all = event.target.closest("[data-tick]");
  if (all) {
    tickAll(all.dataset.tick === "all");
  }
}, true);

document.addEventListener("change", (event) => {
  if (form() && event.target.form === form()) {
    if (["study_uids", "series_uids"].includes(event.target.name)) {
      follow(event.target);
    }
    protect(event.target);
    tell();
  }
});

// Sent once, however often it is clicked; a page that comes back may be sent again.
document.addEventListener("submit", (event) => {
  if (event.target === form()) {
    "sent" in form().dataset ? event.preventDefault() : (form().dataset.sent = "");
  }
});

function begin() {
  if (form()) {
    delete form().dataset.sent;
    form().querySelectorAll(".tick-all").forEach((one) => { one.hidden = false; });
    tell();
  }
}

document.addEventListener("answered", begin);
addEventListener("pageshow", begin);
