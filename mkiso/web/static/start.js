// The look-up: whatever stands below the fields is the answer to what stands in them, or nothing.
"use strict";

const PAUSE = 5000;
const SOON = 1000;
const field = document.getElementById("accession_numbers");
const answer = document.getElementById("answer");
const asking = document.getElementById("asking");
const jobs = document.getElementById("jobs");
let running = null;

// The field takes the next scan, which replaces what is in it.
function makeReady() {
  field.focus({ preventScroll: true });
  field.select();
}

function forget() {
  if (running) {
    running.abort();
    running = null;
  }
  say("");
  answer.replaceChildren();
}

// To be seen while it lasts; what it came to is there to be seen, and is said to who listens.
function say(text, isSeen = true) {
  asking.classList.toggle("unseen", !isSeen);
  asking.textContent = text;
}

async function lookUp(url) {
  if (running && running.url === url) {
    return;
  }
  forget();
  const mine = Object.assign(new AbortController(), { url });
  running = mine;
  const late = setTimeout(() => say(asking.dataset.text), SOON);
  const page = await fetched(url, mine.signal);
  clearTimeout(late);
  if (running !== mine) {
    return;
  }
  running = null;
  say("");
  history.pushState(null, "", url);
  page ? show(page) : showNoAnswer(url);
}

async function fetched(url, signal) {
  try {
    const told = await fetch(url, { headers: { Accept: "text/html" }, signal });
    return new DOMParser().parseFromString(await told.text(), "text/html");
  } catch {
    return null;
  }
}

const copied = (nodes) => [...nodes].map((node) => document.importNode(node, true));

function show(page) {
  const found = page.getElementById("answer");
  answer.replaceChildren(...copied((found || page.getElementById("main") || page.body).childNodes));
  if (found) {
    document.title = page.title;
    page.querySelectorAll("#look-up [name], #by-patient [name]").forEach(take);
    document.querySelector(".by-patient").open = page.querySelector(".by-patient").open;
  }
  document.dispatchEvent(new Event("answered"));
  const told = answer.querySelectorAll("h2, #fault, #make-a-disc, #total, #reason:not([hidden]), [role=alert] h3");
  say([...told].map((one) => one.textContent).join(". "), false);
  makeReady();
}

function take(told) {
  const ours = document.getElementById(told.id);
  ours.value = told.value;
  for (const name of ["aria-invalid", "aria-describedby"]) {
    told.hasAttribute(name) ? ours.setAttribute(name, told.getAttribute(name)) : ours.removeAttribute(name);
  }
}

function showNoAnswer(url) {
  answer.replaceChildren(document.getElementById("no-answer").content.cloneNode(true));
  answer.querySelector("[data-again]").addEventListener("click", () => lookUp(url));
  makeReady();
}

// Only what is filled in: a URL that can be read.
function urlOf(form) {
  const filled = [...new FormData(form)].filter(([, value]) => value.trim());
  return `${form.action}?${new URLSearchParams(filled.length ? filled : new FormData(form))}`;
}

document.addEventListener("submit", (event) => {
  if (event.target.method === "get") {
    event.preventDefault();
    makeReady();
    lookUp(urlOf(event.target));
  }
});

document.addEventListener("click", (event) => {
  const link = event.target.closest("#answer a, .today a");
  const isPlain = link && !event.defaultPrevented && !(event.ctrlKey || event.metaKey || event.shiftKey);
  if (isPlain && link.pathname === location.pathname && link.search) {
    event.preventDefault();
    makeReady();
    lookUp(link.href);
  }
});

for (const id of ["look-up", "by-patient"]) {
  document.getElementById(id).addEventListener("input", forget);
}

field.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    if (!event.repeat) {
      field.form.requestSubmit();
    }
  }
});

const takesText = (one) => one.matches("textarea, select, input:not([type=checkbox], [type=radio])");

// A scanner types wherever the focus is: to buttons and ticks its letters say nothing, and its Enter would press one.
document.addEventListener("keydown", (event) => {
  const isLetter = event.key.length === 1 && event.key !== " " && !(event.ctrlKey || event.altKey || event.metaKey);
  if (isLetter && !takesText(event.target)) {
    makeReady();
  }
});

addEventListener("popstate", () => location.reload());
addEventListener("pageshow", makeReady);

// What everybody does: drawn anew where a job came or went on.
async function renewJobs() {
  if (!document.hidden) {
    const told = await fetch(location.pathname, { headers: { Accept: "application/json" } }).catch(() => null);
    const known = told && told.ok ? (await told.json()).jobs.map((job) => `${job.id} ${job.state}`).join() : jobs.dataset.jobs;
    if (known !== jobs.dataset.jobs && !jobs.contains(document.activeElement)) {
      await redrawJobs();
    }
  }
  setTimeout(renewJobs, PAUSE);
}

async function redrawJobs() {
  const page = await fetched(location.pathname);
  const told = page && page.getElementById("jobs");
  if (told) {
    jobs.replaceChildren(...copied(told.childNodes));
    jobs.dataset.jobs = told.dataset.jobs;
  }
}

setTimeout(renewJobs, PAUSE);
