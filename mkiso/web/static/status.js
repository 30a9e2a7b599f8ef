// The state of the service, where it was not known yet when the page was made.
"use strict";

const list = document.getElementById("status");

async function renewStatus(tries) {
  const answer = await fetch(list.dataset.url, { headers: { Accept: "application/json" } }).catch(() => null);
  const status = answer && answer.ok ? (await answer.json()).status : { known: false };
  if (status.known) {
    list.replaceChildren(...status.lines.map(statusLine));
  } else if (tries > 1) {
    setTimeout(renewStatus, 2000, tries - 1);
  }
}

function statusLine(line) {
  const item = document.createElement("li");
  item.textContent = line.text;
  item.className = line.good ? "" : "bad";
  return item;
}

if ("unknown" in list.dataset) {
  setTimeout(renewStatus, 1000, 10);
}
