// Follows a job: asks its page's own URL for the JOB, once a second at most, less often while nothing changes, and not
// while nobody looks.
"use strict";

const PAUSE = 1000;
const LONGEST_PAUSE = 3000;
const WINDOW = 10000;
const part = (id) => document.getElementById(id);
const progress = part("progress");
const download = part("download");
const texts = progress.dataset;
const language = document.documentElement.lang;
const hospital = document.title.slice(part("title").dataset.tab.length);
const samples = [];
let job = null;
let isOver = false;
let timer = 0;
let pause = PAUSE;

const filled = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);

function inUnit(number, unit, display = "short") {
  const digits = number < 10 ? 1 : 0;
  return new Intl.NumberFormat(language, { style: "unit", unit, unitDisplay: display, maximumFractionDigits: digits }).format(number);
}

function bytes(count, per = "") {
  const [unit, size] = [["gigabyte", 1e9], ["megabyte", 1e6]].find((one) => count >= one[1]) || ["kilobyte", 1e3];
  return inUnit(count / size, unit + per);
}

const moved = () => (job.state === "sending" ? job.files_sent : job.received);
const heading = () => part("job").querySelector("#ended h2") || part("job").querySelector("h1");
const phase = () => (job.state === "queued" && job.patient_id === null ? "querying" : job.state);

function show(id, text) {
  if (part(id).textContent !== text) {
    part(id).textContent = text;
  }
}

function showPhase() {
  let isPast = true;
  for (const step of document.querySelectorAll("[data-phase]")) {
    const isNow = step.dataset.phase === phase();
    isPast = isPast && !isNow;
    step.toggleAttribute("data-over", isPast);
    isNow ? step.setAttribute("aria-current", "step") : step.removeAttribute("aria-current");
    if (isNow) {
      show("phase", step.textContent);
    }
  }
}

function showTitle() {
  const { title, destination } = part("title").dataset;
  if (job.patient_name) {
    show("title", filled(title, { patient: job.patient_name, destination }));
  }
  const percent = job.expected ? `${Math.min(Math.floor((100 * moved()) / job.expected), 100)} % ·` : "…";
  showTab(`${percent} ${job.patient_name || job.accessions.join(", ")}`);
}

function showTab(text) {
  document.title = text + hospital;
}

function showCounts(place) {
  const bar = part("bar");
  if (job.expected) {
    bar.max = job.expected;
    bar.value = moved();
    show("count", filled(texts.count, { received: moved(), expected: job.expected }));
  }
  show("size", job.bytes ? filled(texts.size, { size: bytes(job.bytes) }) : "");
  show("place", place ? filled(texts.place, { place }) : "");
}

function showRate() {
  const now = performance.now();
  samples.push({ at: now, state: job.state, moved: moved(), bytes: job.bytes });
  while (samples[0].at < now - WINDOW || samples[0].state !== job.state) {
    samples.shift();
  }
  const seconds = (now - samples[0].at) / 1000;
  const count = moved() - samples[0].moved;
  const isKnown = seconds > 0 && count > 0 && job.expected;
  const rate = isKnown && job.state === "retrieving" ? (job.bytes - samples[0].bytes) / seconds : 0;
  show("rate", rate > 0 ? bytes(rate, "-per-second") : "");
  show("left", isKnown ? filled(texts.left, { time: time(((job.expected - moved()) * seconds) / count) }) : "");
}

const time = (seconds) => (seconds < 90 ? inUnit(Math.ceil(seconds), "second", "long") : inUnit(Math.ceil(seconds / 60), "minute", "long"));

// The result, as the server says it, in place of the progress; a download that runs goes on beside it.
async function showResult() {
  isOver = true;
  const address = new URL(location.href);
  address.search = "";
  const page = await fetch(address, { headers: { Accept: "text/html" } }).then((answer) => answer.text()).catch(() => null);
  if (page === null) {
    isOver = false;
    return;
  }
  const ended = new DOMParser().parseFromString(page, "text/html");
  replaceJob(ended.getElementById("job").childNodes);
  document.title = ended.title;
  history.replaceState(null, "", address);
}

function replaceJob(nodes) {
  part("job").replaceChildren(...[...nodes].map((node) => document.importNode(node, true)));
  heading().tabIndex = -1;
  heading().focus({ preventScroll: true });
}

async function look() {
  const answer = await fetch(location.href, { headers: { Accept: "application/json" } }).catch(() => null);
  if (!answer || !answer.ok) {
    show("phase", texts.lost);
    return;
  }
  const told = await answer.json();
  if (isOver) {
    return;
  }
  pause = JSON.stringify(told) === JSON.stringify(job) ? Math.min(pause + PAUSE / 4, LONGEST_PAUSE) : PAUSE;
  job = told;
  if (job.finished_at) {
    await showResult();
  } else {
    showTitle();
    showPhase();
    showCounts(answer.headers.get("X-Queue-Place"));
    showRate();
  }
}

async function follow() {
  timer = 0;
  if (document.hidden || isOver) {
    return;
  }
  await look();
  if (!isOver && !timer) {
    timer = setTimeout(follow, pause);
  }
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !isOver && !timer) {
    timer = setTimeout(follow, PAUSE);
  }
});

part("cancel").addEventListener("submit", (event) => {
  event.preventDefault();
  event.submitter.disabled = true;
  show("phase", texts.cancelling);
  fetch(event.target.action, { method: "POST", redirect: "manual" }).catch(() => { event.submitter.disabled = false; });
});

// A download never loads into its frame; what does load there is why there is none. The job tells that, where it began;
// where another window began it, this one has its page, and no download: as soon as the ledger knows that job.
async function notDownloaded(frame) {
  const said = frame.contentDocument && frame.contentDocument.getElementById("main");
  if (said && said.querySelector("[data-code=job_exists]")) {
    isOver = true;
    location.reload();
    return;
  }
  await look();
  if (!isOver && said && job && job.created_at === null) {
    isOver = true;
    showTab(`✗ ${frame.contentDocument.title.slice(0, -hospital.length)}`);
    replaceJob(said.childNodes);
    if (part("retry")) {
      part("retry").href = location.href;
    }
  }
}

// Begun when the page is there: it would not be, for a browser, as long as a frame of its own waits.
function startDownload() {
  const frame = document.createElement("iframe");
  Object.assign(frame, { name: "download", title: download.dataset.title, className: "unseen", tabIndex: -1, src: download.dataset.url });
  frame.setAttribute("aria-hidden", "true");
  frame.addEventListener("load", () => {
    if (frame.contentWindow.location.href !== "about:blank") {
      notDownloaded(frame);
    }
  });
  download.append(frame);
}

if (download) {
  addEventListener("load", () => setTimeout(startDownload));
  addEventListener("beforeunload", (event) => {
    if (!isOver) {
      event.preventDefault();
    }
  });
}

timer = setTimeout(follow, PAUSE / 4);
