// Follows a page of relays: asks its own URL for its data, and draws it anew where that has changed; not while nobody
// looks, and less often while nothing changes.
"use strict";

const PAUSE = 1500;
const LONGEST_PAUSE = 6000;
const live = document.getElementById("live");
const said = document.getElementById("said");
let pause = PAUSE;
let known = null;
let timer = 0;

const asked = (type) => fetch(location.href, { headers: { Accept: type } }).then((answer) => (answer.ok ? answer.text() : null)).catch(() => null);
let drawn = live.innerHTML;

// Where the focus is, to be found again by that.
function focusedPart() {
  const one = document.activeElement;
  if (!live.contains(one)) {
    return null;
  }
  return one.id ? `#${one.id}` : `#${one.closest("[id]").id} > details > summary`;
}

// What has the focus keeps it, and what was opened stays open.
function draw(told) {
  drawn = told.innerHTML;
  const open = [...live.querySelectorAll("[id] > details[open]")].map((one) => one.parentElement.id);
  const focused = focusedPart();
  live.replaceChildren(...[...told.childNodes].map((node) => document.importNode(node, true)));
  for (const details of open.map((id) => document.querySelector(`#${id} > details`))) {
    if (details) {
      details.open = true;
    }
  }
  const again = focused && document.querySelector(focused);
  if (again) {
    again.focus({ preventScroll: true });
  }
  const news = live.querySelector("[data-news]");
  if (news && said.textContent !== news.textContent) {
    said.textContent = news.textContent;
  }
}

async function look() {
  const data = await asked("application/json");
  if (data === null || data === known) {
    pause = Math.min(pause + PAUSE / 2, LONGEST_PAUSE);
    return;
  }
  const page = await asked("text/html");
  const parsed = page && new DOMParser().parseFromString(page, "text/html");
  const told = parsed && parsed.getElementById("live");
  if (told) {
    known = data;
    pause = PAUSE;
    document.title = parsed.title;
    if (told.innerHTML !== drawn) {
      draw(told);
    }
  }
}

async function follow() {
  timer = 0;
  if (!document.hidden) {
    await look();
    timer = timer || setTimeout(follow, pause);
  }
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !timer) {
    timer = setTimeout(follow, PAUSE / 4);
  }
});

timer = setTimeout(follow, PAUSE);
